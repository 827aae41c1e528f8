/* etcd's checks of a transaction: sizes, keys, and that no key is changed twice in one run of it. */
#include <search.h>
#include <stdlib.h>

#include "daemon/apply/internal.h"

#define OP(name) ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_##name

/* ---- sizes and keys ------------------------------------------------------------------------------ */

static enum errc check_txn(const Etcdserverpb__TxnRequest *r, size_t ops_max, size_t *budget);

static enum errc check_op(const Etcdserverpb__RequestOp *op, size_t ops_max, size_t *budget)
{
    if ((*budget)-- == 0) {
        *budget = 0;
        return ERR_TOO_MANY_OPS;
    }
    switch (op->request_case) {
    case OP(RANGE):
        return apply_check_range(op->request_range);
    case OP(PUT):
        return apply_check_put(op->request_put);
    case OP(DELETE_RANGE):
        return apply_check_delete_range(op->request_delete_range);
    case OP(TXN):
        return check_txn(op->request_txn, ops_max, budget);
    default:
        return ERR_KEY_NOT_FOUND; /* etcd's answer to an empty operation */
    }
}

static enum errc check_txn(const Etcdserverpb__TxnRequest *r, size_t ops_max, size_t *budget)
{
    size_t n = r->n_compare;
    if (n < r->n_success)
        n = r->n_success;
    if (n < r->n_failure)
        n = r->n_failure;
    if (n > ops_max)
        return ERR_TOO_MANY_OPS;
    for (size_t i = 0; i < r->n_compare; i++) {
        if (r->compare[i]->key.len == 0)
            return ERR_EMPTY_KEY;
    }
    enum errc code = ERR_OK;
    for (size_t i = 0; code == ERR_OK && i < r->n_success; i++)
        code = check_op(r->success[i], ops_max - n, budget);
    for (size_t i = 0; code == ERR_OK && i < r->n_failure; i++)
        code = check_op(r->failure[i], ops_max - n, budget);
    return code;
}

/* ---- no key twice -------------------------------------------------------------------------------- */

/* What the operations looked at so far change; keys are borrowed from the request. */
struct changes {
    void *puts; /* of tsearch(3): struct put */
    struct mvcc_range *deletes;
    size_t delete_count, delete_cap;
};

struct put {
    struct bytes key;
    const void *then_of; /* the nested transaction whose success branch puts it; NULL: none */
};

static void changes_free(struct changes *c)
{
    tdestroy(c->puts, free);
    free(c->deletes);
}

static int compare_puts(const void *a, const void *b)
{
    return bytes_compare(((const struct put *)a)->key, ((const struct put *)b)->key);
}

static void add_delete(struct changes *c, struct mvcc_range range)
{
    if (c->delete_count == c->delete_cap) {
        c->delete_cap = c->delete_cap ? c->delete_cap * 2 : 16;
        c->deletes = xrealloc(c->deletes, c->delete_cap * sizeof(*c->deletes));
    }
    c->deletes[c->delete_count++] = range;
}

/* etcd's interval [key, end) against the point k. An end that is not above the key makes it an empty one that
 * meets nothing, also the end "\0" that means everything from key on: transactions rely on what it lets
 * through. */
static bool deletes_meet(const struct changes *c, struct bytes k)
{
    for (size_t i = 0; i < c->delete_count; i++) {
        const struct mvcc_range *d = &c->deletes[i];
        if (d->end.n == 0 ? bytes_equal(d->key, k)
                          : bytes_compare(d->key, k) <= 0 && bytes_compare(k, d->end) < 0)
            return true;
    }
    return false;
}

/* Adds a put; false if the key is changed already. Branches of one nested transaction exclude each other:
 * its failure branch may put what its success branch does (`else_of`). */
static bool add_put(struct changes *c, struct bytes key, const void *then_of, const void *else_of)
{
    if (deletes_meet(c, key))
        return false;
    struct put *p = xmalloc(sizeof(*p));
    *p = (struct put){key, then_of};
    struct put **found = tsearch(p, &c->puts, compare_puts);
    if (!found)
        abort(); /* out of memory, as in xmalloc */
    if (*found == p)
        return true;
    bool safe = else_of && (*found)->then_of == else_of;
    free(p);
    return safe;
}

static bool collect(Etcdserverpb__RequestOp *const *ops, size_t count, struct changes *c);

struct fold {
    struct changes *into;
    const void *then_of, *else_of;
    bool ok;
};

static void fold_put(const void *node, VISIT which, void *closure)
{
    struct fold *f = closure;
    if (which != postorder && which != leaf)
        return;
    const struct put *p = *(struct put *const *)node;
    f->ok = f->ok && add_put(f->into, p->key, f->then_of, f->else_of);
}

/* The puts of both branches of a nested transaction are checked first, then its deletes count. */
static bool collect_nested(const Etcdserverpb__TxnRequest *t, struct changes *c)
{
    struct changes success = {0}, failure = {0};
    struct fold f = {c, t, NULL, true};
    f.ok =
        collect(t->success, t->n_success, &success) && collect(t->failure, t->n_failure, &failure);
    if (f.ok)
        twalk_r(success.puts, fold_put, &f);
    f.then_of = NULL;
    f.else_of = t;
    if (f.ok)
        twalk_r(failure.puts, fold_put, &f);
    for (size_t i = 0; i < success.delete_count; i++)
        add_delete(c, success.deletes[i]);
    for (size_t i = 0; i < failure.delete_count; i++)
        add_delete(c, failure.deletes[i]);
    changes_free(&success);
    changes_free(&failure);
    return f.ok;
}

static bool collect(Etcdserverpb__RequestOp *const *ops, size_t count, struct changes *c)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i]->request_case == OP(DELETE_RANGE))
            add_delete(c, message_range(ops[i]->request_delete_range->key,
                                        ops[i]->request_delete_range->range_end));
    }
    bool ok = true;
    for (size_t i = 0; ok && i < count; i++) {
        if (ops[i]->request_case == OP(TXN))
            ok = collect_nested(ops[i]->request_txn, c);
    }
    for (size_t i = 0; ok && i < count; i++) {
        if (ops[i]->request_case == OP(PUT))
            ok = add_put(c, message_bytes(ops[i]->request_put->key), NULL, NULL);
    }
    return ok;
}

static enum errc check_branch(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    struct changes c = {0};
    bool ok = collect(ops, count, &c);
    changes_free(&c);
    return ok ? ERR_OK : ERR_DUPLICATE_KEY;
}

enum errc apply_check_txn(const Etcdserverpb__TxnRequest *r, size_t ops_max)
{
    size_t budget = ops_max * APPLY_TXN_NESTED_FACTOR;
    enum errc code = check_txn(r, ops_max, &budget);
    if (code == ERR_OK)
        code = check_branch(r->success, r->n_success);
    if (code == ERR_OK)
        code = check_branch(r->failure, r->n_failure);
    return code;
}

/* ---- depth, on the wire -------------------------------------------------------------------------- */

#define TXN_SUCCESS 2 /* field numbers of TxnRequest and RequestOp */
#define TXN_FAILURE 3
#define OP_TXN 4

static bool varint(struct bytes *b, uint64_t *ret)
{
    uint64_t v = 0;
    for (unsigned shift = 0; shift < 64 && b->n; shift += 7) {
        uint8_t c = *b->p++;
        b->n--;
        v |= (uint64_t)(c & 0x7f) << shift;
        if (!(c & 0x80)) {
            *ret = v;
            return true;
        }
    }
    return false;
}

/* The next field; its bytes if it is length-delimited. */
static bool field(struct bytes *b, uint64_t *ret_number, struct bytes *ret_data)
{
    uint64_t tag, n;
    *ret_data = BYTES_EMPTY;
    if (!varint(b, &tag))
        return false;
    *ret_number = tag >> 3;
    switch (tag & 7) {
    case 0:
        return varint(b, &n);
    case 1:
        n = 8;
        break;
    case 2:
        if (!varint(b, &n))
            return false;
        break;
    case 5:
        n = 4;
        break;
    default:
        return false;
    }
    if (n > b->n)
        return false;
    if ((tag & 7) == 2)
        *ret_data = bytes_of(b->p, n);
    b->p += n;
    b->n -= n;
    return true;
}

enum errc apply_check_txn_depth(struct bytes packed, size_t depth_max)
{
    if (depth_max == 0)
        return ERR_TOO_MANY_OPS;
    while (packed.n) {
        uint64_t number;
        struct bytes op;
        if (!field(&packed, &number, &op))
            return ERR_INVALID;
        while ((number == TXN_SUCCESS || number == TXN_FAILURE) && op.n) {
            uint64_t kind;
            struct bytes inner;
            if (!field(&op, &kind, &inner))
                return ERR_INVALID;
            enum errc code = kind == OP_TXN ? apply_check_txn_depth(inner, depth_max - 1) : ERR_OK;
            if (code != ERR_OK)
                return code;
        }
    }
    return ERR_OK;
}
