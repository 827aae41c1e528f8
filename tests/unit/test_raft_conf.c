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

/* A change has effect when it is applied, not before. */
static void test_change_takes_effect_when_applied(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_REMOVE, 3);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 3);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).conf.voter_count, 2);
    assert_int_equal(fixture_status(&f, 1).peer_count, 2);
}

/* The smaller quorum may be there already. */
static void test_removal_commits_what_waited_for_the_removed_one(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 2, 0, 0);
    fixture_elect(&f, 1);
    fixture_conf(&f, 1, RAFT_CONF_REMOVE, 2);
    fixture_propose(&f, 1, "x");
    while (fixture_status(&f, 1).conf.voter_count == 2) {
        const struct raft_message *m = &f.queue[0];
        if (m->type == RAFT_MSG_APPEND_REPLY && m->index == 3)
            fixture_drop_at(&f, 0);
        else
            fixture_deliver_at(&f, 0, false);
    }
    assert_int_equal(fixture_status(&f, 1).commit, 3);
}

/* A member must not campaign under a configuration that it knows to be outdated. */
static void test_no_campaign_with_a_committed_change_unapplied(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_deliver(&f);
    f.members[2].manual_sync = true; /* so member 2 can't apply */
    fixture_conf(&f, 1, RAFT_CONF_ADD_LEARNER, 4);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 2).commit, 2);
    assert_int_equal(fixture_status(&f, 2).applied, 1);
    assert_int_equal(raft_campaign(fixture_raft(&f, 2)), ERR_BUSY);
    fixture_sync(&f, 2);
    assert_int_equal(raft_campaign(fixture_raft(&f, 2)), ERR_OK);
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

/* The commit index may be lost in a restart. But a log with two changes proves that the first of them is
 * committed. */
static void test_second_change_in_the_log_proves_the_first(void **state)
{
    (void)state;
    fixture_crash(&f, 1, 0);
    fixture_set_log(&f, 1, 1, NULL, 0);
    append_conf(&f.members[1], 1, RAFT_CONF_ADD_LEARNER, 4);
    fixture_start(&f, 1);
    assert_int_equal(raft_campaign(fixture_raft(&f, 1)), ERR_OK); /* one may be undecided */
    fixture_crash(&f, 1, 0);
    append_conf(&f.members[1], 2, RAFT_CONF_ADD_LEARNER, 5);
    fixture_start(&f, 1);
    assert_int_equal(raft_campaign(fixture_raft(&f, 1)), ERR_BUSY);
    fixture_ready(&f, 1);
    assert_int_equal(fixture_status(&f, 1).applied, 1);
    assert_int_equal(raft_campaign(fixture_raft(&f, 1)), ERR_OK);
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

/* Found by random schedules: two members become one. Member 1 was removed and has applied it; member 2 has
 * the entry but doesn't know that it is committed, so it needs member 1's vote, which it doesn't get
 * since member 1's log is longer. Nor does member 1 campaign. Its answer tells what is committed. */
static void test_remaining_member_learns_that_it_is_alone(void **state)
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
    assert_int_equal(fixture_status(&f, 2).conf.voter_count, 2);
    fixture_tick_all(&f, 4 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_leader(&f), 2);
    assert_int_equal(fixture_status(&f, 2).conf.voter_count, 1);
}

/* ... and one becomes two: member 2 doesn't know that it was made a voter and has the longer log, so
 * member 1 needs its vote in vain. The request tells what is committed. */
static void test_promoted_member_learns_that_it_votes(void **state)
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
    assert_int_equal(fixture_status(&f, 2).conf.voter_count, 1);
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

/* The heir gets the commit of the change and TIMEOUT_NOW in one batch, before it has applied anything: it
 * must take over when it has, not by the election timeout. */
static void test_heir_takes_over_when_it_has_applied(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    assert_int_equal(fixture_conf(&f, 1, RAFT_CONF_REMOVE, 1), ERR_OK);
    size_t i = 0;
    while (fixture_find(&f, RAFT_MSG_TIMEOUT_NOW, 0) == NULL)
        fixture_deliver_at(&f, i, false);
    uint64_t heir = fixture_find(&f, RAFT_MSG_TIMEOUT_NOW, 0)->to;
    fixture_isolate(&f, 1, true); /* it has said all */
    while (i < f.queue_count) {
        if (f.queue[i].to == heir && f.queue[i].from == 1) {
            assert_int_equal(raft_step(fixture_raft(&f, heir), &f.queue[i]), ERR_OK);
            fixture_drop_at(&f, i);
        } else {
            i++;
        }
    }
    assert_int_equal(fixture_status(&f, heir).role, RAFT_FOLLOWER);
    fixture_ready(&f, heir);
    fixture_isolate(&f, 1, false);
    fixture_deliver(&f);
    assert_int_equal(fixture_leader(&f), heir);
    assert_int_equal(fixture_status(&f, heir).term, 2);
}

/* What the driver rejects changes nothing, but lets the next change come. */
static void test_rejected_change(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    struct raft_conf conf;
    raft_apply_conf(fixture_raft(&f, 1), NULL, &conf);
    assert_int_equal(conf.voter_count, 3);
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
        T(test_change_takes_effect_when_applied),
        T(test_removal_commits_what_waited_for_the_removed_one),
        T(test_no_campaign_with_a_committed_change_unapplied),
        T(test_second_change_in_the_log_proves_the_first),
        T(test_new_leader_waits_for_changes_in_its_log),
        T(test_remaining_member_learns_that_it_is_alone),
        T(test_promoted_member_learns_that_it_votes),
        T(test_learner_neither_counts_nor_campaigns),
        T(test_heir_takes_over_when_it_has_applied),
        T(test_rejected_change),
        T(test_unknown_members),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
