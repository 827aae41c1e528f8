/* What the files of the state machine share. */
#ifndef APPLY_INTERNAL_H
#define APPLY_INTERNAL_H

#include "daemon/apply/apply.h"
#include "daemon/apply/sessions.h"

struct alarm_row {
    uint64_t member_id;
    int type;        /* Etcdserverpb__AlarmType */
    unsigned causes; /* enum alarm_cause */
};

/* At most one row for each member and type. */
#define APPLY_ALARMS_MAX (2 * RAFT_MEMBERS_MAX * 4)

struct apply {
    struct apply_config config;
    struct sessions sessions;
    struct alarm_row alarms[APPLY_ALARMS_MAX]; /* sorted by type, member */
    size_t alarm_count;
    bool changed;     /* the entry under way has changed a key */
    bool answer;      /* somebody waits for the response: what only it needs is looked up */
    enum errc broken; /* the store can't be read: the outcome is no outcome, the process must end */
};

/* mvcc_range() that notes in `broken` what isn't an answer to a request. */
enum errc apply_query(struct apply *a, const struct mvcc_query *q, struct mvcc_result *ret_result,
                      struct error *err);

/* Where a read happens: etcd's read view. Inside an entry, revision 0 sees the entry's own writes. */
int64_t apply_revision(const struct apply *a); /* of the store, the entry under way included */

/* ---- message.c: etcd's messages in an arena ---- */
ProtobufCAllocator message_allocator(struct arena *arena);
void *message_new(struct arena *arena, const ProtobufCMessageDescriptor *type);
#define MESSAGE_NEW(arena, Type, descriptor) ((Type *)message_new(arena, &(descriptor)))
Etcdserverpb__ResponseHeader *message_header(struct arena *arena, int64_t revision);
Mvccpb__KeyValue *message_kv(struct arena *arena, const struct mvcc_kv *kv, bool with_value);
static inline struct bytes message_bytes(ProtobufCBinaryData d)
{
    return bytes_of(d.data, d.len);
}
/* An empty end is "no end". */
static inline struct mvcc_range message_range(ProtobufCBinaryData key, ProtobufCBinaryData end)
{
    struct mvcc_range r = {.key = message_bytes(key)};
    if (end.len)
        r.end = message_bytes(end);
    return r;
}

/* ---- one operation each; the header holds the revision only ---- */
enum errc kv_range(struct apply *a, const Etcdserverpb__RangeRequest *r, struct arena *arena,
                   Etcdserverpb__RangeResponse **ret_response, struct error *err);
/* check_lease: outside a transaction; inside, it was checked before anything was written. */
enum errc kv_put(struct apply *a, const Etcdserverpb__PutRequest *r, bool check_lease,
                 struct arena *arena, Etcdserverpb__PutResponse **ret_response, struct error *err);
enum errc kv_delete_range(struct apply *a, const Etcdserverpb__DeleteRangeRequest *r,
                          struct arena *arena, Etcdserverpb__DeleteRangeResponse **ret_response,
                          struct error *err);
enum errc kv_txn(struct apply *a, const Etcdserverpb__TxnRequest *r, struct arena *arena,
                 Etcdserverpb__TxnResponse **ret_response, struct error *err);
enum errc kv_compaction(struct apply *a, const Etcdserverpb__CompactionRequest *r,
                        struct arena *arena, const ProtobufCMessage **ret_message);

enum errc lease_grant(struct apply *a, const Etcdserverpb__LeaseGrantRequest *r,
                      struct arena *arena, const ProtobufCMessage **ret_message);
enum errc lease_revoke(struct apply *a, const Etcdserverpb__LeaseRevokeRequest *r,
                       struct arena *arena, const ProtobufCMessage **ret_message);
enum errc lease_checkpoint(struct apply *a, const Etcdserverpb__LeaseCheckpointRequest *r,
                           struct arena *arena, const ProtobufCMessage **ret_message);
enum errc lease_load(struct apply *a, struct error *err);

enum errc alarm_apply(struct apply *a, const Etcdserverpb__AlarmRequest *r, unsigned cause,
                      struct arena *arena, const ProtobufCMessage **ret_message);
enum errc alarm_load(struct apply *a, struct error *err);
bool alarm_active(const struct apply *a, int type);

uint64_t txn_cost(const Etcdserverpb__TxnRequest *r);
/* The type of the answer to a request, NULL if this version doesn't know the request. */
const ProtobufCMessageDescriptor *response_type(int request_case);

#endif
