/* One call as the client sees it. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/rpc/channel.h"
#include "lib/rpc/metadata.h"
#include "lib/rpc/status.h"

/* What this layer itself sends, beside the caller's headers. */
#define OWN_HEADERS_MAX 8
#define CALLER_HEADERS_MAX 32

static struct rpc_stream *stream_of(struct transfer *t)
{
    return CONTAINER_OF(t, struct rpc_stream, t);
}

/* ---- The answer -------------------------------------------------------------------------------- */

void stream_add_header(struct rpc_stream *st, struct bytes name, struct bytes value)
{
    char digits[4] = "";
    if (bytes_equal(name, bytes_str(":status"))) {
        memcpy(digits, value.p, value.n < 3 ? value.n : 3);
        st->http_status = atoi(digits);
    } else if (bytes_equal(name, bytes_str("content-type"))) {
        st->is_grpc = bytes_starts_with(value, bytes_str("application/grpc"));
    } else if (bytes_equal(name, bytes_str("grpc-status"))) {
        st->status = status_code_parse(value);
    } else if (bytes_equal(name, bytes_str("grpc-message")) && !st->text) {
        st->text = xmalloc(RPC_STATUS_TEXT_MAX);
        status_percent_decode(value, st->text, RPC_STATUS_TEXT_MAX);
    }
}

void stream_headers_done(struct rpc_stream *st)
{
    if (st->http_status / 100 == 1)
        return; /* informational: the real ones follow */
    if (!st->answered && (st->http_status != 200 || !st->is_grpc))
        transfer_deafen(&st->t); /* a body of some other server's error page */
    st->answered = true;
    if (st->t.deaf && st->status < 0) {
        char text[128];
        snprintf(text, sizeof text, "the server is no gRPC server: HTTP status %d%s",
                 st->http_status, st->http_status == 200 ? ", wrong content-type" : "");
        stream_done(st, status_of_http(st->http_status), text, true);
    } else if (st->t.deaf) {
        stream_done(st, st->status, st->text ? st->text : "", true);
    }
}

static void on_peer_ended(struct transfer *t)
{
    struct rpc_stream *st = stream_of(t);
    if (st->status < 0)
        stream_done(st, GRPC_UNKNOWN, "the server ended the call without a status", true);
    else
        stream_done(st, st->status, st->text ? st->text : "", true);
}

static void on_message(struct transfer *t, struct bytes message)
{
    struct rpc_stream *st = stream_of(t);
    if (st->handler->message)
        st->handler->message(st, st->ctx, message);
}

static void on_writable(struct transfer *t)
{
    struct rpc_stream *st = stream_of(t);
    if (!st->done && st->handler->writable)
        st->handler->writable(st, st->ctx);
}

static void on_broken(struct transfer *t, int grpc_status, const char *text)
{
    stream_done(stream_of(t), grpc_status, text, true);
}

static void on_deadline(struct deadline *d)
{
    struct rpc_stream *st = CONTAINER_OF(d, struct rpc_stream, deadline);
    stream_done(st, GRPC_DEADLINE_EXCEEDED, RPC_DEADLINE_TEXT, st->sent);
}

static void on_overrun_told(struct deadline *d)
{
    struct rpc_stream *st = CONTAINER_OF(d, struct rpc_stream, deadline);
    stream_done(st, GRPC_RESOURCE_EXHAUSTED, "the send queue is full", st->sent);
}

/* send() must not call back: the call ends from the loop, at once. */
static void on_overrun(struct transfer *t)
{
    struct rpc_stream *st = stream_of(t);
    transfer_discard_unsent(t);
    t->finishing = true;
    st->deadline.passed = on_overrun_told;
    deadline_set(&st->ch->deadlines, &st->deadline, uv_now(st->ch->loop));
}

static void on_freed(struct transfer *t)
{
    struct rpc_stream *st = stream_of(t);
    assert(st->done);
    free(st->path);
    free(st->text);
    buf_free(&st->headers);
    buf_free(&st->answer);
    free(st);
}

static const struct transfer_ops stream_ops = {
    .message = on_message,
    .ended = on_peer_ended,
    .broken = on_broken,
    .writable = on_writable,
    .overrun = on_overrun,
    .freed = on_freed,
};

/* ---- The end ----------------------------------------------------------------------------------- */

/* The handle is dead from here on; the session may know the stream for a while. */
static void kill_handle(struct rpc_stream *st)
{
    st->done = true;
    list_remove(&st->link);
    if (st->waiting) {
        st->waiting = false;
        st->ch->waiting_count--;
    }
    deadline_clear(&st->ch->deadlines, &st->deadline);
    transfer_deafen(&st->t);
    turn_drop(&st->t.later);
    if (!st->t.conn || st->t.conn->ended)
        return;
    /* NO_ERROR would be for a call that the server ended, but then nothing is left to say anyway. */
    nghttp2_session *session = st->t.conn->session;
    bool both_ended =
        st->t.peer_ended && nghttp2_session_get_stream_local_close(session, st->t.stream_id) == 1;
    if (!both_ended)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, st->t.stream_id,
                                  st->t.peer_ended ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
    conn_schedule_flush(st->t.conn);
}

void stream_done(struct rpc_stream *st, int grpc_status, const char *text, bool sent)
{
    if (st->done)
        return;
    kill_handle(st);
    st->handler->closed(st, st->ctx, grpc_status, text, sent);
    transfer_unref(&st->t);
}

static void forget_session(struct rpc_stream *st)
{
    list_remove(&st->conn_link);
    transfer_detach(&st->t);
}

void stream_closed(struct rpc_stream *st, uint32_t http2_error)
{
    char text[96];
    transfer_ref(&st->t);
    if (!st->sent) {
        stream_done(st, GRPC_UNAVAILABLE, "the connection closed before the call was sent", false);
    } else if (http2_error != NGHTTP2_NO_ERROR || !st->t.peer_ended) {
        snprintf(text, sizeof text, "stream terminated by RST_STREAM with error code: %s",
                 nghttp2_http2_strerror(http2_error));
        stream_done(st, status_of_reset(http2_error), text, http2_error != NGHTTP2_REFUSED_STREAM);
    } /* else it is done, or paused with messages that were not delivered yet */
    forget_session(st);
    transfer_unref(&st->t);
}

void stream_lost(struct rpc_stream *st, const char *reason)
{
    transfer_ref(&st->t);
    forget_session(st);
    stream_done(st, GRPC_UNAVAILABLE, reason, st->sent);
    transfer_unref(&st->t);
}

void rpc_stream_cancel(struct rpc_stream *st)
{
    if (st->done)
        return;
    kill_handle(st);
    transfer_unref(&st->t);
}

/* ---- The beginning ----------------------------------------------------------------------------- */

static size_t caller_headers(const struct rpc_stream *st, nghttp2_nv *ret_nv)
{
    const uint8_t *p = st->headers.p, *end = p + st->headers.n;
    size_t count = 0;
    while (p < end) {
        size_t name_n = get_le32(p), value_n = get_le32(p + 4);
        ret_nv[count++] = (nghttp2_nv){(uint8_t *)p + 8, (uint8_t *)p + 8 + name_n, name_n, value_n,
                                       NGHTTP2_NV_FLAG_NONE};
        p += 8 + name_n + value_n;
    }
    return count;
}

void stream_submit(struct rpc_stream *st, struct channel_conn *cc)
{
    nghttp2_nv nv[OWN_HEADERS_MAX + CALLER_HEADERS_MAX] = {
        CONN_NV(":method", "POST"),
        CONN_NV(":scheme", "http"),
        conn_nv(":path", bytes_str(st->path)),
        conn_nv(":authority", bytes_str(st->ch->authority)),
        CONN_NV("content-type", "application/grpc"),
        CONN_NV("te", "trailers"),
        CONN_NV("user-agent", "quorumfs/" QUORUMFS_VERSION),
    };
    nghttp2_data_provider provider = {.source.ptr = &st->t, .read_callback = transfer_provide};
    char timeout[STATUS_TIMEOUT_TEXT_MAX];
    size_t n = 7;
    if (st->waiting) {
        st->waiting = false;
        st->ch->waiting_count--;
    }
    if (st->timeout_ms) {
        /* What is left of it, if the call waited for the connection. */
        uint64_t now = uv_now(st->ch->loop);
        status_timeout_format(st->deadline.at > now ? st->deadline.at - now : 1, timeout);
        nv[n++] = conn_nv("grpc-timeout", bytes_str(timeout));
    }
    n += caller_headers(st, nv + n);
    int32_t id = nghttp2_submit_request(cc->c.session, NULL, nv, n, &provider, st);
    assert(id > 0); /* out of ids is out of the question: CHANNEL_STREAM_ID_MAX */
    transfer_attach(&st->t, &cc->c, id);
    list_append(&cc->streams, &st->conn_link);
    conn_schedule_flush(&cc->c);
    if (id >= CHANNEL_STREAM_ID_MAX) {
        nghttp2_submit_goaway(cc->c.session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
        channel_conn_drain(cc);
    }
}

static void pack_headers(struct rpc_stream *st, const struct rpc_header *headers, size_t count)
{
    assert(count <= CALLER_HEADERS_MAX);
    for (size_t i = 0; i < count; i++) {
        struct buf encoded = {0};
        struct bytes value = headers[i].value;
        uint8_t prefix[8];
        if (metadata_is_binary(headers[i].name)) {
            base64_encode(&encoded, value);
            value = buf_bytes(&encoded);
        }
        put_le32(prefix, (uint32_t)headers[i].name.n);
        put_le32(prefix + 4, (uint32_t)value.n);
        buf_append(&st->headers, prefix, sizeof prefix);
        buf_append(&st->headers, headers[i].name.p, headers[i].name.n);
        buf_append(&st->headers, value.p, value.n);
        buf_free(&encoded);
    }
}

static void on_too_many(struct deadline *d)
{
    struct rpc_stream *st = CONTAINER_OF(d, struct rpc_stream, deadline);
    stream_done(st, GRPC_UNAVAILABLE, "too many calls wait for the connection", false);
}

static void wait_for_connection(struct rpc_stream *st)
{
    struct rpc_channel *ch = st->ch;
    st->waiting = true;
    if (ch->waiting_count++ < CHANNEL_WAITING_MAX) {
        channel_connect_soon(ch);
        return;
    }
    deadline_init(&st->deadline, on_too_many); /* at once, but from the loop */
    st->waiting = false;
    ch->waiting_count--;
    deadline_set(&ch->deadlines, &st->deadline, uv_now(ch->loop));
}

struct rpc_stream *rpc_stream_open(struct rpc_channel *ch, const char *path, uint64_t deadline_ms,
                                   const struct rpc_header *headers, size_t header_count,
                                   const struct rpc_stream_handler *handler, void *ctx)
{
    struct rpc_stream *st = xcalloc(1, sizeof *st);
    assert(!ch->freed);
    st->ch = ch;
    st->handler = handler;
    st->ctx = ctx;
    st->path = xstrdup(path);
    st->status = -1;
    st->timeout_ms = deadline_ms;
    transfer_init(&st->t, &stream_ops, &ch->turn, ch->config.message_max);
    list_init(&st->conn_link);
    list_append(&ch->streams, &st->link);
    deadline_init(&st->deadline, on_deadline);
    pack_headers(st, headers, header_count);
    if (deadline_ms) {
        uv_update_time(ch->loop); /* the clock may stand since the loop's turn began */
        deadline_set(&ch->deadlines, &st->deadline, uv_now(ch->loop) + deadline_ms);
    }
    if (ch->up)
        stream_submit(st, ch->current);
    else
        wait_for_connection(st);
    return st;
}

/* ---- The caller's side ------------------------------------------------------------------------- */

void rpc_stream_send(struct rpc_stream *st, struct bytes message)
{
    if (!st->done)
        transfer_send(&st->t, message);
}

bool rpc_stream_writable(const struct rpc_stream *st)
{
    return transfer_writable(&st->t);
}

void rpc_stream_half_close(struct rpc_stream *st)
{
    if (!st->done)
        transfer_finish(&st->t);
}

void rpc_stream_pause(struct rpc_stream *st)
{
    transfer_pause(&st->t);
}

void rpc_stream_resume(struct rpc_stream *st)
{
    transfer_resume(&st->t);
}

/* ---- Unary ------------------------------------------------------------------------------------- */

static void unary_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)ctx;
    if (st->answer_count++ == 0)
        buf_append(&st->answer, message.p, message.n);
}

static void unary_closed(struct rpc_stream *st, void *ctx, int grpc_status, const char *text,
                         bool sent)
{
    if (grpc_status == GRPC_OK && st->answer_count != 1) {
        grpc_status = GRPC_INTERNAL;
        text = st->answer_count ? "more than one answer" : "an answer without a message";
    }
    struct bytes answer = grpc_status == GRPC_OK ? buf_bytes(&st->answer) : BYTES_EMPTY;
    st->unary_done(ctx, grpc_status, text, answer, sent);
}

static const struct rpc_stream_handler unary_handler = {
    .message = unary_message,
    .closed = unary_closed,
};

struct rpc_stream *rpc_unary(struct rpc_channel *ch, const char *path, struct bytes request,
                             uint64_t deadline_ms, const struct rpc_header *headers,
                             size_t header_count,
                             void (*done)(void *ctx, int grpc_status, const char *text,
                                          struct bytes answer, bool sent),
                             void *ctx)
{
    struct rpc_stream *st =
        rpc_stream_open(ch, path, deadline_ms, headers, header_count, &unary_handler, ctx);
    st->unary_done = done;
    transfer_send(&st->t, request);
    transfer_finish(&st->t);
    return st;
}
