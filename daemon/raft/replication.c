/* The leader's side of log replication (the figure's "AppendEntries RPC" and "Leaders"; thesis 10.2.1
 * for pipelining). */
#include <assert.h>
#include <inttypes.h>

#include "daemon/raft/core.h"

/* The entries that it needs are gone. The driver sends its newest snapshot, at or after this index. */
static bool send_snapshot(struct raft *r, struct raft_progress *p)
{
    if (!p->recent_active)
        return false; /* a snapshot is dear: not to a member that may be dead */
    raft_trace(r, "snapshot %" PRIu64 " to %" PRIx64 ", whose log ends at %" PRIu64, r->applied,
               p->id, p->match);
    raft_progress_snapshot(p, r->applied);
    raft_send(r, (struct raft_message){.type = RAFT_MSG_SNAPSHOT,
                                       .to = p->id,
                                       .snapshot_index = r->applied,
                                       .snapshot_term = raft_log_term_at(&r->log, r->applied),
                                       .snapshot_conf = r->membership.applied});
    return true;
}

/* Sends one append, or a snapshot in its place. Without `even_empty` only if there are entries that may
 * be sent. False if nothing was. */
static bool send_append(struct raft *r, struct raft_progress *p, bool even_empty)
{
    if (raft_progress_paused(p))
        return false;
    uint64_t prev = p->next - 1;
    if (!raft_log_has_term(&r->log, prev))
        return send_snapshot(r, p);
    size_t count = 0, bytes = 0;
    struct raft_entry **entries = NULL;
    if (p->state != RAFT_REPLICATE || !raft_inflight_full(&p->inflight))
        entries = raft_log_slice(&r->log, p->next, MESSAGE_ENTRIES_MAX, r->config.message_bytes_max,
                                 &count);
    if (count == 0 && !even_empty)
        return false;
    for (size_t i = 0; i < count; i++)
        bytes += sizeof *entries[i] + entries[i]->size;
    raft_send(r, (struct raft_message){.type = RAFT_MSG_APPEND,
                                       .to = p->id,
                                       .index = prev,
                                       .log_term = raft_log_term_at(&r->log, prev),
                                       .commit = r->commit,
                                       .entries = entries,
                                       .entry_count = count});
    uint64_t last = prev + count;
    if (p->state == RAFT_REPLICATE) {
        uint64_t commit = r->commit < last ? r->commit : last;
        if (commit > p->commit_sent)
            p->commit_sent = commit;
    }
    raft_progress_sent(p, last, count, bytes);
    return true;
}

static void flush_peer(struct raft *r, struct raft_progress *p)
{
    bool even_empty = p->due;
    if (p->state == RAFT_REPLICATE) {
        uint64_t sent = p->next - 1;
        even_empty = even_empty || p->commit_sent < (r->commit < sent ? r->commit : sent);
    }
    p->due = false;
    bool more = send_append(r, p, even_empty);
    while (more && p->next <= raft_log_last(&r->log))
        more = send_append(r, p, false);
}

void raft_replication_flush(struct raft *r)
{
    if (r->role != RAFT_LEADER || !r->replication_due)
        return;
    r->replication_due = false;
    for (size_t i = 0; i < r->peer_count; i++) {
        if (r->peers[i].id != r->id)
            flush_peer(r, &r->peers[i]);
    }
}

static void recv_rejection(struct raft *r, struct raft_progress *p, const struct raft_message *m)
{
    /* The follower has hint_term at reject_hint, and nothing of a lower term behind: where this log
     * has a higher term, the two can't agree. Goes back a term in one round trip, not an entry. */
    uint64_t hint = m->reject_hint, term;
    if (m->hint_term > 0)
        hint = raft_log_find_term(&r->log, m->reject_hint, m->hint_term, &term);
    if (raft_progress_reject(p, m->index, hint)) {
        p->due = true;
        r->replication_due = true;
    }
}

static void recv_acceptance(struct raft *r, struct raft_progress *p, const struct raft_message *m)
{
    bool news = raft_progress_update(p, m->index);
    if (!news && !(p->state == RAFT_PROBE && p->match == m->index))
        return;
    switch (p->state) {
    case RAFT_PROBE:
        raft_progress_replicate(p);
        break;
    case RAFT_SNAPSHOT:
        /* The log reaches back to where the member is: whatever became of the snapshot. */
        if (raft_log_has_term(&r->log, p->match))
            raft_progress_replicate(p);
        break;
    case RAFT_REPLICATE:
        raft_inflight_free_to(&p->inflight, m->index);
        break;
    }
    r->replication_due = true;
    if (raft_leader_maybe_commit(r))
        raft_trace(r, "commit %" PRIu64, r->commit);
    raft_transfer_continue(r);
}

enum errc raft_recv_append_reply(struct raft *r, const struct raft_message *m)
{
    struct raft_progress *p = raft_peer(r, m->from);
    if (p == NULL)
        return ERR_OK;
    if (!m->reject && m->index > raft_log_last(&r->log))
        return ERR_INVALID; /* nobody can have more of this term than its leader */
    p->recent_active = true;
    if (m->reject)
        recv_rejection(r, p, m);
    else
        recv_acceptance(r, p, m);
    return ERR_OK;
}

void raft_recv_heartbeat_reply(struct raft *r, const struct raft_message *m)
{
    struct raft_progress *p = raft_peer(r, m->from);
    if (p == NULL)
        return;
    p->recent_active = true;
    p->probe_sent = false; /* the append under way may have been lost */
    if (p->match < raft_log_last(&r->log) || p->state == RAFT_PROBE) {
        /* In REPLICATE an empty append is refused if earlier ones were lost: back to PROBE then. */
        p->due = true;
        r->replication_due = true;
    }
    if (m->context > p->acked_round && m->context <= r->reads.round) {
        p->acked_round = m->context;
        raft_reads_confirm(r);
    }
}

void raft_report_unreachable(struct raft *r, uint64_t id)
{
    struct raft_progress *p = r->role == RAFT_LEADER ? raft_peer(r, id) : NULL;
    if (p != NULL && p->state == RAFT_REPLICATE)
        raft_progress_probe(p);
}

void raft_report_snapshot(struct raft *r, uint64_t id, bool ok)
{
    struct raft_progress *p = r->role == RAFT_LEADER ? raft_peer(r, id) : NULL;
    if (p == NULL || p->state != RAFT_SNAPSHOT)
        return;
    if (!ok)
        p->pending_snapshot = 0;
    raft_progress_probe(p);
    p->probe_sent = true; /* until it answers: to the snapshot, or to the next heartbeat */
}
