/* The paper's Figure 2, rule by rule. Each test quotes its rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

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

/* Member 1 starts again with this log and term, nothing committed. */
static void give_log(uint64_t id, uint64_t term, const uint64_t *terms, size_t n)
{
    fixture_crash(&f, id, 0);
    fixture_set_log(&f, id, term, terms, n);
    fixture_start(&f, id);
}

static struct raft_message append(uint64_t term, uint64_t prev, uint64_t prev_term)
{
    return (struct raft_message){
        .type = RAFT_MSG_APPEND, .from = 2, .term = term, .index = prev, .log_term = prev_term};
}

/* Sends member 1 an append with entries of these terms. */
static enum errc send_entries(struct raft_message m, const uint64_t *terms, size_t n)
{
    struct raft_entry *e[8];
    for (size_t i = 0; i < n; i++)
        e[i] = raft_entry_new(terms[i], m.index + 1 + i, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
    m.entries = e;
    m.entry_count = n;
    enum errc rc = fixture_step(&f, 1, m);
    for (size_t i = 0; i < n; i++)
        raft_entry_unref(e[i]);
    return rc;
}

static void assert_log(uint64_t id, const char *terms)
{
    char text[256];
    fixture_log_text(&f, id, text, sizeof text);
    assert_string_equal(text, terms);
}

/* --- State ------------------------------------------------------------------------------------ */

/* "Updated on stable storage before responding to RPCs". */
static void test_answers_wait_for_the_disk(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    send_entries(append(1, 0, 0), (uint64_t[]){1}, 1);
    assert_null(fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2));
    assert_int_equal(fixture_status(&f, 1).persisted, 0);
    fixture_sync(&f, 1);
    assert_int_equal(fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2)->index, 1);
    assert_int_equal(f.members[1].hard_state.term, 1);

    fixture_clear(&f);
    fixture_tick(&f, 1, 25); /* no leader any more: outside of its lease */
    fixture_clear(&f);
    fixture_step(&f, 1,
                 (struct raft_message){
                     .type = RAFT_MSG_VOTE, .from = 3, .term = 5, .index = 9, .log_term = 4});
    assert_null(fixture_find(&f, RAFT_MSG_VOTE_REPLY, 3));
    fixture_sync(&f, 1);
    assert_false(fixture_find(&f, RAFT_MSG_VOTE_REPLY, 3)->reject);
    assert_int_equal(f.members[1].hard_state.vote, 3);
}

/* The answer to a repeated append waits as well, though it has nothing to write itself. */
static void test_repeated_append_waits_for_the_first(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    send_entries(append(1, 0, 0), (uint64_t[]){1}, 1);
    send_entries(append(1, 0, 0), (uint64_t[]){1}, 1);
    assert_null(fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2));
    assert_int_equal(f.members[1].append_count, 1);
    fixture_sync(&f, 1);
    assert_int_equal(f.queue_count, 2);
}

static void test_term_and_vote_survive_a_crash(void **state)
{
    (void)state;
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_VOTE, .from = 3, .term = 5});
    fixture_crash(&f, 1, 0);
    fixture_start(&f, 1);
    assert_int_equal(fixture_status(&f, 1).term, 5);
    assert_int_equal(fixture_status(&f, 1).vote, 3);
    fixture_clear(&f);
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_VOTE, .from = 2, .term = 5});
    assert_true(fixture_find(&f, RAFT_MSG_VOTE_REPLY, 2)->reject);
}

/* --- AppendEntries RPC ------------------------------------------------------------------------ */

/* 1. "Reply false if term < currentTerm". */
static void test_append_of_an_old_term_is_refused(void **state)
{
    (void)state;
    give_log(1, 3, (uint64_t[]){1}, 1);
    send_entries(append(2, 1, 1), (uint64_t[]){2}, 1);
    const struct raft_message *reply = fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2);
    assert_true(reply->reject);
    assert_int_equal(reply->term, 3);
    assert_log(1, "1");
    assert_int_equal(fixture_status(&f, 1).leader, 0);
}

/* 2. "Reply false if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm". */
static void test_append_behind_a_gap_is_refused(void **state)
{
    (void)state;
    give_log(1, 2, (uint64_t[]){1, 1}, 2);
    send_entries(append(2, 3, 2), (uint64_t[]){2}, 1);
    const struct raft_message *reply = fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2);
    assert_true(reply->reject);
    assert_int_equal(reply->index, 3);
    assert_int_equal(reply->reject_hint, 2);
    fixture_clear(&f);
    send_entries(append(2, 2, 2), (uint64_t[]){2}, 1); /* another term there */
    assert_true(fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2)->reject);
    assert_log(1, "1 1");
}

/* 3. "If an existing entry conflicts with a new one (same index but different terms), delete the
 * existing entry and all that follow it". */
static void test_conflicting_entries_are_replaced(void **state)
{
    (void)state;
    give_log(1, 3, (uint64_t[]){1, 1, 2, 2}, 4);
    send_entries(append(3, 1, 1), (uint64_t[]){1, 3}, 2);
    assert_log(1, "1 1 3");
    assert_int_equal(fixture_find(&f, RAFT_MSG_APPEND_REPLY, 2)->index, 3);
    assert_int_equal(raft_log_last(&f.members[1].log), 3);
}

/* Only a conflict deletes: an append that was overtaken must not cut off what came after it. */
static void test_overtaken_append_deletes_nothing(void **state)
{
    (void)state;
    send_entries(append(1, 0, 0), (uint64_t[]){1, 1, 1}, 3);
    send_entries(append(1, 0, 0), (uint64_t[]){1}, 1);
    assert_log(1, "1 1 1");
}

/* 4. "Append any new entries not already in the log". */
static void test_known_entries_are_not_written_again(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    send_entries(append(1, 0, 0), (uint64_t[]){1, 1}, 2);
    fixture_sync(&f, 1);
    send_entries(append(1, 0, 0), (uint64_t[]){1, 1, 1}, 3);
    assert_int_equal(f.members[1].append_count, 1);
    assert_int_equal(f.members[1].appends[0].entry_count, 1);
    assert_int_equal(f.members[1].appends[0].entries[0]->index, 3);
}

/* 5. "If leaderCommit > commitIndex, set commitIndex = min(leaderCommit, index of last new entry)". */
static void test_commit_ends_at_the_last_new_entry(void **state)
{
    (void)state;
    give_log(1, 2, (uint64_t[]){1, 1, 1}, 3);
    struct raft_message m = append(2, 1, 1);
    m.commit = 9;
    send_entries(m, (uint64_t[]){1}, 1); /* the third may differ from the leader's */
    assert_int_equal(fixture_status(&f, 1).commit, 2);
    assert_int_equal(fixture_status(&f, 1).applied, 2);
}

/* --- RequestVote RPC -------------------------------------------------------------------------- */

static bool vote(uint64_t from, uint64_t term, uint64_t index, uint64_t log_term)
{
    fixture_clear(&f);
    fixture_step(&f, 1,
                 (struct raft_message){.type = RAFT_MSG_VOTE,
                                       .from = from,
                                       .term = term,
                                       .index = index,
                                       .log_term = log_term});
    const struct raft_message *reply = fixture_find(&f, RAFT_MSG_VOTE_REPLY, from);
    return reply != NULL && !reply->reject;
}

/* 1. "Reply false if term < currentTerm". */
static void test_vote_of_an_old_term_is_refused(void **state)
{
    (void)state;
    give_log(1, 4, (uint64_t[]){1}, 1);
    assert_false(vote(2, 3, 9, 2));
    assert_int_equal(fixture_find(&f, RAFT_MSG_VOTE_REPLY, 2)->term, 4);
}

/* 2. "If votedFor is null or candidateId, and candidate's log is at least as up-to-date as receiver's
 * log, grant vote". */
static void test_one_vote_a_term(void **state)
{
    (void)state;
    assert_true(vote(2, 1, 0, 0));
    assert_false(vote(3, 1, 0, 0));
    assert_true(vote(2, 1, 0, 0)); /* the same one again: its answer may have been lost */
    assert_true(vote(3, 2, 0, 0));
}

static void test_vote_only_for_an_up_to_date_log(void **state)
{
    (void)state;
    give_log(1, 3, (uint64_t[]){1, 2, 2}, 3);
    assert_false(vote(2, 4, 9, 1)); /* longer, but of an earlier term */
    assert_false(vote(2, 5, 2, 2)); /* shorter */
    assert_true(vote(2, 6, 3, 2));  /* equal */
    assert_true(vote(2, 7, 4, 2));
    assert_true(vote(2, 8, 1, 3)); /* shorter, but of a later term */
}

/* --- Rules for servers: all ------------------------------------------------------------------- */

/* "If commitIndex > lastApplied: increment lastApplied, apply log[lastApplied] to state machine". */
static void test_committed_entries_are_applied_in_order(void **state)
{
    (void)state;
    struct raft_message m = append(1, 0, 0);
    m.commit = 6;
    send_entries(m, (uint64_t[]){1, 1, 1, 1, 1, 1}, 6); /* more than committed_batch_max */
    assert_int_equal(fixture_status(&f, 1).applied, 6);
    assert_int_equal(f.members[1].applied, 6);
}

/* Not before they are on the own disk. */
static void test_nothing_is_applied_before_it_is_synced(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    struct raft_message m = append(1, 0, 0);
    m.commit = 2;
    send_entries(m, (uint64_t[]){1, 1}, 2);
    assert_int_equal(fixture_status(&f, 1).commit, 2);
    assert_int_equal(f.members[1].applied, 0);
    fixture_sync(&f, 1);
    assert_int_equal(f.members[1].applied, 2);
}

/* "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to
 * follower". */
static void test_higher_term_makes_a_follower(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_step(
        &f, 1,
        (struct raft_message){
            .type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 7, .index = 1, .reject = true});
    struct raft_status s = fixture_status(&f, 1);
    assert_int_equal(s.role, RAFT_FOLLOWER);
    assert_int_equal(s.term, 7);
    assert_int_equal(s.vote, 0);
    assert_int_equal(s.leader, 0);
}

/* --- Followers and candidates ----------------------------------------------------------------- */

/* "If election timeout elapses without receiving AppendEntries RPC from current leader or granting vote
 * to candidate: convert to candidate" (by way of the pre-vote). */
static void test_follower_campaigns_after_its_timeout(void **state)
{
    (void)state;
    fixture_tick(&f, 1, 10); /* timeout of member 1: 11 ticks */
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_HEARTBEAT, .from = 2, .term = 1});
    fixture_tick(&f, 1, 10);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    fixture_tick(&f, 1, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_PRECANDIDATE);
}

static void test_granted_vote_resets_the_timeout(void **state)
{
    (void)state;
    fixture_tick(&f, 1, 10);
    assert_true(vote(2, 1, 0, 0));
    fixture_tick(&f, 1, 10);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
}

/* "On conversion to candidate, start election: increment currentTerm, vote for self, reset election
 * timer, send RequestVote RPCs to all other servers". */
static void test_candidate(void **state)
{
    (void)state;
    give_log(1, 1, (uint64_t[]){1}, 1);
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_clear(&f);
    fixture_step(&f, 1,
                 (struct raft_message){.type = RAFT_MSG_PREVOTE_REPLY, .from = 2, .term = 2});
    struct raft_status s = fixture_status(&f, 1);
    assert_int_equal(s.role, RAFT_CANDIDATE);
    assert_int_equal(s.term, 2);
    assert_int_equal(s.vote, 1);
    for (uint64_t id = 2; id <= 3; id++) {
        const struct raft_message *m = fixture_find(&f, RAFT_MSG_VOTE, id);
        assert_int_equal(m->term, 2);
        assert_int_equal(m->index, 1);
        assert_int_equal(m->log_term, 1);
        assert_false(m->force);
    }
}

/* "If votes received from majority of servers: become leader". */
static void test_candidate_wins_with_a_majority(void **state)
{
    (void)state;
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_step(&f, 1,
                 (struct raft_message){.type = RAFT_MSG_PREVOTE_REPLY, .from = 2, .term = 1});
    struct raft_message no = {.type = RAFT_MSG_VOTE_REPLY, .from = 3, .term = 1, .reject = true};
    fixture_step(&f, 1, no);
    fixture_step(&f, 1, no); /* the same voter twice */
    assert_int_equal(fixture_status(&f, 1).role, RAFT_CANDIDATE);
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 1});
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
}

/* Its own vote counts like the others': once it is on disk. */
static void test_candidate_needs_its_own_vote_on_disk(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_CANDIDATE);
    fixture_sync(&f, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
}

/* "If AppendEntries RPC received from new leader: convert to follower". */
static void test_candidate_yields_to_the_leader(void **state)
{
    (void)state;
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_step(&f, 1,
                 (struct raft_message){.type = RAFT_MSG_PREVOTE_REPLY, .from = 2, .term = 1});
    send_entries(append(1, 0, 0), (uint64_t[]){1}, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    assert_int_equal(fixture_status(&f, 1).leader, 2);
}

/* "If election timeout elapses: start new election". */
static void test_candidate_tries_again(void **state)
{
    (void)state;
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_step(&f, 1,
                 (struct raft_message){.type = RAFT_MSG_PREVOTE_REPLY, .from = 2, .term = 1});
    fixture_clear(&f);
    fixture_tick(&f, 1, 11);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_PRECANDIDATE);
    assert_int_equal(fixture_find(&f, RAFT_MSG_PREVOTE, 2)->term, 2);
}

/* --- Leaders ---------------------------------------------------------------------------------- */

/* "Upon election: send initial empty AppendEntries RPCs (heartbeat) to each server; repeat during idle
 * periods to prevent election timeouts". Ours carries the no-op of section 8. */
static void test_leader_announces_itself(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    assert_int_equal(fixture_status(&f, 2).leader, 1);
    assert_log(2, "1");
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    assert_non_null(fixture_find(&f, RAFT_MSG_HEARTBEAT, 2));
    assert_non_null(fixture_find(&f, RAFT_MSG_HEARTBEAT, 3));
}

/* "If command received from client: append entry to local log, respond after entry applied to state
 * machine". */
static void test_leader_appends_and_applies(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    uint64_t index;
    assert_int_equal(raft_propose(fixture_raft(&f, 1), bytes_str("x"), 0, &index), ERR_OK);
    assert_int_equal(index, 2);
    fixture_ready(&f, 1);
    assert_int_equal(fixture_status(&f, 1).applied, 1);
    fixture_deliver(&f);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(fixture_status(&f, id).applied, 2);
}

/* "If last log index >= nextIndex for a follower: send AppendEntries RPC with log entries starting at
 * nextIndex. If successful: update nextIndex and matchIndex; if it fails because of log inconsistency:
 * decrement nextIndex and retry". */
static void test_leader_brings_a_follower_up_to_date(void **state)
{
    (void)state;
    fixture_isolate(&f, 3, true);
    fixture_elect(&f, 1);
    for (int i = 0; i < 5; i++)
        fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    fixture_isolate(&f, 3, false);
    fixture_tick_all(&f, 2 * FIXTURE_HEARTBEAT_TICKS);
    assert_log(3, "1 1 1 1 1 1");
    struct raft_status s = fixture_status(&f, 1);
    assert_int_equal(s.peers[2].match, 6);
    assert_int_equal(s.peers[2].next, 7);
}

/* "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and
 * log[N].term == currentTerm: set commitIndex = N": the last condition. Figure 8 has its own test. */
static void test_leader_counts_entries_of_its_own_term_only(void **state)
{
    (void)state;
    give_log(1, 1, (uint64_t[]){1, 1}, 2);
    give_log(2, 1, (uint64_t[]){1, 1}, 2);
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_step(&f, 1,
                 (struct raft_message){.type = RAFT_MSG_PREVOTE_REPLY, .from = 2, .term = 2});
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 2});
    fixture_step(
        &f, 1,
        (struct raft_message){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 2, .index = 2});
    assert_int_equal(fixture_status(&f, 1).commit, 0);
    fixture_step(
        &f, 1,
        (struct raft_message){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 2, .index = 3});
    assert_int_equal(fixture_status(&f, 1).commit, 3);
}

/* The leader's own log counts up to what is synced. */
static void test_leader_counts_itself_after_its_sync(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    f.members[1].manual_sync = true;
    fixture_isolate(&f, 3, true);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).commit, 1);
    fixture_sync(&f, 1);
    assert_int_equal(fixture_status(&f, 1).commit, 2);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_answers_wait_for_the_disk),
        T(test_repeated_append_waits_for_the_first),
        T(test_term_and_vote_survive_a_crash),
        T(test_append_of_an_old_term_is_refused),
        T(test_append_behind_a_gap_is_refused),
        T(test_conflicting_entries_are_replaced),
        T(test_overtaken_append_deletes_nothing),
        T(test_known_entries_are_not_written_again),
        T(test_commit_ends_at_the_last_new_entry),
        T(test_vote_of_an_old_term_is_refused),
        T(test_one_vote_a_term),
        T(test_vote_only_for_an_up_to_date_log),
        T(test_committed_entries_are_applied_in_order),
        T(test_nothing_is_applied_before_it_is_synced),
        T(test_higher_term_makes_a_follower),
        T(test_follower_campaigns_after_its_timeout),
        T(test_granted_vote_resets_the_timeout),
        T(test_candidate),
        T(test_candidate_wins_with_a_majority),
        T(test_candidate_needs_its_own_vote_on_disk),
        T(test_candidate_yields_to_the_leader),
        T(test_candidate_tries_again),
        T(test_leader_announces_itself),
        T(test_leader_appends_and_applies),
        T(test_leader_brings_a_follower_up_to_date),
        T(test_leader_counts_entries_of_its_own_term_only),
        T(test_leader_counts_itself_after_its_sync),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
