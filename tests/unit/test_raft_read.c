/* Linearizable reads by ReadIndex (thesis, section 6.4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/raft_fixture.h"

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, 3, 0, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_free(&f);
    return 0;
}

static enum errc read_at(uint64_t id, uint64_t context)
{
    enum errc rc = raft_read_index(fixture_raft(&f, id), context);
    fixture_ready(&f, id);
    return rc;
}

static size_t count(enum raft_message_type type)
{
    size_t n = 0;
    for (size_t i = 0; i < f.queue_count; i++)
        n += f.queue[i].type == type;
    return n;
}

static void test_errors(void **state)
{
    (void)state;
    assert_int_equal(read_at(1, 1), ERR_NO_LEADER);
    fixture_elect(&f, 1);
    assert_int_equal(read_at(1, 0), ERR_INVALID);
}

static void test_confirmed_by_a_quorum_only(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    assert_int_equal(read_at(1, 1), ERR_OK);
    assert_int_equal(count(RAFT_MSG_HEARTBEAT), 2);
    assert_int_equal(f.members[1].reads_done, 0);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 1);
    assert_int_equal(f.members[1].last_read.index, 1);
    fixture_isolate(&f, 1, true);
    read_at(1, 2);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 1);
}

/* An answer to a heartbeat that was sent before the read proves nothing for it. */
static void test_answer_to_an_earlier_round_does_not_confirm(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    read_at(1, 1);
    fixture_deliver_at(&f, 0, false); /* member 2 answers round 1 */
    fixture_deliver_at(&f, 0, false);
    assert_int_equal(count(RAFT_MSG_HEARTBEAT_REPLY), 2);
    read_at(1, 2);
    fixture_deliver_at(&f, 0, true); /* duplicated on top of it */
    while (count(RAFT_MSG_HEARTBEAT_REPLY) > 0)
        fixture_deliver_at(&f, f.queue[0].type == RAFT_MSG_HEARTBEAT_REPLY ? 0 : 1, false);
    assert_int_equal(f.members[1].reads_done, 1);
    assert_int_equal(f.members[1].last_read.context, 1);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 2);
}

/* "If the leader has not yet marked an entry from its current term committed, it waits": what it knows of
 * the commit index may be old. */
static void test_waits_for_a_commit_of_the_own_term(void **state)
{
    (void)state;
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    while (fixture_status(&f, 1).role != RAFT_LEADER)
        fixture_deliver_at(&f, 0, false);
    read_at(1, 1);
    assert_int_equal(count(RAFT_MSG_HEARTBEAT), 0);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 1);
    assert_int_equal(f.members[1].last_read.index, 1);
}

/* All that come in between two readies share a round. */
static void test_reads_share_a_round(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    for (uint64_t i = 1; i <= 100; i++)
        assert_int_equal(raft_read_index(fixture_raft(&f, 1), i), ERR_OK);
    fixture_ready(&f, 1);
    assert_int_equal(count(RAFT_MSG_HEARTBEAT), 2);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 100);

    for (uint64_t i = 1; i <= 100; i++)
        assert_int_equal(raft_read_index(fixture_raft(&f, 2), i), ERR_OK);
    fixture_ready(&f, 2);
    assert_int_equal(count(RAFT_MSG_READ_INDEX), 1);
    fixture_deliver(&f);
    assert_int_equal(f.members[2].reads_done, 100);
}

/* However many reads come one by one, few rounds are under way; the others share the next. */
static void test_rounds_are_bounded(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    for (uint64_t i = 1; i <= 50; i++)
        read_at(1, i);
    assert_true(count(RAFT_MSG_HEARTBEAT) <= 2 * 4);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 50);
}

/* A lost round is made up for by the next heartbeat. */
static void test_lost_round(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    read_at(1, 1);
    fixture_clear(&f);
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].reads_done, 1);
}

static void test_single_member(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 1, 0, 0);
    fixture_tick(&f, 1, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    read_at(1, 1);
    assert_int_equal(f.members[1].reads_done, 1);
    assert_int_equal(f.members[1].last_read.index, 1);
}

/* The single member's own log isn't synced: it doesn't know yet what is committed. */
static void test_single_member_with_a_slow_disk(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 1, 0, 0);
    f.members[1].manual_sync = true;
    fixture_tick(&f, 1, 1);
    fixture_sync_one(&f, 1); /* the vote */
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    read_at(1, 1);
    assert_int_equal(f.members[1].reads_done, 0);
    fixture_sync(&f, 1);
    assert_int_equal(f.members[1].reads_done, 1);
}

static void test_forwarded_read(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    read_at(3, 42);
    fixture_deliver(&f);
    assert_int_equal(f.members[3].last_read.context, 42);
    assert_int_equal(f.members[3].last_read.index, 2);
    assert_false(f.members[3].last_read.failed);
}

/* An answer to a read of an earlier life of the member, with the same context, matches nothing. */
static void test_answer_from_before_a_restart(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 3, 0, 99); /* true random numbers */
    fixture_elect(&f, 1);
    read_at(2, 7);
    while (count(RAFT_MSG_READ_INDEX_REPLY) == 0)
        fixture_deliver_at(&f, 0, false);
    fixture_crash(&f, 2, 0);
    fixture_start(&f, 2);
    fixture_step(&f, 2, (struct raft_message){.type = RAFT_MSG_HEARTBEAT, .from = 1, .term = 1});
    read_at(2, 7);
    while (count(RAFT_MSG_READ_INDEX_REPLY) > 0)
        fixture_deliver_at(&f, 0, false);
    assert_int_equal(f.members[2].reads_done, 0);
    fixture_deliver(&f);
    assert_int_equal(f.members[2].reads_done, 1);
    assert_false(f.members[2].last_read.failed);
}

static void test_reads_fail_when_leadership_is_lost(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_isolate(&f, 1, true);
    read_at(1, 1);
    fixture_tick(&f, 1, 2 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(f.members[1].reads_done, 1);
    assert_true(f.members[1].last_read.failed);
}

static void test_forwarded_reads_fail_when_the_leader_changes(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    read_at(2, 1);
    fixture_clear(&f);
    raft_report_peer_gone(fixture_raft(&f, 2), 1);
    fixture_ready(&f, 2);
    assert_true(f.members[2].last_read.failed);
}

static void test_forwarded_read_that_is_lost_fails(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    read_at(2, 1);
    fixture_clear(&f);
    fixture_tick_all(&f, FIXTURE_ELECTION_TICKS);
    assert_int_equal(f.members[2].reads_done, 1);
    assert_true(f.members[2].last_read.failed);
    assert_int_equal(fixture_status(&f, 2).leader, 1); /* nothing else is wrong */
}

static void test_read_at_a_member_that_leads_no_more(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_step(&f, 2,
                 (struct raft_message){.type = RAFT_MSG_READ_INDEX, .from = 3, .context = 5});
    const struct raft_message *m = fixture_find(&f, RAFT_MSG_READ_INDEX_REPLY, 3);
    assert_true(m->reject);
    assert_int_equal(m->context, 5);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_errors),
        T(test_confirmed_by_a_quorum_only),
        T(test_answer_to_an_earlier_round_does_not_confirm),
        T(test_waits_for_a_commit_of_the_own_term),
        T(test_reads_share_a_round),
        T(test_rounds_are_bounded),
        T(test_lost_round),
        T(test_single_member),
        T(test_single_member_with_a_slow_disk),
        T(test_forwarded_read),
        T(test_answer_from_before_a_restart),
        T(test_reads_fail_when_leadership_is_lost),
        T(test_forwarded_reads_fail_when_the_leader_changes),
        T(test_forwarded_read_that_is_lost_fails),
        T(test_read_at_a_member_that_leads_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
