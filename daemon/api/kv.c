/* etcdserverpb.KV: reads at a linearizable point or locally, writes through the log. */
#include "daemon/api/call.h"

/* ---- Range --------------------------------------------------------------------------------------- */

static void range_now(struct unary *u)
{
    if (apply_alarm_corrupt(replica_apply(u->api->config.replica))) {
        unary_fail(u, ERR_CORRUPT);
        return;
    }
    if (range_is_plain((const Etcdserverpb__RangeRequest *)u->request)) {
        range_start(u);
        return;
    }
    Etcdserverpb__RangeResponse *response;
    struct error err = {0};
    enum errc e =
        apply_range(replica_apply(u->api->config.replica),
                    (const Etcdserverpb__RangeRequest *)u->request, &u->arena, &response, &err);
    if (e) {
        api_check_damage(u->api, &err);
        unary_fail(u, e);
        return;
    }
    unary_reply(u, &response->base);
}

static void on_range(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u = unary_begin(call, service, &etcdserverpb__range_request__descriptor, message);
    if (!u)
        return;
    const Etcdserverpb__RangeRequest *r = (const Etcdserverpb__RangeRequest *)u->request;
    enum errc e = apply_check_range(r);
    if (e)
        unary_fail(u, e);
    else if (r->serializable)
        range_now(u);
    else
        unary_read(u, range_now);
}

/* ---- Writes -------------------------------------------------------------------------------------- */

static void on_put(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u = unary_begin(call, service, &etcdserverpb__put_request__descriptor, message);
    if (!u)
        return;
    Etcdserverpb__PutRequest *r = (Etcdserverpb__PutRequest *)u->request;
    enum errc e = apply_check_put(r);
    if (!e && api_no_space(u->api))
        e = ERR_NO_SPACE;
    if (e) {
        unary_fail(u, e);
        return;
    }
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    request.put = r;
    unary_propose(u, &request);
}

static void on_delete_range(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__delete_range_request__descriptor, message);
    if (!u)
        return;
    Etcdserverpb__DeleteRangeRequest *r = (Etcdserverpb__DeleteRangeRequest *)u->request;
    enum errc e = apply_check_delete_range(r);
    if (e) {
        unary_fail(u, e);
        return;
    }
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_DELETE_RANGE;
    request.delete_range = r;
    unary_propose(u, &request);
}

static bool ops_put(Etcdserverpb__RequestOp *const *ops, size_t count);

static bool txn_puts(const Etcdserverpb__TxnRequest *r)
{
    return ops_put(r->success, r->n_success) || ops_put(r->failure, r->n_failure);
}

/* Nested transactions have passed apply_check_txn(), which bounds them. */
static bool ops_put(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (ops[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT)
            return true;
        if (ops[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_TXN &&
            txn_puts(ops[i]->request_txn))
            return true;
    }
    return false;
}

static bool ops_serializable(Etcdserverpb__RequestOp *const *ops, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (ops[i]->request_case != ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE ||
            !ops[i]->request_range->serializable)
            return false;
    return true;
}

static void read_txn_now(struct unary *u)
{
    Etcdserverpb__TxnResponse *response;
    struct error err = {0};
    enum errc e =
        apply_read_txn(replica_apply(u->api->config.replica),
                       (const Etcdserverpb__TxnRequest *)u->request, &u->arena, &response, &err);
    if (e) {
        api_check_damage(u->api, &err);
        unary_fail(u, e);
        return;
    }
    unary_reply(u, &response->base);
}

static void on_txn(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u = unary_begin(call, service, &etcdserverpb__txn_request__descriptor, message);
    if (!u)
        return;
    Etcdserverpb__TxnRequest *r = (Etcdserverpb__TxnRequest *)u->request;
    enum errc e = apply_check_txn(r, u->api->config.txn_ops_max);
    if (!e && txn_puts(r) && api_no_space(u->api))
        e = ERR_NO_SPACE;
    if (e) {
        unary_fail(u, e);
        return;
    }
    if (apply_txn_is_read_only(r)) {
        if (ops_serializable(r->success, r->n_success) &&
            ops_serializable(r->failure, r->n_failure))
            read_txn_now(u);
        else
            unary_read(u, read_txn_now);
        return;
    }
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_TXN;
    request.txn = r;
    unary_propose(u, &request);
}

/* ---- Compact ------------------------------------------------------------------------------------- */

static void on_physically_gone(void *ctx)
{
    struct unary *u = unary_later_take(ctx);
    if (!u)
        return;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__CompactionResponse response = ETCDSERVERPB__COMPACTION_RESPONSE__INIT;
    response.header = &header;
    unary_reply(u, &response.base);
}

static void on_compacted(void *ctx, const struct apply_result *result)
{
    struct unary *u = ctx;
    u->op = NULL;
    const Etcdserverpb__CompactionRequest *r = (const Etcdserverpb__CompactionRequest *)u->request;
    if (result->code)
        unary_fail(u, result->code);
    else if (r->physical)
        mvcc_compact_wait(replica_store(u->api->config.replica), on_physically_gone,
                          unary_later(u));
    else
        unary_reply(u, result->message);
}

static void on_compact(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__compaction_request__descriptor, message);
    if (!u)
        return;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION;
    request.compaction = (Etcdserverpb__CompactionRequest *)u->request;
    u->op = replica_propose(u->api->config.replica, &request, on_compacted, u);
}

const struct rpc_method kv_methods[] = {
    {.path = "/etcdserverpb.KV/Range", .message = on_range, .closed = unary_closed},
    {.path = "/etcdserverpb.KV/Put", .message = on_put, .closed = unary_closed},
    {.path = "/etcdserverpb.KV/DeleteRange", .message = on_delete_range, .closed = unary_closed},
    {.path = "/etcdserverpb.KV/Txn", .message = on_txn, .closed = unary_closed},
    {.path = "/etcdserverpb.KV/Compact", .message = on_compact, .closed = unary_closed},
};
const size_t kv_method_count = ARRAY_LEN(kv_methods);
