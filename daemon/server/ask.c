#include "daemon/server/ask.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"

struct ask {
    uv_timer_t timer; /* the end runs off it: a channel can't be freed in its own callback */
    struct rpc_channel *channel;
    struct rpc_stream *call;
    void (*done)(void *ctx, int status, const char *text, struct bytes answer);
    void *ctx;
    int status;
    char text[RPC_STATUS_TEXT_MAX];
    struct buf answer;
};

static void on_closed(uv_handle_t *handle)
{
    struct ask *a = handle->data;
    buf_free(&a->answer);
    free(a);
}

static void disconnect(struct ask *a)
{
    struct rpc_stream *call = a->call;
    struct rpc_channel *channel = a->channel;
    a->call = NULL;
    a->channel = NULL;
    if (call)
        rpc_stream_cancel(call);
    if (channel)
        rpc_channel_free(channel);
}

static void on_timer(uv_timer_t *timer)
{
    struct ask *a = timer->data;
    disconnect(a);
    uv_close((uv_handle_t *)timer, on_closed);
    a->done(a->ctx, a->status, a->text, buf_bytes(&a->answer));
}

static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct ask *a = ctx;
    (void)sent;
    a->call = NULL;
    a->status = status;
    snprintf(a->text, sizeof(a->text), "%s", text ? text : "");
    if (status == 0)
        buf_append(&a->answer, answer.p, answer.n);
    uv_timer_start(&a->timer, on_timer, 0, 0);
}

struct ask *ask_start(uv_loop_t *loop, const char *url, const char *path, struct bytes request,
                      uint64_t timeout_ms,
                      void (*done)(void *ctx, int status, const char *text, struct bytes answer),
                      void *ctx)
{
    struct ask *a = xcalloc(1, sizeof(*a));
    struct rpc_channel_config config = {.connect_timeout_ms = ASK_CONNECT_MS};
    a->done = done;
    a->ctx = ctx;
    uv_timer_init(loop, &a->timer);
    a->timer.data = a;
    a->channel = rpc_channel_new(loop, url, &config);
    a->call = rpc_unary(a->channel, path, request, timeout_ms, NULL, 0, on_answer, a);
    return a;
}

struct ask *ask_members(uv_loop_t *loop, const char *url, bool linearizable, uint64_t timeout_ms,
                        void (*done)(void *ctx, int status, const char *text, struct bytes answer),
                        void *ctx)
{
    Etcdserverpb__MemberListRequest request = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    uint8_t packed[8];
    request.linearizable = linearizable;
    size_t n = etcdserverpb__member_list_request__pack(&request, packed);
    return ask_start(loop, url, "/etcdserverpb.Cluster/MemberList", bytes_of(packed, n), timeout_ms,
                     done, ctx);
}

void ask_cancel(struct ask *a)
{
    disconnect(a);
    uv_close((uv_handle_t *)&a->timer, on_closed);
}

Etcdserverpb__MemberListResponse *ask_member_list(int status, struct bytes answer)
{
    if (status)
        return NULL;
    Etcdserverpb__MemberListResponse *response =
        etcdserverpb__member_list_response__unpack(NULL, answer.n, answer.p);
    if (response && !response->header) {
        etcdserverpb__member_list_response__free_unpacked(response, NULL);
        return NULL;
    }
    return response;
}
