#include "daemon/apply/apply.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/apply/internal.h"
#include "lib/base/mutant.h"

struct apply *apply_new(const struct apply_config *config)
{
    struct apply *a = xcalloc(1, sizeof(*a));
    a->config = *config;
    sessions_init(&a->sessions);
    return a;
}

void apply_free(struct apply *a)
{
    if (!a)
        return;
    sessions_free(&a->sessions);
    free(a);
}

enum errc apply_load(struct apply *a, struct error *err)
{
    sessions_free(&a->sessions);
    sessions_init(&a->sessions);
    enum errc code = sessions_load(&a->sessions, a->config.store, err);
    if (code == ERR_OK)
        code = lease_load(a, err);
    if (code == ERR_OK)
        code = alarm_load(a, err);
    return code;
}

int64_t apply_revision(const struct apply *a)
{
    return mvcc_revision(a->config.store) + (a->changed ? 1 : 0);
}

enum errc apply_query(struct apply *a, const struct mvcc_query *q, struct mvcc_result *ret_result,
                      struct error *err)
{
    enum errc code = mvcc_range(a->config.store, q, ret_result, err);
    if (code != ERR_OK && code != ERR_COMPACTED && code != ERR_FUTURE_REV)
        a->broken = code;
    return code;
}

/* ---- entries ------------------------------------------------------------------------------------ */

#define REQUEST(name) RAFTPB__INTERNAL_REQUEST__REQUEST_##name

/* etcd goes on with what makes no keys while a NOSPACE alarm is on (its applierV3Capped). Alarms are
 * replicated, so this is too. CORRUPT is none of the entries' business: it is for the member that it names,
 * and only that one refuses, before anything is proposed. */
static enum errc check_alarms(const struct apply *a, const Raftpb__InternalRequest *r)
{
    if (a->alarm_count == 0)
        return ERR_OK;
    switch (r->request_case) {
    case REQUEST(PUT):
    case REQUEST(DELETE_RANGE):
    case REQUEST(TXN):
    case REQUEST(COMPACTION):
    case REQUEST(LEASE_GRANT):
    case REQUEST(LEASE_REVOKE):
        return apply_cost(r) > 0 && apply_alarm_nospace(a) ? ERR_NO_SPACE : ERR_OK;
    default:
        return ERR_OK;
    }
}

static enum errc dispatch(struct apply *a, const Raftpb__InternalRequest *r, struct arena *arena,
                          const ProtobufCMessage **ret_message, struct error *err)
{
    Etcdserverpb__PutResponse *put = NULL;
    Etcdserverpb__DeleteRangeResponse *deleted = NULL;
    Etcdserverpb__TxnResponse *txn = NULL;
    enum errc code = check_alarms(a, r);
    if (code != ERR_OK)
        return code;
    switch (r->request_case) {
    case REQUEST(PUT):
        code = kv_put(a, r->put, true, arena, &put, err);
        *ret_message = (const ProtobufCMessage *)put;
        return code;
    case REQUEST(DELETE_RANGE):
        code = kv_delete_range(a, r->delete_range, arena, &deleted, err);
        *ret_message = (const ProtobufCMessage *)deleted;
        return code;
    case REQUEST(TXN):
        code = kv_txn(a, r->txn, arena, &txn, err);
        *ret_message = (const ProtobufCMessage *)txn;
        return code;
    case REQUEST(COMPACTION):
        return kv_compaction(a, r->compaction, arena, ret_message);
    case REQUEST(LEASE_GRANT):
        return lease_grant(a, r->lease_grant, arena, ret_message);
    case REQUEST(LEASE_REVOKE):
        return lease_revoke(a, r->lease_revoke, arena, ret_message);
    case REQUEST(LEASE_CHECKPOINT):
        return lease_checkpoint(a, r->lease_checkpoint, arena, ret_message);
    case REQUEST(ALARM):
        return alarm_apply(a, r->alarm, r->alarm_cause, arena, ret_message);
    case REQUEST(MEMBER_ATTRIBUTES):
        if (a->config.member_attributes)
            a->config.member_attributes(a->config.member_ctx, r->member_attributes);
        *ret_message = &r->member_attributes->base;
        return ERR_OK;
    default:
        return ERR_UNIMPLEMENTED;
    }
}

/* The outcome that the session remembers. */
static enum errc replay(const struct session *s, const Raftpb__InternalRequest *r,
                        struct arena *arena, const ProtobufCMessage **ret_message)
{
    if (r->client_seq < s->seq)
        return ERR_INVALID;
    if (s->error != ERR_OK)
        return s->error < ERRC_COUNT ? (enum errc)s->error : ERR_INTERNAL;
    const ProtobufCMessageDescriptor *type = response_type(r->request_case);
    if (!type)
        return ERR_UNIMPLEMENTED;
    ProtobufCAllocator allocator = message_allocator(arena);
    *ret_message = protobuf_c_message_unpack(type, &allocator, s->response.n, s->response.p);
    return *ret_message ? ERR_OK : ERR_INVALID; /* the retry is of another kind than the request */
}

static void remember(struct apply *a, const struct raft_entry *e, const Raftpb__InternalRequest *r,
                     enum errc code, const ProtobufCMessage *message)
{
    struct buf packed = {0};
    if (code == ERR_OK) {
        size_t n = protobuf_c_message_get_packed_size(message);
        if (n > APPLY_SESSION_RESPONSE_MAX) {
            code = ERR_RESOURCE_EXHAUSTED;
        } else {
            buf_reserve(&packed, n + 1);
            packed.n = protobuf_c_message_pack(message, packed.p);
        }
    }
    sessions_remember(&a->sessions, a->config.store, r->client_id, r->client_seq, e->stamp, code,
                      buf_bytes(&packed));
    buf_free(&packed);
}

static void end(struct apply *a, const struct raft_entry *e)
{
    const struct mvcc_change *changes;
    size_t count;
    mvcc_end(a->config.store, &changes, &count);
    a->changed = false;
    for (size_t i = 0; i < count; i++) {
        const struct mvcc_kv *kv = changes[i].kv, *prev = changes[i].prev;
        if (prev && prev->lease)
            lessor_detach(a->config.lessor, prev->lease, kv->key);
        if (!kv->tombstone && kv->lease)
            lessor_attach(a->config.lessor, kv->lease, kv->key);
    }
    watch_hub_changes(a->config.hub, changes, count, mvcc_revision(a->config.store), e->stamp);
}

enum errc apply_entry(struct apply *a, const struct raft_entry *e, struct arena *arena,
                      struct apply_result *ret_result, struct error *err)
{
    assert(e->type == RAFT_ENTRY_COMMAND || e->type == RAFT_ENTRY_NOOP);
    assert(e->index == mvcc_applied_index(a->config.store) + 1);
    struct apply_result result = {0};
    a->changed = false;
    a->broken = ERR_OK;
    Raftpb__InternalRequest *r = NULL;
    if (e->type == RAFT_ENTRY_COMMAND) {
        ProtobufCAllocator allocator = message_allocator(arena);
        r = raftpb__internal_request__unpack(&allocator, e->size, e->data);
        if (!r || r->request_case == RAFTPB__INTERNAL_REQUEST__REQUEST__NOT_SET)
            return error_set(err, ERR_UNIMPLEMENTED,
                             "log entry %llu holds no request that this version knows: a newer "
                             "version wrote it, start that one",
                             (unsigned long long)e->index);
    }
    mvcc_begin(a->config.store, e->index, e->term, e->stamp);
    if (r) {
        const struct session *s = r->client_id ? sessions_find(&a->sessions, r->client_id) : NULL;
        result.request_id = r->id;
        if (s && r->client_seq <= s->seq) {
            result.code = replay(s, r, arena, &result.message);
        } else {
            a->answer = ret_result != NULL || r->client_id != 0;
            result.code = dispatch(a, r, arena, &result.message, err);
            bool local = ret_result != NULL; /* who proposed it */
            if (a->broken == ERR_OK && r->client_id &&
                (local || !MUTANT(session_table_not_replicated)))
                remember(a, e, r, result.code, result.message);
        }
        if (result.code != ERR_OK)
            result.message = NULL;
    }
    end(a, e);
    if (ret_result)
        *ret_result = result;
    return a->broken;
}

/* ---- reading ------------------------------------------------------------------------------------ */

enum errc apply_range(struct apply *a, const Etcdserverpb__RangeRequest *r, struct arena *arena,
                      Etcdserverpb__RangeResponse **ret_response, struct error *err)
{
    if (apply_alarm_corrupt(a))
        return ERR_CORRUPT;
    return kv_range(a, r, arena, ret_response, err);
}

enum errc apply_read_txn(struct apply *a, const Etcdserverpb__TxnRequest *r, struct arena *arena,
                         Etcdserverpb__TxnResponse **ret_response, struct error *err)
{
    assert(apply_txn_is_read_only(r));
    if (apply_alarm_corrupt(a))
        return ERR_CORRUPT;
    a->answer = true;
    a->broken = ERR_OK;
    return kv_txn(a, r, arena, ret_response, err);
}
