/* grpc.health.v1.Health: as etcd, a member that answers is serving. */
#include "daemon/api/call.h"

#include <stdlib.h>

#include "proto/health.pb-c.h"

static struct bytes serving(uint8_t packed[16])
{
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
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
    (void)service;
    uint8_t packed[16];
    bool valid;
    if (known(message, &valid))
        rpc_call_reply(call, serving(packed));
    else if (valid)
        rpc_call_finish(call, errc_grpc_code(ERR_NOT_FOUND), "unknown service");
    else
        rpc_call_fail(call, ERR_INTERNAL);
}

static void watch_started(struct rpc_call *call, void *service)
{
    struct api_port *port = service;
    struct api_stream *st = xcalloc(1, sizeof(*st));
    rpc_call_set_user(call, st);
    api_stream_begin(port->api, st, call);
}

static void watch_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct api_stream *st = rpc_call_user(call);
    uint8_t packed[16];
    bool valid;
    if (st->finished)
        return;
    if (known(message, &valid)) {
        rpc_call_send(call, serving(packed)); /* it stays so until the server stops */
        return;
    }
    Grpc__Health__V1__HealthCheckResponse response = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    response.status = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN;
    if (valid)
        rpc_call_send(call, bytes_of(packed, grpc__health__v1__health_check_response__pack(
                                                 &response, packed)));
    else
        api_stream_finish(st, ERR_INTERNAL);
}

static void watch_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct api_stream *st = rpc_call_user(call);
    api_stream_end(st);
    free(st);
}

const struct rpc_method health_methods[] = {
    {.path = "/grpc.health.v1.Health/Check", .message = on_check},
    {.path = "/grpc.health.v1.Health/Watch",
     .started = watch_started,
     .message = watch_message,
     .closed = watch_closed},
};
const size_t health_method_count = ARRAY_LEN(health_methods);
