/* Put, DeleteRange and Compaction. */
#include "daemon/apply/internal.h"
#include "lib/base/mutant.h"

static enum errc broken(struct apply *a, enum errc code)
{
    if (code != ERR_OK)
        a->broken = code;
    return code;
}

enum errc kv_put(struct apply *a, const Etcdserverpb__PutRequest *r, bool check_lease,
                 struct arena *arena, Etcdserverpb__PutResponse **ret_response, struct error *err)
{
    if (check_lease && r->lease && !lessor_exists(a->config.lessor, r->lease) &&
        !MUTANT(put_with_ended_lease))
        return ERR_LEASE_NOT_FOUND;
    struct mvcc_result before = {0};
    bool keep = r->ignore_value || r->ignore_lease;
    if (keep || (r->prev_kv && a->answer)) {
        struct mvcc_query q = {.range = {.key = message_bytes(r->key)}, .no_total = true};
        enum errc code = apply_query(a, &q, &before, err);
        if (code != ERR_OK)
            return code;
    }
    struct mvcc_kv *prev = before.count ? before.kvs[0] : NULL;
    if (keep && !prev) {
        mvcc_result_free(&before);
        return ERR_KEY_NOT_FOUND;
    }
    struct bytes value = r->ignore_value ? prev->value : message_bytes(r->value);
    int64_t lease = r->ignore_lease ? prev->lease : r->lease;
    enum errc code = mvcc_put(a->config.store, message_bytes(r->key), value, lease, NULL);
    if (code == ERR_OK) {
        a->changed = true;
        Etcdserverpb__PutResponse *m =
            MESSAGE_NEW(arena, Etcdserverpb__PutResponse, etcdserverpb__put_response__descriptor);
        m->header = message_header(arena, apply_revision(a));
        if (r->prev_kv && prev)
            m->prev_kv = message_kv(arena, prev, true);
        *ret_response = m;
    }
    mvcc_result_free(&before);
    return broken(a, code);
}

enum errc kv_delete_range(struct apply *a, const Etcdserverpb__DeleteRangeRequest *r,
                          struct arena *arena, Etcdserverpb__DeleteRangeResponse **ret_response,
                          struct error *err)
{
    struct mvcc_range range = message_range(r->key, r->range_end);
    Etcdserverpb__DeleteRangeResponse *m = MESSAGE_NEW(
        arena, Etcdserverpb__DeleteRangeResponse, etcdserverpb__delete_range_response__descriptor);
    if (r->prev_kv && a->answer) {
        struct mvcc_result before;
        struct mvcc_query q = {.range = range, .no_total = true};
        enum errc code = apply_query(a, &q, &before, err);
        if (code != ERR_OK)
            return code;
        m->n_prev_kvs = before.count;
        m->prev_kvs = arena_alloc(arena, (before.count + 1) * sizeof(Mvccpb__KeyValue *));
        for (size_t i = 0; i < before.count; i++)
            m->prev_kvs[i] = message_kv(arena, before.kvs[i], true);
        mvcc_result_free(&before);
    }
    enum errc code = mvcc_delete(a->config.store, &range, &m->deleted, NULL);
    if (code != ERR_OK)
        return broken(a, code);
    a->changed |= m->deleted > 0;
    m->header = message_header(arena, apply_revision(a));
    *ret_response = m;
    return ERR_OK;
}

enum errc kv_compaction(struct apply *a, const Etcdserverpb__CompactionRequest *r,
                        struct arena *arena, const ProtobufCMessage **ret_message)
{
    enum errc code = mvcc_compact(a->config.store, r->revision);
    if (code != ERR_OK)
        return code;
    Etcdserverpb__CompactionResponse *m = MESSAGE_NEW(
        arena, Etcdserverpb__CompactionResponse, etcdserverpb__compaction_response__descriptor);
    m->header = message_header(arena, apply_revision(a));
    *ret_message = &m->base;
    return ERR_OK;
}
