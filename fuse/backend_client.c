#include "fuse/backend_client.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"
#include "lib/client/client.h"

struct backend_client {
    struct backend backend;
    uv_loop_t *loop;
    struct client *client;
    struct client_watch *watch;
    const struct store_watch_handler *handler;
    void *handler_ctx;
    struct client_lease *lease;
    void (*granted)(void *ctx, enum errc code, int64_t id);
    void (*lost)(void *ctx);
    void *lease_ctx;
    char state[256];
};

static struct backend_client *of(struct backend *b)
{
    return CONTAINER_OF(b, struct backend_client, backend);
}

static ProtobufCBinaryData pb(struct bytes s)
{
    return (ProtobufCBinaryData){s.n, (uint8_t *)s.p};
}

static struct bytes un_pb(ProtobufCBinaryData d)
{
    return bytes_of(d.data, d.len);
}

static void fill_kv(const Mvccpb__KeyValue *from, struct store_kv *to)
{
    *to = (struct store_kv){.key = un_pb(from->key),
                            .value = un_pb(from->value),
                            .create_revision = from->create_revision,
                            .mod_revision = from->mod_revision,
                            .version = from->version,
                            .lease = from->lease,
                            .stamp_ns = from->stamp};
}

/* ---- Range ------------------------------------------------------------------------------------------ */

struct range_call {
    store_range_done done;
    void *ctx;
};

static void range_done(void *ctx, const struct client_result *result)
{
    struct range_call *call = ctx;
    struct store_range_result r = {.code = result->code, .text = result->text};
    struct arena scratch = {0};
    if (result->code == ERR_OK) {
        const Etcdserverpb__RangeResponse *m = (const void *)result->message;
        struct store_kv *kvs = arena_alloc(&scratch, (m->n_kvs + 1) * sizeof *kvs);
        for (size_t i = 0; i < m->n_kvs; i++)
            fill_kv(m->kvs[i], &kvs[i]);
        r.kvs = kvs;
        r.count = m->n_kvs;
        r.more = m->more;
        r.revision = m->header ? m->header->revision : 0;
    }
    call->done(call->ctx, &r);
    arena_free(&scratch);
    free(call);
}

static void client_backend_range(struct backend *b, const struct store_range *r,
                                 uint64_t timeout_ms, store_range_done done, void *ctx)
{
    Etcdserverpb__RangeRequest m = ETCDSERVERPB__RANGE_REQUEST__INIT;
    m.key = pb(r->key);
    m.range_end = pb(r->end);
    m.limit = r->limit;
    m.revision = r->revision;
    m.keys_only = r->keys_only;
    struct range_call *call = xmalloc(sizeof *call);
    *call = (struct range_call){done, ctx};
    client_range(of(b)->client, &m, timeout_ms, range_done, call);
}

/* ---- Txn -------------------------------------------------------------------------------------------- */

struct txn_call {
    store_txn_done done;
    void *ctx;
};

static void txn_done(void *ctx, const struct client_result *result)
{
    struct txn_call *call = ctx;
    struct store_txn_result r = {
        .code = result->code, .text = result->text, .unknown = result->unknown};
    struct arena scratch = {0};
    if (result->code == ERR_OK) {
        const Etcdserverpb__TxnResponse *m = (const void *)result->message;
        size_t total = 0;
        for (size_t i = 0; i < m->n_responses; i++)
            if (m->responses[i]->response_case ==
                ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
                total += m->responses[i]->response_range->n_kvs;
        struct store_kv *kvs = arena_alloc(&scratch, (total + 1) * sizeof *kvs);
        for (size_t i = 0; i < m->n_responses; i++) {
            if (m->responses[i]->response_case !=
                ETCDSERVERPB__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
                continue;
            const Etcdserverpb__RangeResponse *range = m->responses[i]->response_range;
            for (size_t k = 0; k < range->n_kvs; k++)
                fill_kv(range->kvs[k], &kvs[r.count++]);
        }
        r.kvs = kvs;
        r.succeeded = m->succeeded;
        r.revision = m->header ? m->header->revision : 0;
    }
    call->done(call->ctx, &r);
    arena_free(&scratch);
    free(call);
}

static Etcdserverpb__Compare *pack_compare(struct arena *a, const struct store_compare *from)
{
    Etcdserverpb__Compare *to = arena_alloc(a, sizeof *to);
    etcdserverpb__compare__init(to);
    to->result = from->relation == STORE_EQUAL  ? ETCDSERVERPB__COMPARE__COMPARE_RESULT__EQUAL
                 : from->relation == STORE_LESS ? ETCDSERVERPB__COMPARE__COMPARE_RESULT__LESS
                                                : ETCDSERVERPB__COMPARE__COMPARE_RESULT__GREATER;
    to->key = pb(from->key);
    to->range_end = pb(from->end);
    switch (from->target) {
    case STORE_CREATE:
        to->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__CREATE;
        to->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_CREATE_REVISION;
        to->create_revision = from->operand;
        break;
    case STORE_MOD:
        to->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__MOD;
        to->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_MOD_REVISION;
        to->mod_revision = from->operand;
        break;
    case STORE_VERSION:
        to->target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION;
        to->target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
        to->version = from->operand;
        break;
    }
    return to;
}

static Etcdserverpb__RequestOp *pack_op(struct arena *a, const struct store_op *from)
{
    Etcdserverpb__RequestOp *to = arena_alloc(a, sizeof *to);
    etcdserverpb__request_op__init(to);
    if (from->kind == STORE_PUT) {
        Etcdserverpb__PutRequest *put = arena_alloc(a, sizeof *put);
        etcdserverpb__put_request__init(put);
        put->key = pb(from->key);
        put->value = pb(from->value);
        put->lease = from->lease;
        to->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        to->request_put = put;
    } else if (from->kind == STORE_DELETE) {
        Etcdserverpb__DeleteRangeRequest *del = arena_alloc(a, sizeof *del);
        etcdserverpb__delete_range_request__init(del);
        del->key = pb(from->key);
        del->range_end = pb(from->end);
        to->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
        to->request_delete_range = del;
    } else {
        Etcdserverpb__RangeRequest *get = arena_alloc(a, sizeof *get);
        etcdserverpb__range_request__init(get);
        get->key = pb(from->key);
        get->range_end = pb(from->end);
        get->keys_only = from->keys_only;
        to->request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_RANGE;
        to->request_range = get;
    }
    return to;
}

static void client_backend_txn(struct backend *b, const struct store_txn *t, uint64_t timeout_ms,
                               store_txn_done done, void *ctx)
{
    struct arena a = {0};
    Etcdserverpb__TxnRequest m = ETCDSERVERPB__TXN_REQUEST__INIT;
    m.compare = arena_alloc(&a, (t->compare_count + 1) * sizeof *m.compare);
    m.success = arena_alloc(&a, (t->op_count + 1) * sizeof *m.success);
    m.failure = arena_alloc(&a, (t->otherwise_count + 1) * sizeof *m.failure);
    m.n_compare = t->compare_count;
    m.n_success = t->op_count;
    m.n_failure = t->otherwise_count;
    for (size_t i = 0; i < t->compare_count; i++)
        m.compare[i] = pack_compare(&a, &t->compares[i]);
    for (size_t i = 0; i < t->op_count; i++)
        m.success[i] = pack_op(&a, &t->ops[i]);
    for (size_t i = 0; i < t->otherwise_count; i++)
        m.failure[i] = pack_op(&a, &t->otherwise[i]);
    struct txn_call *call = xmalloc(sizeof *call);
    *call = (struct txn_call){done, ctx};
    client_txn(of(b)->client, &m, timeout_ms, txn_done, call);
    arena_free(&a);
}

/* ---- Watch and sync points -------------------------------------------------------------------------- */

static void watch_events(void *ctx, const Mvccpb__Event *const *events, size_t count,
                         int64_t revision)
{
    struct backend_client *b = ctx;
    struct arena scratch = {0};
    struct store_event *list = arena_alloc(&scratch, (count + 1) * sizeof *list);
    for (size_t i = 0; i < count; i++) {
        list[i].deletion = events[i]->type == MVCCPB__EVENT__EVENT_TYPE__DELETE;
        fill_kv(events[i]->kv, &list[i].kv);
    }
    b->handler->events(b->handler_ctx, list, count, revision);
    arena_free(&scratch);
}

static void watch_compacted(void *ctx, int64_t compact_revision)
{
    struct backend_client *b = ctx;
    (void)compact_revision;
    client_watch_stop(b->watch);
    b->watch = NULL;
    b->handler->compacted(b->handler_ctx);
}

static void watch_state(void *ctx, bool up, const char *text)
{
    struct backend_client *b = ctx;
    b->handler->state(b->handler_ctx, up, text);
}

static void client_backend_watch(struct backend *backend, struct bytes key, struct bytes end,
                                 int64_t start_revision, const struct store_watch_handler *handler,
                                 void *ctx)
{
    static const struct client_watch_handler ours = {watch_events, watch_compacted, watch_state};
    struct backend_client *b = of(backend);
    /* All keys: a watch takes no empty key. */
    struct client_watch_spec spec = {
        .key = key.n ? key : bytes_of("", 1), .end = end, .start_revision = start_revision};
    if (b->watch)
        client_watch_stop(b->watch);
    b->handler = handler;
    b->handler_ctx = ctx;
    b->watch = client_watch_start(b->client, &spec, &ours, b);
}

/* A sync point without a watch: the answer must not come from inside the call. */
struct refusal {
    uv_timer_t timer;
    store_sync_done done;
    void *ctx;
};

static void refusal_free(uv_handle_t *handle)
{
    free(CONTAINER_OF(handle, struct refusal, timer));
}

static void refuse(uv_timer_t *timer)
{
    struct refusal *r = CONTAINER_OF(timer, struct refusal, timer);
    r->done(r->ctx, ERR_UNAVAILABLE, 0);
    uv_close((uv_handle_t *)timer, refusal_free);
}

static void client_backend_sync(struct backend *backend, uint64_t timeout_ms, store_sync_done done,
                                void *ctx)
{
    struct backend_client *b = of(backend);
    if (b->watch) {
        client_watch_sync(b->watch, timeout_ms, done, ctx);
        return;
    }
    struct refusal *r = xcalloc(1, sizeof *r);
    r->done = done;
    r->ctx = ctx;
    uv_timer_init(b->loop, &r->timer);
    uv_timer_start(&r->timer, refuse, 0, 0);
}

/* ---- Lease ------------------------------------------------------------------------------------------ */

static void lease_granted(void *ctx, enum errc code, int64_t id)
{
    struct backend_client *b = ctx;
    b->granted(b->lease_ctx, code, id);
}

static void lease_lost(void *ctx)
{
    struct backend_client *b = ctx;
    b->lost(b->lease_ctx);
}

static void client_backend_lease(struct backend *backend, int64_t ttl_s,
                                 void (*granted)(void *ctx, enum errc code, int64_t id),
                                 void (*lost)(void *ctx), void *ctx)
{
    struct backend_client *b = of(backend);
    if (b->lease)
        client_lease_stop(b->lease, false);
    b->granted = granted;
    b->lost = lost;
    b->lease_ctx = ctx;
    b->lease = client_lease_start(b->client, ttl_s, lease_granted, lease_lost, b);
}

/* ---- Status ----------------------------------------------------------------------------------------- */

/* Two questions at a time: how the member is, and who the members are. */
struct status_call {
    struct backend_client *b;
    store_status_done done;
    void *ctx;
    int pending;
    struct store_status status;
    struct arena arena;
    char text[256];
};

static const char *keep(struct status_call *call, const char *text)
{
    size_t n = strlen(text) + 1;
    return memcpy(arena_alloc(&call->arena, n), text, n);
}

static void status_part(struct status_call *call, const struct client_result *result)
{
    if (result->code != ERR_OK && call->status.code == ERR_OK) {
        call->status.code = result->code;
        snprintf(call->text, sizeof call->text, "%s",
                 result->text ? result->text : errc_text(result->code));
        call->status.text = call->text;
    }
    if (--call->pending > 0)
        return;
    call->done(call->ctx, &call->status);
    arena_free(&call->arena);
    free(call);
}

static void status_done(void *ctx, const struct client_result *result)
{
    struct status_call *call = ctx;
    struct store_status *s = &call->status;
    if (result->code == ERR_OK) {
        const Etcdserverpb__StatusResponse *m = (const void *)result->message;
        s->version = keep(call, m->version);
        s->member_id = m->header ? m->header->member_id : 0;
        s->revision = m->header ? m->header->revision : 0;
        s->leader_id = m->leader;
        s->term = m->raftterm;
        s->db_size = m->dbsize;
        for (size_t i = 0; i < m->n_errors; i++)
            if (strstr(m->errors[i], "NOSPACE"))
                s->no_space = true;
    }
    status_part(call, result);
}

static void members_done(void *ctx, const struct client_result *result)
{
    struct status_call *call = ctx;
    struct store_status *s = &call->status;
    if (result->code == ERR_OK) {
        const Etcdserverpb__MemberListResponse *m = (const void *)result->message;
        for (size_t i = 0; i < m->n_members && i < STORE_MEMBERS_MAX; i++) {
            const Etcdserverpb__Member *from = m->members[i];
            s->members[s->member_count++] = (struct store_member){
                .id = from->id,
                .name = keep(call, from->name),
                .client_url = keep(call, from->n_clienturls ? from->clienturls[0] : ""),
                .learner = from->islearner};
        }
    }
    status_part(call, result);
}

static void client_backend_status(struct backend *backend, uint64_t timeout_ms,
                                  store_status_done done, void *ctx)
{
    struct backend_client *b = of(backend);
    Etcdserverpb__StatusRequest status = ETCDSERVERPB__STATUS_REQUEST__INIT;
    Etcdserverpb__MemberListRequest members = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    struct status_call *call = xcalloc(1, sizeof *call);
    call->b = b;
    call->done = done;
    call->ctx = ctx;
    call->pending = 2;
    call->status.endpoint = keep(call, b->state);
    client_unary(b->client, "/etcdserverpb.Maintenance/Status", &status.base,
                 &etcdserverpb__status_response__descriptor, true, timeout_ms, status_done, call);
    client_unary(b->client, "/etcdserverpb.Cluster/MemberList", &members.base,
                 &etcdserverpb__member_list_response__descriptor, true, timeout_ms, members_done,
                 call);
}

/* ---- Life ------------------------------------------------------------------------------------------- */

static void client_state(void *ctx, bool up, const char *text)
{
    struct backend_client *b = ctx;
    (void)up;
    snprintf(b->state, sizeof b->state, "%s", text ? text : "");
}

enum errc backend_client_new(uv_loop_t *loop, const char *const *endpoints, size_t count,
                             uint64_t timeout_ms, struct backend_client **ret_client,
                             struct error *err)
{
    struct backend_client *b = xcalloc(1, sizeof *b);
    struct client_config config = {.endpoints = endpoints,
                                   .endpoint_count = count,
                                   .timeout_ms = timeout_ms,
                                   .request_ids = true,
                                   .state = client_state,
                                   .ctx = b};
    b->loop = loop;
    b->backend =
        (struct backend){client_backend_range, client_backend_txn,   client_backend_watch,
                         client_backend_sync,  client_backend_lease, client_backend_status};
    enum errc code = client_new(loop, &config, &b->client, err);
    if (code != ERR_OK) {
        free(b);
        return code;
    }
    *ret_client = b;
    return ERR_OK;
}

struct backend *backend_client_backend(struct backend_client *b)
{
    return &b->backend;
}

const char *backend_client_state(const struct backend_client *b)
{
    return b->state;
}

void backend_client_free(struct backend_client *b)
{
    if (b->lease)
        client_lease_stop(b->lease, true);
    client_free(b->client);
    free(b);
}
