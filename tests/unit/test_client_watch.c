/* Watches: order, resuming, pieces of revisions, compaction. */
#include "tests/unit/client_fixture.h"

static void test_from_now_on(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, false);
    fake_commit(&world, "a", "old", false);
    struct client_watch *w = watch_all(&world, 0, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    assert_int_equal(s.events, 0);
    fake_commit(&world, "a", "1", false);
    fake_commit(&world, "a", "2", false);
    RUN_UNTIL(&world.loop, s.events == 2);
    assert_int_equal(s.revision, world.revision);
    client_watch_stop(w);
    fake_end(&world);
}

/* A watch that began "now" and lost its stream before any event must not miss the events in between. */
static void test_resume_from_now_on(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, false);
    struct client_watch *w = watch_all(&world, 0, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    fake_member_stop(&world, 0);
    fake_commit(&world, "a", "1", false);
    fake_member_start(&world, 0);
    RUN_UNTIL(&world.loop, s.events == 1);
    assert_int_equal(s.downs, 1);
    assert_int_equal(s.ups, 2);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_resume(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 2, 0, false);
    for (int i = 0; i < 10; i++)
        fake_commit(&world, "a", "x", false);
    struct client_watch *w = watch_all(&world, 5, &s);
    RUN_UNTIL(&world.loop, s.last_event == world.revision);
    assert_int_equal(s.events, (size_t)world.revision - 4);
    for (int round = 0; round < 6; round++) {
        fake_member_stop(&world, round % 2);
        for (int i = 0; i < 10; i++)
            fake_commit(&world, "a", "x", false);
        fake_member_start(&world, round % 2);
        fake_commit(&world, "a", "x", false);
        RUN_UNTIL(&world.loop, s.last_event == world.revision);
    }
    assert_int_equal(s.events, (size_t)world.revision - 4); /* none twice, none missing */
    assert_false(s.disordered);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_no_leader_moves_on(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 2, 0, false);
    world.members[0].no_leader = true;
    struct client_watch *w = watch_all(&world, 1, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    assert_int_equal(world.members[1].watches, 1);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_silent_server_is_left(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 2, 0, false);
    world.members[0].silent = true;
    struct client_watch *w = watch_all(&world, 1, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    assert_int_equal(s.downs, 1);
    assert_int_equal(world.members[1].watches, 1);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_fragments(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, false);
    world.hold_events = world.fragment = true;
    struct client_watch *w = watch_all(&world, 2, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    for (int revision = 0; revision < 3; revision++)
        for (int i = 0; i < 5; i++)
            fake_commit(&world, "a", "x", i > 0);
    fake_release_events(&world);
    RUN_UNTIL(&world.loop, s.events == 15);
    assert_int_equal(s.calls, 3); /* whole revisions, each as soon as it is complete */
    assert_false(s.disordered);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_fragments_cut(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, false);
    struct client_watch *w = watch_all(&world, 2, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    /* Half of a revision, then the connection is lost: it comes again, whole. */
    world.hold_events = true;
    for (int i = 0; i < 4; i++)
        fake_commit(&world, "a", "x", i > 0);
    struct fake_watcher *watcher = CONTAINER_OF(world.watchers.next, struct fake_watcher, link);
    fake_send_events(watcher, 0, 2, true);
    struct answer a;
    ask_range(world.client, 0, &a); /* goes out behind them on the same connection */
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(s.events, 0);
    fake_member_stop(&world, 0);
    world.hold_events = false;
    fake_member_start(&world, 0);
    RUN_UNTIL(&world.loop, s.events == 4);
    assert_int_equal(s.calls, 1);
    assert_false(s.disordered);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_compacted(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, false);
    for (int i = 0; i < 10; i++)
        fake_commit(&world, "a", "x", false);
    world.compacted = 5;
    struct client_watch *w = watch_all(&world, 3, &s);
    RUN_UNTIL(&world.loop, s.compacted);
    assert_int_equal(s.compacted, 5);
    assert_int_equal(s.events, 0);
    client_watch_stop(w);
    /* While it was away. */
    w = watch_all(&world, 6, &s);
    RUN_UNTIL(&world.loop, s.last_event == world.revision);
    fake_member_stop(&world, 0);
    for (int i = 0; i < 10; i++)
        fake_commit(&world, "a", "x", false);
    world.compacted = world.revision;
    fake_member_start(&world, 0);
    RUN_UNTIL(&world.loop, s.compacted);
    client_watch_stop(w);
    fake_end(&world);
}

/* A repeated event (e.g. of a server that starts the watch too early) is left out. */
static void test_repeated_events(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s;
    fake_start(&world, 1, 0, false);
    struct client_watch *w = watch_all(&world, 2, &s);
    RUN_UNTIL(&world.loop, s.ups == 1);
    fake_commit(&world, "a", "1", false);
    fake_commit(&world, "a", "2", false);
    RUN_UNTIL(&world.loop, s.events == 2);
    struct fake_watcher *watcher = CONTAINER_OF(world.watchers.next, struct fake_watcher, link);
    fake_send_events(watcher, 0, 2, false);
    fake_commit(&world, "a", "3", false);
    RUN_UNTIL(&world.loop, s.last_event == world.revision);
    assert_int_equal(s.events, 3);
    assert_false(s.disordered);
    client_watch_stop(w);
    fake_end(&world);
}

static void test_stop_from_inside(void **state)
{
    (void)state;
    struct fake_world world;
    struct seen s, t;
    fake_start(&world, 1, 0, false);
    struct client_watch *w = watch_all(&world, 2, &s);
    struct client_watch *v = watch_all(&world, 2, &t);
    s.stop = &w;
    fake_commit(&world, "a", "1", false);
    RUN_UNTIL(&world.loop, t.events == 1 && s.events == 1);
    fake_commit(&world, "a", "1", false);
    RUN_UNTIL(&world.loop, t.events == 2);
    assert_int_equal(s.events, 1);
    (void)v; /* ended by the client's end */
    fake_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_from_now_on),
        cmocka_unit_test(test_resume_from_now_on),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_no_leader_moves_on),
        cmocka_unit_test(test_silent_server_is_left),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_fragments_cut),
        cmocka_unit_test(test_compacted),
        cmocka_unit_test(test_repeated_events),
        cmocka_unit_test(test_stop_from_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
