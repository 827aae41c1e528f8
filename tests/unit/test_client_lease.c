/* Leases: granted once, kept alive over lost connections, told when lost. */
#include "tests/unit/client_fixture.h"

struct lease_record {
    int granted, lost;
    enum errc code;
    int64_t id;
};

static void on_granted(void *ctx, enum errc code, int64_t id)
{
    struct lease_record *r = ctx;
    r->granted++;
    r->code = code;
    r->id = id;
}

static void on_lost(void *ctx)
{
    ((struct lease_record *)ctx)->lost++;
}

static struct client_lease *start(struct fake_world *world, int64_t ttl_s, struct lease_record *r)
{
    memset(r, 0, sizeof *r);
    return client_lease_start(world->client, ttl_s, on_granted, on_lost, r);
}

static void test_kept_alive(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r;
    fake_start(&world, 1, 0, false);
    struct client_lease *l = start(&world, 1, &r);
    RUN_UNTIL(&world.loop, r.granted);
    assert_int_equal(r.code, ERR_OK);
    assert_true(r.id > 0 && r.id == world.lease_id);
    RUN_UNTIL(&world.loop, world.keep_alives >= 5); /* more than one TTL */
    assert_int_equal(r.lost, 0);
    client_lease_stop(l, true);
    RUN_UNTIL(&world.loop, world.revokes == 1);
    assert_int_equal(r.granted, 1);
    fake_end(&world);
}

/* The grant's answer is lost: asked again by the same id, "already exists" means granted. */
static void test_granted_once(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r;
    fake_start(&world, 1, 0, false);
    world.grant_fails_after = 1;
    struct client_lease *l = start(&world, 10, &r);
    RUN_UNTIL(&world.loop, r.granted);
    assert_int_equal(r.code, ERR_OK);
    assert_int_equal(world.grants, 2);
    assert_true(r.id == world.lease_id);
    client_lease_stop(l, false);
    fake_end(&world);
}

static void test_not_granted(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r;
    fake_start(&world, 1, 200, false);
    world.members[0].no_leader = true;
    struct client_lease *l = start(&world, 10, &r);
    RUN_UNTIL(&world.loop, r.granted);
    assert_int_equal(r.code, ERR_NO_LEADER);
    client_lease_stop(l, true);
    fake_end(&world);
}

static void test_moves_to_another_member(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r;
    fake_start(&world, 2, 0, false);
    struct client_lease *l = start(&world, 2, &r);
    RUN_UNTIL(&world.loop, world.keep_alives == 1);
    fake_member_stop(&world, 0);
    RUN_UNTIL(&world.loop, world.keep_alives == 4);
    assert_int_equal(r.lost, 0);
    /* And from one that takes the questions and is silent. */
    fake_member_start(&world, 0);
    world.members[1].silent = true;
    RUN_UNTIL(&world.loop, world.keep_alives == 7);
    assert_int_equal(r.lost, 0);
    client_lease_stop(l, false);
    fake_end(&world);
}

static void test_gone_at_the_server(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r;
    fake_start(&world, 1, 0, false);
    struct client_lease *l = start(&world, 1, &r);
    RUN_UNTIL(&world.loop, r.granted);
    world.lease_gone = true;
    RUN_UNTIL(&world.loop, r.lost);
    client_lease_stop(l, true);
    assert_int_equal(r.lost, 1);
    fake_end(&world);
    assert_int_equal(world.revokes, 0);
}

static void test_out_of_reach(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r, s;
    fake_start(&world, 1, 0, false);
    struct client_lease *l = start(&world, 1, &r);
    RUN_UNTIL(&world.loop, world.keep_alives == 1);
    uint64_t before = uv_now(&world.loop);
    world.keep_alive_silent = true;
    RUN_UNTIL(&world.loop, r.lost);
    assert_true(uv_now(&world.loop) - before <= 1500); /* not after the server may have ended it */
    client_lease_stop(l, false);
    world.keep_alive_silent = false;
    l = start(&world, 1, &s);
    RUN_UNTIL(&world.loop, s.granted);
    fake_member_stop(&world, 0);
    RUN_UNTIL(&world.loop, s.lost);
    (void)l; /* ends with the client */
    fake_end(&world);
}

static void test_stopped_before_granted(void **state)
{
    (void)state;
    struct fake_world world;
    struct lease_record r;
    fake_start(&world, 1, 0, false);
    client_lease_stop(start(&world, 1, &r), true);
    RUN_UNTIL(&world.loop, world.revokes == 1);
    assert_int_equal(r.granted, 0);
    fake_end(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_alive),
        cmocka_unit_test(test_granted_once),
        cmocka_unit_test(test_not_granted),
        cmocka_unit_test(test_moves_to_another_member),
        cmocka_unit_test(test_gone_at_the_server),
        cmocka_unit_test(test_out_of_reach),
        cmocka_unit_test(test_stopped_before_granted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
