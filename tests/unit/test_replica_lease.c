/* Replicas as a cluster: leases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

static int open_checkpointing(void **state)
{
    (void)state;
    cluster_open(3);
    cl.lease_checkpoint_ms = 2000;
    for (size_t i = 0; i < 3; i++) {
        node_crash(&cl.nodes[i]);
        node_start(&cl.nodes[i]);
    }
    return 0;
}

struct renewed {
    bool done;
    enum errc code;
    int64_t ttl;
};

static void on_renewed(void *ctx, enum errc code, int64_t ttl)
{
    *(struct renewed *)ctx = (struct renewed){true, code, ttl};
}

static enum errc renew(struct node *n, int64_t lease, int64_t *ret_ttl)
{
    struct renewed r = {0};
    replica_lease_renew(n->replica, lease, on_renewed, &r);
    WAIT(r.done);
    *ret_ttl = r.ttl;
    return r.code;
}

static void leases_end_and_take_their_keys(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    int64_t lease = grant(n, 5);
    struct answer a;
    propose_put(n, "leased", "1", lease, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    uint64_t from = cl.now_ms;
    int64_t ttl;
    while (cl.now_ms < from + 12000) { /* more than twice its TTL, kept alive */
        assert_int_equal(renew(n, lease, &ttl), ERR_OK);
        assert_int_equal(ttl, 5);
        turns(TURNS_A_TICK * 10);
        assert_non_null(local_value(n, "leased"));
    }
    from = cl.now_ms;
    WAIT(!local_value(n, "leased"));
    assert_in_range(cl.now_ms - from, 3000, 6000);
    assert_int_equal(renew(n, lease, &ttl), ERR_LEASE_NOT_FOUND);
    propose_put(n, "leased", "1", lease, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_LEASE_NOT_FOUND);
    assert_all_equal();
}

static void leases_survive_a_change_of_leader(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    int64_t lease = grant(old, 4), ttl;
    struct answer a;
    propose_put(old, "leased", "1", lease, &a);
    WAIT(a.done);
    node_crash(old);
    uint64_t from = cl.now_ms;
    struct node *now = wait_leader();
    assert_int_equal(renew(now, lease, &ttl), ERR_OK);
    WAIT(!local_value(now, "leased"));
    assert_true(cl.now_ms - from >= 4000);
}

/* A leader that was stopped for a while renews nothing and revokes nothing (e#15247). */
static void a_stalled_leader_does_not_judge_leases(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    int64_t lease = grant(old, 5), ttl;
    struct answer a;
    propose_put(old, "leased", "1", lease, &a);
    WAIT(a.done);
    WAIT(all_even());
    assert_int_equal(read_point(old), ERR_OK);
    /* It gets no time while the others elect another and keep the lease alive there. */
    struct replica *stalled = old->replica;
    old->replica = NULL;
    struct node *now = wait_leader();
    for (int i = 0; i < 10; i++) {
        assert_int_equal(renew(now, lease, &ttl), ERR_OK);
        turns(TURNS_A_TICK * 10);
    }
    old->replica = stalled;
    struct renewed late = {0};
    replica_lease_renew(stalled, lease, on_renewed, &late);
    replica_poll(stalled);
    assert_false(late.done && late.code == ERR_OK);
    replica_tick(stalled); /* in its view the lease is long over */
    replica_poll(stalled);
    WAIT(late.done);
    assert_int_equal(late.code, ERR_NOT_LEADER);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(renew(now, lease, &ttl), ERR_OK);
        turns(TURNS_A_TICK * 5);
        assert_non_null(local_value(now, "leased"));
    }
    assert_all_equal();
}

/* A renewal was answered before the log had taken back the checkpoint of the remaining time, and then the
 * leader died: its successor gave the lease only the rest (simulator, seed 972 of its day). */
static void a_renewed_lease_has_all_its_time_under_the_next_leader(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    int64_t lease = grant(old, 30), ttl;
    WAIT(lessor_stored_remaining(replica_lessor(old->replica), lease) == 24); /* 3 checkpoints */
    assert_int_equal(renew(old, lease, &ttl), ERR_OK);
    assert_int_equal(ttl, 30);
    uint64_t from = cl.now_ms;
    node_crash(old); /* in the moment of its answer */
    struct node *now = wait_leader();
    WAIT(!lessor_exists(replica_lessor(now->replica), lease));
    assert_in_range(cl.now_ms - from, 30000, 36000);
}

/* The same with one that is proposed when the renewal comes, and committed after it, whenever it comes. */
static void a_checkpoint_under_way_is_taken_back(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    int64_t lease = grant(n, 30), ttl;
    struct lessor *l = replica_lessor(n->replica);
    for (size_t phase = 0; phase < 2 * TURNS_A_TICK; phase++) {
        WAIT(lessor_stored_remaining(l, lease) == 28);
        turns(20 * TURNS_A_TICK - 30 + phase); /* about the time of the next one */
        assert_int_equal(renew(n, lease, &ttl), ERR_OK);
        assert_int_equal(lessor_stored_remaining(l, lease), 0);
        struct lease_info info;
        assert_int_equal(lessor_info(l, lease, cl.now_ms, &info), ERR_OK);
        assert_int_equal(info.remaining_ttl, 30);
        turns(10); /* nothing comes after it that was on the way */
        assert_int_equal(lessor_stored_remaining(l, lease), 0);
    }
    assert_all_equal();
}

/* Two thousand leases end in the same moment: a put that comes then waits for some of them, not for all. */
static void a_flood_of_expiries_lets_writes_through(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    static struct answer answers[2000];
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        Etcdserverpb__LeaseGrantRequest g = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
        g.ttl = 30;
        Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
        request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT;
        request.lease_grant = &g;
        answers[i] = (struct answer){0};
        replica_propose(n->replica, &request, on_answer, &answers[i]);
    }
    WAIT(lessor_count(replica_lessor(n->replica)) == ARRAY_LEN(answers));
    turns(TURNS_A_TICK * 10);
    node_crash(n); /* a new leader starts every lease anew: all end at once */
    node_start(n);
    wait_leader();
    const struct lessor *l = replica_lessor(n->replica);
    WAIT(lessor_count(l) < ARRAY_LEN(answers));
    struct answer a;
    propose_put(n, "a", "1", 0, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    assert_true(lessor_count(l) >= ARRAY_LEN(answers) - 2 * LEASE_EXPIRE_BATCH_MAX);
    WAIT(lessor_count(l) == 0);
}

#define THREE(name) cmocka_unit_test_setup_teardown(name, open_three, close_all)
#define ONE(name) cmocka_unit_test_setup_teardown(name, open_one, close_all)
#define CHECKPOINTING(name) cmocka_unit_test_setup_teardown(name, open_checkpointing, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        THREE(leases_end_and_take_their_keys),
        ONE(a_flood_of_expiries_lets_writes_through),
        THREE(leases_survive_a_change_of_leader),
        THREE(a_stalled_leader_does_not_judge_leases),
        CHECKPOINTING(a_renewed_lease_has_all_its_time_under_the_next_leader),
        CHECKPOINTING(a_checkpoint_under_way_is_taken_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
