/* Membership: configurations as values, quorums, and changes of a running cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/raft/conf.h"
#include "tests/unit/raft_fixture.h"

static struct fixture f;

static int teardown(void **state)
{
    (void)state;
    fixture_free(&f);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, 3, 0, 0);
    return 0;
}

static void test_valid(void **state)
{
    (void)state;
    assert_true(raft_conf_valid(&(struct raft_conf){0}));
    assert_true(raft_conf_valid(&(struct raft_conf){.voters = {1, 5}, .voter_count = 2}));
    assert_false(raft_conf_valid(&(struct raft_conf){.voters = {5, 1}, .voter_count = 2}));
    assert_false(raft_conf_valid(&(struct raft_conf){.voters = {1, 1}, .voter_count = 2}));
    assert_false(raft_conf_valid(&(struct raft_conf){.voters = {0}, .voter_count = 1}));
    assert_false(raft_conf_valid(&(struct raft_conf){.voter_count = RAFT_MEMBERS_MAX + 1}));
    assert_false(raft_conf_valid(
        &(struct raft_conf){.voters = {1}, .voter_count = 1, .learners = {1}, .learner_count = 1}));
}

static void test_changes(void **state)
{
    (void)state;
    struct raft_conf c = {.voters = {2}, .voter_count = 1};
    assert_true(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_ADD_LEARNER, 1}));
    assert_true(raft_conf_is_learner(&c, 1));
    assert_true(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_ADD_VOTER, 1}));
    assert_false(raft_conf_is_learner(&c, 1));
    assert_int_equal(c.voter_count, 2);
    assert_int_equal(c.voters[0], 1);
    assert_false(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_ADD_LEARNER, 1}));
    assert_true(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_UPDATE, 9}));
    assert_true(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_REMOVE, 2}));
    assert_true(raft_conf_is_only_voter(&c, 1));
    assert_false(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_REMOVE, 1}));
    assert_true(raft_conf_valid(&c));
    for (uint64_t id = 2; id <= RAFT_MEMBERS_MAX; id++)
        assert_true(
            raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_ADD_VOTER, id}));
    assert_false(raft_conf_change_apply(&c, &(struct raft_conf_change){RAFT_CONF_ADD_VOTER, 99}));
    assert_true(raft_conf_valid(&c));
}

static void test_quorums(void **state)
{
    (void)state;
    static const struct {
        uint64_t values[5];
        size_t n;
        uint64_t expected;
    } cases[] = {
        {{7}, 1, 7},          {{7, 3}, 2, 3},          {{7, 3, 5}, 3, 5},
        {{9, 1, 1, 9}, 4, 1}, {{9, 9, 9, 1}, 4, 9},    {{1, 9, 2, 8, 3}, 5, 3},
        {{0, 0, 5}, 3, 0},    {{4, 4, 4, 4, 9}, 5, 4}, {{0}, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t v[5];
        memcpy(v, cases[i].values, sizeof v);
        assert_int_equal(raft_conf_quorum_value(v, cases[i].n), cases[i].expected);
    }
    for (size_t n = 1; n <= RAFT_MEMBERS_MAX; n++) {
        size_t quorum = raft_conf_quorum(&(struct raft_conf){.voter_count = n});
        assert_true(2 * quorum > n && 2 * (quorum - 1) <= n); /* a majority, no more */
    }
}

static void test_only_the_leader_proposes_changes(void **state)
{
    (void)state;
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 4), ERR_NOT_LEADER);
    fixture_elect(&f, 1);
    assert_int_equal(fixture_conf(&f, 2, RAFT_CONF_ADD_VOTER, 4), ERR_NOT_LEADER);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 0), ERR_INVALID);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_LEARNER, 2), ERR_INVALID);
}

/* Ongaro's correction of 2015: a change waits for a committed entry of the leader's own term. */
static void test_no_change_before_an_entry_of_the_own_term_is_committed(void **state)
{
    (void)state;
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    while (fixture_status(&f, 1).role != RAFT_LEADER)
        fixture_deliver_at(&f, 0, false);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 4), ERR_BUSY);
    fixture_deliver(&f);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 4), ERR_OK);
}

/* "Adding or removing a single server at a time": a change that isn't applied blocks the next, also for
 * a new leader that only finds it in its log. */
static void test_one_change_at_a_time(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_isolate(&f, 3, true);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_LEARNER, 4), ERR_OK);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_LEARNER, 5), ERR_BUSY);
    /* The entry gets to member 2, but not its commit. */
    fixture_deliver_at(&f, 0, false);
    fixture_clear(&f);
    fixture_crash(&f, 1, 0);
    fixture_isolate(&f, 3, false);
    fixture_tick(&f, 2, 12);
    fixture_tick(&f, 3, 10);
    while (fixture_status(&f, 2).role != RAFT_LEADER)
        fixture_deliver_at(&f, 0, false);
    assert_int_equal(fixture_conf(&f, 2, RAFT_CONF_REMOVE, 1), ERR_BUSY);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 2).conf.learner_count, 1);
    assert_int_equal(fixture_conf(&f, 2, RAFT_CONF_REMOVE, 1), ERR_OK);
}

/* "the new configuration takes effect on each server as soon as it is added to that server's log". */
static void test_change_counts_when_it_is_in_the_log(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_REMOVE, 3);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 2);
    assert_int_equal(fixture_status(&f, 1).peer_count, 3); /* it is told of its removal */
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).peer_count, 2);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(fixture_status(&f, id).conf.voter_count, 2);
    assert_int_equal(f.members[3].conf.voter_count, 2); /* it has applied it */
}

/* ... and no longer than it is there. */
static void test_replaced_change_counts_no_more(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_isolate(&f, 1, true);
    fixture_conf(&f, 1, RAFT_CONF_REMOVE, 3);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 2);
    fixture_tick_all(&f, 6 * FIXTURE_ELECTION_TICKS);
    fixture_isolate(&f, 1, false);
    fixture_tick_all(&f, 2 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_status(&f, 1).leader, 1);
    assert_int_not_equal(fixture_status(&f, 1).leader, 0);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 3);
}

/* The smaller quorum may be there already. */
static void test_removal_commits_what_waited_for_the_removed_one(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 2, 0, 0);
    fixture_elect(&f, 1);
    fixture_isolate(&f, 2, true);
    fixture_propose(&f, 1, "x");
    fixture_ready(&f, 1);
    assert_int_equal(fixture_status(&f, 1).commit, 1);
    fixture_conf(&f, 1, RAFT_CONF_REMOVE, 2);
    fixture_ready(&f, 1);
    assert_int_equal(fixture_status(&f, 1).commit, 3);
}

static void append_conf(struct fixture_member *m, uint64_t index, enum raft_conf_change_type type,
                        uint64_t id)
{
    uint8_t data[RAFT_CONF_CHANGE_BYTES];
    raft_conf_change_encode(&(struct raft_conf_change){type, id}, data);
    struct raft_entry *e =
        raft_entry_new(1, index, RAFT_ENTRY_CONF, 0, bytes_of(data, sizeof data));
    raft_log_append(&m->log, e);
    raft_entry_unref(e);
}

/* Seeds 2840 and others: only the leader knew that the change was committed, and is lost for good. */
static void test_second_and_third_go_on_without_the_first(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 2, 1, 0);
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 3);
    while (fixture_status(&f, 1).applied < 2)
        fixture_deliver_at(&f, 0, false);
    fixture_crash(&f, 1, 0);
    fixture_clear(&f);
    assert_int_equal(f.members[2].conf.voter_count, 2);
    fixture_tick_all(&f, 6 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_leader(&f), 0);
}

static void test_two_of_four_go_on_when_one_was_removed(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 4, 0, 0);
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_REMOVE, 4);
    while (fixture_status(&f, 1).applied < 2)
        fixture_deliver_at(&f, 0, false);
    fixture_crash(&f, 1, 0);
    fixture_crash(&f, 4, 0); /* switched off, since it was removed */
    fixture_clear(&f);
    fixture_tick_all(&f, 6 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_leader(&f), 0);
}

/* Seed 3640: the commit index is lost in a restart. */
static void test_restarted_member_counts_by_its_log(void **state)
{
    (void)state;
    for (uint64_t id = 2; id <= 3; id++) {
        fixture_crash(&f, id, 0);
        fixture_set_log(&f, id, 1, (uint64_t[]){1}, 1);
        append_conf(&f.members[id], 2, RAFT_CONF_ADD_VOTER, 4);
        append_conf(&f.members[id], 3, RAFT_CONF_REMOVE, 1);
        append_conf(&f.members[id], 4, RAFT_CONF_REMOVE, 4);
    }
    fixture_crash(&f, 1, 0);
    fixture_start(&f, 2);
    fixture_start(&f, 3);
    assert_int_equal(fixture_status(&f, 2).conf.voter_count, 2);
    fixture_tick_all(&f, 4 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_leader(&f), 0);
}

/* The second voter hasn't started: the change is committed by the one that there was. */
static void test_one_takes_in_a_second_that_is_not_there_yet(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 1, 0, 0);
    fixture_elect(&f, 1);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 2), ERR_OK);
    fixture_ready(&f, 1);
    assert_int_equal(f.members[1].conf.voter_count, 2);
    fixture_propose(&f, 1, "waits for the second");
    fixture_ready(&f, 1);
    assert_int_equal(fixture_status(&f, 1).commit, 2);
}

/* "in the extreme case" of two, of whom the leader removes itself: only its log has the change, so it must
 * lead again, though it doesn't vote (thesis 4.2.2, Figure 4.6). */
static void test_removed_one_leads_until_that_is_committed(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 2, 0, 0);
    fixture_elect(&f, 1);
    fixture_isolate(&f, 2, true);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_REMOVE, 1), ERR_OK);
    fixture_ready(&f, 1);
    fixture_crash(&f, 1, 0);
    fixture_start(&f, 1);
    assert_int_equal(fixture_status(&f, 1).commit, 1);
    fixture_isolate(&f, 2, false);
    fixture_tick(&f, 1, 3 * FIXTURE_ELECTION_TICKS);
    fixture_deliver(&f);
    assert_int_equal(f.members[1].conf.voter_count, 1); /* it has applied it, and left */
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    assert_int_equal(fixture_leader(&f), 2);
    assert_int_equal(raft_campaign(fixture_raft(&f, 1)), ERR_INVALID);
}

/* Who joins from nothing can't make sense of changes until it has a membership that they change. */
static void test_changes_count_for_a_joining_member_once_it_has_the_first(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 4);
    fixture_deliver(&f);
    fixture_start(&f, 4);
    struct raft_message m = {.type = RAFT_MSG_APPEND, .from = 1, .term = 1, .entry_count = 2};
    struct raft_entry *entries[2] = {
        raft_log_at(&f.members[1].log, 1),
        raft_log_at(&f.members[1].log, 2),
    };
    m.entries = entries;
    assert_int_equal(fixture_step(&f, 4, m), ERR_OK);
    assert_int_equal(fixture_status(&f, 4).last_index, 2);
    assert_int_equal(fixture_status(&f, 4).conf.voter_count, 0);
    assert_int_equal(raft_campaign(fixture_raft(&f, 4)), ERR_INVALID);
}

/* A new leader can't know whether a change in its log is decided: it waits until it has applied it, even
 * if all is committed by then. */
static void test_new_leader_waits_for_changes_in_its_log(void **state)
{
    (void)state;
    for (uint64_t id = 1; id <= 3; id++) {
        fixture_crash(&f, id, 0);
        fixture_set_log(&f, id, 1, NULL, 0);
        append_conf(&f.members[id], 1, RAFT_CONF_ADD_LEARNER, 4);
        fixture_start(&f, id);
    }
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    while (fixture_find(&f, RAFT_MSG_APPEND_REPLY, 1) == NULL)
        fixture_deliver_at(&f, 0, false);
    struct raft_message m = *fixture_find(&f, RAFT_MSG_APPEND_REPLY, 1);
    struct raft_conf_change c = {RAFT_CONF_ADD_LEARNER, 5};
    struct raft *r = fixture_raft(&f, 1);
    assert_int_equal(raft_step(r, &m), ERR_OK);
    assert_int_equal(fixture_status(&f, 1).commit, 2);
    assert_int_equal(raft_propose_conf(r, &c, BYTES_EMPTY), ERR_BUSY);
    fixture_ready(&f, 1);
    assert_int_equal(raft_propose_conf(r, &c, BYTES_EMPTY), ERR_OK);
}

/* Found by random schedules, when a membership counted from its application on: two members become one.
 * Member 1 was removed and has applied it; member 2 has the entry but doesn't know that it is committed. It
 * doesn't get member 1's vote, whose log is longer, nor does member 1 campaign. */
static void test_remaining_member_needs_nobody(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 2, 0, 0);
    for (uint64_t id = 1; id <= 2; id++) {
        fixture_crash(&f, id, 0);
        fixture_set_log(&f, id, 2, (uint64_t[]){1}, 1);
        append_conf(&f.members[id], 2, RAFT_CONF_REMOVE, 1);
    }
    /* An entry of a term that member 2 led, which it lost itself in a crash. */
    struct raft_entry *e = raft_entry_new(2, 3, RAFT_ENTRY_NOOP, 0, BYTES_EMPTY);
    raft_log_append(&f.members[1].log, e);
    raft_entry_unref(e);
    f.members[1].hard_state.commit = 2;
    fixture_start(&f, 1);
    fixture_start(&f, 2);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 1);
    assert_int_equal(fixture_status(&f, 2).conf.voter_count, 1);
    fixture_tick_all(&f, 4 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_leader(&f), 2);
    assert_int_equal(fixture_status(&f, 2).conf.voter_count, 1);
}

/* ... and one becomes two: member 2 doesn't know that its promotion is committed and has the longer log, so
 * member 1 needs its vote in vain. */
static void test_promoted_member_campaigns(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 1, 1, 0);
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_ADD_VOTER, 2);
    fixture_ready(&f, 1);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 2);
    /* Member 2 gets two entries, one of which member 1 loses, and no commit. */
    f.members[1].manual_sync = true;
    fixture_propose(&f, 1, "lost");
    while (f.queue_count > 0) {
        struct raft_message *m = &f.queue[0];
        if (m->type == RAFT_MSG_APPEND && m->commit > 1)
            m->commit = 1;
        if (m->type == RAFT_MSG_APPEND_REPLY && m->index > 2)
            fixture_drop_at(&f, 0);
        else
            fixture_deliver_at(&f, 0, false);
    }
    assert_int_equal(fixture_status(&f, 2).last_index, 3);
    assert_int_equal(f.members[2].conf.voter_count, 1);
    fixture_crash(&f, 1, 0);
    f.members[1].manual_sync = false;
    fixture_tick(&f, 2, 3 * FIXTURE_ELECTION_TICKS);
    fixture_start(&f, 1);
    fixture_tick_all(&f, 6 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_leader(&f), 2);
    assert_int_equal(fixture_status(&f, 1).applied, fixture_status(&f, 2).applied);
}

static void test_learner_neither_counts_nor_campaigns(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 2, 1, 0);
    assert_int_equal(raft_campaign(fixture_raft(&f, 3)), ERR_INVALID);
    fixture_tick(&f, 3, 100);
    assert_int_equal(fixture_status(&f, 3).role, RAFT_FOLLOWER);
    fixture_elect(&f, 1);
    assert_int_equal(fixture_status(&f, 3).applied, 1);
    fixture_isolate(&f, 2, true);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).commit, 1); /* the learner has it; that isn't enough */
    assert_int_equal(raft_transfer_leader(fixture_raft(&f, 1), 3), ERR_BAD_LEADER_TRANSFEREE);
}

/* A leader that removes itself hands over when that is applied: nobody waits for an election timeout. */
static void test_heir_takes_over_at_once(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_REMOVE, 1), ERR_OK);
    fixture_deliver(&f);
    assert_int_not_equal(fixture_leader(&f), 1);
    assert_int_equal(fixture_status(&f, 2).term, 2);
    assert_int_equal(fixture_status(&f, 2).leader, fixture_leader(&f));
}

/* Messages of a member that isn't in the configuration: harmless. */
static void test_unknown_members(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    struct raft_message m = {.type = RAFT_MSG_APPEND_REPLY, .from = 7, .term = 1, .index = 1};
    assert_int_equal(fixture_step(&f, 1, m), ERR_OK);
    m.type = RAFT_MSG_HEARTBEAT_REPLY;
    assert_int_equal(fixture_step(&f, 1, m), ERR_OK);
    m.type = RAFT_MSG_TRANSFER_LEADER;
    assert_int_equal(fixture_step(&f, 1, m), ERR_OK);
    assert_int_equal(fixture_status(&f, 1).transferee, 0);
    /* Not even with a higher term: the leader is alive. */
    m = (struct raft_message){
        .type = RAFT_MSG_VOTE, .from = 7, .term = 9, .index = 9, .log_term = 8};
    assert_int_equal(fixture_step(&f, 1, m), ERR_OK);
    assert_int_equal(fixture_step(&f, 2, m), ERR_OK);
    assert_int_equal(fixture_status(&f, 1).term, 1);
    assert_int_equal(fixture_status(&f, 2).term, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_changes),
        cmocka_unit_test(test_quorums),
        T(test_only_the_leader_proposes_changes),
        T(test_no_change_before_an_entry_of_the_own_term_is_committed),
        T(test_one_change_at_a_time),
        T(test_change_counts_when_it_is_in_the_log),
        T(test_replaced_change_counts_no_more),
        T(test_removal_commits_what_waited_for_the_removed_one),
        T(test_second_and_third_go_on_without_the_first),
        T(test_two_of_four_go_on_when_one_was_removed),
        T(test_restarted_member_counts_by_its_log),
        T(test_one_takes_in_a_second_that_is_not_there_yet),
        T(test_removed_one_leads_until_that_is_committed),
        T(test_changes_count_for_a_joining_member_once_it_has_the_first),
        T(test_new_leader_waits_for_changes_in_its_log),
        T(test_remaining_member_needs_nobody),
        T(test_promoted_member_campaigns),
        T(test_learner_neither_counts_nor_campaigns),
        T(test_heir_takes_over_at_once),
        T(test_unknown_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
