/* etcdserverpb.Lease. Grants and revokes go through the log; how long a lease still lives is known to the
 * leader alone, so renewals and remaining times are answered there, after it has confirmed that it still
 * leads (a deposed one must not promise a lease that its successor lets expire). */
#include "daemon/api/call.h"

#include <stdlib.h>

#define KEEP_ALIVE_PATH "/etcdserverpb.Lease/LeaseKeepAlive"
#define TIME_TO_LIVE_PATH "/etcdserverpb.Lease/LeaseTimeToLive"

/* ---- Grant, revoke ------------------------------------------------------------------------------- */

static int64_t choose_id(struct api *api)
{
    int64_t id;
    do
        id = (int64_t)(api->config.env->random(api->config.env) & INT64_MAX);
    while (id == 0 || lessor_exists(replica_lessor(api->config.replica), id));
    return id;
}

static void on_grant(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__lease_grant_request__descriptor, message);
    if (!u)
        return;
    Etcdserverpb__LeaseGrantRequest *r = (Etcdserverpb__LeaseGrantRequest *)u->request;
    if (api_no_space(u->api)) {
        unary_fail(u, ERR_NO_SPACE);
        return;
    }
    if (r->id == 0)
        r->id = choose_id(u->api);
    /* etcd's minimum: one and a half election timeouts, so that a lease survives one election. */
    int64_t ttl_min = (int64_t)((u->api->config.election_ms * 3 / 2 + 999) / 1000);
    if (r->ttl < ttl_min)
        r->ttl = ttl_min;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT;
    request.lease_grant = r;
    unary_propose(u, &request);
}

static void on_revoke(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__lease_revoke_request__descriptor, message);
    if (!u)
        return;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE;
    request.lease_revoke = (Etcdserverpb__LeaseRevokeRequest *)u->request;
    unary_propose(u, &request);
}

/* ---- Time to live -------------------------------------------------------------------------------- */

struct key_list {
    struct unary *u;
    Etcdserverpb__LeaseTimeToLiveResponse *response;
};

/* The keys belong to the lessor, which doesn't change before the answer is packed. */
static void add_key(void *ctx, struct bytes key)
{
    struct key_list *list = ctx;
    Etcdserverpb__LeaseTimeToLiveResponse *r = list->response;
    r->keys[r->n_keys++] = (ProtobufCBinaryData){key.n, (uint8_t *)key.p};
}

static void time_to_live_leading(struct unary *u);

static void time_to_live_now(struct unary *u)
{
    const Etcdserverpb__LeaseTimeToLiveRequest *r =
        (const Etcdserverpb__LeaseTimeToLiveRequest *)u->request;
    struct lessor *lessor = replica_lessor(u->api->config.replica);
    if (!lessor_is_primary(lessor)) { /* deposed meanwhile */
        unary_forward(u, TIME_TO_LIVE_PATH, &etcdserverpb__lease_time_to_live_response__descriptor,
                      time_to_live_leading);
        return;
    }
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__LeaseTimeToLiveResponse response =
        ETCDSERVERPB__LEASE_TIME_TO_LIVE_RESPONSE__INIT;
    struct lease_info info;
    response.header = &header;
    response.id = r->id;
    response.ttl = -1;
    if (!lessor_info(lessor, r->id, env_mono_ms(u->api->config.env), &info)) {
        response.ttl = info.remaining_ttl;
        response.grantedttl = info.granted_ttl;
        if (r->keys && info.key_count > 0) {
            struct key_list list = {u, &response};
            response.keys = unary_alloc(u, info.key_count * sizeof(*response.keys));
            lessor_each_key(lessor, r->id, add_key, &list);
        }
    }
    unary_reply(u, &response.base);
}

static void time_to_live_leading(struct unary *u)
{
    unary_read(u, time_to_live_now);
}

static void on_time_to_live(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__lease_time_to_live_request__descriptor, message);
    if (!u)
        return;
    if (lessor_is_primary(replica_lessor(u->api->config.replica)))
        time_to_live_leading(u);
    else
        unary_forward(u, TIME_TO_LIVE_PATH, &etcdserverpb__lease_time_to_live_response__descriptor,
                      time_to_live_leading);
}

/* ---- Leases -------------------------------------------------------------------------------------- */

struct lease_list {
    struct lease_info *info;
    size_t count;
    struct lessor *lessor;
    uint64_t now_ms;
};

static void add_lease(void *ctx, int64_t id)
{
    struct lease_list *list = ctx;
    if (!lessor_info(list->lessor, id, list->now_ms, &list->info[list->count]))
        list->count++;
}

static int compare_expiry(const void *a, const void *b)
{
    const struct lease_info *x = a, *y = b;
    if (x->remaining_ttl != y->remaining_ttl)
        return x->remaining_ttl < y->remaining_ttl ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static void on_leases(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__lease_leases_request__descriptor, message);
    if (!u)
        return;
    struct lessor *lessor = replica_lessor(u->api->config.replica);
    size_t count = lessor_count(lessor);
    struct lease_list list = {unary_alloc(u, count * sizeof(*list.info)), 0, lessor,
                              env_mono_ms(u->api->config.env)};
    lessor_each(lessor, add_lease, &list);
    if (list.count)
        qsort(list.info, list.count, sizeof(*list.info), compare_expiry); /* as etcd lists them */
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__LeaseLeasesResponse response = ETCDSERVERPB__LEASE_LEASES_RESPONSE__INIT;
    Etcdserverpb__LeaseStatus *rows = unary_alloc(u, list.count * sizeof(*rows));
    response.header = &header;
    response.leases = unary_alloc(u, list.count * sizeof(*response.leases));
    for (size_t i = 0; i < list.count; i++) {
        etcdserverpb__lease_status__init(&rows[i]);
        rows[i].id = list.info[i].id;
        response.leases[response.n_leases++] = &rows[i];
    }
    unary_reply(u, &response.base);
}

/* ---- Keep-alive ---------------------------------------------------------------------------------- */

struct keep_alive {
    struct api_stream stream;
    struct api *api;
    struct api_port *port;
    struct list renewals; /* struct renewal */
    size_t count;
    bool paused;
    bool half_closed;
};

struct renewal {
    struct list link;
    struct keep_alive *ka;
    int64_t id;
    Etcdserverpb__ResponseHeader header; /* as of the request: never ahead of what the lease saw */
    struct replica_op *op;
    struct peer_forward *forward;
};

static void renewal_free(struct renewal *r)
{
    struct keep_alive *ka = r->ka;
    list_remove(&r->link);
    free(r);
    ka->count--;
    if (ka->paused && ka->count < API_RENEWALS_MAX / 2) {
        ka->paused = false;
        rpc_call_resume(ka->stream.call);
    }
    if (ka->half_closed && ka->count == 0)
        api_stream_finish(&ka->stream, ERR_OK);
}

static void renewal_answer(struct renewal *r, enum errc code, int64_t ttl)
{
    struct keep_alive *ka = r->ka;
    if (code == ERR_OK || code == ERR_LEASE_NOT_FOUND) {
        Etcdserverpb__LeaseKeepAliveResponse response =
            ETCDSERVERPB__LEASE_KEEP_ALIVE_RESPONSE__INIT;
        response.header = &r->header;
        response.id = r->id;
        response.ttl = code ? 0 : ttl;
        if (!ka->stream.finished)
            api_send(ka->api, ka->stream.call, &response.base);
    } else {
        api_stream_finish(&ka->stream, code);
    }
    renewal_free(r);
}

static void renew_there(struct renewal *r);

static void on_renewed(void *ctx, enum errc code, int64_t ttl)
{
    struct renewal *r = ctx;
    r->op = NULL;
    if (code == ERR_NOT_LEADER) /* deposed meanwhile */
        renew_there(r);
    else
        renewal_answer(r, code, ttl);
}

static void renew_here(struct renewal *r)
{
    r->op = replica_lease_renew(r->ka->api->config.replica, r->id, on_renewed, r);
}

static void on_renew_forwarded(void *ctx, enum errc code, struct bytes answer)
{
    struct renewal *r = ctx;
    int64_t ttl = 0;
    r->forward = NULL;
    if (code == ERR_LEADER_CHANGED &&
        lessor_is_primary(replica_lessor(r->ka->api->config.replica))) {
        renew_here(r);
        return;
    }
    if (!code) {
        Etcdserverpb__LeaseKeepAliveResponse *response =
            etcdserverpb__lease_keep_alive_response__unpack(NULL, answer.n, answer.p);
        if (response) {
            ttl = response->ttl;
            etcdserverpb__lease_keep_alive_response__free_unpacked(response, NULL);
        } else {
            code = ERR_INTERNAL;
        }
    }
    renewal_answer(r, code, ttl);
}

static void renew_there(struct renewal *r)
{
    struct api *api = r->ka->api;
    if (r->ka->port->peer) {
        renewal_answer(r, ERR_NOT_LEADER, 0);
        return;
    }
    Etcdserverpb__LeaseKeepAliveRequest request = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    uint8_t packed[16];
    request.id = r->id;
    size_t size = etcdserverpb__lease_keep_alive_request__pack(&request, packed);
    r->forward = peers_forward(api->config.peers, KEEP_ALIVE_PATH, bytes_of(packed, size),
                               api->config.request_timeout_ms, on_renew_forwarded, r);
    if (!r->forward)
        renewal_answer(r, ERR_TOO_MANY_REQUESTS, 0);
}

static void keep_alive_started(struct rpc_call *call, void *service)
{
    struct api_port *port = service;
    struct keep_alive *ka = xcalloc(1, sizeof(*ka));
    ka->api = port->api;
    ka->port = port;
    list_init(&ka->renewals);
    rpc_call_set_user(call, ka);
    api_stream_begin(port->api, &ka->stream, call);
}

static void keep_alive_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct keep_alive *ka = rpc_call_user(call);
    if (ka->stream.finished)
        return;
    Etcdserverpb__LeaseKeepAliveRequest *request =
        etcdserverpb__lease_keep_alive_request__unpack(NULL, message.n, message.p);
    if (!request) {
        api_stream_finish(&ka->stream, ERR_INTERNAL);
        return;
    }
    struct renewal *r = xcalloc(1, sizeof(*r));
    r->ka = ka;
    r->id = request->id;
    etcdserverpb__lease_keep_alive_request__free_unpacked(request, NULL);
    etcdserverpb__response_header__init(&r->header);
    api_header(ka->api, &r->header, mvcc_revision(replica_store(ka->api->config.replica)));
    list_append(&ka->renewals, &r->link);
    if (++ka->count >= API_RENEWALS_MAX && !ka->paused) {
        ka->paused = true;
        rpc_call_pause(call);
    }
    if (lessor_is_primary(replica_lessor(ka->api->config.replica)))
        renew_here(r);
    else
        renew_there(r);
}

static void keep_alive_half_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct keep_alive *ka = rpc_call_user(call);
    ka->half_closed = true;
    if (ka->count == 0)
        api_stream_finish(&ka->stream, ERR_OK);
}

static void keep_alive_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct keep_alive *ka = rpc_call_user(call);
    LIST_FOR_EACH_SAFE(it, tmp, &ka->renewals)
    {
        struct renewal *r = CONTAINER_OF(it, struct renewal, link);
        if (r->op)
            replica_cancel(r->op);
        if (r->forward)
            peer_forward_cancel(r->forward);
        list_remove(it);
        free(r);
    }
    api_stream_end(&ka->stream);
    free(ka);
}

const struct rpc_method lease_methods[] = {
    {.path = "/etcdserverpb.Lease/LeaseGrant", .message = on_grant, .closed = unary_closed},
    {.path = "/etcdserverpb.Lease/LeaseRevoke", .message = on_revoke, .closed = unary_closed},
    {.path = KEEP_ALIVE_PATH,
     .client_streams = true,
     .started = keep_alive_started,
     .message = keep_alive_message,
     .half_closed = keep_alive_half_closed,
     .closed = keep_alive_closed},
    {.path = TIME_TO_LIVE_PATH, .message = on_time_to_live, .closed = unary_closed},
    {.path = "/etcdserverpb.Lease/LeaseLeases", .message = on_leases, .closed = unary_closed},
};
const size_t lease_method_count = ARRAY_LEN(lease_methods);
