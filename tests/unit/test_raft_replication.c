/* Replication beyond Figure 2: pipelining and its limits, lost messages, snapshots, asynchronous disks,
 * stamps, limits on proposals, malformed messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "lib/base/memory.h"
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

static size_t count(enum raft_message_type type, uint64_t to)
{
    size_t n = 0;
    for (size_t i = 0; i < f.queue_count; i++)
        n += f.queue[i].type == type && f.queue[i].to == to;
    return n;
}

static void restart_with(void (*change)(struct raft_config *c))
{
    change(&f.config);
    for (uint64_t id = 1; id <= 3; id++) {
        fixture_crash(&f, id, 0);
        fixture_start(&f, id);
    }
}

/* --- flow ------------------------------------------------------------------------------------- */

static void test_appends_are_pipelined_up_to_the_window(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    for (int i = 0; i < 20; i++)
        fixture_propose(&f, 1, "x");
    assert_int_equal(count(RAFT_MSG_APPEND, 2), 8); /* inflight_messages_max */
    fixture_deliver(&f);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(fixture_status(&f, id).applied, 21);
}

static void small_window(struct raft_config *c)
{
    c->inflight_bytes_max = 150;
}

static void test_window_by_bytes(void **state)
{
    (void)state;
    restart_with(small_window);
    fixture_elect(&f, 1);
    for (int i = 0; i < 20; i++)
        fixture_propose(&f, 1, "0123456789");
    assert_int_equal(count(RAFT_MSG_APPEND, 2), 3); /* the one that passes the limit is the last */
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 2).applied, 21);
}

/* What comes in between two readies shares an append. */
static void test_proposals_of_one_turn_share_an_append(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    uint64_t index;
    for (int i = 0; i < 10; i++)
        assert_int_equal(raft_propose(fixture_raft(&f, 1), bytes_str("x"), 0, &index), ERR_OK);
    f.members[1].manual_sync = true;
    fixture_ready(&f, 1);
    assert_int_equal(count(RAFT_MSG_APPEND, 2), 1);
    assert_int_equal(fixture_find(&f, RAFT_MSG_APPEND, 2)->entry_count, 10);
    assert_int_equal(f.members[1].append_count, 1); /* and one sync */
}

static void small_messages(struct raft_config *c)
{
    c->message_bytes_max = 2 * (sizeof(struct raft_entry) + 1);
}

static void test_appends_are_cut_by_bytes(void **state)
{
    (void)state;
    restart_with(small_messages);
    fixture_elect(&f, 1);
    uint64_t index;
    for (int i = 0; i < 5; i++)
        raft_propose(fixture_raft(&f, 1), bytes_str("x"), 0, &index);
    fixture_ready(&f, 1);
    assert_int_equal(count(RAFT_MSG_APPEND, 2), 3);
    raft_propose(fixture_raft(&f, 1), bytes_str("one that exceeds it alone"), 0, &index);
    fixture_ready(&f, 1);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 3).applied, 7);
}

/* Appends under way get lost without a word: a heartbeat's answer starts it again. */
static void test_lost_appends_are_found_by_heartbeats(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    for (int i = 0; i < 20; i++)
        fixture_propose(&f, 1, "x");
    fixture_clear(&f); /* the window is full of lost appends */
    fixture_tick_all(&f, 2 * FIXTURE_HEARTBEAT_TICKS);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(fixture_status(&f, id).applied, 21);
}

static void test_reordered_appends(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    for (int i = 0; i < 6; i++)
        fixture_propose(&f, 1, "x");
    while (f.queue_count > 0) /* newest first */
        fixture_deliver_at(&f, f.queue_count - 1, false);
    fixture_tick_all(&f, 2 * FIXTURE_HEARTBEAT_TICKS);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(fixture_status(&f, id).applied, 7);
}

/* An append of before a compaction, repeated: it is answered with what is committed, and nothing is taken
 * from the log (once a bug of another implementation, which cleared its log for index 0). */
static void test_old_append_after_a_compaction(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    for (int i = 0; i < 4; i++)
        fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    fixture_compact(&f, 2, 3);
    struct raft_entry *e = raft_entry_ref(f.committed[1]);
    struct raft_message m = {
        .type = RAFT_MSG_APPEND, .from = 1, .term = 1, .entries = &e, .entry_count = 1};
    assert_int_equal(fixture_step(&f, 2, m), ERR_OK);
    raft_entry_unref(e);
    const struct raft_message *reply = fixture_find(&f, RAFT_MSG_APPEND_REPLY, 1);
    assert_false(reply->reject);
    assert_int_equal(reply->index, 5);
    assert_int_equal(fixture_status(&f, 2).first_index, 4);
    assert_int_equal(fixture_status(&f, 2).last_index, 5);
}

/* A refusal points no further back than to what is committed, which agrees with any leader's log. */
static void test_hint_is_never_behind_the_commit_index(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    struct raft_message m = {
        .type = RAFT_MSG_APPEND, .from = 1, .term = 9, .index = 40, .log_term = 8};
    fixture_crash(&f, 2, 0);
    f.members[2].hard_state.commit = 2;
    raft_log_compact(&f.members[2].log, 2);
    struct raft_entry *e = raft_entry_new(3, 3, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
    raft_log_append(&f.members[2].log, e);
    raft_entry_unref(e);
    f.members[2].hard_state.term = 3;
    fixture_start(&f, 2);
    m.log_term = 2; /* less than the term of entry 3 */
    fixture_step(&f, 2, m);
    const struct raft_message *reply = fixture_find(&f, RAFT_MSG_APPEND_REPLY, 1);
    assert_true(reply->reject);
    assert_int_equal(reply->reject_hint, 2);
    assert_int_equal(reply->hint_term, 1);
}

static void test_unreachable_goes_back_to_probing(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_propose(&f, 1, "x");
    fixture_clear(&f);
    raft_report_unreachable(fixture_raft(&f, 1), 2);
    raft_report_unreachable(fixture_raft(&f, 1), 9); /* unknown */
    struct raft_status s = fixture_status(&f, 1);
    assert_int_equal(s.peers[1].state, 0);
    assert_int_equal(s.peers[1].next, s.peers[1].match + 1);
    fixture_propose(&f, 1, "y");
    assert_int_equal(fixture_find(&f, RAFT_MSG_APPEND, 2)->entry_count, 2);
    fixture_propose(&f, 1, "z"); /* one at a time */
    assert_int_equal(count(RAFT_MSG_APPEND, 2), 1);
}

/* --- snapshots -------------------------------------------------------------------------------- */

/* Member 3 is behind what the others' logs have. */
static void lag(void)
{
    fixture_elect(&f, 1);
    fixture_isolate(&f, 3, true);
    for (int i = 0; i < 5; i++)
        fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    fixture_compact(&f, 1, 4);
    fixture_isolate(&f, 3, false);
}

static void test_lagging_member_gets_a_snapshot(void **state)
{
    (void)state;
    lag();
    fixture_tick_all(&f, 2 * FIXTURE_HEARTBEAT_TICKS);
    struct raft_status s = fixture_status(&f, 3);
    assert_int_equal(s.applied, 6);
    assert_int_equal(s.first_index, 7);
    assert_int_equal(fixture_status(&f, 1).peers[2].state, 1);
    fixture_propose(&f, 1, "y");
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 3).applied, 7);
    fixture_crash(&f, 3, 0); /* its disk agrees */
    fixture_start(&f, 3);
    assert_int_equal(fixture_status(&f, 3).applied, 7);
}

static void test_nothing_is_sent_while_the_snapshot_is_under_way(void **state)
{
    (void)state;
    lag();
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    while (fixture_find(&f, RAFT_MSG_SNAPSHOT, 3) == NULL)
        fixture_deliver_at(&f, 0, false);
    assert_int_equal(fixture_status(&f, 1).peers[2].state, 2);
    fixture_propose(&f, 1, "y");
    assert_int_equal(count(RAFT_MSG_APPEND, 3), 0);
    raft_report_snapshot(fixture_raft(&f, 1), 3, false);
    assert_int_equal(fixture_status(&f, 1).peers[2].state, 0);
    assert_int_equal(fixture_status(&f, 1).peers[2].next, 2);
    fixture_tick_all(&f, 3 * FIXTURE_HEARTBEAT_TICKS); /* tries again */
    assert_int_equal(fixture_status(&f, 3).applied, 7);
}

/* An answer from before the snapshot doesn't end it, unless the log still reaches back to there. */
static void test_old_answer_does_not_end_the_snapshot_state(void **state)
{
    (void)state;
    lag();
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    while (fixture_find(&f, RAFT_MSG_SNAPSHOT, 3) == NULL)
        fixture_deliver_at(&f, 0, false);
    struct raft_message m = {.type = RAFT_MSG_APPEND_REPLY, .from = 3, .term = 1, .index = 2};
    fixture_step(&f, 1, m);
    assert_int_equal(fixture_status(&f, 1).peers[2].state, 2);
    assert_int_equal(count(RAFT_MSG_SNAPSHOT, 3), 1); /* nor sends another */
    m.index = 4;
    fixture_step(&f, 1, m);
    assert_int_equal(fixture_status(&f, 1).peers[2].state, 1);
}

/* A snapshot is dear: not sent to a member that doesn't answer. */
static void test_no_snapshot_to_a_silent_member(void **state)
{
    (void)state;
    lag();
    fixture_isolate(&f, 3, true);
    fixture_tick_all(&f, 4 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_status(&f, 1).peers[2].state, 2);
}

static struct raft_message snapshot(uint64_t index, uint64_t term)
{
    return (struct raft_message){.type = RAFT_MSG_SNAPSHOT,
                                 .from = 1,
                                 .term = 1,
                                 .snapshot_index = index,
                                 .snapshot_term = term,
                                 .snapshot_conf = {.voters = {1, 2, 3}, .voter_count = 3}};
}

static void test_old_snapshot_is_ignored(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    fixture_step(&f, 3, snapshot(1, 1));
    assert_int_equal(fixture_status(&f, 3).last_index, 2);
    assert_int_equal(fixture_find(&f, RAFT_MSG_APPEND_REPLY, 1)->index, 2);
}

/* "If existing log entry has same index and term as snapshot's last included entry, retain log entries
 * following it". */
static void test_snapshot_that_the_log_covers_only_commits(void **state)
{
    (void)state;
    fixture_crash(&f, 3, 0);
    fixture_set_log(&f, 3, 1, (uint64_t[]){1, 1, 1}, 3);
    fixture_start(&f, 3);
    fixture_step(&f, 3, snapshot(2, 1));
    struct raft_status s = fixture_status(&f, 3);
    assert_int_equal(s.commit, 2);
    assert_int_equal(s.last_index, 3);
    assert_int_equal(s.first_index, 1);
}

/* --- the own disk ----------------------------------------------------------------------------- */

static struct raft_message entry_message(uint64_t from, uint64_t term, uint64_t prev,
                                         uint64_t prev_term, struct raft_entry **e)
{
    *e = raft_entry_new(term, prev + 1, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
    return (struct raft_message){.type = RAFT_MSG_APPEND,
                                 .from = from,
                                 .term = term,
                                 .index = prev,
                                 .log_term = prev_term,
                                 .entries = e,
                                 .entry_count = 1};
}

/* An append is confirmed whose entries have been replaced meanwhile, by others with the same index. */
static void test_late_sync_confirms_nothing_of_what_replaced_it(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    struct raft_entry *e;
    fixture_step(&f, 1, entry_message(2, 1, 0, 0, &e));
    raft_entry_unref(e);
    fixture_step(&f, 1, entry_message(3, 2, 0, 0, &e));
    raft_entry_unref(e);
    fixture_sync_one(&f, 1);
    assert_int_equal(fixture_status(&f, 1).persisted, 0);
    fixture_sync_one(&f, 1);
    assert_int_equal(fixture_status(&f, 1).persisted, 1);
}

/* ... and back again to an entry of the first kind (A-B-A). */
static void test_replaced_twice(void **state)
{
    (void)state;
    f.members[1].manual_sync = true;
    struct raft_entry *e;
    fixture_step(&f, 1, entry_message(2, 1, 0, 0, &e));
    raft_entry_unref(e);
    fixture_step(&f, 1, entry_message(3, 2, 0, 0, &e));
    raft_entry_unref(e);
    struct raft_message m = entry_message(2, 1, 0, 0, &e);
    m.term = 3;
    fixture_step(&f, 1, m);
    raft_entry_unref(e);
    fixture_sync_one(&f, 1);
    assert_int_equal(fixture_status(&f, 1).persisted,
                     0); /* the disk will hold the second for a while */
    fixture_sync_one(&f, 1);
    assert_int_equal(fixture_status(&f, 1).persisted, 0);
    fixture_sync_one(&f, 1);
    assert_int_equal(fixture_status(&f, 1).persisted, 1);
}

/* A commit index alone is worth no sync; with the next entries it rides along, as far as it is synced. */
static void test_commit_alone_writes_nothing(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    fixture_propose(&f, 1, "x");
    f.members[2].manual_sync = true;
    fixture_deliver(&f);
    assert_int_equal(f.members[2].append_count, 1);
    fixture_sync(&f, 2);
    assert_int_equal(fixture_status(&f, 2).commit, 2);
    fixture_deliver(&f);
    assert_int_equal(f.members[2].append_count, 0);
    assert_int_equal(f.members[2].hard_state.commit, 1);
    fixture_propose(&f, 1, "y");
    fixture_deliver(&f);
    assert_int_equal(f.members[2].appends[0].hard_state.commit, 2);
}

/* --- proposals -------------------------------------------------------------------------------- */

static void test_stamps_never_go_back(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    raft_set_time(fixture_raft(&f, 1), 1000);
    fixture_propose(&f, 1, "x");
    raft_set_time(fixture_raft(&f, 1), 500);
    fixture_propose(&f, 1, "y");
    raft_set_time(fixture_raft(&f, 2), 10); /* a new leader whose clock is behind */
    fixture_deliver(&f);
    raft_transfer_leader(fixture_raft(&f, 1), 2);
    fixture_ready(&f, 1);
    fixture_deliver(&f);
    assert_int_equal(fixture_leader(&f), 2);
    fixture_propose(&f, 3, "forwarded"); /* gets the leader's stamp */
    fixture_deliver(&f);
    raft_set_time(fixture_raft(&f, 2), 2000);
    fixture_propose(&f, 2, "z");
    fixture_deliver(&f);
    const uint64_t expected[] = {0, 1000, 1000, 1000, 1000, 2000};
    for (uint64_t i = 1; i <= 6; i++)
        assert_int_equal(f.committed[i]->stamp, expected[i - 1]);
    assert_int_equal(fixture_status(&f, 3).last_stamp, 2000);
}

static void few_uncommitted(struct raft_config *c)
{
    c->uncommitted_bytes_max = 10;
}

static void test_limit_of_uncommitted_proposals(void **state)
{
    (void)state;
    restart_with(few_uncommitted);
    fixture_elect(&f, 1);
    assert_int_equal(fixture_propose(&f, 1, "more than ten bytes"),
                     ERR_OK); /* when there is nothing */
    assert_int_equal(fixture_propose(&f, 1, "x"), ERR_TOO_MANY_REQUESTS);
    fixture_deliver(&f);
    assert_int_equal(fixture_propose(&f, 1, "12345"), ERR_OK);
    assert_int_equal(fixture_propose(&f, 1, "12345"), ERR_OK);
    assert_int_equal(fixture_propose(&f, 1, "1"), ERR_TOO_MANY_REQUESTS);
}

static void test_applied_in_batches(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    uint64_t index;
    for (int i = 0; i < 9; i++)
        raft_propose(fixture_raft(&f, 1), bytes_str("x"), 0, &index);
    fixture_ready(&f, 1);
    while (fixture_status(&f, 2).commit < 10) {
        if (f.queue[0].to == 2 && f.queue[0].commit == 10) {
            struct raft_ready d;
            assert_int_equal(raft_step(fixture_raft(&f, 2), &f.queue[0]), ERR_OK);
            raft_ready(fixture_raft(&f, 2), &d);
            assert_int_equal(d.committed_count, 4);
            assert_true(raft_has_ready(fixture_raft(&f, 2)));
            raft_ready(fixture_raft(&f, 2), &d);
            assert_int_equal(d.committed_count, 4);
            assert_int_equal(d.committed[0]->index, 6);
            return;
        }
        fixture_deliver_at(&f, 0, false);
    }
    fail();
}

/* --- malformed messages ----------------------------------------------------------------------- */

static void assert_refused(struct raft_message m)
{
    struct raft_status before = fixture_status(&f, 1), after;
    m.to = m.to == 0 ? 1 : m.to;
    assert_int_equal(raft_step(fixture_raft(&f, 1), &m), ERR_INVALID);
    assert_false(raft_has_ready(fixture_raft(&f, 1)));
    after = fixture_status(&f, 1);
    assert_memory_equal(&before, &after, sizeof before);
}

static void test_malformed_messages(void **state)
{
    (void)state;
    const struct raft_message heartbeat = {.type = RAFT_MSG_HEARTBEAT, .from = 2, .term = 3};
    struct raft_message m = heartbeat;
    m.type = 0;
    assert_refused(m);
    m.type = RAFT_MSG_TYPE_MAX + 1;
    assert_refused(m);
    m = heartbeat, m.term = 0;
    assert_refused(m);
    m = heartbeat, m.from = 0;
    assert_refused(m);
    m = heartbeat, m.from = 1;
    assert_refused(m);
    m = heartbeat, m.to = 2;
    assert_refused(m);
    m = heartbeat, m.term = UINT64_MAX;
    assert_refused(m);
    m = heartbeat, m.commit = UINT64_MAX;
    assert_refused(m);
    m = heartbeat, m.entry_count = 1;
    assert_refused(m);
    assert_refused((struct raft_message){.type = RAFT_MSG_READ_INDEX, .from = 2});
    assert_refused((struct raft_message){
        .type = RAFT_MSG_VOTE, .from = 2, .term = 3, .index = 1, .log_term = 3});
    assert_refused((struct raft_message){.type = RAFT_MSG_PROPOSE, .from = 2});
    assert_refused((struct raft_message){
        .type = RAFT_MSG_PROPOSE_REFUSED, .from = 2, .reason = RAFT_REFUSED_TOO_MANY});
    assert_refused(
        (struct raft_message){.type = RAFT_MSG_PROPOSE_REFUSED, .from = 2, .context = 1});
    assert_refused((struct raft_message){
        .type = RAFT_MSG_PROPOSE_REFUSED, .from = 2, .context = 1, .reason = 99});
    struct raft_message s = snapshot(5, 1);
    s.from = 2;
    s.snapshot_conf.voters[1] = 1;
    assert_refused(s);
    s.snapshot_conf = (struct raft_conf){0};
    assert_refused(s);
    s = snapshot(0, 1), s.from = 2;
    assert_refused(s);
    s = snapshot(5, 4), s.from = 2;
    assert_refused(s);
}

static void test_malformed_entries(void **state)
{
    (void)state;
    struct raft_entry *e[2];
    e[0] = raft_entry_new(2, 1, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
    e[1] = raft_entry_new(2, 2, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
    const struct raft_message good = {
        .type = RAFT_MSG_APPEND, .from = 2, .term = 3, .entries = e, .entry_count = 2};
    struct raft_message m = good;
    m.entries = NULL;
    assert_refused(m);
    m = good, m.entry_count = SIZE_MAX;
    assert_refused(m);
    m = good, m.index = 5; /* a gap behind prevLogIndex */
    assert_refused(m);
    m = good, m.index = 1, m.log_term = 0;
    assert_refused(m);
    m = good, m.log_term = 1; /* of nothing */
    assert_refused(m);
    e[1]->index = 3;
    assert_refused(good);
    e[1]->index = 2;
    e[1]->term = 1; /* goes back */
    assert_refused(good);
    e[1]->term = 4; /* ahead of the message's */
    assert_refused(good);
    e[1]->term = 2;
    e[1]->type = (enum raft_entry_type)7;
    assert_refused(good);
    e[1]->type = RAFT_ENTRY_CONF;
    m = good, m.type = RAFT_MSG_PROPOSE, m.term = 0; /* changes of membership aren't forwarded */
    assert_refused(m);
    assert_int_equal(fixture_step(&f, 1, good), ERR_OK);
    raft_entry_unref(e[0]);
    raft_entry_unref(e[1]);
}

static void test_impossible_messages(void **state)
{
    (void)state;
    fixture_elect(&f, 1);
    /* More than the leader has; a second leader of the term. */
    assert_refused(
        (struct raft_message){.type = RAFT_MSG_APPEND_REPLY, .from = 2, .term = 1, .index = 99});
    assert_refused((struct raft_message){.type = RAFT_MSG_HEARTBEAT, .from = 2, .term = 1});
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_appends_are_pipelined_up_to_the_window),
        T(test_window_by_bytes),
        T(test_proposals_of_one_turn_share_an_append),
        T(test_appends_are_cut_by_bytes),
        T(test_lost_appends_are_found_by_heartbeats),
        T(test_reordered_appends),
        T(test_old_append_after_a_compaction),
        T(test_hint_is_never_behind_the_commit_index),
        T(test_unreachable_goes_back_to_probing),
        T(test_lagging_member_gets_a_snapshot),
        T(test_nothing_is_sent_while_the_snapshot_is_under_way),
        T(test_old_answer_does_not_end_the_snapshot_state),
        T(test_no_snapshot_to_a_silent_member),
        T(test_old_snapshot_is_ignored),
        T(test_snapshot_that_the_log_covers_only_commits),
        T(test_late_sync_confirms_nothing_of_what_replaced_it),
        T(test_replaced_twice),
        T(test_commit_alone_writes_nothing),
        T(test_stamps_never_go_back),
        T(test_limit_of_uncommitted_proposals),
        T(test_applied_in_batches),
        T(test_malformed_messages),
        T(test_malformed_entries),
        T(test_impossible_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
