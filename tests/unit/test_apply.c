/* The state machine: requests and what etcd 3.5 answers to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "daemon/apply/apply.h"
#include "tests/unit/temp_store.h"

static struct temp_store f;
static struct watch_hub *hub;
static struct lessor *lessor;
static struct apply *apply;
static struct arena arena;

static uint64_t no_time(void *ctx)
{
    (void)ctx;
    return 0;
}

static void open_state(void)
{
    hub = watch_hub_new(f.store);
    lessor = lessor_new();
    apply = apply_new(
        &(struct apply_config){.store = f.store, .lessor = lessor, .hub = hub, .now_ms = no_time});
    struct error err;
    assert_int_equal(apply_load(apply, &err), ERR_OK);
}

static void close_state(void)
{
    apply_free(apply);
    lessor_free(lessor);
    watch_hub_free(hub);
    arena_free(&arena);
}

static int setup(void **state)
{
    (void)state;
    temp_store_open(&f);
    open_state();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close_state();
    temp_store_close(&f);
    return 0;
}

/* As a process that is killed once everything is written. */
static void restart(void)
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
    return (ProtobufCBinaryData){strcmp(s, "\\0") == 0 ? 1 : strlen(s),
                                 (uint8_t *)(strcmp(s, "\\0") == 0 ? "" : s)};
}

#define NEW(Type, init)                                                                            \
    ({                                                                                             \
        Type *new_ = arena_alloc(&arena, sizeof(Type));                                            \
        *new_ = (Type)init;                                                                        \
        new_;                                                                                      \
    })

static Etcdserverpb__RequestOp *op_put(const char *key, const char *value)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op->request_put = NEW(Etcdserverpb__PutRequest, ETCDSERVERPB__PUT_REQUEST__INIT);
    op->request_put->key = data(key);
    op->request_put->value = data(value);
    return op;
}

static Etcdserverpb__RequestOp *op_delete(const char *key, const char *end)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    op->request_delete_range =
        NEW(Etcdserverpb__DeleteRangeRequest, ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT);
    op->request_delete_range->key = data(key);
    op->request_delete_range->range_end = data(end);
    return op;
}

static Etcdserverpb__RequestOp *op_range(const char *key, const char *end, int64_t revision)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
    op->request_range = NEW(Etcdserverpb__RangeRequest, ETCDSERVERPB__RANGE_REQUEST__INIT);
    op->request_range->key = data(key);
    op->request_range->range_end = data(end);
    op->request_range->revision = revision;
    return op;
}

static Etcdserverpb__RequestOp *op_txn(Etcdserverpb__TxnRequest *t)
{
    Etcdserverpb__RequestOp *op = NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT);
    op->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN;
    op->request_txn = t;
    return op;
}

static Etcdserverpb__TxnRequest *txn(void)
{
    return NEW(Etcdserverpb__TxnRequest, ETCDSERVERPB__TXN_REQUEST__INIT);
}

static void add(Etcdserverpb__RequestOp ***ops, size_t *count, Etcdserverpb__RequestOp *op)
{
    Etcdserverpb__RequestOp **grown = arena_alloc(&arena, (*count + 1) * sizeof(*grown));
    if (*count)
        memcpy(grown, *ops, *count * sizeof(*grown));
    grown[(*count)++] = op;
    *ops = grown;
}

static Etcdserverpb__TxnRequest *then(Etcdserverpb__TxnRequest *t, Etcdserverpb__RequestOp *op)
{
    add(&t->success, &t->n_success, op);
    return t;
}

static Etcdserverpb__TxnRequest *otherwise(Etcdserverpb__TxnRequest *t, Etcdserverpb__RequestOp *op)
{
    add(&t->failure, &t->n_failure, op);
    return t;
}

#define TARGET(name) ETCDSERVERPB__COMPARE__COMPARE_TARGET__##name
#define RESULT(name) ETCDSERVERPB__COMPARE__COMPARE_RESULT__##name

/* operand: a number, or a value for VALUE. */
static Etcdserverpb__TxnRequest *when(Etcdserverpb__TxnRequest *t, const char *key, const char *end,
                                      int target, int result, int64_t number, const char *value)
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

static struct apply_result run(Raftpb__InternalRequest *r)
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

static struct apply_result run_op(const Etcdserverpb__RequestOp *op)
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

static int64_t put(const char *key, const char *value)
{
    struct apply_result r = run_op(op_put(key, value));
    assert_int_equal(r.code, ERR_OK);
    return ((const Etcdserverpb__PutResponse *)r.message)->header->revision;
}

static const Etcdserverpb__TxnResponse *run_txn(Etcdserverpb__TxnRequest *t)
{
    struct apply_result r = run_op(op_txn(t));
    assert_int_equal(r.code, ERR_OK);
    return (const Etcdserverpb__TxnResponse *)r.message;
}

static enum errc grant(int64_t id, int64_t ttl)
{
    Etcdserverpb__LeaseGrantRequest g = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    g.id = id;
    g.ttl = ttl;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT;
    r.lease_grant = &g;
    return run(&r).code;
}

static struct apply_result revoke_lease(int64_t id)
{
    Etcdserverpb__LeaseRevokeRequest v = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
    v.id = id;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE;
    r.lease_revoke = &v;
    return run(&r);
}

static enum errc compact(int64_t revision)
{
    Etcdserverpb__CompactionRequest c = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    c.revision = revision;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION;
    r.compaction = &c;
    return run(&r).code;
}

/* "K=V@MOD ..." of a range, then "+" if there is more, then the count. */
static const char *show(const Etcdserverpb__RangeResponse *m)
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

static const char *range(Etcdserverpb__RangeRequest *r)
{
    Etcdserverpb__RangeResponse *m;
    struct error err;
    enum errc code = apply_range(apply, r, &arena, &m, &err);
    return code == ERR_OK ? show(m) : errc_text(code);
}

static const char *get(const char *key, const char *end, int64_t revision)
{
    return range(op_range(key, end, revision)->request_range);
}

/* ---- range ---------------------------------------------------------------------------------------- */

static void range_options(void **state)
{
    (void)state;
    put("a", "3"); /* 2 */
    put("b", "1"); /* 3 */
    put("c", "2"); /* 4 */
    put("a", "3"); /* 5: version 2, created at 2 */
    assert_string_equal(get("a", NULL, 0), "a=3@5 #1");
    assert_string_equal(get("a", "c", 0), "a=3@5 b=1@3 #2");
    assert_string_equal(get("b", "\\0", 0), "b=1@3 c=2@4 #2");
    assert_string_equal(get("a", "\\0", 3), "a=3@2 b=1@3 #2");
    assert_string_equal(get("x", "a", 0), "#0");
    assert_string_equal(get("a", NULL, 6), errc_text(ERR_FUTURE_REV));
    assert_string_equal(get("a", NULL, -1), "a=3@5 #1");

    Etcdserverpb__RangeRequest r = *op_range("a", "\\0", 0)->request_range;
    r.limit = 2;
    assert_string_equal(range(&r), "a=3@5 b=1@3 +#3");
    r.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    assert_string_equal(range(&r), "c=2@4 b=1@3 +#3");
    r.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__ASCEND;
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE;
    assert_string_equal(range(&r), "b=1@3 c=2@4 +#3");
    r.keys_only = true;
    assert_string_equal(range(&r), "b=@3 c=@4 +#3");
    r.keys_only = false;
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__MOD;
    assert_string_equal(range(&r), "b=1@3 c=2@4 +#3");
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VERSION;
    r.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    assert_string_equal(range(&r), "a=3@5 b=1@3 +#3");
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__CREATE;
    r.limit = 0;
    assert_string_equal(range(&r), "c=2@4 b=1@3 a=3@5 #3");
    r = *op_range("a", "\\0", 0)->request_range;
    r.min_mod_revision = 4;
    assert_string_equal(range(&r), "a=3@5 c=2@4 #3");
    r.max_mod_revision = 4;
    assert_string_equal(range(&r), "c=2@4 #3");
    r.min_mod_revision = r.max_mod_revision = 0;
    r.max_create_revision = 3;
    r.limit = 1;
    assert_string_equal(range(&r), "a=3@5 +#3");
    r.min_create_revision = 3;
    assert_string_equal(range(&r), "b=1@3 #3");
    r = *op_range("a", "\\0", 0)->request_range;
    r.count_only = true;
    assert_string_equal(range(&r), "#3");
    assert_int_equal(compact(4), ERR_OK);
    assert_string_equal(get("a", NULL, 3), errc_text(ERR_COMPACTED));
    assert_string_equal(get("a", NULL, 4), "a=3@2 #1");
}

/* ---- put and delete -------------------------------------------------------------------------------- */

static void put_options(void **state)
{
    (void)state;
    Etcdserverpb__RequestOp *op = op_put("k", "1");
    op->request_put->prev_kv = true;
    struct apply_result r = run_op(op);
    const Etcdserverpb__PutResponse *m = (const Etcdserverpb__PutResponse *)r.message;
    assert_int_equal(m->header->revision, 2);
    assert_null(m->prev_kv);
    r = run_op(op);
    m = (const Etcdserverpb__PutResponse *)r.message;
    assert_int_equal(m->header->revision, 3);
    assert_int_equal(m->prev_kv->mod_revision, 2);
    assert_int_equal(m->prev_kv->value.len, 1);
    assert_int_equal(m->prev_kv->stamp, 1001);

    op = op_put("none", NULL);
    op->request_put->ignore_value = true;
    assert_int_equal(run_op(op).code, ERR_KEY_NOT_FOUND);
    op = op_put("k", NULL);
    op->request_put->ignore_value = true;
    op->request_put->lease = 7;
    assert_int_equal(run_op(op).code, ERR_LEASE_NOT_FOUND);
    assert_int_equal(grant(7, 10), ERR_OK);
    assert_int_equal(run_op(op).code, ERR_OK);
    assert_string_equal(get("k", NULL, 0), "k=1@4 #1");
    op = op_put("k", "2");
    op->request_put->ignore_lease = true;
    assert_int_equal(run_op(op).code, ERR_OK);
    assert_string_equal(get("k", NULL, 0), "k=2@5 #1");
    struct lease_info info;
    lessor_info(lessor, 7, 0, &info);
    assert_int_equal(info.key_count, 1);
    put("k", "3");
    lessor_info(lessor, 7, 0, &info);
    assert_int_equal(info.key_count, 0);
}

static void deletes(void **state)
{
    (void)state;
    put("a", "1");
    put("b", "2");
    put("c", "3");
    Etcdserverpb__RequestOp *op = op_delete("a", "c");
    op->request_delete_range->prev_kv = true;
    struct apply_result r = run_op(op);
    const Etcdserverpb__DeleteRangeResponse *m =
        (const Etcdserverpb__DeleteRangeResponse *)r.message;
    assert_int_equal(m->header->revision, 5);
    assert_int_equal(m->deleted, 2);
    assert_int_equal(m->n_prev_kvs, 2);
    assert_int_equal(m->prev_kvs[1]->mod_revision, 3);
    r = run_op(op_delete("a", "c"));
    m = (const Etcdserverpb__DeleteRangeResponse *)r.message;
    assert_int_equal(m->header->revision, 5); /* nothing changed */
    assert_int_equal(m->deleted, 0);
    assert_string_equal(get("a", "\\0", 0), "c=3@4 #1");
}

/* ---- transactions ----------------------------------------------------------------------------------- */

static void compares(void **state)
{
    (void)state;
    put("a", "5");
    put("a", "5");
    put("b", "7");
    static const struct {
        const char *key, *end;
        int target, result;
        int64_t number;
        const char *value;
        bool holds;
    } table[] = {
        {"a", NULL, TARGET(VERSION), RESULT(EQUAL), 2, NULL, true},
        {"a", NULL, TARGET(VERSION), RESULT(NOT_EQUAL), 2, NULL, false},
        {"a", NULL, TARGET(CREATE), RESULT(EQUAL), 2, NULL, true},
        {"a", NULL, TARGET(MOD), RESULT(GREATER), 2, NULL, true},
        {"a", NULL, TARGET(MOD), RESULT(LESS), 3, NULL, false},
        {"a", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "5", true},
        {"a", NULL, TARGET(VALUE), RESULT(LESS), 0, "6", true},
        {"a", NULL, TARGET(LEASE), RESULT(EQUAL), 0, NULL, true},
        /* a missing key: zero, but no value */
        {"none", NULL, TARGET(VERSION), RESULT(EQUAL), 0, NULL, true},
        {"none", NULL, TARGET(CREATE), RESULT(LESS), 1, NULL, true},
        {"none", NULL, TARGET(MOD), RESULT(GREATER), 0, NULL, false},
        {"none", NULL, TARGET(LEASE), RESULT(EQUAL), 0, NULL, true},
        {"none", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "", false},
        {"none", NULL, TARGET(VALUE), RESULT(NOT_EQUAL), 0, "x", false},
        /* ranges: every key */
        {"a", "c", TARGET(MOD), RESULT(GREATER), 2, NULL, true},
        {"a", "c", TARGET(VALUE), RESULT(EQUAL), 0, "5", false},
        {"a", "\\0", TARGET(VERSION), RESULT(GREATER), 0, NULL, true},
        {"x", "z", TARGET(VERSION), RESULT(EQUAL), 0, NULL, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        Etcdserverpb__TxnRequest *t = when(txn(), table[i].key, table[i].end, table[i].target,
                                           table[i].result, table[i].number, table[i].value);
        Etcdserverpb__TxnResponse *m;
        struct error err;
        assert_int_equal(apply_read_txn(apply, t, &arena, &m, &err), ERR_OK);
        if (m->succeeded != table[i].holds)
            fail_msg("compare %zu", i);
    }
    /* All of them must hold. */
    Etcdserverpb__TxnRequest *t = when(txn(), "a", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "5");
    t = when(t, "b", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "8");
    assert_false(run_txn(t)->succeeded);
    /* An operand of another kind than the target's is zero. */
    t = when(txn(), "none", NULL, TARGET(VERSION), RESULT(EQUAL), 5, NULL);
    t->compare[0]->target = TARGET(MOD);
    assert_true(run_txn(t)->succeeded);
}

static void transactions_are_one_revision(void **state)
{
    (void)state;
    put("a", "1");
    Etcdserverpb__TxnRequest *t = when(txn(), "a", NULL, TARGET(VERSION), RESULT(EQUAL), 1, NULL);
    then(t, op_range("a", "\\0", 0));
    then(t, op_put("b", "2"));
    then(t, op_range("a", "\\0", 0)); /* sees the put before it */
    then(t, op_delete("a", NULL));
    then(t, op_range("a", "\\0", 0));
    otherwise(t, op_put("c", "3"));
    const Etcdserverpb__TxnResponse *m = run_txn(t);
    assert_true(m->succeeded);
    assert_int_equal(m->header->revision, 3);
    assert_int_equal(m->n_responses, 5);
    assert_string_equal(show(m->responses[0]->response_range), "a=1@2 #1");
    assert_int_equal(m->responses[0]->response_range->header->revision, 2);
    assert_int_equal(m->responses[1]->response_put->header->revision, 3);
    assert_string_equal(show(m->responses[2]->response_range), "a=1@2 b=2@3 #2");
    assert_int_equal(m->responses[2]->response_range->header->revision, 3);
    assert_int_equal(m->responses[3]->response_delete_range->deleted, 1);
    assert_string_equal(show(m->responses[4]->response_range), "b=2@3 #1");
    m = run_txn(t);
    assert_false(m->succeeded);
    assert_int_equal(m->header->revision, 4);
    assert_string_equal(get("a", "\\0", 0), "b=2@3 c=3@4 #2");
    /* One that changes nothing leaves the revision alone. */
    assert_int_equal(run_txn(then(txn(), op_delete("x", "z")))->header->revision, 4);
}

/* The compares of nested transactions see the state before the outermost one. */
static void nested_transactions(void **state)
{
    (void)state;
    Etcdserverpb__TxnRequest *inner =
        when(txn(), "a", NULL, TARGET(VERSION), RESULT(EQUAL), 0, NULL);
    then(inner, op_put("inner", "absent"));
    otherwise(inner, op_put("inner", "present"));
    Etcdserverpb__TxnRequest *t = txn();
    then(t, op_put("a", "1"));
    then(t, op_txn(inner));
    then(t, op_txn(then(txn(), op_range("a", "\\0", 0))));
    const Etcdserverpb__TxnResponse *m = run_txn(t);
    assert_true(m->responses[1]->response_txn->succeeded);
    assert_int_equal(m->responses[1]->response_txn->header->revision, 0); /* as in etcd */
    const Etcdserverpb__TxnResponse *last = m->responses[2]->response_txn;
    assert_string_equal(show(last->responses[0]->response_range), "a=1@2 inner=absent@2 #2");
    m = run_txn(t);
    assert_false(m->responses[1]->response_txn->succeeded);
    assert_string_equal(get("inner", NULL, 0), "inner=present@3 #1");
}

/* A transaction fails as a whole, before it has done anything (e#18667). */
static void transactions_fail_as_a_whole(void **state)
{
    (void)state;
    put("a", "1");
    put("a", "2");
    put("a", "3");
    assert_int_equal(compact(3), ERR_OK);
    assert_int_equal(
        run_op(op_txn(then(then(txn(), op_put("b", "1")), op_range("a", NULL, 2)))).code,
        ERR_COMPACTED);
    assert_int_equal(
        run_op(op_txn(then(then(txn(), op_put("b", "1")), op_range("a", NULL, 5)))).code,
        ERR_FUTURE_REV);
    Etcdserverpb__RequestOp *keep = op_put("none", NULL);
    keep->request_put->ignore_value = true;
    assert_int_equal(run_op(op_txn(then(then(txn(), op_put("b", "1")), keep))).code,
                     ERR_KEY_NOT_FOUND);
    Etcdserverpb__RequestOp *leased = op_put("c", "1");
    leased->request_put->lease = 99;
    Etcdserverpb__TxnRequest *inner = then(txn(), leased);
    assert_int_equal(run_op(op_txn(then(then(txn(), op_put("b", "1")), op_txn(inner)))).code,
                     ERR_LEASE_NOT_FOUND);
    /* Puts are checked before ranges; the branch that isn't taken isn't checked. */
    assert_int_equal(run_op(op_txn(then(then(txn(), op_range("a", NULL, 2)), leased))).code,
                     ERR_LEASE_NOT_FOUND);
    run_txn(otherwise(txn(), leased));
    assert_string_equal(get("b", "\\0", 0), "#0");
    assert_int_equal(mvcc_revision(f.store), 4);
    assert_int_equal(mvcc_applied_index(f.store), 10);
}

/* ---- checks before the proposal --------------------------------------------------------------------- */

static enum errc check(Etcdserverpb__TxnRequest *t)
{
    return apply_check_txn(t, APPLY_TXN_OPS_MAX_DEFAULT);
}

static void no_key_is_changed_twice(void **state)
{
    (void)state;
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_put("b", "1"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_put("a", "1"))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(otherwise(otherwise(txn(), op_put("a", "1")), op_put("a", "1"))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(otherwise(then(txn(), op_put("a", "1")), op_put("a", "1"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("b", "1")), op_delete("a", "c"))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_put("c", "1")), op_delete("a", "c"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_delete("a", NULL))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_delete("a", "c")), op_delete("a", "b"))), ERR_OK);
    /* etcd's interval of "\0" only meets the key itself. */
    assert_int_equal(check(then(then(txn(), op_put("b", "1")), op_delete("a", "\\0"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_delete("a", "\\0"))),
                     ERR_DUPLICATE_KEY);

    Etcdserverpb__TxnRequest *both = otherwise(then(txn(), op_put("a", "1")), op_put("a", "2"));
    assert_int_equal(check(then(txn(), op_txn(both))), ERR_OK); /* branches exclude each other */
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_put("a", "3"))), ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_txn(both))), ERR_DUPLICATE_KEY);
    Etcdserverpb__TxnRequest *other = otherwise(txn(), op_put("a", "1"));
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_txn(other))), ERR_DUPLICATE_KEY);
    Etcdserverpb__TxnRequest *wipes = otherwise(txn(), op_delete("a", "z"));
    assert_int_equal(check(then(then(txn(), op_txn(wipes)), op_put("b", "1"))), ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_txn(wipes)), op_txn(both))), ERR_DUPLICATE_KEY);
    /* etcd looks at nested puts before the deletes of later siblings. */
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_txn(wipes))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_delete("a", "z"))),
                     ERR_DUPLICATE_KEY);
}

static void sizes_and_keys(void **state)
{
    (void)state;
    Etcdserverpb__TxnRequest *t = txn();
    for (int i = 0; i < 128; i++) {
        then(t, op_range("a", NULL, 0));
        otherwise(t, op_range("a", NULL, 0));
        when(t, "a", NULL, TARGET(MOD), RESULT(EQUAL), 0, NULL);
    }
    assert_int_equal(check(t), ERR_OK);
    then(t, op_range("a", NULL, 0));
    assert_int_equal(check(t), ERR_TOO_MANY_OPS);
    /* A nested transaction has what its parents leave. */
    t = txn();
    for (int i = 0; i < 100; i++)
        then(t, op_range("a", NULL, 0));
    Etcdserverpb__TxnRequest *inner = txn();
    for (int i = 0; i < 27; i++)
        then(inner, op_range("a", NULL, 0));
    then(t, op_txn(inner)); /* 101 + 27 */
    assert_int_equal(check(t), ERR_OK);
    then(inner, op_range("a", NULL, 0));
    assert_int_equal(check(t), ERR_TOO_MANY_OPS);
    /* Width at every level is bounded by all operations together. */
    Etcdserverpb__TxnRequest *wide = then(txn(), op_range("a", NULL, 0));
    for (int depth = 0; depth < 15; depth++)
        wide = then(then(txn(), op_txn(wide)), op_txn(wide));
    assert_int_equal(check(wide), ERR_TOO_MANY_OPS);

    assert_int_equal(check(then(txn(), op_put("", "1"))), ERR_EMPTY_KEY);
    assert_int_equal(check(when(txn(), "", NULL, TARGET(MOD), RESULT(EQUAL), 0, NULL)),
                     ERR_EMPTY_KEY);
    assert_int_equal(
        check(then(txn(), NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT))),
        ERR_KEY_NOT_FOUND);
    Etcdserverpb__PutRequest p = *op_put("a", "1")->request_put;
    p.ignore_value = true;
    assert_int_equal(apply_check_put(&p), ERR_VALUE_PROVIDED);
    p = *op_put("a", NULL)->request_put;
    p.ignore_lease = true;
    p.lease = 1;
    assert_int_equal(apply_check_put(&p), ERR_LEASE_PROVIDED);
    Etcdserverpb__RangeRequest r = *op_range("a", NULL, 0)->request_range;
    r.sort_target = 5;
    assert_int_equal(apply_check_range(&r), ERR_INVALID_SORT);
    r = *op_range(NULL, NULL, 0)->request_range;
    assert_int_equal(apply_check_range(&r), ERR_EMPTY_KEY);
}

static void depth_is_found_before_unpacking(void **state)
{
    (void)state;
    Etcdserverpb__TxnRequest *t = then(txn(), op_put("a", "1"));
    for (int i = 1; i < 20; i++)
        t = otherwise(then(txn(), op_put("a", "1")), op_txn(t));
    uint8_t packed[4096];
    size_t n = etcdserverpb__txn_request__pack(t, packed);
    assert_int_equal(apply_check_txn_depth(bytes_of(packed, n), 20), ERR_OK);
    assert_int_equal(apply_check_txn_depth(bytes_of(packed, n), 19), ERR_TOO_MANY_OPS);
    for (size_t cut = 1; cut < n; cut++) /* never reads beyond the end, whatever is there */
        apply_check_txn_depth(bytes_of(packed, n - cut), 20);
    assert_int_equal(apply_check_txn_depth(bytes_of(packed, n - 1), 20), ERR_INVALID);
}

/* ---- leases, alarms, sessions ----------------------------------------------------------------------- */

static void revoking_is_one_revision(void **state)
{
    (void)state;
    assert_int_equal(grant(7, 10), ERR_OK);
    assert_int_equal(grant(7, 10), ERR_LEASE_EXISTS);
    for (int i = 0; i < 3; i++) {
        Etcdserverpb__RequestOp *op = op_put(i == 0 ? "b" : i == 1 ? "a" : "c", "1");
        op->request_put->lease = 7;
        assert_int_equal(run_op(op).code, ERR_OK);
    }
    put("c", "2"); /* no longer on the lease */
    struct apply_result r = revoke_lease(7);
    assert_int_equal(r.code, ERR_OK);
    assert_int_equal(((const Etcdserverpb__LeaseRevokeResponse *)r.message)->header->revision, 6);
    assert_string_equal(get("a", "\\0", 0), "c=2@5 #1");
    assert_int_equal(revoke_lease(7).code, ERR_LEASE_NOT_FOUND);
}

static void leases_come_back_after_a_restart(void **state)
{
    (void)state;
    assert_int_equal(grant(7, 1000), ERR_OK);
    assert_int_equal(grant(8, 1000), ERR_OK);
    Etcdserverpb__RequestOp *op = op_put("k", "1");
    op->request_put->lease = 7;
    run_op(op);
    revoke_lease(8);
    Etcdserverpb__LeaseCheckpoint c = ETCDSERVERPB__LEASE_CHECKPOINT__INIT, *cs[] = {&c};
    c.id = 7;
    c.remaining_ttl = 400;
    Etcdserverpb__LeaseCheckpointRequest q = ETCDSERVERPB__LEASE_CHECKPOINT_REQUEST__INIT;
    q.checkpoints = cs;
    q.n_checkpoints = 1;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_CHECKPOINT;
    r.lease_checkpoint = &q;
    assert_int_equal(run(&r).code, ERR_OK);
    restart();
    struct lease_info info;
    assert_int_equal(lessor_info(lessor, 7, 0, &info), ERR_OK);
    assert_int_equal(info.granted_ttl, 1000);
    assert_int_equal(info.key_count, 1);
    assert_int_equal(lessor_stored_remaining(lessor, 7), 400);
    assert_int_equal(lessor_count(lessor), 1);
}

static size_t set_alarm(int action, uint64_t member, int type)
{
    Etcdserverpb__AlarmRequest a = ETCDSERVERPB__ALARM_REQUEST__INIT;
    a.action = action;
    a.memberid = member;
    a.alarm = type;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM;
    r.alarm = &a;
    struct apply_result result = run(&r);
    assert_int_equal(result.code, ERR_OK);
    return ((const Etcdserverpb__AlarmResponse *)result.message)->n_alarms;
}

static void alarms(void **state)
{
    (void)state;
    enum { GET, ON, OFF, NOSPACE = 1, CORRUPT = 2 };
    put("a", "1");
    assert_int_equal(set_alarm(ON, 5, NOSPACE), 1);
    assert_int_equal(set_alarm(ON, 5, NOSPACE), 1);
    assert_int_equal(set_alarm(ON, 6, NOSPACE), 1);
    assert_int_equal(set_alarm(GET, 0, 0), 2);
    assert_int_equal(run_op(op_put("b", "1")).code, ERR_NO_SPACE);
    assert_int_equal(grant(9, 5), ERR_NO_SPACE);
    assert_int_equal(run_op(op_txn(otherwise(txn(), op_put("b", "1")))).code, ERR_NO_SPACE);
    assert_int_equal(run_op(op_txn(then(txn(), op_delete("b", NULL)))).code, ERR_OK);
    assert_int_equal(run_op(op_delete("a", NULL)).code, ERR_OK);
    restart();
    assert_true(apply_alarm_nospace(apply));
    assert_int_equal(set_alarm(OFF, 5, NOSPACE), 1);
    assert_int_equal(set_alarm(OFF, 5, NOSPACE), 0);
    assert_true(apply_alarm_nospace(apply));
    assert_int_equal(set_alarm(OFF, 6, NOSPACE), 1);
    put("b", "1");
    assert_int_equal(set_alarm(ON, 5, CORRUPT), 1);
    assert_int_equal(run_op(op_delete("b", NULL)).code, ERR_CORRUPT);
    assert_string_equal(get("b", NULL, 0), errc_text(ERR_CORRUPT));
}

static struct apply_result named(uint64_t client, uint64_t seq, Etcdserverpb__PutRequest *p)
{
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.client_id = client;
    r.client_seq = seq;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    r.put = p;
    return run(&r);
}

static void retries_get_the_first_outcome(void **state)
{
    (void)state;
    Etcdserverpb__PutRequest p = *op_put("k", "1")->request_put;
    Etcdserverpb__PutRequest bad = *op_put("k", "2")->request_put;
    p.prev_kv = true;
    bad.lease = 99;
    put("k", "0");
    for (int i = 0; i < 3; i++) {
        struct apply_result r = named(1, 1, &p);
        assert_int_equal(r.code, ERR_OK);
        const Etcdserverpb__PutResponse *m = (const Etcdserverpb__PutResponse *)r.message;
        assert_int_equal(m->header->revision, 3);
        assert_int_equal(m->prev_kv->mod_revision, 2);
        put("other", "x");
        if (i == 1)
            restart();
    }
    assert_int_equal(named(1, 2, &bad).code, ERR_LEASE_NOT_FOUND);
    assert_int_equal(grant(99, 10), ERR_OK);
    assert_int_equal(named(1, 2, &bad).code, ERR_LEASE_NOT_FOUND); /* as the first time */
    assert_int_equal(named(1, 1, &p).code, ERR_INVALID);           /* long past */
    assert_int_equal(named(1, 3, &bad).code, ERR_OK);
    assert_string_equal(get("k", NULL, 0), "k=2@7 #1");
}

/* The oldest sessions go first, by the log alone: a restart in between changes nothing. */
static void sessions_are_bounded(void **state)
{
    (void)state;
    Etcdserverpb__PutRequest p = *op_put("k", "1")->request_put;
    for (uint64_t i = 1; i <= APPLY_SESSIONS_MAX; i++)
        named(i * 7919, 1, &p);
    named(1 * 7919, 2, &p); /* used again: now the youngest */
    restart();
    named(1, 1, &p); /* one too many: the second goes */
    int64_t revision = mvcc_revision(f.store);
    named(1 * 7919, 2, &p);
    named(3 * 7919, 1, &p);
    assert_int_equal(mvcc_revision(f.store), revision);
    named(2 * 7919, 1, &p);
    assert_int_equal(mvcc_revision(f.store), revision + 1);
}

static void garbage_ends_the_process_not_the_state(void **state)
{
    (void)state;
    struct error err;
    struct apply_result result;
    struct raft_entry *e = raft_entry_new(3, 1, RAFT_ENTRY_COMMAND, 1, bytes_str("\xff\xff\xff"));
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_CORRUPT);
    raft_entry_unref(e);
    e = raft_entry_new(3, 1, RAFT_ENTRY_COMMAND, 1, BYTES_EMPTY);
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_CORRUPT);
    raft_entry_unref(e);
    e = raft_entry_new(3, 1, RAFT_ENTRY_NOOP, 1, BYTES_EMPTY);
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_OK);
    raft_entry_unref(e);
    assert_int_equal(mvcc_applied_index(f.store), 1);
    assert_int_equal(mvcc_revision(f.store), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(range_options),
        T(put_options),
        T(deletes),
        T(compares),
        T(transactions_are_one_revision),
        T(nested_transactions),
        T(transactions_fail_as_a_whole),
        T(no_key_is_changed_twice),
        T(sizes_and_keys),
        T(depth_is_found_before_unpacking),
        T(revoking_is_one_revision),
        T(leases_come_back_after_a_restart),
        T(alarms),
        T(retries_get_the_first_outcome),
        T(sessions_are_bounded),
        T(garbage_ends_the_process_not_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
