/* Sync points: behind all events, shared in rounds, over lost and hung streams. */
#include "tests/unit/client_fixture.h"

struct point {
    int count;
    enum errc code;
    int64_t revision;
    const struct seen *seen;
    int64_t seen_then; /* what the watch had delivered when it was called */
};

static void point_done(void *ctx, enum errc code, int64_t revision)
{
    struct point *p = ctx;
    p->count++;
    p->code = code;
    p->revision = revision;
    p->seen_then = p->seen->revision;
}

static void sync_start(struct client_watch *w, const struct seen *s, uint64_t timeout_ms,
                       struct point *p)
{
    *p = (struct point){.seen = s};
    client_watch_sync(w, timeout_ms, point_done, p);
    assert_int_equal(p->count, 0);
}

static void sync_once(struct fake_world *world, struct client_watch *w, const struct seen *s)
{
    struct point p;
    int64_t committed = world->revision;
    sync_start(w, s, 0, &p);
    RUN_UNTIL(&world->loop, p.count);
    assert_int_equal(p.code, ERR_OK);
    assert_true(p.revision >= committed);
    assert_true(p.seen_then >= committed || s->events == 0);
}

static void each_kind(bool quorumd, const char *version)
{
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, quorumd);
    world.version = version;
    struct client_watch *w = watch_all(&world, 0, &s);
    sync_once(&world, w, &s); /* before the stream is up */
    for (int i = 0; i < 5; i++) {
        fake_commit(&world, "a", "x", false);
        sync_once(&world, w, &s);
        sync_once(&world, w, &s);
    }
    if (quorumd) {
        assert_int_equal(world.members[0].ranges, 0);
        assert_int_equal(world.members[0].progress_asked, 11);
    } else {
        assert_true(world.members[0].ranges >= 11);
    }
    client_watch_stop(w);
    fake_end(&world);
}

static void test_each_kind(void **state)
{
    (void)state;
    each_kind(true, "");
    each_kind(false, "3.5.9");
    each_kind(false, "3.4.23");
}

static void test_rounds_are_shared(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    struct point first, later[100];
    fake_start(&world, 1, 0, true);
    struct client_watch *w = watch_all(&world, 0, &s);
    sync_once(&world, w, &s);
    int asked = world.members[0].progress_asked;
    sync_start(w, &s, 0, &first);
    for (size_t i = 0; i < ARRAY_LEN(later); i++)
        sync_start(w, &s, 0, &later[i]);
    RUN_UNTIL(&world.loop, later[ARRAY_LEN(later) - 1].count);
    assert_int_equal(world.members[0].progress_asked, asked + 2);
    for (size_t i = 0; i < ARRAY_LEN(later); i++)
        assert_int_equal(later[i].code, ERR_OK);
    client_watch_stop(w);
    fake_end(&world);
}

/* A caller that comes while a round is under way must not be served by it. */
static void test_no_joining_a_round(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    struct point first, second;
    fake_start(&world, 1, 0, true);
    struct client_watch *w = watch_all(&world, 0, &s);
    sync_once(&world, w, &s);
    fake_commit(&world, "a", "x", false);
    RUN_UNTIL(&world.loop, s.events == 1);
    world.hold_events = true;
    fake_commit(&world, "a", "x", false);
    int asked = world.members[0].progress_asked;
    sync_start(w, &s, 0, &first);
    RUN_UNTIL(&world.loop, world.members[0].progress_asked == asked + 1);
    sync_start(w, &s, 0, &second);
    fake_release_events(&world);
    RUN_UNTIL(&world.loop, first.count);
    assert_int_equal(first.code, ERR_OK);
    assert_int_equal(second.count, 0);
    RUN_UNTIL(&world.loop, second.count);
    assert_int_equal(world.members[0].progress_asked, asked + 2);
    client_watch_stop(w);
    fake_end(&world);
}

/* etcd-io/etcd#15220: the answer comes ahead of the events that it should follow. */
static void test_overtaking_answers(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    struct point p;
    fake_start(&world, 1, 0, false);
    world.version = "3.4.23";
    struct client_watch *w = watch_all(&world, 0, &s);
    sync_once(&world, w, &s);
    world.hold_events = world.overtake = true;
    fake_commit(&world, "a", "x", false);
    int asked = world.members[0].progress_asked;
    sync_start(w, &s, 0, &p);
    /* A few answers that lie, then the event. */
    RUN_UNTIL(&world.loop, world.members[0].progress_asked > asked + 3);
    fake_release_events(&world);
    RUN_UNTIL(&world.loop, p.count);
    assert_int_equal(p.code, ERR_OK);
    client_watch_stop(w);

    /* A resumed watch whose history is read late: no answer is believed for a while. */
    world.hold_events = true;
    w = watch_all(&world, 2, &s);
    sync_start(w, &s, 0, &p);
    RUN_UNTIL(&world.loop, s.ups == 1);
    struct answer a;
    for (int i = 0; i < 10; i++) {
        ask_range(world.client, 0, &a);
        RUN_UNTIL(&world.loop, a.count);
    }
    assert_int_equal(p.count, 0);
    fake_release_events(&world);
    RUN_UNTIL(&world.loop, p.count);
    assert_int_equal(p.code, ERR_OK);
    assert_int_equal(p.seen_then, world.revision);
    client_watch_stop(w);
    fake_end(&world);
}

/* An etcd gives no answer while the watch is behind: it is asked again. */
static void test_no_answer_while_behind(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    struct point p;
    fake_start(&world, 1, 0, false);
    world.progress_silent = true;
    struct client_watch *w = watch_all(&world, 0, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    fake_commit(&world, "outside", "x", false);
    RUN_UNTIL(&world.loop, s.events == 1);
    world.hold_events = true;
    world.revision++; /* outside of what is watched */
    sync_start(w, &s, 0, &p);
    RUN_UNTIL(&world.loop, world.members[0].progress_asked >= 3);
    assert_int_equal(p.count, 0);
    world.progress_silent = false;
    RUN_UNTIL(&world.loop, p.count);
    assert_int_equal(p.code, ERR_OK);
    assert_int_equal(p.revision, world.revision);
    assert_int_equal(s.revision, world.revision);
    client_watch_stop(w);
    fake_end(&world);
}

static void lost_stream(bool quorumd)
{
    struct fake_world world;
    struct seen s;
    struct point p;
    fake_start(&world, 2, 0, quorumd);
    struct client_watch *w = watch_all(&world, 0, &s);
    sync_once(&world, w, &s);
    fake_member_stop(&world, 0);
    sync_start(w, &s, 0, &p);
    fake_commit(&world, "a", "x", false);
    RUN_UNTIL(&world.loop, p.count);
    assert_int_equal(p.code, ERR_OK);
    assert_int_equal(s.events, 1);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_lost_stream(void **state)
{
    (void)state;
    lost_stream(true);
    lost_stream(false);
}

static void hung_server(bool quorumd)
{
    struct fake_world world;
    struct seen s;
    struct point p;
    fake_start(&world, 2, 0, quorumd);
    struct client_watch *w = watch_all(&world, 0, &s);
    sync_once(&world, w, &s);
    world.members[0].silent = true;
    fake_commit(&world, "a", "x", false);
    sync_start(w, &s, 2000, &p);
    RUN_UNTIL(&world.loop, p.count);
    assert_int_equal(p.code, ERR_OK);
    assert_int_equal(p.seen_then, world.revision);
    assert_int_equal(world.members[1].watches, 1);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_hung_server_is_left(void **state)
{
    (void)state;
    hung_server(true);
    hung_server(false);
}

static void test_deadline_and_end(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    struct point p, q, r;
    fake_start(&world, 1, 0, true);
    struct client_watch *w = watch_all(&world, 0, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    world.hold_events = true;
    fake_commit(&world, "a", "x", false);
    sync_start(w, &s, 100, &p);
    RUN_UNTIL(&world.loop, p.count);
    assert_int_equal(p.code, ERR_DEADLINE);
    fake_release_events(&world);
    sync_once(&world, w, &s);
    /* Compaction ends the watch and all who wait on it, now and later. */
    world.hold_events = true;
    fake_commit(&world, "a", "x", false);
    sync_start(w, &s, 0, &q);
    fake_member_stop(&world, 0);
    world.compacted = world.revision;
    fake_member_start(&world, 0);
    RUN_UNTIL(&world.loop, q.count);
    assert_int_equal(q.code, ERR_COMPACTED);
    assert_int_equal(s.compacted, world.revision);
    sync_start(w, &s, 0, &q);
    RUN_UNTIL(&world.loop, q.count);
    assert_int_equal(q.code, ERR_COMPACTED);
    client_watch_stop(w);
    /* Stopping ends who waits. */
    w = watch_all(&world, 0, &s);
    sync_start(w, &s, 0, &r);
    client_watch_stop(w);
    assert_int_equal(r.count, 1);
    assert_int_equal(r.code, ERR_CLOSED);
    fake_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind),
        cmocka_unit_test(test_rounds_are_shared),
        cmocka_unit_test(test_no_joining_a_round),
        cmocka_unit_test(test_overtaking_answers),
        cmocka_unit_test(test_no_answer_while_behind),
        cmocka_unit_test(test_lost_stream),
        cmocka_unit_test(test_hung_server_is_left),
        cmocka_unit_test(test_deadline_and_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
