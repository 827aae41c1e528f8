/* What a member does by itself, a little on each tick. */
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/internal.h"
#include "lib/base/mutant.h"

#define QUOTA_DEFAULT (2ull * 1024 * 1024 * 1024) /* etcd's */
/* The history is looked at this often, and its last revisions stay in any case: watchers that are a little
 * behind must find theirs. */
#define HISTORY_TICKS 10
#define HISTORY_KEEP_REVISIONS 1000

uint64_t duties_quota(const struct replica *r)
{
    return r->config.quota_bytes ? r->config.quota_bytes : QUOTA_DEFAULT;
}

/* ---- the log's old part ------------------------------------------------------------------------- */

static size_t log_segment_bytes(const struct replica *r)
{
    return r->config.wal_segment_bytes ? r->config.wal_segment_bytes : WAL_SEGMENT_BYTES_DEFAULT;
}

/* Entries that the store has for good are kept for slow members up to a number and a size; a member whose
 * snapshot is on its way needs those behind it, and until it has caught up, or it would need another snapshot
 * right away: within reason. A full disk is no reason to keep many. */
void duties_cut_log(struct replica *r)
{
    replica_refresh(r);
    const struct raft_status *s = &r->status;
    uint64_t durable = mvcc_durable_index(r->store), first = s->first_index;
    if (MUTANT(log_truncated_before_store_durable))
        durable = mvcc_applied_index(r->store);
    size_t bytes_max = r->config.snapshot_bytes ? r->config.snapshot_bytes : SNAPSHOT_BYTES_DEFAULT;
    uint64_t to = durable > r->config.snapshot_entries ? durable - r->config.snapshot_entries : 0;
    if (r->space.low && bytes_max > log_segment_bytes(r) / 4)
        bytes_max = log_segment_bytes(r) / 4; /* then segments before the last one are for reuse */
    if (wal_lacks_space(r->wal))
        to = durable; /* its life goes before a slow member's comfort */
    if (s->memory_bytes > bytes_max && s->last_index >= first) {
        uint64_t excess = s->memory_bytes - bytes_max;
        uint64_t count = s->last_index - first + 1;
        uint64_t by_size = first - 1 + count * excess / s->memory_bytes;
        if (by_size > to)
            to = by_size;
    }
    uint64_t keep = snapshot_lowest(r, to < durable ? to : durable);
    if (s->memory_bytes <= 4 * bytes_max && keep < to)
        to = keep;
    if (to > durable)
        to = durable;
    if (to > s->applied)
        to = s->applied;
    if (to < first)
        return;
    uint64_t term = raft_term_at(r->raft, to);
    raft_compact(r->raft, to);
    wal_cut(r->wal, to, term);
}

/* ---- the history, by quota ---------------------------------------------------------------------- */

static void on_rows_gone(void *ctx)
{
    struct replica *r = ctx;
    if (!r->closing)
        r->compacting = false;
}

static void on_history_compacted(void *ctx, const struct apply_result *result)
{
    struct replica *r = ctx;
    if (r->closing)
        return;
    if (result->code == ERR_OK)
        mvcc_compact_wait(r->store, on_rows_gone, r);
    else
        r->compacting = false;
}

static void trim_history(struct replica *r)
{
    if (r->config.keep_history || r->compacting || !replica_leads(r) ||
        r->ticks % HISTORY_TICKS != 0 || mvcc_size_in_use(r->store) <= duties_quota(r) / 2)
        return;
    int64_t from = mvcc_compact_revision(r->store), now = mvcc_revision(r->store);
    if (now - from <= 2 * HISTORY_KEEP_REVISIONS)
        return; /* it isn't the history that fills the store */
    Etcdserverpb__CompactionRequest compaction = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    compaction.revision = from + (now - from) / 2;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION;
    request.compaction = &compaction;
    r->compacting = true;
    propose_internal(r, &request, on_history_compacted);
}

/* ---- name and client URLs ----------------------------------------------------------------------- */

static bool is_published(struct replica *r)
{
    const struct replica_member *m = member_list_find(&r->members, r->member_id);
    if (!m)
        return true; /* not a member yet, or no longer */
    if (strcmp(m->name, r->name) != 0 || m->client_url_count != r->config.client_url_count)
        return false;
    for (size_t i = 0; i < m->client_url_count; i++) {
        if (strcmp(m->client_urls[i], r->client_urls[i]) != 0)
            return false;
    }
    return true;
}

static void publish(struct replica *r)
{
    if (r->publish || !r->status.leader || is_published(r))
        return;
    Raftpb__MemberAttributes attributes = RAFTPB__MEMBER_ATTRIBUTES__INIT;
    attributes.id = r->member_id;
    attributes.name = r->name;
    attributes.client_urls = r->client_urls;
    attributes.n_client_urls = r->config.client_url_count;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_MEMBER_ATTRIBUTES;
    request.member_attributes = &attributes;
    r->publish = propose_internal(r, &request, NULL);
}

void duties_tick(struct replica *r)
{
    r->ticks++;
    requests_time_out(r);
    propose_refused_again(r);
    leader_watch(r);
    leader_duties(r);
    trim_history(r);
    publish(r);
    space_tick(r);
    snapshot_in_tick(r);
    snapshot_out_tick(r);
    duties_cut_log(r);
    wal_tick(r->wal);
    wal_scrub_tick(r->wal, replica_now_ms(r), r->config.scrub_ms);
    mvcc_scrub_tick(r->store, replica_now_ms(r), r->config.scrub_ms);
    if (replica_leads(r) && lessor_count(r->lessor))
        read_begin_round(r); /* to stay sure of leadership: replica_lease_renew() */
    else if (!list_empty(&r->reads_waiting))
        read_begin_round(r);
}
