/* Unary calls of the client: answers, failover, what is tried again and what is not, deadlines. */
#include "tests/unit/client_fixture.h"

static void test_endpoints(void **state)
{
    (void)state;
    uv_loop_t loop;
    uv_loop_init(&loop);
    static const char *const good[] = {"http://h",     "http://h:1",  "http://[::1]:2379",
                                       "http://[::1]", "unix:/tmp/x", "http://127.0.0.1:2379/"};
    static const char *const bad[] = {"",          "h:1",         "https://h:1", "http://",
                                      "http://:1", "unix:",       "http://h:0",  "http://h:65536",
                                      "http://h:", "http://[::1", "http://h/x",  "http://h:1x"};
    struct client *c;
    struct error err;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        struct client_config config = {.endpoints = &good[i], .endpoint_count = 1};
        if (client_new(&loop, &config, &c, &err) != ERR_OK)
            fail_msg("%s: %s", good[i], err.message);
        client_free(c);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct client_config config = {.endpoints = &bad[i], .endpoint_count = 1};
        if (client_new(&loop, &config, &c, &err) != ERR_INVALID)
            fail_msg("%s was taken", bad[i]);
        assert_non_null(strstr(err.message, bad[i]));
    }
    struct client_config none = {0};
    assert_int_equal(client_new(&loop, &none, &c, &err), ERR_INVALID);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void test_answers(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer put, range;
    fake_start(&world, 1, 0, true);
    assert_false(client_is_quorumd(world.client));
    ask_put(world.client, "k", "v", 0, &put);
    assert_int_equal(put.count, 0);
    RUN_UNTIL(&world.loop, put.count);
    assert_int_equal(put.code, ERR_OK);
    assert_int_equal(put.revision, 2);
    assert_string_equal(world.history[0].value, "v");
    ask_range(world.client, 0, &range);
    RUN_UNTIL(&world.loop, range.count);
    assert_int_equal(range.revision, 2);
    RUN_UNTIL(&world.loop, client_is_quorumd(world.client));
    assert_int_equal(world.up, 1);
    assert_int_equal(world.down, 0);
    assert_string_equal(world.state_text, world.members[0].url);
    fake_end(&world);
}

static void test_errors_are_told(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a = {0};
    fake_start(&world, 1, 0, false);
    Etcdserverpb__CompactionRequest q = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    client_unary(world.client, "/etcdserverpb.KV/Compact", &q.base,
                 &etcdserverpb__compaction_response__descriptor, false, 0, answer_done, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_UNIMPLEMENTED);
    assert_false(a.unknown);
    /* An answer of the wrong shape. */
    memset(&a, 0, sizeof a);
    world.quorumd = true;
    client_unary(world.client, "/quorumfs.Info/Version", &q.base,
                 &etcdserverpb__compaction_response__descriptor, false, 0, answer_done, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_INTERNAL);
    fake_end(&world);
}

static void test_endpoint_dies(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 2, 0, false);
    ask_range(world.client, 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(world.members[0].ranges, 1);
    /* A read under way when its server dies is answered by the other. */
    world.members[0].silent = true;
    ask_range(world.client, 0, &a);
    RUN_UNTIL(&world.loop, world.members[0].ranges == 2);
    fake_member_stop(&world, 0);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(world.members[1].ranges, 1);
    assert_int_equal(world.down, 0);
    assert_int_equal(world.up, 2);
    /* And back again. */
    world.members[0].silent = false;
    fake_member_start(&world, 0);
    fake_member_stop(&world, 1);
    ask_put(world.client, "k", "v", 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    fake_end(&world);
}

static void test_no_leader_goes_on(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 3, 0, false);
    world.members[0].no_leader = world.members[1].no_leader = true;
    ask_put(world.client, "k", "v", 0, &a); /* refused, so it is safe to repeat */
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(world.members[0].puts, 1);
    assert_int_equal(world.members[1].puts, 1);
    assert_int_equal(world.members[2].puts, 1);
    fake_end(&world);
}

static void test_no_leader_at_all(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 3, 0, false);
    for (int i = 0; i < 3; i++)
        world.members[i].no_leader = true;
    ask_put(world.client, "k", "v", 600, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_NO_LEADER);
    assert_false(a.unknown);
    assert_int_equal(world.down, 1); /* once, not with each round */
    int puts = world.members[0].puts + world.members[1].puts + world.members[2].puts;
    assert_true(puts >= 3 && puts < 30); /* tried, not hammered */
    for (int i = 0; i < 3; i++)
        world.members[i].no_leader = false;
    int ups = world.up;
    ask_put(world.client, "k", "v", 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(world.up, ups + 1);
    fake_end(&world);
}

static void test_one_endpoint_waits_for_its_leader(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 1, 0, false);
    world.members[0].no_leader = true;
    ask_range(world.client, 0, &a);
    RUN_UNTIL(&world.loop, world.members[0].ranges >= 3);
    world.members[0].no_leader = false;
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    fake_end(&world);
}

static void test_write_of_unknown_fate(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 1, 0, false);
    world.put_fails_after = 1;
    ask_put(world.client, "k", "v", 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_LEADER_CHANGED);
    assert_true(a.unknown);
    assert_int_equal(world.members[0].puts, 1); /* not a second time */
    assert_int_equal(world.history_count, 1);
    fake_end(&world);
}

static void test_named_write_is_done_once(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 1, 0, true);
    world.put_fails_after = 2;
    ask_put(world.client, "k", "v", 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(world.members[0].puts, 3);
    assert_int_equal(world.history_count, 1);
    uint64_t session, seq;
    char rest;
    assert_int_equal(sscanf(world.last_name, "%16lx/%lu%c", &session, &seq, &rest), 2);
    assert_int_equal(seq, 1);
    /* The same session goes on with the next number. */
    ask_put(world.client, "k", "w", 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(world.history_count, 2);
    uint64_t session2;
    assert_int_equal(sscanf(world.last_name, "%16lx/%lu%c", &session2, &seq, &rest), 2);
    assert_int_equal(seq, 2);
    assert_true(session == session2);
    fake_end(&world);
}

/* The connection is cut with a write on it, and the next server tells the write's fate. */
static void cut_mid_put(bool quorumd, enum errc expected, size_t expected_puts)
{
    struct fake_world world;
    struct answer a;
    fake_start(&world, 2, 0, quorumd);
    world.members[0].silent = true;
    ask_put(world.client, "k", "v", 0, &a);
    RUN_UNTIL(&world.loop, world.members[0].puts == 1);
    fake_member_stop(&world, 0);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, expected);
    assert_int_equal(a.unknown, expected != ERR_OK);
    assert_int_equal(world.members[1].puts, expected_puts);
    fake_end(&world);
}

static void test_reset_mid_call(void **state)
{
    (void)state;
    cut_mid_put(true, ERR_OK, 1);
    cut_mid_put(false, ERR_UNAVAILABLE, 0);
}

static void test_hung_server_is_left(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 2, 0, false);
    world.members[0].silent = true;
    ask_range(world.client, 2000, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(world.members[1].ranges, 1);
    fake_end(&world);
}

static void test_deadlines(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a;
    fake_start(&world, 1, 0, false);
    world.members[0].silent = true;
    ask_put(world.client, "k", "v", 150, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_DEADLINE);
    assert_true(a.unknown);
    ask_range(world.client, 150, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_DEADLINE);
    assert_false(a.unknown);
    /* Nobody there: the reason is told, and the write certainly was not done. */
    fake_member_stop(&world, 0);
    ask_put(world.client, "k", "v", 300, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_UNAVAILABLE);
    assert_false(a.unknown);
    assert_non_null(strstr(a.text, world.members[0].url));
    assert_int_equal(world.down, 1);
    /* It comes back by itself. */
    world.members[0].silent = false;
    ask_put(world.client, "k", "v", 0, &a);
    fake_member_start(&world, 0);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(a.code, ERR_OK);
    fake_end(&world);
}

static void cancel_other(void *ctx, const struct client_result *result)
{
    (void)result;
    client_cancel(*(struct client_call **)ctx);
}

static void test_cancel_and_close(void **state)
{
    (void)state;
    struct fake_world world;
    struct answer a, b;
    fake_start(&world, 1, 0, false);
    client_cancel(ask_put(world.client, "k", "v", 0, &a)); /* before a connection */
    struct client_call *other;
    Etcdserverpb__RangeRequest q = ETCDSERVERPB__RANGE_REQUEST__INIT;
    client_range(world.client, &q, 0, cancel_other, &other);
    other = ask_range(world.client, 0, &b);
    ask_range(world.client, 0, &a);
    RUN_UNTIL(&world.loop, a.count);
    assert_int_equal(b.count, 0);
    /* What is under way at the end is told so. */
    world.members[0].silent = true;
    ask_put(world.client, "k", "v", 0, &a);
    RUN_UNTIL(&world.loop, world.members[0].puts == 1);
    ask_range(world.client, 0, &b);
    client_free(world.client);
    world.client = NULL;
    assert_int_equal(a.count, 1);
    assert_int_equal(a.code, ERR_CLOSED);
    assert_true(a.unknown);
    assert_int_equal(b.code, ERR_CLOSED);
    assert_false(b.unknown);
    fake_end(&world);
}

static struct answer many[CLIENT_CALLS_MAX + 1];

static size_t many_answered(void)
{
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        n += (size_t)many[i].count;
    return n;
}

static void test_bound(void **state)
{
    (void)state;
    struct fake_world world;
    fake_start(&world, 1, 20000, false);
    for (size_t i = 0; i < ARRAY_LEN(many); i++)
        ask_range(world.client, 0, &many[i]);
    assert_int_equal(many[CLIENT_CALLS_MAX].count, 0); /* not from inside */
    RUN_UNTIL(&world.loop, many_answered() == ARRAY_LEN(many));
    for (size_t i = 0; i < CLIENT_CALLS_MAX; i++)
        assert_int_equal(many[i].code, ERR_OK);
    assert_int_equal(many[CLIENT_CALLS_MAX].code, ERR_TOO_MANY_REQUESTS);
    fake_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoints),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_errors_are_told),
        cmocka_unit_test(test_endpoint_dies),
        cmocka_unit_test(test_no_leader_goes_on),
        cmocka_unit_test(test_no_leader_at_all),
        cmocka_unit_test(test_one_endpoint_waits_for_its_leader),
        cmocka_unit_test(test_write_of_unknown_fate),
        cmocka_unit_test(test_named_write_is_done_once),
        cmocka_unit_test(test_reset_mid_call),
        cmocka_unit_test(test_hung_server_is_left),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_cancel_and_close),
        cmocka_unit_test(test_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
