/* When history goes: as the settings say (etcd's two modes), and anyway before it fills the store.
 *
 * Every member takes samples, so that a new leader knows how old a revision is; only the leader proposes.
 * Without the last rule a cluster that nobody tends ends in NOSPACE because of history: when the store
 * passes half of its quota, the older half of the history goes, as long as there is much of it. */
#include "daemon/server/server_internal.h"

#include "lib/base/log.h"

#define REVISION_INTERVAL_MS 300000 /* etcd's, of the revision mode */
#define QUOTA_INTERVAL_MS 1000
#define HISTORY_KEPT_MIN 1000 /* revisions that the quota's rule leaves for watches that lag */

static void on_gone(void *ctx)
{
    ((struct server *)ctx)->compactor.waiting = false;
}

static void on_compacted(void *ctx, const struct apply_result *result)
{
    struct server *s = ctx;
    s->compactor.op = NULL;
    if (result->code)
        return; /* another one was quicker, or the leader has changed */
    s->compactor.waiting = true;
    mvcc_compact_wait(replica_store(s->replica), on_gone, s);
}

static void compact(struct server *s, int64_t revision, const char *why)
{
    struct mvcc *store = replica_store(s->replica);
    struct raft_status status;
    replica_status(s->replica, &status);
    if (status.role != RAFT_LEADER || s->compactor.op || s->compactor.waiting ||
        revision <= mvcc_compact_revision(store))
        return;
    log_info("compactor", "compacting revision=%lld reason=%s", (long long)revision, why);
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    r.revision = revision;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION;
    request.compaction = &r;
    s->compactor.op = replica_propose(s->replica, &request, on_compacted, s);
}

/* The oldest sample that is a whole retention old says what was current then. */
static void periodic(struct server *s, uint64_t now_ms)
{
    struct compactor *c = &s->compactor;
    if (c->sample_count == ARRAY_LEN(c->samples)) {
        c->sample_count--;
        memmove(c->samples, c->samples + 1, c->sample_count * sizeof(*c->samples));
    }
    c->samples[c->sample_count++] =
        (struct compactor_sample){now_ms, mvcc_revision(replica_store(s->replica))};
    if (now_ms - c->samples[0].at_ms >= s->config.compaction_retention)
        compact(s, c->samples[0].revision, "retention");
}

static void by_quota(struct server *s)
{
    struct mvcc *store = replica_store(s->replica);
    int64_t now = mvcc_revision(store), oldest = mvcc_compact_revision(store);
    if (mvcc_size_in_use(store) > s->config.quota_bytes / 2 && now - oldest > 2 * HISTORY_KEPT_MIN)
        compact(s, oldest + (now - oldest) / 2, "half-of-quota");
}

void compactor_tick(struct server *s, uint64_t now_ms)
{
    struct compactor *c = &s->compactor;
    uint64_t retention = s->config.compaction_retention;
    if (now_ms < c->next_ms)
        return;
    c->next_ms = now_ms + QUOTA_INTERVAL_MS;
    by_quota(s);
    if (retention == 0 || now_ms < c->next_setting_ms)
        return;
    if (s->config.compaction_mode == SERVER_COMPACTION_PERIODIC) {
        c->next_setting_ms = now_ms + retention / 10;
        periodic(s, now_ms);
    } else {
        c->next_setting_ms = now_ms + REVISION_INTERVAL_MS;
        compact(s, mvcc_revision(replica_store(s->replica)) - (int64_t)retention, "retention");
    }
}
