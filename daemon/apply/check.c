/* etcd's checks of a request before it is proposed (3.5, server/etcdserver/api/v3rpc/key.go). */
#include "daemon/apply/internal.h"

enum errc apply_check_range(const Etcdserverpb__RangeRequest *r)
{
    if (r->key.len == 0)
        return ERR_EMPTY_KEY;
    if (r->sort_order < ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__NONE ||
        r->sort_order > ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND ||
        r->sort_target < ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__KEY ||
        r->sort_target > ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE)
        return ERR_INVALID_SORT;
    return ERR_OK;
}

enum errc apply_check_put(const Etcdserverpb__PutRequest *r)
{
    if (r->key.len == 0)
        return ERR_EMPTY_KEY;
    if (r->ignore_value && r->value.len != 0)
        return ERR_VALUE_PROVIDED;
    if (r->ignore_lease && r->lease != 0)
        return ERR_LEASE_PROVIDED;
    return ERR_OK;
}

enum errc apply_check_delete_range(const Etcdserverpb__DeleteRangeRequest *r)
{
    return r->key.len == 0 ? ERR_EMPTY_KEY : ERR_OK;
}

#define OP(name) ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_##name

static bool ops_read_only(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i]->request_case == OP(PUT) || ops[i]->request_case == OP(DELETE_RANGE))
            return false;
        if (ops[i]->request_case == OP(TXN) && !apply_txn_is_read_only(ops[i]->request_txn))
            return false;
    }
    return true;
}

bool apply_txn_is_read_only(const Etcdserverpb__TxnRequest *r)
{
    return ops_read_only(r->success, r->n_success) && ops_read_only(r->failure, r->n_failure);
}

/* ---- what a request costs (etcd's server/storage/quota.go) -------------------------------------- */

#define COST_PUT 256 /* what a put takes beside key and value, at least */
#define COST_LEASE 64

static uint64_t cost_put(const Etcdserverpb__PutRequest *r)
{
    return COST_PUT + r->key.len + r->value.len;
}

static uint64_t cost_ops(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    uint64_t cost = 0;
    for (size_t i = 0; i < count; i++) {
        if (ops[i]->request_case == OP(PUT))
            cost += cost_put(ops[i]->request_put);
        else if (ops[i]->request_case == OP(TXN))
            cost += txn_cost(ops[i]->request_txn);
    }
    return cost;
}

uint64_t txn_cost(const Etcdserverpb__TxnRequest *r)
{
    uint64_t success = cost_ops(r->success, r->n_success);
    uint64_t failure = cost_ops(r->failure, r->n_failure);
    return success > failure ? success : failure;
}

uint64_t apply_cost(const Raftpb__InternalRequest *r)
{
    switch (r->request_case) {
    case RAFTPB__INTERNAL_REQUEST__REQUEST_PUT:
        return cost_put(r->put);
    case RAFTPB__INTERNAL_REQUEST__REQUEST_TXN:
        return txn_cost(r->txn);
    case RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT:
        return COST_LEASE;
    default:
        return 0;
    }
}
