#include "lib/rpc/conn.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>

/* What an idle connection keeps of its output buffer. */
#define OUT_CAP_IDLE (16 * 1024)
/* Writes of one turn: a fast reader must not keep the loop from the other connections. */
#define FLUSH_WRITES_MAX 4
#define TCP_KEEPALIVE_S 60

static void on_flush(struct turn_item *item)
{
    conn_flush_now(CONTAINER_OF(item, struct conn, flush));
}

static void on_lingered(struct deadline *d)
{
    struct conn *c = CONTAINER_OF(d, struct conn, linger);
    conn_end(c, false, "closed");
}

/* A write to a peer that has left must be an error, not a signal: libuv writes without MSG_NOSIGNAL. */
static void ignore_sigpipe(void)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) != 0 || action.sa_handler != SIG_DFL)
        return;
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
}

void conn_init(struct conn *c, uv_loop_t *loop, bool is_unix, struct turn *turn,
               struct deadlines *deadlines, const struct conn_ops *ops)
{
    ignore_sigpipe();
    c->turn = turn;
    c->deadlines = deadlines;
    c->ops = ops;
    if (is_unix)
        uv_pipe_init(loop, &c->handle.pipe, 0);
    else
        uv_tcp_init(loop, &c->handle.tcp);
    c->handle.any.data = c;
    turn_item_init(&c->flush, on_flush);
    deadline_init(&c->linger, on_lingered);
}

static void name_peer(struct conn *c)
{
    struct sockaddr_storage address;
    int n = sizeof address;
    char host[INET6_ADDRSTRLEN];
    if (c->handle.any.type != UV_TCP) {
        snprintf(c->peer, sizeof c->peer, "unix:");
    } else if (uv_tcp_getpeername(&c->handle.tcp, (struct sockaddr *)&address, &n) != 0) {
        snprintf(c->peer, sizeof c->peer, "unknown");
    } else if (address.ss_family == AF_INET6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
        uv_ip6_name(in6, host, sizeof host);
        snprintf(c->peer, sizeof c->peer, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)&address;
        uv_ip4_name(in, host, sizeof host);
        snprintf(c->peer, sizeof c->peer, "%s:%u", host, ntohs(in->sin_port));
    }
}

static void make_session(struct conn *c, const nghttp2_session_callbacks *callbacks, bool server)
{
    nghttp2_option *option;
    int failed = nghttp2_option_new(&option);
    assert(!failed);
    nghttp2_option_set_no_auto_window_update(option, 1);
    /* Closed streams are kept for priorities only, which gRPC does not use. */
    nghttp2_option_set_no_closed_streams(option, 1);
    /* A server counts resets itself (server_conn.c); nghttp2's own limit is tight and says INTERNAL_ERROR. */
    nghttp2_option_set_stream_reset_rate_limit(option, UINT32_MAX, UINT32_MAX);
    /* Go's gRPC clients put what they were told to dial into `:authority`: etcdctl's "http://HOST:PORT" for
     * status, defrag and others. nghttp2 would reset such a stream for the slashes; what gRPC needs of a
     * request is checked by the call itself. */
    nghttp2_option_set_no_http_messaging(option, server);
    failed = server ? nghttp2_session_server_new2(&c->session, callbacks, c, option)
                    : nghttp2_session_client_new2(&c->session, callbacks, c, option);
    assert(!failed); /* out of memory is the only reason there is */
    nghttp2_option_del(option);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct conn *c = handle->data;
    (void)suggested;
    *buf = turn_read_buf(c->turn);
}

static bool is_gone(ssize_t uv_error)
{
    return uv_error == UV_EOF || uv_error == UV_ECONNRESET || uv_error == UV_EPIPE;
}

/* Something that reads nothing but sends requests would make us keep its answers. */
static void adjust_reading(struct conn *c);

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct conn *c = stream->data;
    struct bytes bytes = bytes_of(buf->base, n > 0 ? (size_t)n : 0);
    if (n == 0)
        return;
    if (n < 0) {
        conn_end(c, is_gone(n),
                 n == UV_EOF ? "connection closed by the peer" : uv_strerror((int)n));
        return;
    }
    c->received_ms = uv_now(stream->loop);
    if (c->ended || (c->ops->input && !c->ops->input(c, bytes)))
        return;
    ssize_t rc = nghttp2_session_mem_recv(c->session, bytes.p, bytes.n);
    if (c->ended)
        return;
    if (rc < 0) {
        conn_end(c, false, nghttp2_strerror((int)rc));
        return;
    }
    conn_schedule_flush(c);
    adjust_reading(c);
}

static void adjust_reading(struct conn *c)
{
    bool read = !c->bounded || !c->writing ||
                nghttp2_session_get_outbound_queue_size(c->session) < CONN_FRAMES_WAITING_MAX;
    if (read == c->reading)
        return;
    c->reading = read;
    if (read)
        uv_read_start(&c->handle.stream, on_alloc, on_read);
    else
        uv_read_stop(&c->handle.stream);
}

void conn_start(struct conn *c, const nghttp2_session_callbacks *callbacks, uint32_t max_streams)
{
    bool server = max_streams > 0;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, CONN_STREAM_WINDOW},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, CONN_HEADER_LIST_MAX},
        {server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS : NGHTTP2_SETTINGS_ENABLE_PUSH,
         max_streams},
    };
    name_peer(c);
    if (c->handle.any.type == UV_TCP) {
        uv_tcp_nodelay(&c->handle.tcp, 1);
        uv_tcp_keepalive(&c->handle.tcp, 1, TCP_KEEPALIVE_S);
    }
    make_session(c, callbacks, server);
    nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings));
    nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, CONN_WINDOW);
    c->bounded = server;
    c->received_ms = uv_now(c->handle.any.loop);
    adjust_reading(c);
    conn_schedule_flush(c);
}

void conn_schedule_flush(struct conn *c)
{
    if (!c->ended && !c->silent && c->session)
        turn_add_flush(c->turn, &c->flush);
}

static void on_close(uv_handle_t *handle)
{
    struct conn *c = handle->data;
    nghttp2_session_del(c->session);
    buf_free(&c->out);
    c->ops->freed(c);
}

static void set_ended(struct conn *c, bool refused, const char *reason)
{
    if (c->ended)
        return;
    c->ended = true;
    turn_drop(&c->flush);
    c->ops->down(c, refused, reason);
}

void conn_end(struct conn *c, bool refused, const char *reason)
{
    set_ended(c, refused, reason);
    if (c->closed)
        return;
    c->closed = true;
    deadline_clear(c->deadlines, &c->linger);
    uv_close(&c->handle.any, on_close);
}

static void on_written(uv_write_t *write, int status)
{
    struct conn *c = write->handle->data;
    c->writing = false;
    c->out.n = 0;
    if (c->closed)
        return;
    if (status < 0) {
        conn_end(c, is_gone(status), uv_strerror(status));
    } else if (!c->ended) {
        conn_schedule_flush(c);
        adjust_reading(c);
    }
}

/* Hands `out` to libuv. False: it did not all go out now. */
static bool write_out(struct conn *c)
{
    uv_buf_t buf = uv_buf_init((char *)c->out.p, (unsigned)c->out.n);
    int n = uv_try_write(&c->handle.stream, &buf, 1);
    if (n == (int)c->out.n) {
        c->out.n = 0;
        return true;
    }
    if (n > 0)
        buf_consume(&c->out, (size_t)n);
    buf = uv_buf_init((char *)c->out.p, (unsigned)c->out.n);
    c->writing = true;
    if (n < 0 && n != UV_EAGAIN)
        conn_end(c, is_gone(n), uv_strerror(n));
    else
        uv_write(&c->write, &c->handle.stream, &buf, 1, on_written);
    return false;
}

/* False: the connection ended meanwhile. */
static bool fill_out(struct conn *c)
{
    while (c->out.n < CONN_OUT_MAX) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(c->session, &p);
        if (c->ended)
            return false;
        if (n < 0) {
            conn_end(c, false, nghttp2_strerror((int)n));
            return false;
        }
        if (n == 0)
            break;
        buf_append(&c->out, p, (size_t)n);
    }
    return true;
}

void conn_flush_now(struct conn *c)
{
    if (c->ended || c->writing || c->silent)
        return;
    int writes = 0;
    for (;;) {
        if (writes++ == FLUSH_WRITES_MAX) {
            conn_schedule_flush(c);
            return;
        }
        if (!fill_out(c))
            return;
        if (c->out.n == 0)
            break;
        if (!write_out(c)) {
            if (!c->ended)
                adjust_reading(c);
            return;
        }
    }
    if (c->out.cap > OUT_CAP_IDLE)
        buf_free(&c->out);
    if (!nghttp2_session_want_write(c->session) && !nghttp2_session_want_read(c->session))
        conn_end_gently(c, BYTES_EMPTY, "connection closed");
}

static void on_shutdown(uv_shutdown_t *req, int status)
{
    (void)req;
    (void)status; /* the peer's EOF or the deadline closes it */
}

void conn_end_gently(struct conn *c, struct bytes last_words, const char *reason)
{
    if (c->ended)
        return;
    set_ended(c, true, reason);
    if (c->closed)
        return;
    if (last_words.n && !c->writing) {
        uv_buf_t buf = uv_buf_init((char *)last_words.p, (unsigned)last_words.n);
        uv_try_write(&c->handle.stream, &buf, 1);
    }
    if (uv_shutdown(&c->shutdown, &c->handle.stream, on_shutdown) != 0) {
        conn_end(c, true, reason);
        return;
    }
    if (!c->reading)
        uv_read_start(&c->handle.stream, on_alloc, on_read);
    deadline_set(c->deadlines, &c->linger, uv_now(c->handle.any.loop) + CONN_LINGER_MS);
}
