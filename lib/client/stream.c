/* A call with many answers. It isn't repeated: what came already belongs to one server's answer. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/client/internal.h"

struct client_stream {
    struct list link; /* in client->streams */
    struct client *client;
    char *path;
    uint8_t *request;
    size_t request_size;
    uint64_t idle_ms;
    void (*message)(void *ctx, struct bytes message);
    client_done done;
    void *ctx;
    uv_timer_t timer; /* nothing has come for idle_ms */
    struct conn *conn;
    struct rpc_stream *stream;
};

struct client_stream *stream_of_link(struct list *link)
{
    return CONTAINER_OF(link, struct client_stream, link);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct client_stream *s = CONTAINER_OF(handle, struct client_stream, timer);
    free(s->path);
    free(s->request);
    free(s);
}

void client_stream_stop(struct client_stream *s)
{
    if (s->stream)
        rpc_stream_cancel(s->stream);
    s->stream = NULL;
    if (s->conn)
        client_conn_release(s->conn);
    s->conn = NULL;
    list_remove(&s->link);
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}

static void finish(struct client_stream *s, enum errc code, const char *text)
{
    client_done done = s->done;
    void *ctx = s->ctx;
    client_stream_stop(s);
    done(ctx, &(struct client_result){.code = code, .text = text});
}

static void on_timer(uv_timer_t *timer)
{
    struct client_stream *s = CONTAINER_OF(timer, struct client_stream, timer);
    char text[sizeof(s->client->reason) + 64];
    snprintf(text, sizeof(text), "%s%s%s", s->stream ? "" : s->client->reason,
             s->stream || !s->client->reason[0] ? "" : ": ", errc_text(ERR_DEADLINE));
    finish(s, ERR_DEADLINE, text);
}

static void on_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    struct client_stream *s = ctx;
    uv_timer_start(&s->timer, on_timer, s->idle_ms, 0);
    s->message(s->ctx, message); /* may stop it */
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    (void)st;
    (void)sent;
    struct client_stream *s = ctx;
    s->stream = NULL;
    finish(s, status == 0 ? ERR_OK : errc_from_grpc(status, text), text);
}

static const struct rpc_stream_handler handler = {.message = on_message, .closed = on_closed};

void stream_conn_changed(struct client_stream *s)
{
    struct conn *conn = s->stream ? NULL : client_ready(s->client);
    if (!conn)
        return;
    s->conn = conn;
    conn->calls++;
    uv_timer_start(&s->timer, on_timer, s->idle_ms, 0);
    s->stream = rpc_stream_open(conn->channel, s->path, 0, NULL, 0, &handler, s);
    rpc_stream_send(s->stream, bytes_of(s->request, s->request_size));
    rpc_stream_half_close(s->stream);
}

struct client_stream *client_stream_start(struct client *c, const char *path,
                                          const ProtobufCMessage *request, uint64_t idle_ms,
                                          void (*message)(void *ctx, struct bytes message),
                                          client_done done, void *ctx)
{
    assert(!c->closing);
    struct client_stream *s = xcalloc(1, sizeof(*s));
    s->client = c;
    s->path = xstrdup(path);
    s->request_size = protobuf_c_message_get_packed_size(request);
    s->request = xmalloc(s->request_size + 1);
    protobuf_c_message_pack(request, s->request);
    s->idle_ms = idle_ms ? idle_ms : c->timeout_ms;
    s->message = message;
    s->done = done;
    s->ctx = ctx;
    int rc = uv_timer_init(c->loop, &s->timer);
    assert(rc == 0);
    list_append(&c->streams, &s->link);
    uv_timer_start(&s->timer, on_timer, c->timeout_ms, 0);
    stream_conn_changed(s);
    return s;
}
