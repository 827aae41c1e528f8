/* A server's connection: the client's preface, floods, and nghttp2's callbacks. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/rpc/server.h"

static const char http1_answer[] = "HTTP/1.1 400 Bad Request\r\n"
                                   "Content-Type: text/plain\r\n"
                                   "Content-Length: 49\r\n"
                                   "Connection: close\r\n"
                                   "\r\n"
                                   "This port speaks gRPC (HTTP/2 without upgrade).\r\n";

/* ---- The preface ------------------------------------------------------------------------------- */

static bool looks_like_http1(const char *p, size_t n)
{
    static const char *const methods[] = {"GET ",    "HEAD ",    "POST ",  "PUT ",
                                          "DELETE ", "OPTIONS ", "PATCH ", "CONNECT "};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        size_t common = strlen(methods[i]) < n ? strlen(methods[i]) : n;
        if (common >= 2 && memcmp(p, methods[i], common) == 0)
            return true;
    }
    return false;
}

/* Compares what comes with the client's magic, so that someone with a browser or curl gets an answer
 * that explains. nghttp2 checks the magic too, but can only say no. */
static bool check_preface(struct conn *c, struct bytes bytes)
{
    struct server_conn *sc = CONTAINER_OF(c, struct server_conn, c);
    size_t seen = sc->preface_seen, i = 0;
    if (seen == NGHTTP2_CLIENT_MAGIC_LEN)
        return true;
    while (i < bytes.n && seen + i < NGHTTP2_CLIENT_MAGIC_LEN &&
           bytes.p[i] == (uint8_t)NGHTTP2_CLIENT_MAGIC[seen + i])
        i++;
    if (i == bytes.n || seen + i == NGHTTP2_CLIENT_MAGIC_LEN) {
        sc->preface_seen += i;
        /* Settings before it would spoil the answer to HTTP/1.1. */
        c->silent = sc->preface_seen < NGHTTP2_CLIENT_MAGIC_LEN;
        return true;
    }
    char start[16];
    size_t n = seen < 8 ? seen : 8;
    memcpy(start, NGHTTP2_CLIENT_MAGIC, n);
    for (i = 0; i < bytes.n && n < sizeof start; i++)
        start[n++] = (char)bytes.p[i];
    if (looks_like_http1(start, n)) {
        server_log(sc->server, sc, "an HTTP/1.1 request on the gRPC port");
        conn_end_gently(c, bytes_str(http1_answer), "HTTP/1.1");
    } else {
        server_log(sc->server, sc, "closed: what it sends is not HTTP/2");
        conn_end(c, false, "not HTTP/2");
    }
    return false;
}

static void on_preface_late(struct deadline *d)
{
    struct server_conn *sc = CONTAINER_OF(d, struct server_conn, preface);
    server_log(sc->server, sc, "closed: no HTTP/2 preface in time");
    conn_end(&sc->c, false, "no preface");
}

/* ---- nghttp2's callbacks ----------------------------------------------------------------------- */

/* After conn_end() within a callback the session must stop as well. */
static int go_on(const struct conn *c)
{
    return c->ended ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct server_conn *sc = user_data;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0; /* request trailers: gRPC has none */
    struct rpc_call *call = call_new(sc, frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, call);
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                     void *user_data)
{
    struct rpc_call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags;
    (void)user_data;
    if (call && frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        call_add_header(call, bytes_of(name, name_n), bytes_of(value, value_n));
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct server_conn *sc = user_data;
    struct rpc_call *call = NULL;
    if (frame->hd.type == NGHTTP2_SETTINGS) {
        deadline_clear(&sc->server->deadlines, &sc->preface);
        return 0;
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!call)
        return 0;
    transfer_ref(&call->t);
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        call_start(call);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        transfer_receive_end(&call->t);
    transfer_unref(&call->t);
    return go_on(&sc->c);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                   size_t n, void *user_data)
{
    struct server_conn *sc = user_data;
    struct rpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    (void)flags;
    if (call)
        transfer_receive(&call->t, bytes_of(data, n));
    else
        nghttp2_session_consume(session, stream_id, n);
    return go_on(&sc->c);
}

/* One more stream that ended by a reset: "rapid reset" is refused as the HTTP/2 errata advise. */
static void count_reset(struct server_conn *sc)
{
    uint64_t now = uv_now(sc->server->loop);
    sc->resets_left += (double)(now - sc->resets_ms) * SERVER_RESETS_PER_SECOND / 1000;
    if (sc->resets_left > SERVER_RESETS_BURST)
        sc->resets_left = SERVER_RESETS_BURST;
    sc->resets_ms = now;
    if (sc->resets_left < 1) {
        nghttp2_session_terminate_session(sc->c.session, NGHTTP2_ENHANCE_YOUR_CALM);
        conn_schedule_flush(&sc->c);
    } else {
        sc->resets_left--;
    }
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code,
                           void *user_data)
{
    struct server_conn *sc = user_data;
    struct rpc_call *call = nghttp2_session_get_stream_user_data(session, stream_id);
    if (error_code != NGHTTP2_NO_ERROR)
        count_reset(sc);
    if (call)
        call_end(call);
    return go_on(&sc->c);
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct server_conn *sc = user_data;
    char text[128];
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
        snprintf(text, sizeof text, "closed: HTTP/2 error %s",
                 nghttp2_http2_strerror(frame->goaway.error_code));
        server_log(sc->server, sc, text);
    } else if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) &&
               !nghttp2_session_get_stream_remote_close(session, frame->hd.stream_id)) {
        /* Answered before the client was done: NO_ERROR tells it to stop sending. */
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_NO_ERROR);
    }
    return 0;
}

nghttp2_session_callbacks *server_conn_callbacks(void)
{
    nghttp2_session_callbacks *cbs;
    int rc = nghttp2_session_callbacks_new(&cbs);
    assert(rc == 0);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cbs, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cbs, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cbs, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cbs, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cbs, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cbs, on_frame_send);
    return cbs;
}

/* ---- Life -------------------------------------------------------------------------------------- */

static void on_down(struct conn *c, bool refused, const char *reason)
{
    struct server_conn *sc = CONTAINER_OF(c, struct server_conn, c);
    (void)refused;
    (void)reason;
    deadline_clear(&sc->server->deadlines, &sc->preface);
    while (!list_empty(&sc->calls))
        call_end(CONTAINER_OF(sc->calls.next, struct rpc_call, link));
}

static void on_freed(struct conn *c)
{
    struct server_conn *sc = CONTAINER_OF(c, struct server_conn, c);
    struct rpc_server *s = sc->server;
    list_remove(&sc->link);
    s->conn_count--;
    free(sc);
    server_handle_closed(s);
}

static const struct conn_ops server_conn_ops = {
    .input = check_preface,
    .down = on_down,
    .freed = on_freed,
};

struct server_conn *server_conn_new(struct rpc_server *s, bool is_unix)
{
    struct server_conn *sc = xcalloc(1, sizeof *sc);
    sc->server = s;
    list_init(&sc->calls);
    list_append(&s->conns, &sc->link);
    s->conn_count++;
    s->handles++;
    deadline_init(&sc->preface, on_preface_late);
    sc->resets_left = SERVER_RESETS_BURST;
    sc->resets_ms = uv_now(s->loop);
    conn_init(&sc->c, s->loop, is_unix, &s->turn, &s->deadlines, &server_conn_ops);
    return sc;
}

void server_conn_start(struct server_conn *sc)
{
    struct rpc_server *s = sc->server;
    sc->c.silent = true;
    conn_start(&sc->c, s->callbacks, s->config.streams_max);
    deadline_set(&s->deadlines, &sc->preface, uv_now(s->loop) + SERVER_PREFACE_MS);
}

void server_conn_goaway(struct server_conn *sc)
{
    nghttp2_session *session = sc->c.session;
    if (sc->c.ended)
        return;
    if (sc->c.silent) {
        conn_end(&sc->c, false, "the server stops");
        return;
    }
    nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE,
                          nghttp2_session_get_last_proc_stream_id(session), NGHTTP2_NO_ERROR, NULL,
                          0);
    conn_schedule_flush(&sc->c);
}
