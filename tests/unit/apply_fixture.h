/* A state machine on a store in a temporary folder, and short ways to build requests for it. */
#ifndef TESTS_APPLY_FIXTURE_H
#define TESTS_APPLY_FIXTURE_H

#include <string.h>

#include "daemon/apply/apply.h"
#include "tests/unit/temp_store.h"

#define MEMBER_ID 77 /* of the member that applies */

static struct temp_store f;
static struct watch_hub *hub;
static struct lessor *lessor;
static struct apply *apply;
static struct arena arena;

static inline uint64_t no_time(void *ctx)
{
    (void)ctx;
    return 0;
}

static inline void open_state(void)
{
    hub = watch_hub_new(f.store);
    lessor = lessor_new();
    apply = apply_new(&(struct apply_config){
        .store = f.store, .lessor = lessor, .hub = hub, .member_id = MEMBER_ID, .now_ms = no_time});
    struct error err;
    assert_int_equal(apply_load(apply, &err), ERR_OK);
}

static inline void close_state(void)
{
    apply_free(apply);
    lessor_free(lessor);
    watch_hub_free(hub);
    arena_free(&arena);
}

static inline int setup(void **state)
{
    (void)state;
    temp_store_open(&f);
    open_state();
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    close_state();
    temp_store_close(&f);
    return 0;
}

/* As a process that is killed once everything is written. */
static inline void restart(void)
{
    close_state();
    temp_store_abandon(&f);
    temp_store_open_dir(&f);
    open_state();
}

/* ---- building requests --------------------------------------------------------------------------- */

static ProtobufCBinaryData data(const char *s)
{
    if (!s)
        return (ProtobufCBinaryData){0};
    if (s[0] == '\\' && s[1] == '0' && s[2] == 0)
        return (ProtobufCBinaryData){1, (uint8_t *)""}; /* the byte 0 */
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

#define NEW(Type, init)                                                                            \
    ({                                                                                             \
        Type *new_ = arena_alloc(&arena, sizeof(Type));                                            \
        *new_ = (Type)init;                                                                        \
        new_;                                                                                      \
    })

static inline Etcdserverpb__RequestOp *op_put(const char *key, const char *value)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op->request_put = NEW(Etcdserverpb__PutRequest, ETCDSERVERPB__PUT_REQUEST__INIT);
    op->request_put->key = data(key);
    op->request_put->value = data(value);
    return op;
}

static inline Etcdserverpb__RequestOp *op_delete(const char *key, const char *end)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op->request_delete_range =
        NEW(Etcdserverpb__DeleteRangeRequest, ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT);
    op->request_delete_range->key = data(key);
    op->request_delete_range->range_end = data(end);
    return op;
}

static inline Etcdserverpb__RequestOp *op_range(const char *key, const char *end, int64_t revision)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    op->request_range = NEW(Etcdserverpb__RangeRequest, ETCDSERVERPB__RANGE_REQUEST__INIT);
    op->request_range->key = data(key);
    op->request_range->range_end = data(end);
    op->request_range->revision = revision;
    return op;
}

static inline Etcdserverpb__RequestOp *op_txn(Etcdserverpb__TxnRequest *t)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
    op->request_txn = t;
    return op;
}

static inline Etcdserverpb__TxnRequest *txn(void)
{
    return NEW(Etcdserverpb__TxnRequest, ETCDSERVERPB__TXN_REQUEST__INIT);
}

static inline void add(Etcdserverpb__RequestOp ***ops, size_t *count, Etcdserverpb__RequestOp *op)
{
    Etcdserverpb__RequestOp **grown = arena_alloc(&arena, (*count + 1) * sizeof(*grown));
    if (*count)
        memcpy(grown, *ops, *count * sizeof(*grown));
    grown[(*count)++] = op;
    *ops = grown;
}

static inline Etcdserverpb__TxnRequest *then(Etcdserverpb__TxnRequest *t,
                                             Etcdserverpb__RequestOp *op)
{
    add(&t->success, &t->n_success, op);
    return t;
}

static inline Etcdserverpb__TxnRequest *otherwise(Etcdserverpb__TxnRequest *t,
                                                  Etcdserverpb__RequestOp *op)
{
    add(&t->failure, &t->n_failure, op);
    return t;
}

#define TARGET(name) ETCDSERVERPB__COMPARE__COMPARE_TARGET__##name
#define RESULT(name) ETCDSERVERPB__COMPARE__COMPARE_RESULT__##name

/* operand: a number, or a value for VALUE. */
static inline Etcdserverpb__TxnRequest *when(Etcdserverpb__TxnRequest *t, const char *key,
                                             const char *end, int target, int result,
                                             int64_t number, const char *value)
{
    Etcdserverpb__Compare *c = NEW(Etcdserverpb__Compare, ETCDSERVERPB__COMPARE__INIT);
    c->key = data(key);
    c->range_end = data(end);
    c->target = target;
    c->result = result;
    switch (target) {
    case TARGET(VALUE):
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
        c->value = data(value);
        break;
    case TARGET(VERSION):
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
        c->version = number;
        break;
    case TARGET(CREATE):
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
        c->create_revision = number;
        break;
    case TARGET(MOD):
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        c->mod_revision = number;
        break;
    default:
        c->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE;
        c->lease = number;
        break;
    }
    Etcdserverpb__Compare **grown = arena_alloc(&arena, (t->n_compare + 1) * sizeof(*grown));
    if (t->n_compare)
        memcpy(grown, t->compare, t->n_compare * sizeof(*grown));
    grown[t->n_compare++] = c;
    t->compare = grown;
    return t;
}

/* ---- applying ------------------------------------------------------------------------------------ */

static inline struct apply_result run(Raftpb__InternalRequest *r)
{
    size_t n = raftpb__internal_request__get_packed_size(r);
    uint8_t *packed = xmalloc(n + 1);
    raftpb__internal_request__pack(r, packed);
    uint64_t index = mvcc_applied_index(f.store) + 1;
    struct raft_entry *e =
        raft_entry_new(3, index, RAFT_ENTRY_COMMAND, 1000 + index, bytes_of(packed, n));
    free(packed);
    struct apply_result result;
    struct error err;
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_OK);
    raft_entry_unref(e);
    return result;
}

static inline struct apply_result run_op(const Etcdserverpb__RequestOp *op)
{
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    switch (op->request_case) {
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT:
        r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
        r.put = op->request_put;
        break;
    case ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE:
        r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_DELETE_RANGE;
        r.delete_range = op->request_delete_range;
        break;
    default:
        r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_TXN;
        r.txn = op->request_txn;
        break;
    }
    return run(&r);
}

static inline int64_t put(const char *key, const char *value)
{
    struct apply_result r = run_op(op_put(key, value));
    assert_int_equal(r.code, ERR_OK);
    return ((const Etcdserverpb__PutResponse *)r.message)->header->revision;
}

static inline const Etcdserverpb__TxnResponse *run_txn(Etcdserverpb__TxnRequest *t)
{
    struct apply_result r = run_op(op_txn(t));
    assert_int_equal(r.code, ERR_OK);
    return (const Etcdserverpb__TxnResponse *)r.message;
}

static inline enum errc grant(int64_t id, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest g = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    g.id = id;
    g.ttl = ttl;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT;
    r.lease_grant = &g;
    return run(&r).code;
}

static inline struct apply_result revoke_lease(int64_t id)
{
    Etcdserverpb__LeaseRevokeRequest v = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    v.id = id;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE;
    r.lease_revoke = &v;
    return run(&r);
}

static inline enum errc compact(int64_t revision)
{
    Etcdserverpb__CompactionRequest c = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    c.revision = revision;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION;
    r.compaction = &c;
    return run(&r).code;
}

/* "K=V@MOD ..." of a range, then "+" if there is more, then the count. */
static inline const char *show(const Etcdserverpb__RangeResponse *m)
{
    static char text[2048];
    size_t n = 0;
    for (size_t i = 0; i < m->n_kvs; i++)
        n +=
            (size_t)snprintf(text + n, sizeof(text) - n, "%.*s=%.*s@%lld ", (int)m->kvs[i]->key.len,
                             m->kvs[i]->key.data, (int)m->kvs[i]->value.len, m->kvs[i]->value.data,
                             (long long)m->kvs[i]->mod_revision);
    snprintf(text + n, sizeof(text) - n, "%s#%lld", m->more ? "+" : "", (long long)m->count);
    return text;
}

static inline const char *range(Etcdserverpb__RangeRequest *r)
{
    Etcdserverpb__RangeResponse *m;
    struct error err;
    enum errc code = apply_range(apply, r, &arena, &m, &err);
    return code == ERR_OK ? show(m) : errc_text(code);
}

static inline const char *get(const char *key, const char *end, int64_t revision)
{
    return range(op_range(key, end, revision)->request_range);
}

#endif
