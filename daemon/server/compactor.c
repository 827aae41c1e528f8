/* When history goes, as the settings say: etcd's two modes. (The replica also lets the oldest go before it
 * fills the store.) Every member takes samples, so that a new leader knows how old a revision is; only the
 * leader proposes. */
#include "daemon/server/server_internal.h"

#include "lib/base/log.h"

#define REVISION_INTERVAL_MS 300000 /* etcd's, of the revision mode */

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

static void compact(struct server *s, int64_t revision)
{
    struct mvcc *store = replica_store(s->replica);
    struct raft_status status;
    replica_status(s->replica, &status);
    if (status.role != RAFT_LEADER || s->compactor.op || s->compactor.waiting ||
        revision <= mvcc_compact_revision(store))
        return;
    log_info("compactor", "compacting revision=%lld", (long long)revision);
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
        compact(s, c->samples[0].revision);
}

void compactor_tick(struct server *s, uint64_t now_ms)
{
    struct compactor *c = &s->compactor;
    uint64_t retention = s->config.compaction_retention;
    if (retention == 0 || now_ms < c->next_ms)
        return;
    if (s->config.compaction_mode == SERVER_COMPACTION_PERIODIC) {
        c->next_ms = now_ms + retention / 10;
        periodic(s, now_ms);
    } else {
        c->next_ms = now_ms + REVISION_INTERVAL_MS;
        compact(s, mvcc_revision(replica_store(s->replica)) - (int64_t)retention);
    }
}
