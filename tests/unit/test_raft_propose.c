/* Proposals that a follower forwards and nobody takes: the proposer is told, and it is true. */
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
    for (uint64_t id = 1; id <= 3; id++)
        fixture_crash(&f, id, 0);
    f.config.uncommitted_bytes_max = 10;
    f.check_refused = true;
    for (uint64_t id = 1; id <= 3; id++)
        fixture_start(&f, id);
    fixture_elect(&f, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_free(&f);
    return 0;
}

/* The last proposal was refused, on `id`, for this reason. */
static void assert_last_refused(uint64_t id, enum raft_refusal_reason reason)
{
    assert_int_equal(f.members[id].refusal_count, 1);
    assert_int_equal(f.members[id].last_refusal.context, f.proposal_count);
    assert_int_equal(f.members[id].last_refusal.reason, reason);
}

static void too_many_are_refused(void **state)
{
    (void)state;
    fixture_propose(&f, 1, "ten bytes.");
    fixture_clear(&f); /* nobody has it: it isn't committed */
    assert_int_equal(fixture_propose(&f, 2, "one more"), ERR_OK);
    fixture_deliver(&f);
    assert_last_refused(2, RAFT_REFUSED_TOO_MANY);
    assert_int_equal(f.members[1].refusal_count + f.members[3].refusal_count, 0);
    assert_int_equal(fixture_status(&f, 1).last_index, 2);
    fixture_tick_all(&f, FIXTURE_ELECTION_TICKS); /* the lost append is repeated */
    fixture_propose(&f, 2, "taken");
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).commit, 3);
    assert_int_equal(f.members[2].refusal_count, 1);
}

static void a_leader_that_hands_over_refuses(void **state)
{
    (void)state;
    fixture_isolate(&f, 3, true);
    raft_transfer_leader(fixture_raft(&f, 1), 3);
    fixture_ready(&f, 1);
    fixture_propose(&f, 2, "x");
    fixture_deliver(&f);
    assert_last_refused(2, RAFT_REFUSED_TRANSFER);
}

static void a_deposed_leader_refuses_or_passes_on(void **state)
{
    (void)state;
    fixture_cut(&f, 2, 3, true); /* 2 doesn't hear of the new leader */
    raft_transfer_leader(fixture_raft(&f, 1), 3);
    fixture_ready(&f, 1);
    fixture_deliver(&f);
    assert_int_equal(fixture_leader(&f), 3);
    fixture_propose(&f, 3, "ten bytes.");
    fixture_clear(&f);
    fixture_propose(&f, 2, "too much"); /* by 1 to 3, whose answer goes to 2 itself */
    fixture_cut(&f, 2, 3, false);
    fixture_deliver(&f);
    assert_last_refused(2, RAFT_REFUSED_TOO_MANY);
}

/* A proposal of `from` arrives at `to`. */
static void arrives(uint64_t from, uint64_t to, uint64_t origin)
{
    struct raft_entry *e = raft_entry_new(0, 0, RAFT_ENTRY_COMMAND, 0, bytes_str("x"));
    uint64_t context = fixture_record_proposal(&f, "x");
    fixture_step(&f, to,
                 (struct raft_message){.type = RAFT_MSG_PROPOSE,
                                       .from = from,
                                       .origin = origin,
                                       .context = context,
                                       .entries = &e,
                                       .entry_count = 1});
    raft_entry_unref(e);
}

static void assert_no_leader(uint64_t proposer)
{
    assert_null(fixture_find(&f, RAFT_MSG_PROPOSE, 0));
    const struct raft_message *m = fixture_find(&f, RAFT_MSG_PROPOSE_REFUSED, proposer);
    assert_non_null(m);
    assert_int_equal(m->context, f.proposal_count);
    assert_int_equal(m->reason, RAFT_REFUSED_NO_LEADER);
    fixture_deliver(&f);
    assert_last_refused(proposer, RAFT_REFUSED_NO_LEADER);
}

static void who_knows_no_leader_refuses(void **state)
{
    (void)state;
    raft_report_peer_gone(fixture_raft(&f, 2), 1);
    fixture_ready(&f, 2);
    fixture_clear(&f);
    arrives(3, 2, 0);
    assert_no_leader(3);
}

/* Two members that believe in each other, and a third one that believes in one of them. */
static void a_proposal_does_not_go_round(void **state)
{
    (void)state;
    arrives(1, 2, 0);
    assert_no_leader(1);
    arrives(2, 3, 1);
    assert_null(fixture_find(&f, RAFT_MSG_PROPOSE, 0));
    assert_non_null(fixture_find(&f, RAFT_MSG_PROPOSE_REFUSED, 1));
}

/* The answer says something of one message: the term and leader of those who send and get it don't matter. */
static void a_late_refusal_counts_too(void **state)
{
    (void)state;
    fixture_isolate(&f, 3, true);
    raft_transfer_leader(fixture_raft(&f, 1), 3);
    fixture_ready(&f, 1);
    fixture_propose(&f, 2, "x");
    while (f.queue[0].type != RAFT_MSG_PROPOSE_REFUSED)
        fixture_deliver_at(&f, 0, false);
    struct raft_message late = f.queue[0];
    fixture_clear(&f);
    fixture_isolate(&f, 3, false);
    fixture_tick_all(&f, FIXTURE_ELECTION_TICKS);
    raft_transfer_leader(fixture_raft(&f, 1), 2);
    fixture_ready(&f, 1);
    fixture_deliver(&f);
    assert_int_equal(fixture_leader(&f), 2);
    assert_int_equal(fixture_step(&f, 2, late), ERR_OK);
    assert_last_refused(2, RAFT_REFUSED_TRANSFER);
    assert_int_equal(fixture_leader(&f), 2);
}

static void who_gives_no_name_gets_no_answer(void **state)
{
    (void)state;
    uint64_t index;
    fixture_propose(&f, 1, "ten bytes.");
    fixture_clear(&f);
    raft_propose(fixture_raft(&f, 2), bytes_str("unnamed"), 0, &index);
    fixture_ready(&f, 2);
    fixture_deliver_at(&f, 0, false);
    assert_null(fixture_find(&f, RAFT_MSG_PROPOSE_REFUSED, 0));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(too_many_are_refused),
        T(a_leader_that_hands_over_refuses),
        T(a_deposed_leader_refuses_or_passes_on),
        T(who_knows_no_leader_refuses),
        T(a_proposal_does_not_go_round),
        T(a_late_refusal_counts_too),
        T(who_gives_no_name_gets_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
