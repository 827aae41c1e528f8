/* What the driver has to do, and its news of what is done. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/raft/core.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static bool vote_changed(const struct raft *r)
{
    return r->term != r->hard_state_emitted.term || r->vote != r->hard_state_emitted.vote;
}

static bool snapshot_due(const struct raft *r)
{
    /* Entries of the log that it replaces go out before it. */
    return r->snapshot.waiting && !r->snapshot.handed && r->emitted == raft_log_last(&r->log);
}

static bool persist_due(const struct raft *r)
{
    return r->emitted < raft_log_last(&r->log) || vote_changed(r);
}

static bool committed_due(const struct raft *r)
{
    return !r->snapshot.waiting && r->handed < min(r->commit, r->persisted);
}

bool raft_has_ready(const struct raft *r)
{
    return persist_due(r) || snapshot_due(r) || committed_due(r) || r->now.count > 0 ||
           (r->after_sync.count > 0 && r->persist_count == 0) || r->reads.state_count > 0 ||
           r->refusals.count > 0 || raft_reads_due(r) ||
           (r->role == RAFT_LEADER && r->replication_due);
}

void raft_ready_release(struct raft *r)
{
    raft_outbox_free(&r->out.now);
    raft_outbox_free(&r->out.after_sync);
    for (size_t i = 0; i < r->out.entry_count; i++)
        raft_entry_unref(r->out.entries[i]);
    for (size_t i = 0; i < r->out.committed_count; i++)
        raft_entry_unref(r->out.committed[i]);
    free(r->out.entries);
    free(r->out.committed);
    free(r->out.states);
    free(r->out.refusals);
    r->out.refusals = NULL;
    r->out.entries = r->out.committed = NULL;
    r->out.entry_count = r->out.committed_count = 0;
    r->out.states = NULL;
}

static void hand_out_persist(struct raft *r, struct raft_ready *d)
{
    if (!persist_due(r))
        return;
    r->out.entries =
        raft_log_slice(&r->log, r->emitted + 1, SIZE_MAX, SIZE_MAX, &r->out.entry_count);
    r->emitted = raft_log_last(&r->log);
    d->entries = r->out.entries;
    d->entry_count = r->out.entry_count;

    /* The commit index rides along. Only what is synced of it: the state that is found after a crash
     * in the middle of this append must not claim more than the log has. */
    struct raft_hard_state hs = {r->term, r->vote, min(r->commit, r->persisted)};
    d->has_hard_state = vote_changed(r) || hs.commit != r->hard_state_emitted.commit;
    d->hard_state = hs;
    r->hard_state_emitted = hs;

    d->persist_token = ++r->token;
    if (r->persist_count == r->persist_cap) {
        r->persist_cap = r->persist_cap == 0 ? 16 : r->persist_cap * 2;
        r->persists = xrealloc(r->persists, r->persist_cap * sizeof *r->persists);
    }
    r->persists[r->persist_count++] = (struct raft_persist){
        .token = r->token, .since = r->ticks, .last = r->emitted, .hard_state = hs};
    if (MUTANT(ack_before_local_sync) && r->role == RAFT_LEADER) { /* counts itself at once */
        r->persisted = r->emitted;
        if (raft_progress_update(raft_peer(r, r->id), r->persisted))
            raft_leader_maybe_commit(r);
    }
}

/* Answers wait for everything before them: for this ready's append if there is one, else for those
 * under way, and then they go out like any other message. */
static void hand_out_messages(struct raft *r, struct raft_ready *d)
{
    if (d->persist_token != 0) {
        r->out.after_sync = r->after_sync;
        r->after_sync = (struct raft_outbox){0};
    } else if (r->persist_count == 0) {
        raft_outbox_move(&r->now, &r->after_sync);
    }
    r->out.now = r->now;
    r->now = (struct raft_outbox){0};
    d->messages = r->out.now.items;
    d->message_count = r->out.now.count;
    d->messages_after_sync = r->out.after_sync.items;
    d->message_after_sync_count = r->out.after_sync.count;
}

static void hand_out_committed(struct raft *r, struct raft_ready *d)
{
    if (!committed_due(r))
        return;
    uint64_t n = min(min(r->commit, r->persisted) - r->handed, r->config.committed_batch_max);
    r->out.committed =
        raft_log_slice(&r->log, r->handed + 1, (size_t)n, SIZE_MAX, &r->out.committed_count);
    assert(r->out.committed_count == n);
    r->handed += n;
    d->committed = r->out.committed;
    d->committed_count = r->out.committed_count;
}

void raft_ready(struct raft *r, struct raft_ready *ret_ready)
{
    struct raft_ready d = {0};
    raft_ready_release(r);
    raft_read_flush(r);
    raft_replication_flush(r);
    if (snapshot_due(r)) {
        d.has_snapshot = true;
        d.snapshot_index = r->snapshot.index;
        d.snapshot_term = r->snapshot.term;
        d.snapshot_conf = r->snapshot.conf;
        r->snapshot.handed = true;
    }
    hand_out_persist(r, &d);
    hand_out_messages(r, &d);
    hand_out_committed(r, &d);
    r->out.states = r->reads.states;
    d.read_states = r->reads.states;
    d.read_state_count = r->reads.state_count;
    r->reads.states = NULL;
    r->reads.state_count = r->reads.state_cap = 0;
    r->out.refusals = r->refusals.items;
    d.refusals = r->refusals.items;
    d.refusal_count = r->refusals.count;
    r->refusals = (struct raft_refusals){0};

    assert(r->log.base_index <= r->applied && r->applied <= r->handed);
    assert(r->handed <= r->commit && r->handed <= r->persisted);
    assert(r->persisted <= r->emitted && r->emitted == raft_log_last(&r->log));
    *ret_ready = d;
}

void raft_persisted(struct raft *r, uint64_t persist_token)
{
    assert(persist_token <= r->token);
    size_t done = 0;
    while (done < r->persist_count && r->persists[done].token <= persist_token) {
        if (r->persists[done].last > r->persisted)
            r->persisted = r->persists[done].last;
        r->hard_state_synced = r->persists[done].hard_state;
        done++;
    }
    if (done == 0)
        return;
    r->persist_count -= done;
    for (size_t i = 0; i < r->persist_count; i++)
        r->persists[i] = r->persists[i + done];
    raft_own_vote_persisted(r);
    if (r->role != RAFT_LEADER)
        return;
    struct raft_progress *self = raft_peer(r, r->id);
    if (self != NULL && raft_progress_update(self, r->persisted))
        raft_leader_maybe_commit(r);
}

void raft_applied(struct raft *r, uint64_t index)
{
    assert(index <= r->handed);
    if (index > r->applied)
        r->applied = index;
}
