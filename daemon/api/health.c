/* grpc.health.v1.Health: as etcd, a member that answers is serving, unless its log's disk hangs: then it can
 * answer nothing but serializable reads (e#22214). */
#include "daemon/api/call.h"

#include <stdlib.h>

#include "proto/health.pb-c.h"

struct health_watch {
    struct api_stream stream; /* first */
    struct api *api;
    bool hangs; /* as told last */
};

static struct bytes status(bool hangs, uint8_t packed[16])
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = hangs ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
                            : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    return bytes_of(packed, grpc__health__v1__health_check_response__pack(&response, packed));
}

/* Only the server as a whole has a status. */
static bool known(struct bytes message, bool *ret_valid)
{
    Grpc__Health__V1__HealthCheckRequest *request =
        grpc__health__v1__health_check_request__unpack(NULL, message.n, message.p);
    *ret_valid = request != NULL;
    bool whole = request && !request->service[0];
    if (request)
        grpc__health__v1__health_check_request__free_unpacked(request, NULL);
    return whole;
}

static void on_check(struct rpc_call *call, void *service, struct bytes message)
{
    struct api_port *port = service;
    uint8_t packed[16];
    bool valid;
    if (known(message, &valid))
        rpc_call_reply(call, status(replica_log_hangs(port->api->config.replica), packed));
    else if (valid)
        rpc_call_finish(call, errc_grpc_code(ERR_NOT_FOUND), "unknown service");
    else
        rpc_call_fail(call, ERR_INTERNAL);
}

static void watch_started(struct rpc_call *call, void *service)
{
    struct api_port *port = service;
    struct health_watch *w = xcalloc(1, sizeof(*w));
    w->api = port->api;
    rpc_call_set_user(call, w);
    api_stream_begin(port->api, &w->stream, call);
}

static void watch_tick(struct api_stream *st, uint64_t now_ms)
{
    (void)now_ms;
    struct health_watch *w = (struct health_watch *)st;
    bool hangs = replica_log_hangs(w->api->config.replica);
    uint8_t packed[16];
    if (w->hangs == hangs)
        return;
    w->hangs = hangs;
    rpc_call_send(st->call, status(hangs, packed));
}

static void watch_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct health_watch *w = rpc_call_user(call);
    uint8_t packed[16];
    bool valid;
    if (w->stream.finished)
        return;
    if (known(message, &valid)) {
        w->hangs = replica_log_hangs(w->api->config.replica);
        w->stream.tick = watch_tick;
        rpc_call_send(call, status(w->hangs, packed));
        return;
    }
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    if (valid)
        rpc_call_send(call, bytes_of(packed, grpc__health__v1__health_check_response__pack(
                                                 &response, packed)));
    else
        api_stream_finish(&w->stream, ERR_INTERNAL);
}

static void watch_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct health_watch *w = rpc_call_user(call);
    api_stream_end(&w->stream);
    free(w);
}

const struct rpc_method health_methods[] = {
    {.path = "/grpc.health.v1.Health/Check", .message = on_check},
    {.path = "/grpc.health.v1.Health/Watch",
     .started = watch_started,
     .message = watch_message,
     .closed = watch_closed},
};
const size_t health_method_count = ARRAY_LEN(health_methods);
