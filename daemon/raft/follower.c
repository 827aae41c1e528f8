/* The follower's side of log replication: the figure's "AppendEntries RPC", receiver implementation. */
#include <assert.h>
#include <inttypes.h>

#include "daemon/raft/core.h"
#include "lib/base/mutant.h"

static void accept_up_to(struct raft *r, uint64_t to, uint64_t index)
{
    raft_send(r, (struct raft_message){.type = RAFT_MSG_APPEND_REPLY, .to = to, .index = index});
}

/* Reply false "if log doesn't contain an entry at prevLogIndex whose term matches prevLogTerm", with a
 * guess where it may: not before the commit index, whose term no leader's log has less than behind it. */
static void refuse(struct raft *r, const struct raft_message *m)
{
    uint64_t hint_term;
    uint64_t hint = raft_log_find_term(&r->log, m->index, m->log_term, &hint_term);
    raft_send(r, (struct raft_message){.type = RAFT_MSG_APPEND_REPLY,
                                       .to = m->from,
                                       .index = m->index,
                                       .reject = true,
                                       .reject_hint = hint,
                                       .hint_term = hint_term});
}

enum errc raft_recv_append(struct raft *r, const struct raft_message *m)
{
    if (r->snapshot.waiting)
        return ERR_OK; /* the log is about to be replaced */
    if (m->index < r->commit && !MUTANT(truncation_behind_applied)) {
        /* Old or duplicated, maybe from before a compaction: what is committed is never touched. */
        accept_up_to(r, m->from, r->commit);
        return ERR_OK;
    }
    if (!raft_log_matches(&r->log, m->index, m->log_term)) {
        refuse(r, m);
        return ERR_OK;
    }
    /* "If an existing entry conflicts with a new one, delete the existing entry and all that follow it",
     * but only then: this append may be older than what the log has already. */
    size_t i = raft_log_find_conflict(&r->log, m->entries, m->entry_count);
    if (MUTANT(duplicate_append_wipes) || MUTANT(truncation_behind_applied))
        i = 0; /* whatever is there is replaced, also by an older append */
    if (i < m->entry_count) {
        uint64_t index = m->entries[i]->index;
        assert(index > r->commit); /* since m->index >= commit */
        if (index <= raft_log_last(&r->log)) {
            raft_trace(r, "replaces its log from %" PRIu64 " on", index);
            raft_truncate(r, index);
        }
        for (; i < m->entry_count; i++) {
            raft_log_append(&r->log, m->entries[i]);
            raft_membership_appended(r, m->entries[i]);
            if (m->entries[i]->stamp > r->last_stamp)
                r->last_stamp = m->entries[i]->stamp;
        }
    }
    /* "set commitIndex = min(leaderCommit, index of last new entry)": what is behind it in this log
     * hasn't been compared. */
    uint64_t last_new = m->index + m->entry_count;
    raft_commit_to(r, m->commit < last_new ? m->commit : last_new);
    accept_up_to(r, m->from, last_new);
    return ERR_OK;
}

/* The leader has this member's word, of this term, for more than there is. Within a term no message can be
 * older than that word and no log can have become shorter since, so the disk lost what it had synced; and
 * maybe votes with it. */
static void fall_silent(struct raft *r, const struct raft_message *m)
{
    raft_trace(r, "log ends at %" PRIu64 ", but it had acknowledged %" PRIu64 " to leader %" PRIx64,
               raft_log_last(&r->log), m->index, m->from);
    r->forgotten = m->index;
    raft_become_follower(r, r->term, 0);
    raft_outbox_free(&r->now);
    raft_outbox_free(&r->after_sync);
}

void raft_recv_heartbeat(struct raft *r, const struct raft_message *m)
{
    uint64_t last = raft_log_last(&r->log);
    if (m->index > last || m->commit > last) { /* commit is at most index */
        if (MUTANT(forgetful_member_stays))
            return;
        fall_silent(r, m);
        return;
    }
    if (!r->snapshot.waiting)
        raft_commit_to(r, m->commit);
    raft_send(r, (struct raft_message){
                     .type = RAFT_MSG_HEARTBEAT_REPLY, .to = m->from, .context = m->context});
}

/* --- snapshots (paper, section 7) ------------------------------------------------------------- */

void raft_recv_snapshot(struct raft *r, const struct raft_message *m)
{
    if (r->snapshot.waiting)
        return;
    if (m->snapshot_index <= r->commit) {
        accept_up_to(r, m->from, r->commit);
        return;
    }
    /* "If existing log entry has same index and term as snapshot's last included entry, retain log
     * entries following it and reply": all up to there is committed. */
    if (raft_log_matches(&r->log, m->snapshot_index, m->snapshot_term)) {
        raft_commit_to(r, m->snapshot_index);
        accept_up_to(r, m->from, r->commit);
        return;
    }
    raft_trace(r, "snapshot %" PRIu64 " from %" PRIx64, m->snapshot_index, m->from);
    r->snapshot = (struct raft_snapshot_pending){.waiting = true,
                                                 .from = m->from,
                                                 .index = m->snapshot_index,
                                                 .term = m->snapshot_term,
                                                 .conf = m->snapshot_conf};
}

/* "Discard the entire log; reset state machine using snapshot contents (and load snapshot's cluster
 * configuration)". */
void raft_snapshot_installed(struct raft *r, uint64_t index, uint64_t term,
                             const struct raft_conf *conf)
{
    assert(raft_conf_valid(conf));
    r->snapshot = (struct raft_snapshot_pending){0};
    if (index <= r->commit)
        return;
    assert(r->role != RAFT_LEADER);
    raft_log_reset(&r->log, index, term);
    for (size_t i = 0; i < r->persist_count; i++)
        r->persists[i].last = 0; /* of the log that is gone */
    r->commit = r->applied = r->handed = r->emitted = r->persisted = index;
    raft_membership_set(r, conf, index);
    if (r->leader != 0)
        accept_up_to(r, r->leader, index);
}
