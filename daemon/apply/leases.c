/* Lease requests, and the rows that bring leases back after a restart. */
#include <stdlib.h>

#include "daemon/apply/internal.h"

static uint64_t now_ms(const struct apply *a)
{
    return a->config.now_ms(a->config.now_ctx);
}

static void save(struct apply *a, int64_t id, int64_t ttl, int64_t remaining_ttl)
{
    Raftpb__LeaseRow row = RAFTPB__LEASE_ROW__INIT;
    row.id = id;
    row.ttl = ttl;
    row.remaining_ttl = remaining_ttl;
    uint8_t key[8], packed[64]; /* three varints of at most 11 bytes with their tags */
    put_le64(key, (uint64_t)id);
    size_t n = raftpb__lease_row__pack(&row, packed);
    mvcc_bucket_put(a->config.store, MVCC_BUCKET_LEASE, bytes_of(key, 8), bytes_of(packed, n));
}

enum errc lease_grant(struct apply *a, const Etcdserverpb__LeaseGrantRequest *r,
                      struct arena *arena, const ProtobufCMessage **ret_message)
{
    enum errc code = lessor_grant(a->config.lessor, r->id, r->ttl, now_ms(a));
    if (code != ERR_OK)
        return code;
    struct lease_info info;
    code = lessor_info(a->config.lessor, r->id, now_ms(a), &info);
    if (code != ERR_OK)
        return code;
    save(a, r->id, info.granted_ttl, 0);
    Etcdserverpb__LeaseGrantResponse *m = MESSAGE_NEW(
        arena, Etcdserverpb__LeaseGrantResponse, etcdserverpb__lease_grant_response__descriptor);
    m->header = message_header(arena, apply_revision(a));
    m->id = r->id;
    m->ttl = info.granted_ttl;
    *ret_message = &m->base;
    return ERR_OK;
}

/* All keys go in one revision, in order. */
enum errc lease_revoke(struct apply *a, const Etcdserverpb__LeaseRevokeRequest *r,
                       struct arena *arena, const ProtobufCMessage **ret_message)
{
    struct bytes *keys;
    size_t count;
    enum errc code = lessor_revoke(a->config.lessor, r->id, &keys, &count);
    if (code != ERR_OK)
        return code;
    for (size_t i = 0; i < count; i++) {
        int64_t deleted = 0;
        code = mvcc_delete(a->config.store, &(struct mvcc_range){.key = keys[i]}, &deleted, NULL);
        if (code != ERR_OK)
            a->broken = code;
        a->changed |= deleted > 0;
        free((void *)keys[i].p);
    }
    free(keys);
    uint8_t key[8];
    put_le64(key, (uint64_t)r->id);
    mvcc_bucket_put(a->config.store, MVCC_BUCKET_LEASE, bytes_of(key, 8), BYTES_EMPTY);
    Etcdserverpb__LeaseRevokeResponse *m = MESSAGE_NEW(
        arena, Etcdserverpb__LeaseRevokeResponse, etcdserverpb__lease_revoke_response__descriptor);
    m->header = message_header(arena, apply_revision(a));
    *ret_message = &m->base;
    return a->broken;
}

enum errc lease_checkpoint(struct apply *a, const Etcdserverpb__LeaseCheckpointRequest *r,
                           struct arena *arena, const ProtobufCMessage **ret_message)
{
    Etcdserverpb__LeaseCheckpointResponse *m =
        MESSAGE_NEW(arena, Etcdserverpb__LeaseCheckpointResponse,
                    etcdserverpb__lease_checkpoint_response__descriptor);
    for (size_t i = 0; i < r->n_checkpoints; i++) {
        int64_t id = r->checkpoints[i]->id, remaining = r->checkpoints[i]->remaining_ttl;
        struct lease_info info;
        /* One that was revoked meanwhile doesn't keep the others from theirs. */
        if (lessor_checkpoint(a->config.lessor, id, remaining) != ERR_OK ||
            lessor_info(a->config.lessor, id, now_ms(a), &info) != ERR_OK)
            continue;
        save(a, id, info.granted_ttl, lessor_stored_remaining(a->config.lessor, id));
    }
    m->header = message_header(arena, apply_revision(a));
    *ret_message = &m->base;
    return ERR_OK;
}

/* ---- loading ------------------------------------------------------------------------------------- */

struct load {
    struct apply *apply;
    bool bad;
};

static void load_row(void *ctx, struct bytes key, struct bytes value)
{
    struct load *l = ctx;
    struct lessor *lessor = l->apply->config.lessor;
    Raftpb__LeaseRow *row = key.n == 8 ? raftpb__lease_row__unpack(NULL, value.n, value.p) : NULL;
    if (!row || lessor_grant(lessor, row->id, row->ttl, now_ms(l->apply)) != ERR_OK ||
        lessor_checkpoint(lessor, row->id, row->remaining_ttl) != ERR_OK)
        l->bad = true;
    if (row)
        raftpb__lease_row__free_unpacked(row, NULL);
}

static void load_key(void *ctx, struct bytes key, int64_t lease)
{
    struct apply *a = ctx;
    lessor_attach(a->config.lessor, lease, key);
}

enum errc lease_load(struct apply *a, struct error *err)
{
    lessor_clear(a->config.lessor);
    struct load l = {a, false};
    enum errc code = mvcc_bucket_each(a->config.store, MVCC_BUCKET_LEASE, load_row, &l, err);
    if (code != ERR_OK)
        return code;
    if (l.bad)
        return error_set(err, ERR_CORRUPT, "a row of the leases can't be decoded");
    mvcc_each_leased(a->config.store, load_key, a);
    return ERR_OK;
}
