/* Pre-vote, the leader's lease and check-quorum: who may disturb whom, and that nobody is stuck. */
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

static struct raft_message prevote(uint64_t from, uint64_t term, uint64_t index, uint64_t log_term)
{
    return (struct raft_message){
        .type = RAFT_MSG_PREVOTE, .from = from, .term = term, .index = index, .log_term = log_term};
}

static void give_log(uint64_t id, uint64_t term, const uint64_t *terms, size_t n)
{
    fixture_crash(&f, id, 0);
    fixture_set_log(&f, id, term, terms, n);
    fixture_start(&f, id);
}

static void test_asking_changes_nothing(void **state)
{
    (void)state;
    fixture_step(&f, 1, prevote(2, 5, 0, 0));
    const struct raft_message *reply = fixture_find(&f, RAFT_MSG_PREVOTE_REPLY, 2);
    assert_false(reply->reject);
    assert_int_equal(reply->term, 5); /* the term that was asked for */
    struct raft_status s = fixture_status(&f, 1);
    assert_int_equal(s.term, 0);
    assert_int_equal(s.vote, 0);
    fixture_clear(&f);
    fixture_step(&f, 1, prevote(3, 5, 0, 0)); /* any number of them */
    assert_false(fixture_find(&f, RAFT_MSG_PREVOTE_REPLY, 3)->reject);
}

static void test_granted_for_up_to_date_logs_only(void **state)
{
    (void)state;
    give_log(1, 2, (uint64_t[]){1, 2}, 2);
    fixture_step(&f, 1, prevote(2, 3, 9, 1));
    assert_true(fixture_find(&f, RAFT_MSG_PREVOTE_REPLY, 2)->reject);
    fixture_step(&f, 1, prevote(3, 3, 2, 2));
    assert_false(fixture_find(&f, RAFT_MSG_PREVOTE_REPLY, 3)->reject);
}

static void test_refused_within_the_lease(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_step(&f, 2, prevote(3, 2, 9, 1));
    assert_true(fixture_find(&f, RAFT_MSG_PREVOTE_REPLY, 3)->reject);
    fixture_clear(&f);
    fixture_tick(&f, 2, FIXTURE_ELECTION_TICKS); /* outside of it */
    fixture_step(&f, 2, prevote(3, 2, 9, 1));
    assert_false(fixture_find(&f, RAFT_MSG_PREVOTE_REPLY, 3)->reject);
}

/* A leader that was restarted asks: its lease doesn't count against itself. */
static void test_restarted_leader_is_not_refused(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_crash(&f, 1, 0);
    fixture_start(&f, 1);
    fixture_elect(&f, 1);
    assert_int_equal(fixture_status(&f, 1).term, 2);
}

/* A vote request within the lease isn't even answered and changes no term; by leader transfer it is. */
static void test_vote_request_within_the_lease(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    struct raft_message m = {
        .type = RAFT_MSG_VOTE, .from = 3, .term = 4, .index = 9, .log_term = 3};
    fixture_step(&f, 2, m);
    assert_int_equal(f.queue_count, 0);
    assert_int_equal(fixture_status(&f, 2).term, 1);
    m.force = true;
    fixture_step(&f, 2, m);
    assert_false(fixture_find(&f, RAFT_MSG_VOTE_REPLY, 3)->reject);
    assert_int_equal(fixture_status(&f, 2).term, 4);
}

/* etcd #8243: the one with the best log has a lower term than the others, who refuse it. Their answer
 * must bring it up, else nobody is ever elected. */
static void test_lower_term_but_best_log_wins(void **state)
{
    (void)state;
    give_log(1, 2, (uint64_t[]){1, 2}, 2);
    give_log(2, 6, (uint64_t[]){1}, 1);
    give_log(3, 6, (uint64_t[]){1}, 1);
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    assert_int_equal(fixture_status(&f, 1).term, 6);
    fixture_elect(&f, 1);
    assert_int_equal(fixture_status(&f, 1).term, 7);
}

/* etcd #8501: a member with a higher term ignores its leader, and is ignored when it asks. */
static void test_higher_term_makes_the_leader_step_down(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    give_log(3, 8, (uint64_t[]){1}, 1);
    for (int i = 0; i < 60 && fixture_status(&f, 3).leader == 0; i++)
        fixture_tick_all(&f, 1);
    assert_int_not_equal(fixture_leader(&f), 0);
    assert_int_equal(fixture_status(&f, 3).leader, fixture_leader(&f));
    assert_true(fixture_status(&f, 3).term > 8);
}

/* A grant for an earlier term counts for nothing. */
static void test_old_grants_do_not_count(void **state)
{
    (void)state;
    give_log(1, 3, (uint64_t[]){1}, 1);
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    struct raft_message grant = {.type = RAFT_MSG_PREVOTE_REPLY, .from = 2, .term = 3};
    fixture_step(&f, 1, grant);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_PRECANDIDATE);
    grant.term = 4;
    fixture_step(&f, 1, grant);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_CANDIDATE);
}

/* Somebody is ahead already: a precandidate that votes for it gives up its own attempt. */
static void test_precandidate_that_votes_gives_up(void **state)
{
    (void)state;
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_VOTE_REPLY, .from = 2, .term = 3});
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    fixture_step(&f, 1, (struct raft_message){.type = RAFT_MSG_VOTE, .from = 3, .term = 3});
    assert_int_equal(fixture_status(&f, 1).vote, 3);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
}

static void test_timeout_now_is_the_leaders_word(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    struct raft_message m = {.type = RAFT_MSG_TIMEOUT_NOW, .from = 2, .term = 1};
    fixture_step(&f, 3, m); /* not the leader's */
    assert_int_equal(fixture_status(&f, 3).term, 1);
    fixture_step(&f, 1, m);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    m.from = 1;
    fixture_step(&f, 3, m);
    assert_int_equal(fixture_status(&f, 3).role, RAFT_CANDIDATE);
}

static void test_check_quorum(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_tick_all(&f, 5 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    fixture_isolate(&f, 3, true); /* one of three may be away */
    fixture_tick_all(&f, 5 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    fixture_isolate(&f, 1, true);
    fixture_tick(&f, 1, 2 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    assert_int_equal(fixture_status(&f, 1).term, 1); /* nobody else's term */
}

/* A leader whose disk hangs answers its heartbeats but commits nothing for its clients. */
static void test_leader_with_a_hung_disk_steps_down(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    f.members[1].manual_sync = true;
    fixture_propose(&f, 1, "x");
    for (int i = 0; i < 6 * FIXTURE_ELECTION_TICKS && fixture_leader(&f) == 1; i++)
        fixture_tick_all(&f, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_FOLLOWER);
    fixture_tick_all(&f, 3 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_leader(&f), 0);
    assert_int_not_equal(fixture_leader(&f), 1);
}

static void test_leader_with_a_slow_disk_stays(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    f.members[1].manual_sync = true;
    for (int i = 0; i < 30; i++) {
        fixture_propose(&f, 1, "x");
        fixture_tick_all(&f, FIXTURE_ELECTION_TICKS);
        fixture_sync_one(&f, 1);
    }
    assert_int_equal(fixture_leader(&f), 1);
    for (int i = 0; i < 30 && fixture_leader(&f) == 1; i++) {
        fixture_propose(&f, 1, "x");
        fixture_propose(&f, 1, "y");
        fixture_tick_all(&f, FIXTURE_ELECTION_TICKS);
        fixture_sync_one(&f, 1); /* moves, but falls behind */
    }
    assert_int_not_equal(fixture_leader(&f), 1);
    assert_int_not_equal(fixture_leader(&f), 0);
}

/* A disk that hangs makes no leader, and keeps none that has it: not by its own campaign, not as an heir. */
static void test_a_hung_disk_does_not_campaign(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    f.members[2].manual_sync = true;
    fixture_propose(&f, 1, "x");
    fixture_tick_all(&f, FIXTURE_ELECTION_TICKS + 2);
    assert_int_equal(raft_campaign(fixture_raft(&f, 2)), ERR_BUSY);
    fixture_step(&f, 2, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .from = 1, .term = 1});
    assert_int_equal(fixture_status(&f, 2).role, RAFT_FOLLOWER);
    fixture_sync(&f, 2);
    assert_int_equal(raft_campaign(fixture_raft(&f, 2)), ERR_OK);
}

/* --- a leader that is known to be gone -------------------------------------------------------- */

static void test_peer_gone_starts_an_election_at_once(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_crash(&f, 1, 0);
    raft_report_peer_gone(fixture_raft(&f, 2), 1);
    fixture_ready(&f, 2);
    assert_int_equal(fixture_status(&f, 2).role, RAFT_PRECANDIDATE);
    assert_int_equal(fixture_status(&f, 2).leader, 0);
    raft_report_peer_gone(fixture_raft(&f, 3), 1);
    fixture_ready(&f, 3);
    fixture_deliver(&f);
    assert_int_not_equal(fixture_leader(&f), 0); /* not a tick later */
}

/* Only one of five notices, the others are in the lease: it goes on asking with short pauses, and as soon
 * as the others have noticed it wins. */
static void test_peer_gone_noticed_by_one_after_the_other(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 5, 0, 7);
    fixture_elect(&f, 1);
    fixture_crash(&f, 1, 0);
    for (uint64_t id = 2; id <= 5; id++) {
        raft_report_peer_gone(fixture_raft(&f, id), 1);
        fixture_ready(&f, id);
        fixture_deliver(&f);
        fixture_tick_all(&f, 1);
    }
    for (int i = 0; i < FIXTURE_ELECTION_TICKS / 2 && fixture_leader(&f) == 0; i++)
        fixture_tick_all(&f, 1);
    assert_int_not_equal(fixture_leader(&f), 0);
}

static void test_another_peer_gone_changes_nothing(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    raft_report_peer_gone(fixture_raft(&f, 2), 3);
    raft_report_peer_gone(fixture_raft(&f, 2), 0);
    raft_report_peer_gone(fixture_raft(&f, 1), 1);
    fixture_ready(&f, 2);
    assert_int_equal(fixture_status(&f, 2).leader, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
}

/* The greater id goes first only for a while: members 3 to 5 are left of five and need all three votes,
 * and 5 can't talk to 3, so 4 has to win. */
static void test_going_first_ends(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 5, 0, 5);
    fixture_elect(&f, 1);
    fixture_crash(&f, 1, 0);
    fixture_crash(&f, 2, 0);
    fixture_cut(&f, 3, 5, true);
    for (uint64_t id = 3; id <= 5; id++) {
        raft_report_peer_gone(fixture_raft(&f, id), 1);
        fixture_ready(&f, id);
    }
    fixture_deliver(&f);
    for (int i = 0; i < 30 * FIXTURE_ELECTION_TICKS && fixture_leader(&f) == 0; i++)
        fixture_tick_all(&f, 1);
    assert_int_equal(fixture_leader(&f), 4);
}

static void test_single_voter_leads_at_the_first_tick(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 1, 0, 0);
    fixture_tick(&f, 1, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    assert_int_equal(fixture_propose(&f, 1, "x"), ERR_OK);
    assert_int_equal(fixture_status(&f, 1).applied, 2);
}

/* A disk slower than the election timeout: the candidate waits for its vote instead of starting over. */
static void test_single_voter_with_a_very_slow_disk(void **state)
{
    (void)state;
    fixture_free(&f);
    fixture_init(&f, 1, 0, 0);
    f.members[1].manual_sync = true;
    fixture_tick(&f, 1, 10 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_status(&f, 1).term, 1);
    fixture_sync_one(&f, 1);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    fixture_tick(&f, 1, 10 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER); /* there is nobody better */
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_asking_changes_nothing),
        T(test_granted_for_up_to_date_logs_only),
        T(test_refused_within_the_lease),
        T(test_restarted_leader_is_not_refused),
        T(test_vote_request_within_the_lease),
        T(test_lower_term_but_best_log_wins),
        T(test_higher_term_makes_the_leader_step_down),
        T(test_old_grants_do_not_count),
        T(test_precandidate_that_votes_gives_up),
        T(test_timeout_now_is_the_leaders_word),
        T(test_check_quorum),
        T(test_leader_with_a_hung_disk_steps_down),
        T(test_leader_with_a_slow_disk_stays),
        T(test_a_hung_disk_does_not_campaign),
        T(test_peer_gone_starts_an_election_at_once),
        T(test_peer_gone_noticed_by_one_after_the_other),
        T(test_another_peer_gone_changes_nothing),
        T(test_going_first_ends),
        T(test_single_voter_leads_at_the_first_tick),
        T(test_single_voter_with_a_very_slow_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
