/* Transactions, as etcd 3.5 runs them: the compares of all levels are decided against the state before the
 * transaction, then the puts and then the ranges of the branches taken are checked (so that a transaction
 * fails as a whole, on every member alike: e#18667), and only then is anything done. */
#include <assert.h>

#include "daemon/apply/internal.h"
#include "lib/base/mutant.h"

/* Which branch each transaction takes, in the order in which they are met; reading goes the same way. */
struct path {
    struct buf taken;
    size_t at;
    struct buf deletes; /* pointers to the deletions that were met so far, for check_put() */
};

struct branch {
    Etcdserverpb__RequestOp **ops;
    size_t count;
};

static struct branch branch_of(const Etcdserverpb__TxnRequest *r, bool succeeded)
{
    return succeeded ? (struct branch){r->success, r->n_success}
                     : (struct branch){r->failure, r->n_failure};
}

static struct branch next_branch(const Etcdserverpb__TxnRequest *r, struct path *p,
                                 bool *ret_succeeded)
{
    assert(p->at < p->taken.n);
    *ret_succeeded = p->taken.p[p->at++] != 0;
    return branch_of(r, *ret_succeeded);
}

#define OP(name) ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_##name
#define COMPARE(name) ETCDSERVERPB__COMPARE__COMPARE_##name

/* ---- compares ----------------------------------------------------------------------------------- */

static int compare_int64(int64_t a, int64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_value(const Etcdserverpb__Compare *c, const struct mvcc_kv *kv)
{
    struct bytes v = BYTES_EMPTY;
    if (c->target_union_case == ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE)
        v = message_bytes(c->value);
    return bytes_compare(kv->value, v);
}

/* An operand of another kind than the target's counts as zero, as in etcd. */
static bool compare_holds(const Etcdserverpb__Compare *c, const struct mvcc_kv *kv)
{
    int kind = c->target_union_case, result = 0;
    switch (c->target) {
    case COMPARE(TARGET__VALUE):
        result = compare_value(c, kv);
        break;
    case COMPARE(TARGET__VERSION):
        result = compare_int64(
            kv->version, kind == ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION ? c->version : 0);
        break;
    case COMPARE(TARGET__CREATE):
        result = compare_int64(
            kv->create_revision,
            kind == ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION ? c->create_revision : 0);
        break;
    case COMPARE(TARGET__MOD):
        result = compare_int64(
            kv->mod_revision,
            kind == ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION ? c->mod_revision : 0);
        break;
    case COMPARE(TARGET__LEASE):
        result = compare_int64(kv->lease,
                               kind == ETCDSERVERPB__COMPARE__TARGET_UNION_LEASE ? c->lease : 0);
        break;
    default:
        break;
    }
    switch (c->result) {
    case COMPARE(RESULT__EQUAL):
        return result == 0;
    case COMPARE(RESULT__NOT_EQUAL):
        return result != 0;
    case COMPARE(RESULT__GREATER):
        return result > 0;
    case COMPARE(RESULT__LESS):
        return result < 0;
    default:
        return true;
    }
}

static bool compare_all(struct apply *a, const Etcdserverpb__Compare *c, struct error *err)
{
    struct mvcc_query q = {
        .range = message_range(c->key, c->range_end),
        .no_total = true,
        .keys_only = c->target != COMPARE(TARGET__VALUE),
    };
    struct mvcc_result found;
    if (apply_query(a, &q, &found, err) != ERR_OK)
        return false;
    bool holds = true;
    if (found.count == 0) {
        /* A missing value is not the empty one: comparing it always fails. */
        static const struct mvcc_kv none;
        holds = c->target != COMPARE(TARGET__VALUE) && compare_holds(c, &none);
    }
    for (size_t i = 0; holds && i < found.count; i++)
        holds = compare_holds(c, found.kvs[i]);
    mvcc_result_free(&found);
    return holds;
}

static void decide(struct apply *a, const Etcdserverpb__TxnRequest *r, struct path *p,
                   struct error *err)
{
    uint8_t succeeded = 1;
    for (size_t i = 0; succeeded && i < r->n_compare; i++)
        succeeded = compare_all(a, r->compare[i], err);
    buf_append(&p->taken, &succeeded, 1);
    struct branch b = branch_of(r, succeeded);
    for (size_t i = 0; i < b.count; i++) {
        if (b.ops[i]->request_case == OP(TXN))
            decide(a, b.ops[i]->request_txn, p, err);
    }
}

/* ---- checks before anything is done -------------------------------------------------------------- */

/* A deletion of "everything from a key on" hides from etcd's check of duplicate keys, so that a put may
 * follow it in the same transaction. One that keeps the deleted key's value then ends etcd's process, and
 * again whenever it starts. Here it is the error that it ought to be. */
static bool deleted_before(const struct path *p, struct bytes key)
{
    for (size_t at = 0; at < p->deletes.n; at += sizeof(void *)) {
        const Etcdserverpb__DeleteRangeRequest *r;
        memcpy(&r, p->deletes.p + at, sizeof(r));
        struct mvcc_range range = message_range(r->key, r->range_end);
        if (mvcc_range_has(&range, key))
            return true;
    }
    return false;
}

static enum errc check_put(struct apply *a, const Etcdserverpb__RequestOp *op, struct path *p)
{
    if (op->request_case == OP(DELETE_RANGE))
        buf_append(&p->deletes, &op->request_delete_range, sizeof(void *));
    if (op->request_case != OP(PUT))
        return ERR_OK;
    const Etcdserverpb__PutRequest *r = op->request_put;
    if (r->ignore_value || r->ignore_lease) {
        struct mvcc_kv *kv = mvcc_get(a->config.store, message_bytes(r->key), false);
        bool missing = !kv || kv->tombstone || deleted_before(p, message_bytes(r->key));
        if (kv)
            mvcc_kv_unref(kv);
        if (missing)
            return ERR_KEY_NOT_FOUND;
    }
    if (r->lease && !lessor_exists(a->config.lessor, r->lease) && !MUTANT(put_with_ended_lease))
        return ERR_LEASE_NOT_FOUND;
    return ERR_OK;
}

static enum errc check_range(struct apply *a, const Etcdserverpb__RequestOp *op, struct path *p)
{
    (void)p;
    if (op->request_case != OP(RANGE) || op->request_range->revision == 0)
        return ERR_OK;
    if (MUTANT(compacted_txn_diverges) && !a->answer)
        return ERR_OK; /* only who answers looks whether it can be read (e#18667) */
    int64_t revision = op->request_range->revision;
    int64_t compacted = mvcc_compact_revision(a->config.store);
    if (revision > mvcc_revision(a->config.store))
        return ERR_FUTURE_REV;
    return revision < compacted ? ERR_COMPACTED : ERR_OK;
}

static enum errc check_ops(struct apply *a, const Etcdserverpb__TxnRequest *r, struct path *p,
                           enum errc (*check)(struct apply *, const Etcdserverpb__RequestOp *,
                                              struct path *))
{
    bool succeeded;
    struct branch b = next_branch(r, p, &succeeded);
    enum errc code = ERR_OK;
    for (size_t i = 0; code == ERR_OK && i < b.count; i++) {
        code = b.ops[i]->request_case == OP(TXN) ? check_ops(a, b.ops[i]->request_txn, p, check)
                                                 : check(a, b.ops[i], p);
    }
    return code;
}

/* ---- doing it ------------------------------------------------------------------------------------ */

static Etcdserverpb__TxnResponse *run(struct apply *a, const Etcdserverpb__TxnRequest *r,
                                      struct path *p, struct arena *arena, struct error *err);

static enum errc run_op(struct apply *a, const Etcdserverpb__RequestOp *op, struct path *p,
                        struct arena *arena, Etcdserverpb__ResponseOp *m, struct error *err)
{
    switch (op->request_case) {
    case OP(RANGE):
        m->response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE;
        if (a->answer)
            return kv_range(a, op->request_range, arena, &m->response_range, err);
        m->response_range = MESSAGE_NEW(arena, Etcdserverpb__RangeResponse,
                                        etcdserverpb__range_response__descriptor);
        return ERR_OK;
    case OP(PUT):
        m->response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_PUT;
        return kv_put(a, op->request_put, false, arena, &m->response_put, err);
    case OP(DELETE_RANGE):
        m->response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_DELETE_RANGE;
        return kv_delete_range(a, op->request_delete_range, arena, &m->response_delete_range, err);
    case OP(TXN):
        m->response_case = ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_TXN;
        m->response_txn = run(a, op->request_txn, p, arena, err);
        return a->broken;
    default:
        return ERR_OK; /* refused before it was proposed */
    }
}

static Etcdserverpb__TxnResponse *run(struct apply *a, const Etcdserverpb__TxnRequest *r,
                                      struct path *p, struct arena *arena, struct error *err)
{
    bool succeeded;
    struct branch b = next_branch(r, p, &succeeded);
    Etcdserverpb__TxnResponse *m =
        MESSAGE_NEW(arena, Etcdserverpb__TxnResponse, etcdserverpb__txn_response__descriptor);
    m->header = message_header(arena, 0); /* the outermost gets the revision */
    m->succeeded = succeeded;
    m->n_responses = b.count;
    m->responses = arena_alloc(arena, (b.count + 1) * sizeof(Etcdserverpb__ResponseOp *));
    for (size_t i = 0; i < b.count; i++) {
        m->responses[i] =
            MESSAGE_NEW(arena, Etcdserverpb__ResponseOp, etcdserverpb__response_op__descriptor);
        enum errc code = run_op(a, b.ops[i], p, arena, m->responses[i], err);
        if (code != ERR_OK && a->broken == ERR_OK) {
            /* Checked before: what still fails leaves half a transaction, so nothing may go on. */
            a->broken = ERR_INTERNAL;
            error_set(err, ERR_INTERNAL, "an operation of a checked transaction failed: %s",
                      errc_text(code));
        }
    }
    return m;
}

enum errc kv_txn(struct apply *a, const Etcdserverpb__TxnRequest *r, struct arena *arena,
                 Etcdserverpb__TxnResponse **ret_response, struct error *err)
{
    struct path p = {0};
    decide(a, r, &p, err);
    enum errc code = a->broken;
    if (code == ERR_OK && !apply_txn_is_read_only(r))
        code = check_ops(a, r, &p, check_put);
    p.at = 0;
    if (code == ERR_OK)
        code = check_ops(a, r, &p, check_range);
    p.at = 0;
    if (code == ERR_OK) {
        Etcdserverpb__TxnResponse *m = run(a, r, &p, arena, err);
        m->header->revision = apply_revision(a);
        code = a->broken;
        *ret_response = m;
    }
    buf_free(&p.taken);
    buf_free(&p.deletes);
    return code;
}
