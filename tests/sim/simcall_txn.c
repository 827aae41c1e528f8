/* The clients' requests as messages of etcd's API, and their answers as numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "proto/raft.pb-c.h"
#include "proto/rpc.pb-c.h"
#include "tests/sim/simcall.h"

#define OPS 6
#define REQUEST(name) RAFTPB__INTERNAL_REQUEST__REQUEST_##name
#define OP(name) ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_##name

/* Room for the largest request. */
struct call_message {
    Raftpb__InternalRequest internal;
    Etcdserverpb__RangeRequest range[2];
    Etcdserverpb__PutRequest put[3];
    Etcdserverpb__DeleteRangeRequest del;
    Etcdserverpb__TxnRequest txn, inner;
    Etcdserverpb__Compare compare, inner_compare;
    Etcdserverpb__Compare *compares[1], *inner_compares[1];
    Etcdserverpb__RequestOp op[OPS];
    Etcdserverpb__RequestOp *success[2], *failure[2], *inner_success[1], *inner_failure[1];
    Etcdserverpb__CompactionRequest compaction;
    Etcdserverpb__LeaseGrantRequest grant;
    Etcdserverpb__LeaseRevokeRequest revoke;
    Etcdserverpb__AlarmRequest alarm;
    char key[2][MODEL_KEY_BYTES + 1], values[3][24], expected[24];
    char *padded;
};

static ProtobufCBinaryData data(struct bytes b)
{
    return (ProtobufCBinaryData){b.n, (uint8_t *)b.p};
}

static ProtobufCBinaryData number(uint64_t v, char text[24])
{
    int n = snprintf(text, 24, "%llu", (unsigned long long)v);
    return (ProtobufCBinaryData){(size_t)n, (uint8_t *)text};
}

static void fill_put(struct call_message *m, size_t i, ProtobufCBinaryData key, uint64_t value,
                     int64_t lease)
{
    etcdserverpb__put_request__init(&m->put[i]);
    m->put[i].key = key;
    m->put[i].value = number(value, m->values[i]);
    m->put[i].lease = lease;
}

static Etcdserverpb__RequestOp *op_range(struct call_message *m, size_t i, size_t range)
{
    etcdserverpb__request_op__init(&m->op[i]);
    m->op[i].request_case = OP(RANGE);
    m->op[i].request_range = &m->range[range];
    return &m->op[i];
}

static Etcdserverpb__RequestOp *op_put(struct call_message *m, size_t i, size_t put)
{
    etcdserverpb__request_op__init(&m->op[i]);
    m->op[i].request_case = OP(PUT);
    m->op[i].request_put = &m->put[put];
    return &m->op[i];
}

static void fill_cas(struct call_message *m, const struct simreq *q, ProtobufCBinaryData key)
{
    m->compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    m->compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    m->compare.value = number(q->expected, m->expected);
    m->range[0].key = key;
    fill_put(m, 0, key, q->value, 0);
    m->success[0] = op_put(m, 0, 0);
    m->success[1] = op_range(m, 1, 0);
    m->failure[0] = op_range(m, 2, 0);
    m->txn.n_compare = 1;
    m->txn.n_success = 2;
    m->txn.n_failure = 1;
}

/* If key is there: put key = value, and in it: if key2 isn't there: put key2 = value + 1, else delete
 * key2. If key isn't there: put key = value + 2. */
static void fill_nested(struct call_message *m, const struct simreq *q, ProtobufCBinaryData key,
                        ProtobufCBinaryData key2)
{
    m->compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION;
    m->compare.result = ETCDSERVERPB__COMPARE__COMPARE_RESULT__GREATER;
    m->compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
    m->inner_compare.key = key2;
    m->inner_compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
    fill_put(m, 0, key, q->value, 0);
    fill_put(m, 1, key2, q->value + 1, 0);
    fill_put(m, 2, key, q->value + 2, 0);
    m->del.key = key2;
    m->inner_success[0] = op_put(m, 3, 1);
    etcdserverpb__request_op__init(&m->op[4]);
    m->op[4].request_case = OP(DELETE_RANGE);
    m->op[4].request_delete_range = &m->del;
    m->inner_failure[0] = &m->op[4];
    m->inner.n_compare = m->inner.n_success = m->inner.n_failure = 1;
    etcdserverpb__request_op__init(&m->op[5]);
    m->op[5].request_case = OP(TXN);
    m->op[5].request_txn = &m->inner;
    m->success[0] = op_put(m, 0, 0);
    m->success[1] = &m->op[5];
    m->failure[0] = op_put(m, 1, 2);
    m->txn.n_compare = m->txn.n_failure = 1;
    m->txn.n_success = 2;
}

static void fill_old(struct call_message *m, const struct simreq *q, ProtobufCBinaryData key)
{
    m->range[0].key = key;
    m->range[0].revision = q->revision;
    fill_put(m, 0, key, q->value, 0);
    m->success[0] = op_range(m, 0, 0);
    m->success[1] = op_put(m, 1, 0);
    m->txn.n_success = 2;
}

static void fill_txn(struct call_message *m, const struct simreq *q, ProtobufCBinaryData key,
                     ProtobufCBinaryData key2)
{
    m->internal.request_case = REQUEST(TXN);
    m->internal.txn = &m->txn;
    m->compare.key = key;
    m->compares[0] = &m->compare;
    m->inner_compares[0] = &m->inner_compare;
    m->txn.compare = m->compares;
    m->txn.success = m->success;
    m->txn.failure = m->failure;
    m->inner.compare = m->inner_compares;
    m->inner.success = m->inner_success;
    m->inner.failure = m->inner_failure;
    if (q->kind == REQ_CAS)
        fill_cas(m, q, key);
    else if (q->kind == REQ_NESTED)
        fill_nested(m, q, key, key2);
    else
        fill_old(m, q, key);
}

/* Not all the same byte: a compressing disk would not mind, but a wrong offset should be seen. */
static void pad(struct call_message *m, const struct simreq *q)
{
    ProtobufCBinaryData *value = &m->put[0].value;
    m->padded = xmalloc(q->size);
    memcpy(m->padded, value->data, value->len);
    for (size_t i = value->len; i < q->size; i++)
        m->padded[i] = (char)('a' + (i + q->value) % 26);
    *value = (ProtobufCBinaryData){q->size, (uint8_t *)m->padded};
}

static void init(struct call_message *m, const struct simreq *q)
{
    raftpb__internal_request__init(&m->internal);
    m->internal.client_id = q->client_id;
    m->internal.client_seq = q->client_seq;
    for (size_t i = 0; i < 2; i++)
        etcdserverpb__range_request__init(&m->range[i]);
    etcdserverpb__delete_range_request__init(&m->del);
    etcdserverpb__txn_request__init(&m->txn);
    etcdserverpb__txn_request__init(&m->inner);
    etcdserverpb__compare__init(&m->compare);
    etcdserverpb__compare__init(&m->inner_compare);
    etcdserverpb__compaction_request__init(&m->compaction);
    etcdserverpb__lease_grant_request__init(&m->grant);
    etcdserverpb__lease_revoke_request__init(&m->revoke);
    etcdserverpb__alarm_request__init(&m->alarm);
}

struct call_message *call_message_new(const struct simreq *q)
{
    struct call_message *m = xcalloc(1, sizeof(*m));
    init(m, q);
    ProtobufCBinaryData key = data(model_key(q->key, m->key[0]));
    ProtobufCBinaryData key2 = data(model_key(q->key2, m->key[1]));
    bool is_range = q->kind == REQ_RANGE || q->kind == REQ_DELETE_RANGE;
    m->range[0].key = m->del.key = key;
    m->range[0].revision = q->revision;
    m->range[0].serializable = q->serializable;
    if (is_range)
        m->range[0].range_end = m->del.range_end = key2;
    switch (q->kind) {
    case REQ_PUT:
        fill_put(m, 0, key, q->value, q->lease);
        if (q->size > m->put[0].value.len)
            pad(m, q);
        m->internal.request_case = REQUEST(PUT);
        m->internal.put = &m->put[0];
        break;
    case REQ_DELETE:
    case REQ_DELETE_RANGE:
        m->internal.request_case = REQUEST(DELETE_RANGE);
        m->internal.delete_range = &m->del;
        break;
    case REQ_COMPACT:
        m->compaction.revision = q->revision;
        m->internal.request_case = REQUEST(COMPACTION);
        m->internal.compaction = &m->compaction;
        break;
    case REQ_GRANT:
        m->grant.id = q->lease;
        m->grant.ttl = q->ttl;
        m->internal.request_case = REQUEST(LEASE_GRANT);
        m->internal.lease_grant = &m->grant;
        break;
    case REQ_REVOKE:
        m->revoke.id = q->lease;
        m->internal.request_case = REQUEST(LEASE_REVOKE);
        m->internal.lease_revoke = &m->revoke;
        break;
    case REQ_DISARM:
        m->alarm.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
        m->alarm.alarm = ETCDSERVERPB__ALARM_TYPE__NOSPACE;
        m->alarm.memberid = (uint64_t)q->lease;
        m->internal.request_case = REQUEST(ALARM);
        m->internal.alarm = &m->alarm;
        break;
    case REQ_CAS:
    case REQ_NESTED:
    case REQ_OLD_TXN:
        fill_txn(m, q, key, key2);
        break;
    default:
        break;
    }
    return m;
}

void call_message_free(struct call_message *m)
{
    free(m->padded);
    free(m);
}

void *call_message_internal(struct call_message *m)
{
    return &m->internal;
}

void *call_message_range(struct call_message *m)
{
    return &m->range[0];
}

/* ---- answers ------------------------------------------------------------------------------------ */

static void take_kvs(struct model *m, const Etcdserverpb__RangeResponse *r, struct simanswer *a)
{
    a->count = r->n_kvs;
    a->kvs = xcalloc(r->n_kvs + 1, sizeof(*a->kvs));
    for (size_t i = 0; i < r->n_kvs; i++) {
        const Mvccpb__KeyValue *kv = r->kvs[i];
        a->kvs[i] = (struct modelkv){
            .key = model_key_number(m, bytes_of(kv->key.data, kv->key.len)),
            .value = model_value_number(bytes_of(kv->value.data, kv->value.len)),
            .create_revision = kv->create_revision,
            .mod_revision = kv->mod_revision,
            .version = kv->version,
            .lease = kv->lease,
        };
    }
}

static void take_txn(struct model *m, const struct simreq *q, const Etcdserverpb__TxnResponse *r,
                     struct simanswer *a)
{
    a->revision = r->header->revision;
    a->succeeded = r->succeeded;
    for (size_t i = 0; i < r->n_responses && q->kind != REQ_NESTED; i++) {
        const Etcdserverpb__ResponseOp *op = r->responses[i];
        if (op->response_case == ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
            take_kvs(m, op->response_range, a);
    }
}

void call_take(struct model *m, const struct simreq *q, const void *message, struct simanswer *a)
{
    switch (q->kind) {
    case REQ_PUT:
        a->revision = ((const Etcdserverpb__PutResponse *)message)->header->revision;
        break;
    case REQ_DELETE:
    case REQ_DELETE_RANGE:
        a->revision = ((const Etcdserverpb__DeleteRangeResponse *)message)->header->revision;
        a->deleted = ((const Etcdserverpb__DeleteRangeResponse *)message)->deleted;
        break;
    case REQ_CAS:
    case REQ_NESTED:
    case REQ_OLD_TXN:
        take_txn(m, q, message, a);
        break;
    case REQ_GET:
    case REQ_RANGE:
        a->revision = ((const Etcdserverpb__RangeResponse *)message)->header->revision;
        take_kvs(m, message, a);
        break;
    case REQ_GRANT:
        a->revision = ((const Etcdserverpb__LeaseGrantResponse *)message)->header->revision;
        a->ttl = ((const Etcdserverpb__LeaseGrantResponse *)message)->ttl;
        break;
    case REQ_COMPACT:
        a->revision = ((const Etcdserverpb__CompactionResponse *)message)->header->revision;
        break;
    case REQ_REVOKE:
        a->revision = ((const Etcdserverpb__LeaseRevokeResponse *)message)->header->revision;
        break;
    case REQ_DISARM:
        a->revision = ((const Etcdserverpb__AlarmResponse *)message)->header->revision;
        break;
    case REQ_KEEPALIVE:
        break;
    }
}
