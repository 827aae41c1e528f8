#include <string.h>

#include "daemon/apply/internal.h"

static void *allocate(void *arena, size_t n)
{
    return arena_alloc(arena, n);
}

static void release(void *arena, void *p)
{
    (void)arena; /* dies with it */
    (void)p;
}

ProtobufCAllocator message_allocator(struct arena *arena)
{
    return (ProtobufCAllocator){allocate, release, arena};
}

void *message_new(struct arena *arena, const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *m = arena_alloc(arena, type->sizeof_message);
    protobuf_c_message_init(type, m);
    return m;
}

Etcdserverpb__ResponseHeader *message_header(struct arena *arena, int64_t revision)
{
    Etcdserverpb__ResponseHeader *h =
        MESSAGE_NEW(arena, Etcdserverpb__ResponseHeader, etcdserverpb__response_header__descriptor);
    h->revision = revision;
    return h;
}

static ProtobufCBinaryData copy(struct arena *arena, struct bytes b)
{
    if (b.n == 0)
        return (ProtobufCBinaryData){0, NULL};
    uint8_t *p = arena_alloc(arena, b.n);
    memcpy(p, b.p, b.n);
    return (ProtobufCBinaryData){b.n, p};
}

/* Copies: the response outlives the store's references, and packing it dwarfs the copy. */
Mvccpb__KeyValue *message_kv(struct arena *arena, const struct mvcc_kv *kv, bool with_value)
{
    Mvccpb__KeyValue *m = MESSAGE_NEW(arena, Mvccpb__KeyValue, mvccpb__key_value__descriptor);
    m->key = copy(arena, kv->key);
    if (with_value)
        m->value = copy(arena, kv->value);
    m->create_revision = kv->create_revision;
    m->mod_revision = kv->mod_revision;
    m->version = kv->version;
    m->lease = kv->lease;
    m->stamp = kv->stamp;
    return m;
}

const ProtobufCMessageDescriptor *response_type(int request_case)
{
    switch (request_case) {
    case RAFTPB__INTERNAL_REQUEST__REQUEST_PUT:
        return &etcdserverpb__put_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_DELETE_RANGE:
        return &etcdserverpb__delete_range_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_TXN:
        return &etcdserverpb__txn_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION:
        return &etcdserverpb__compaction_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT:
        return &etcdserverpb__lease_grant_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE:
        return &etcdserverpb__lease_revoke_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_CHECKPOINT:
        return &etcdserverpb__lease_checkpoint_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM:
        return &etcdserverpb__alarm_response__descriptor;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_MEMBER_ATTRIBUTES:
        return &raftpb__member_attributes__descriptor;
    default:
        return NULL;
    }
}
