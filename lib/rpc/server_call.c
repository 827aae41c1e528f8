/* One call as the server sees it. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/rpc/server.h"
#include "lib/rpc/status.h"

static struct rpc_call *call_of(struct transfer *t)
{
    return CONTAINER_OF(t, struct rpc_call, t);
}

/* ---- Answering --------------------------------------------------------------------------------- */

static size_t status_headers(const struct rpc_call *call, nghttp2_nv ret_nv[2], char digits[12],
                             struct buf *encoded)
{
    snprintf(digits, 12, "%d", call->status);
    ret_nv[0] = conn_nv("grpc-status", bytes_str(digits));
    if (!call->text)
        return 1;
    status_percent_encode(encoded, call->text);
    ret_nv[1] = conn_nv("grpc-message", buf_bytes(encoded));
    return 2;
}

/* All messages are out: the trailers follow. */
static void on_sent_all(struct transfer *t, uint32_t *data_flags)
{
    struct rpc_call *call = call_of(t);
    struct buf encoded = {0};
    nghttp2_nv nv[2];
    char digits[12];
    size_t n = status_headers(call, nv, digits, &encoded);
    *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    nghttp2_submit_trailer(t->conn->session, t->stream_id, nv, n);
    buf_free(&encoded);
}

static void send_trailers_only(struct rpc_call *call, const char *http_status)
{
    struct buf encoded = {0};
    char digits[12];
    nghttp2_nv nv[4] = {conn_nv(":status", bytes_str(http_status)),
                        CONN_NV("content-type", "application/grpc")};
    size_t n = 2 + status_headers(call, nv + 2, digits, &encoded);
    call->headers_sent = true;
    nghttp2_submit_response(call->t.conn->session, call->t.stream_id, nv, n, NULL);
    buf_free(&encoded);
    conn_schedule_flush(call->t.conn);
}

static void send_headers(struct rpc_call *call)
{
    nghttp2_nv nv[2] = {CONN_NV(":status", "200"), CONN_NV("content-type", "application/grpc")};
    nghttp2_data_provider provider = {.source.ptr = &call->t, .read_callback = transfer_provide};
    call->headers_sent = true;
    nghttp2_submit_response(call->t.conn->session, call->t.stream_id, nv, ARRAY_LEN(nv), &provider);
}

static void finish(struct rpc_call *call, const char *http_status, int grpc_status,
                   const char *text)
{
    if (call->finished || call->ended)
        return;
    call->finished = true;
    call->status = grpc_status;
    if (text && *text) {
        call->text = xmalloc(RPC_STATUS_TEXT_MAX);
        snprintf(call->text, RPC_STATUS_TEXT_MAX, "%s", text);
    }
    deadline_clear(&call->server->deadlines, &call->deadline);
    transfer_deafen(&call->t);
    if (call->headers_sent)
        transfer_finish(&call->t);
    else
        send_trailers_only(call, http_status);
}

/* Ends a call whose answer can't go out in order: half a message may be on its way. */
static void reset(struct rpc_call *call, uint32_t http2_error)
{
    call->finished = true;
    deadline_clear(&call->server->deadlines, &call->deadline);
    transfer_deafen(&call->t);
    transfer_discard_unsent(&call->t);
    call->t.finishing = true;
    nghttp2_submit_rst_stream(call->t.conn->session, NGHTTP2_FLAG_NONE, call->t.stream_id,
                              http2_error);
    conn_schedule_flush(call->t.conn);
}

static void on_deadline(struct deadline *d)
{
    struct rpc_call *call = CONTAINER_OF(d, struct rpc_call, deadline);
    if (transfer_queued(&call->t))
        reset(call, NGHTTP2_CANCEL);
    else
        finish(call, "200", GRPC_DEADLINE_EXCEEDED, RPC_DEADLINE_TEXT);
}

/* ---- Messages ---------------------------------------------------------------------------------- */

static void on_message(struct transfer *t, struct bytes message)
{
    struct rpc_call *call = call_of(t);
    if (call->got_message && !call->method->client_streams) {
        finish(call, "200", GRPC_INTERNAL, "more than one request message");
        return;
    }
    call->got_message = true;
    if (call->method->message)
        call->method->message(call, call->service, message);
}

static void on_half_close(struct transfer *t)
{
    struct rpc_call *call = call_of(t);
    if (!call->got_message && !call->method->client_streams)
        finish(call, "200", GRPC_INTERNAL, "the request message is missing");
    else if (call->method->half_closed)
        call->method->half_closed(call, call->service);
}

static void on_broken(struct transfer *t, int grpc_status, const char *text)
{
    finish(call_of(t), "200", grpc_status, text);
}

static void on_writable(struct transfer *t)
{
    struct rpc_call *call = call_of(t);
    if (call->method->writable && !call->finished && !call->ended)
        call->method->writable(call, call->service);
}

static void on_overrun(struct transfer *t)
{
    reset(call_of(t), NGHTTP2_ENHANCE_YOUR_CALM);
}

static void on_freed(struct transfer *t)
{
    struct rpc_call *call = call_of(t);
    metadata_free(&call->metadata);
    free(call->text);
    free(call);
}

static const struct transfer_ops call_ops = {
    .message = on_message,
    .ended = on_half_close,
    .broken = on_broken,
    .writable = on_writable,
    .overrun = on_overrun,
    .sent_all = on_sent_all,
    .freed = on_freed,
};

/* What a usual request's headers take, so that they are one allocation. */
#define METADATA_BYTES 512

/* ---- Beginning and end ------------------------------------------------------------------------- */

struct rpc_call *call_new(struct server_conn *sc, int32_t stream_id)
{
    struct rpc_call *call = xcalloc(1, sizeof *call);
    call->server = sc->server;
    transfer_init(&call->t, &call_ops, &sc->server->turn, sc->server->config.message_max);
    transfer_attach(&call->t, &sc->c, stream_id);
    deadline_init(&call->deadline, on_deadline);
    list_append(&sc->calls, &call->link);
    buf_reserve(&call->metadata.packed, METADATA_BYTES);
    return call;
}

void call_add_header(struct rpc_call *call, struct bytes name, struct bytes value)
{
    /* RFC 9113, 10.5.1: a field counts its name, its value and 32 bytes. */
    call->header_bytes += name.n + value.n + 32;
    if (call->header_bytes > CONN_HEADER_LIST_MAX)
        return;
    if (!metadata_add(&call->metadata, name, value))
        call->malformed = "a binary header is no base64";
}

/* grpc-go's texts: clients and their users know them. */
static void refuse_path(struct rpc_call *call, struct bytes path)
{
    char text[RPC_STATUS_TEXT_MAX];
    struct bytes name = path;
    if (name.n && name.p[0] == '/')
        name = bytes_of(name.p + 1, name.n - 1);
    const uint8_t *slash = name.n ? memrchr(name.p, '/', name.n) : NULL;
    int service_n = slash ? (int)(slash - name.p) : 0;
    bool known = false;
    for (size_t i = 0; slash && i < call->server->slot_count && !known; i++) {
        const struct rpc_method *m = call->server->slots[i].method;
        known = m && strncmp(m->path + 1, (const char *)name.p, (size_t)service_n + 1) == 0;
    }
    if (!slash)
        snprintf(text, sizeof text, "malformed method name: \"%.*s\"", (int)path.n, path.p);
    else if (known)
        snprintf(text, sizeof text, "unknown method %.*s for service %.*s",
                 (int)(name.n - (size_t)service_n - 1), slash + 1, service_n, name.p);
    else
        snprintf(text, sizeof text, "unknown service %.*s", service_n, name.p);
    finish(call, "200", GRPC_UNIMPLEMENTED, text);
}

/* "Content-Type → "application/grpc" [("+proto" / "+json" / {custom})]", and grpc-go takes ";..." too. */
static bool is_grpc_type(struct bytes type)
{
    static const char grpc[] = "application/grpc";
    if (!bytes_starts_with(type, bytes_str(grpc)))
        return false;
    return type.n == sizeof grpc - 1 || type.p[sizeof grpc - 1] == '+' ||
           type.p[sizeof grpc - 1] == ';';
}

/* False: the request was answered because of its headers. */
static bool check_headers(struct rpc_call *call)
{
    struct bytes type = metadata_get(&call->metadata, "content-type");
    char text[256];
    if (call->header_bytes > CONN_HEADER_LIST_MAX) {
        snprintf(text, sizeof text, "the headers are larger than %d bytes", CONN_HEADER_LIST_MAX);
        finish(call, "431", GRPC_RESOURCE_EXHAUSTED, text);
    } else if (!bytes_equal(metadata_get(&call->metadata, ":method"), bytes_str("POST"))) {
        finish(call, "405", GRPC_INTERNAL, "the method must be POST: this is a gRPC port");
    } else if (!is_grpc_type(type)) {
        snprintf(text, sizeof text, "invalid gRPC request content-type \"%.*s\"",
                 type.n > 100 ? 100 : (int)type.n, type.p ? (const char *)type.p : "");
        finish(call, "415", GRPC_INVALID_ARGUMENT, text);
    } else if (call->malformed) {
        finish(call, "200", GRPC_INTERNAL, call->malformed);
    }
    return !call->finished;
}

/* False: it is malformed or has passed already. */
static bool set_deadline(struct rpc_call *call)
{
    struct bytes timeout = metadata_get(&call->metadata, "grpc-timeout");
    uint64_t ms;
    if (!timeout.p)
        return true;
    if (!status_timeout_parse(timeout, &ms)) {
        finish(call, "200", GRPC_INTERNAL, "malformed grpc-timeout");
        return false;
    }
    deadline_set(&call->server->deadlines, &call->deadline, uv_now(call->server->loop) + ms);
    return true;
}

void call_start(struct rpc_call *call)
{
    if (!check_headers(call) || !set_deadline(call))
        return;
    struct bytes path = metadata_get(&call->metadata, ":path");
    const struct method_slot *slot = server_find(call->server, path);
    if (!slot) {
        refuse_path(call, path);
        return;
    }
    call->method = slot->method;
    call->service = slot->service;
    call->started = true;
    if (call->method->started)
        call->method->started(call, call->service);
}

void call_end(struct rpc_call *call)
{
    if (call->ended)
        return;
    call->ended = true;
    list_remove(&call->link);
    deadline_clear(&call->server->deadlines, &call->deadline);
    transfer_deafen(&call->t);
    if (call->started && call->method->closed)
        call->method->closed(call, call->service);
    transfer_detach(&call->t);
    transfer_unref(&call->t);
}

/* ---- The handler's side ------------------------------------------------------------------------ */

void rpc_call_set_user(struct rpc_call *call, void *user)
{
    call->user = user;
}

void *rpc_call_user(const struct rpc_call *call)
{
    return call->user;
}

const char *rpc_call_peer(const struct rpc_call *call)
{
    return call->t.conn->peer;
}

struct bytes rpc_call_header(const struct rpc_call *call, const char *name)
{
    return metadata_get(&call->metadata, name);
}

uint64_t rpc_call_deadline_ms(const struct rpc_call *call)
{
    return call->deadline.at ? call->deadline.at : UINT64_MAX;
}

void rpc_call_send(struct rpc_call *call, struct bytes message)
{
    if (call->finished || call->ended)
        return; /* a deadline or a cancellation was faster */
    if (!call->headers_sent)
        send_headers(call);
    transfer_send(&call->t, message);
}

bool rpc_call_writable(const struct rpc_call *call)
{
    return transfer_writable(&call->t);
}

size_t rpc_call_queued(const struct rpc_call *call)
{
    return transfer_queued(&call->t);
}

void rpc_call_pause(struct rpc_call *call)
{
    transfer_pause(&call->t);
}

void rpc_call_resume(struct rpc_call *call)
{
    transfer_resume(&call->t);
}

void rpc_call_finish(struct rpc_call *call, int grpc_status, const char *text)
{
    finish(call, "200", grpc_status, text);
}

void rpc_call_fail(struct rpc_call *call, enum errc code)
{
    finish(call, "200", errc_grpc_code(code), errc_text(code));
}

void rpc_call_reply(struct rpc_call *call, struct bytes message)
{
    rpc_call_send(call, message);
    finish(call, "200", GRPC_OK, NULL);
}
