/* Replicas as a cluster: a leader's disk that hangs (e#13527, e#22214, hashicorp/raft#503), or is far slower than
 * the others'. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

static struct node *other_leader(const struct node *than)
{
    struct node *n = leader_node();
    return n == than ? NULL : n;
}

static void a_hung_leader_hands_over(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    must_put(old, "a", "1");
    old->log_hangs = true;
    struct answer put, read = {0};
    propose_put(old, "a", "2", 0, &put);
    uint64_t from = cl.now_ms;
    WAIT(other_leader(old));
    assert_true(cl.now_ms - from <= 2 * ELECTION_TICKS * TICK_MS);
    assert_true(strstr(old->disk_note, "hangs"));
    assert_true(replica_log_hangs(old->replica));
    assert_true(replica_log_silent_ms(old->replica) > ELECTION_TICKS * TICK_MS);
    assert_false(replica_log_hangs(leader_node()->replica));
    must_put(leader_node(), "a", "3"); /* while it still hangs */
    /* A read there ends within the request's time. */
    from = cl.now_ms;
    replica_read(old->replica, on_code, &read);
    WAIT(read.done);
    assert_int_not_equal(read.code, ERR_OK);
    assert_in_range(cl.now_ms - from, 1, 7300);
    WAIT(put.done);
    assert_int_not_equal(put.code, ERR_OK);
    old->log_hangs = false;
    WAIT(local_value(old, "a") && strcmp(local_value(old, "a"), "3") == 0);
    assert_false(replica_log_hangs(old->replica));
    assert_all_equal();
}

/* The one that it would hand over to doesn't answer. */
static void a_hung_leader_steps_down(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    must_put(old, "a", "1");
    old->log_hangs = true;
    struct answer put;
    propose_put(old, "a", "2", 0, &put);
    WAIT(old->disk_note[0]);
    struct raft_status s;
    replica_status(old->replica, &s);
    struct node *heir = node_of(s.transferee);
    assert_non_null(heir);
    heir->cut = true;
    WAIT(old->leader != old->id);
    heir->cut = false;
    WAIT(other_leader(old));
    must_put(leader_node(), "a", "3");
    old->log_hangs = false;
    assert_all_equal();
}

/* One storage for all of them: another leader would be no better. */
static void when_all_disks_hang_the_leader_stays(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    for (size_t i = 0; i < 3; i++)
        cl.nodes[i].log_hangs = true;
    struct answer put;
    size_t changes = old->leader_changes;
    propose_put(old, "a", "2", 0, &put);
    turns(40 * TURNS_A_TICK);
    assert_int_equal(old->leader_changes, changes);
    assert_int_equal(read_point(old), ERR_OK);
    for (size_t i = 0; i < 3; i++)
        cl.nodes[i].log_hangs = false;
    WAIT(put.done);
    assert_int_equal(put.code, ERR_OK);
    assert_all_equal();
}

/* The leader is gone, and one of the other two has a disk that hangs: the other one must lead, also if it
 * is only when the disk answers again that it gets its vote. */
static void a_follower_that_hangs_does_not_stand(void **state)
{
    (void)state;
    struct node *old = wait_leader(), *f = follower_node();
    f->log_hangs = true;
    struct answer put;
    for (int i = 0; i < 3; i++) {
        propose_put(old, "a", "1", 0, &put);
        WAIT(put.done);
    }
    turns(30 * TURNS_A_TICK);
    assert_true(replica_log_hangs(f->replica));
    node_crash(old);
    turns(60 * TURNS_A_TICK);
    assert_null(leader_node()); /* no quorum can sync */
    struct raft_status s;
    replica_status(f->replica, &s);
    assert_true(s.role == RAFT_FOLLOWER);
    f->log_hangs = false;
    WAIT(leader_node());
    node_start(old);
    assert_all_equal();
}

/* ---- slow, but not hung -------------------------------------------------------------------------- */

static void keep_writing(size_t count)
{
    for (size_t i = 0; i < count; i++)
        must_put(wait_leader(), "load", "1");
}

static void a_far_slower_leader_hands_over(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    keep_writing(20);
    turns(100 * TURNS_A_TICK);
    old->log_every = 4 * TURNS_A_TICK; /* 400 ms a sync */
    for (size_t i = 0; i < 5000 && !other_leader(old); i++)
        must_put(follower_node(), "load", "1");
    WAIT(other_leader(old));
    assert_true(strstr(old->disk_note, "far slower"));
    struct node *now = leader_node();
    keep_writing(50);
    assert_ptr_equal(leader_node(), now);
    old->log_every = 0;
    assert_all_equal();
}

static void leadership_stays_when_all_are_slow(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    for (size_t i = 0; i < 3; i++)
        cl.nodes[i].log_every = 5 * TURNS_A_TICK + i;
    keep_writing(40);
    assert_ptr_equal(leader_node(), old);
    assert_int_equal(old->disk_note[0], 0);
    for (size_t i = 0; i < 3; i++)
        cl.nodes[i].log_every = 0;
    assert_all_equal();
}

#define THREE(name) cmocka_unit_test_setup_teardown(name, open_three, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        THREE(a_hung_leader_hands_over),
        THREE(a_hung_leader_steps_down),
        THREE(when_all_disks_hang_the_leader_stays),
        THREE(a_follower_that_hangs_does_not_stand),
        THREE(a_far_slower_leader_hands_over),
        THREE(leadership_stays_when_all_are_slow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
