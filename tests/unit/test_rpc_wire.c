/* The server against raw bytes, and the channel against a scripted server: what no well-behaved peer
 * sends. */
#include "tests/unit/rpc_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/rpc/server.h"

#define MAGIC "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7 };
enum { END_STREAM = 1, END_HEADERS = 4, ACK = 1 };

struct service {
    int messages, closed;
};

static void echo_message(struct rpc_call *call, void *service, struct bytes message)
{
    ((struct service *)service)->messages++;
    rpc_call_reply(call, message);
}

static void hold_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)call;
    (void)message;
    ((struct service *)service)->messages++;
}

static void any_closed(struct rpc_call *call, void *service)
{
    (void)call;
    ((struct service *)service)->closed++;
}

static const struct rpc_method methods[] = {
    {.path = "/test.Wire/Echo", .message = echo_message, .closed = any_closed},
    {.path = "/test.Wire/Hold", .message = hold_message, .closed = any_closed},
};

static void start(struct fixture *f, struct service *s)
{
    memset(s, 0, sizeof *s);
    fixture_start(f, "http://127.0.0.1:0", NULL, NULL, methods, 2, s);
}

/* ---- Bytes -------------------------------------------------------------------------------------- */

static void add_frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t stream,
                      struct bytes body)
{
    uint8_t header[9] = {(uint8_t)(body.n >> 16), (uint8_t)(body.n >> 8), (uint8_t)body.n, type,
                         flags};
    put_be32(header + 5, stream);
    buf_append(b, header, sizeof header);
    buf_append(b, body.p, body.n);
}

static void add_field(struct buf *b, const char *name, const char *value)
{
    /* HPACK: literal without indexing, new name, lengths below 127. */
    uint8_t length[2] = {0, (uint8_t)strlen(name)};
    buf_append(b, length, 2);
    buf_append(b, name, strlen(name));
    length[1] = (uint8_t)strlen(value);
    buf_append(b, length + 1, 1);
    buf_append(b, value, strlen(value));
}

static void add_request(struct buf *b, uint32_t stream, const char *method, const char *path,
                        const char *type, uint8_t flags)
{
    struct buf block = {0};
    add_field(&block, ":method", method);
    add_field(&block, ":scheme", "http");
    add_field(&block, ":path", path);
    add_field(&block, ":authority", "test");
    if (type)
        add_field(&block, "content-type", type);
    add_field(&block, "te", "trailers");
    add_frame(b, HEADERS, END_HEADERS | flags, stream, buf_bytes(&block));
    buf_free(&block);
}

static void add_opening(struct buf *b)
{
    buf_append(b, MAGIC, strlen(MAGIC));
    add_frame(b, SETTINGS, 0, 0, BYTES_EMPTY);
}

/* ---- A raw client ------------------------------------------------------------------------------- */

static int raw_connect(struct fixture *f)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)atoi(strrchr(f->url, ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

/* Sends while the loop runs, so that both sides' buffers may be small; an error means the peer closed. */
static void raw_send(struct fixture *f, int fd, struct bytes data)
{
    while (data.n) {
        ssize_t n = send(fd, data.p, data.n, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            return;
        if (n > 0)
            data = bytes_of(data.p + n, data.n - (size_t)n);
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
}

/* Takes what there is; true once the peer has closed. */
static bool raw_drain(int fd, struct buf *in)
{
    uint8_t chunk[4096];
    for (;;) {
        ssize_t n = recv(fd, chunk, sizeof chunk, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        if (n < 0)
            return false;
        buf_append(in, chunk, (size_t)n);
    }
}

static bool contains(const struct buf *in, const char *text)
{
    return in->n && memmem(in->p, in->n, text, strlen(text)) != NULL;
}

/* The first frame of a type, or NULL; *ret_n is its payload's size. */
static const uint8_t *find_frame(const struct buf *in, uint8_t type, uint32_t *ret_n)
{
    for (size_t at = 0; at + 9 <= in->n;) {
        *ret_n = (uint32_t)in->p[at] << 16 | (uint32_t)in->p[at + 1] << 8 | in->p[at + 2];
        if (in->p[at + 3] == type && at + 9 + *ret_n <= in->n)
            return in->p + at + 9;
        at += 9 + *ret_n;
    }
    return NULL;
}

static void check_alive(struct fixture *f)
{
    struct result r = {0};
    rpc_unary(f->channel, "/test.Wire/Echo", bytes_str("alive"), 20000, NULL, 0, result_done, &r);
    RUN_UNTIL(&f->loop, r.count == 1);
    assert_int_equal(r.status, 0);
    assert_string_equal((char *)r.answer, "alive");
    result_free(&r);
}

/* Sends on a new connection and gathers the answer until the server closes it. */
static void exchange(struct fixture *f, struct bytes data, struct buf *ret_in)
{
    int fd = raw_connect(f);
    ret_in->n = 0;
    raw_send(f, fd, data);
    RUN_UNTIL(&f->loop, raw_drain(fd, ret_in));
    close(fd);
}

/* ---- Tests of the server ------------------------------------------------------------------------ */

static void test_http1(void **state)
{
    struct fixture f;
    struct service s;
    struct buf in = {0};
    static const char *const requests[] = {"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
                                           "POST /v3/kv/range HTTP/1.1\r\n\r\n{}",
                                           "PUT / HTTP/1.1\r\n\r\n", "PROPFIND / HTTP/1.1\r\n\r\n"};
    (void)state;
    start(&f, &s);
    for (size_t i = 0; i < 3; i++) {
        exchange(&f, bytes_str(requests[i]), &in);
        assert_int_equal(memcmp(in.p, "HTTP/1.1 400 Bad Request\r\n", 26), 0); /* nothing before */
        assert_true(contains(&in, "gRPC"));
        assert_int_equal(f.log_lines, i + 1);
        assert_non_null(strstr(f.log_line, "HTTP/1.1"));
    }
    exchange(&f, bytes_str(requests[3]), &in); /* not worth an answer, but a line */
    assert_int_equal(f.log_lines, 4);
    assert_non_null(strstr(f.log_line, "127.0.0.1:"));
    /* Byte by byte: the first letter is HTTP/2's too. */
    int fd = raw_connect(&f);
    for (size_t i = 0; i < 10; i++) {
        raw_send(&f, fd, bytes_of(requests[1] + i, 1));
        for (int j = 0; j < 20; j++)
            uv_run(&f.loop, UV_RUN_NOWAIT);
    }
    RUN_UNTIL(&f.loop, raw_drain(fd, &in));
    close(fd);
    assert_int_equal(f.log_lines, 5);
    check_alive(&f);
    buf_free(&in);
    fixture_end(&f);
}

static void test_other_requests(void **state)
{
    static const struct {
        const char *method, *type, *http_status, *text;
    } cases[] = {{"GET", NULL, "405", "POST"},
                 {"POST", "application/json", "415", "invalid gRPC request content-type"},
                 {"POST", NULL, "415", "invalid gRPC request content-type"},
                 {"POST", "application/grpcx", "415", "invalid gRPC request content-type"}};
    struct fixture f;
    struct service s;
    (void)state;
    start(&f, &s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = {0}, in = {0};
        uint32_t n;
        add_opening(&out);
        add_request(&out, 1, cases[i].method, "/test.Wire/Echo", cases[i].type, END_STREAM);
        int fd = raw_connect(&f);
        raw_send(&f, fd, buf_bytes(&out));
        RUN_UNTIL(&f.loop, raw_drain(fd, &in) || find_frame(&in, HEADERS, &n));
        /* The texts are Huffman coded on the wire: decode with nghttp2. */
        nghttp2_hd_inflater *inflater;
        nghttp2_hd_inflate_new(&inflater);
        const uint8_t *block = find_frame(&in, HEADERS, &n);
        bool status_seen = false, text_seen = false;
        while (n) {
            nghttp2_nv nv;
            int flags = 0;
            ssize_t used = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, block, n, 1);
            assert_true(used >= 0);
            block += used;
            n -= (uint32_t)used;
            if (flags & NGHTTP2_HD_INFLATE_EMIT) {
                status_seen |= strcmp((char *)nv.name, ":status") == 0 &&
                               strcmp((char *)nv.value, cases[i].http_status) == 0;
                text_seen |= strcmp((char *)nv.name, "grpc-message") == 0 &&
                             strstr((char *)nv.value, cases[i].text);
            }
            if (flags & NGHTTP2_HD_INFLATE_FINAL)
                break;
        }
        nghttp2_hd_inflate_del(inflater);
        assert_true(status_seen && text_seen);
        close(fd);
        buf_free(&in);
        buf_free(&out);
    }
    fixture_end(&f);
}

/* No message, two messages, half a message, a compressed one: the handler sees at most the first. */
static void test_bad_messages(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        int messages;
    } cases[] = {{"", 0, 0},
                 {"\0\0\0\0\1a\0\0\0\0\1b", 12, 1},
                 {"\0\0\0\0\5abc", 8, 0},
                 {"\0\0\0", 3, 0},
                 {"\1\0\0\0\1a", 6, 0}};
    struct fixture f;
    struct service s;
    (void)state;
    start(&f, &s);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = {0}, in = {0};
        uint32_t n;
        s.messages = s.closed = 0;
        add_opening(&out);
        add_request(&out, 1, "POST", "/test.Wire/Hold", "application/grpc+proto", 0);
        add_frame(&out, DATA, END_STREAM, 1, bytes_of(cases[i].bytes, cases[i].n));
        int fd = raw_connect(&f);
        raw_send(&f, fd, buf_bytes(&out));
        RUN_UNTIL(&f.loop, raw_drain(fd, &in) || find_frame(&in, HEADERS, &n));
        RUN_UNTIL(&f.loop, s.closed == 1);
        assert_int_equal(s.messages, cases[i].messages);
        close(fd);
        buf_free(&in);
        buf_free(&out);
    }
    check_alive(&f);
    fixture_end(&f);
}

/* Opening streams and resetting them at once costs the client nothing: there is a limit. */
static void test_rapid_reset(void **state)
{
    struct fixture f;
    struct service s;
    struct buf out = {0}, in = {0};
    uint8_t cancel[4] = {0, 0, 0, 8};
    uint32_t n;
    (void)state;
    start(&f, &s);
    add_opening(&out);
    for (uint32_t i = 0; i < 30000; i++) {
        add_request(&out, 2 * i + 1, "POST", "/test.Wire/Hold", "application/grpc", 0);
        add_frame(&out, RST_STREAM, 0, 2 * i + 1, bytes_of(cancel, 4));
    }
    exchange(&f, buf_bytes(&out), &in);
    const uint8_t *goaway = find_frame(&in, GOAWAY, &n);
    assert_non_null(goaway);
    assert_int_equal(get_be32(goaway + 4), NGHTTP2_ENHANCE_YOUR_CALM);
    assert_int_equal(f.log_lines, 1);
    assert_true(s.closed < 30000);
    check_alive(&f);
    buf_free(&in);
    buf_free(&out);
    fixture_end(&f);
}

/* Answers to a client that does not read them must not gather without end. */
static void test_ping_flood(void **state)
{
    struct fixture f;
    struct service s;
    struct buf out = {0};
    (void)state;
    start(&f, &s);
    add_opening(&out);
    for (int i = 0; i < 200000; i++)
        add_frame(&out, PING, 0, 0, bytes_of("pingping", 8));
    int fd = raw_connect(&f);
    size_t sent = 0;
    for (int idle = 0; idle < 200 && sent < out.n; idle++) {
        ssize_t n = send(fd, out.p + sent, out.n - sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN)
            break;
        if (n > 0) {
            sent += (size_t)n;
            idle = 0;
        }
        uv_run(&f.loop, UV_RUN_NOWAIT);
        LIST_FOR_EACH_SAFE(it, tmp, &f.server->conns)
        {
            struct server_conn *sc = CONTAINER_OF(it, struct server_conn, link);
            if (sc->c.session)
                assert_true(nghttp2_session_get_outbound_queue_size(sc->c.session) < 10000);
        }
    }
    check_alive(&f);
    close(fd);
    buf_free(&out);
    fixture_end(&f);
}

static void test_no_preface(void **state)
{
    struct fixture f;
    struct service s;
    struct buf in = {0};
    (void)state;
    start(&f, &s);
    int fd = raw_connect(&f);
    raw_send(&f, fd, bytes_of(MAGIC, 10));
    RUN_UNTIL(&f.loop, f.server->conn_count == 1);
    struct server_conn *sc = CONTAINER_OF(f.server->conns.next, struct server_conn, link);
    assert_true(sc->preface.at >= uv_now(&f.loop) + SERVER_PREFACE_MS - 1000);
    deadline_set(&f.server->deadlines, &sc->preface, uv_now(&f.loop)); /* instead of waiting */
    RUN_UNTIL(&f.loop, raw_drain(fd, &in));
    assert_non_null(strstr(f.log_line, "preface"));
    close(fd);
    buf_free(&in);
    fixture_end(&f);
}

static void test_too_many_connections(void **state)
{
    struct rpc_server_config sc = {.connections_max = 3};
    struct fixture f;
    struct service s = {0};
    struct buf in = {0};
    int fds[4];
    (void)state;
    fixture_start(&f, "http://127.0.0.1:0", &sc, NULL, methods, 2, &s);
    for (int i = 0; i < 3; i++)
        fds[i] = raw_connect(&f);
    RUN_UNTIL(&f.loop, f.server->conn_count == 3);
    fds[3] = raw_connect(&f);
    RUN_UNTIL(&f.loop, raw_drain(fds[3], &in));
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    RUN_UNTIL(&f.loop, f.server->conn_count == 0);
    check_alive(&f);
    buf_free(&in);
    fixture_end(&f);
}

static uint64_t random_next(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* Random bytes at each depth: no preface, after the preface, in frames, in a request's parts. */
static void fuzz_bytes(uint64_t *seed, struct buf *out)
{
    uint64_t kind = random_next(seed) % 5;
    uint8_t junk[512];
    size_t n = random_next(seed) % sizeof junk;
    for (size_t i = 0; i < n; i++)
        junk[i] = (uint8_t)random_next(seed);
    out->n = 0;
    if (kind >= 1)
        buf_append(out, MAGIC, strlen(MAGIC));
    if (kind >= 2)
        add_frame(out, SETTINGS, 0, 0, BYTES_EMPTY);
    if (kind <= 2)
        buf_append(out, junk, n);
    for (int i = 0; kind == 3 && i < 10; i++)
        add_frame(out, (uint8_t)(random_next(seed) % 12), (uint8_t)random_next(seed),
                  (uint32_t)(random_next(seed) % 6), bytes_of(junk, n ? random_next(seed) % n : 0));
    if (kind == 4) {
        add_request(out, 1, "POST", "/test.Wire/Echo", "application/grpc", 0);
        add_frame(out, DATA, (uint8_t)(random_next(seed) % 2), 1, bytes_of(junk, n));
        add_frame(out, (uint8_t)(random_next(seed) % 10), (uint8_t)random_next(seed), 1,
                  bytes_of(junk, n % 32));
    }
    for (size_t flips = random_next(seed) % 3; flips && out->n && kind >= 3; flips--)
        out->p[random_next(seed) % out->n] ^= (uint8_t)(1u << random_next(seed) % 8);
}

static void test_garbage(void **state)
{
    struct fixture f;
    struct service s;
    struct buf out = {0}, in = {0};
    uint64_t seed = 20240607;
    (void)state;
    start(&f, &s);
    for (int i = 0; i < 2000; i++) {
        fuzz_bytes(&seed, &out);
        int fd = raw_connect(&f);
        raw_send(&f, fd, buf_bytes(&out));
        in.n = 0;
        for (int j = 0; j < 5; j++)
            uv_run(&f.loop, UV_RUN_NOWAIT);
        raw_drain(fd, &in);
        close(fd);
        if (i % 200 == 0)
            check_alive(&f);
    }
    check_alive(&f);
    RUN_UNTIL(&f.loop, f.server->conn_count == 1); /* only the channel's is left */
    buf_free(&out);
    buf_free(&in);
    fixture_end(&f);
}

/* ---- Tests of the channel ----------------------------------------------------------------------- */

struct scripted {
    struct fixture f;
    int listener, fd;
    struct buf in;
};

static void scripted_start(struct scripted *sv, const struct rpc_channel_config *config)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t n = sizeof address;
    struct rpc_channel_config cc = config ? *config : (struct rpc_channel_config){0};
    memset(sv, 0, sizeof *sv);
    sv->fd = -1;
    uv_loop_init(&sv->f.loop);
    sv->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(sv->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(sv->listener, 10), 0);
    getsockname(sv->listener, (struct sockaddr *)&address, &n);
    snprintf(sv->f.url, sizeof sv->f.url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    cc.state = fixture_on_state;
    cc.ctx = &sv->f;
    sv->f.channel = rpc_channel_new(&sv->f.loop, sv->f.url, &cc);
}

/* Waits for a connection and says SETTINGS. */
static void scripted_accept(struct scripted *sv)
{
    struct buf out = {0};
    rpc_channel_connect(sv->f.channel);
    sv->in.n = 0;
    RUN_UNTIL(&sv->f.loop, (sv->fd = accept4(sv->listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
    add_frame(&out, SETTINGS, 0, 0, BYTES_EMPTY);
    raw_send(&sv->f, sv->fd, buf_bytes(&out));
    buf_free(&out);
    RUN_UNTIL(&sv->f.loop, rpc_channel_is_up(sv->f.channel));
}

static void scripted_end(struct scripted *sv)
{
    if (sv->fd >= 0)
        close(sv->fd);
    close(sv->listener);
    buf_free(&sv->in);
    fixture_end(&sv->f);
}

static int scripted_requests(struct scripted *sv)
{
    int count = 0;
    raw_drain(sv->fd, &sv->in);
    for (size_t at = strlen(MAGIC); at + 9 <= sv->in.n;) {
        uint32_t n =
            (uint32_t)sv->in.p[at] << 16 | (uint32_t)sv->in.p[at + 1] << 8 | sv->in.p[at + 2];
        count += sv->in.p[at + 3] == HEADERS;
        at += 9 + n;
    }
    return count;
}

static void unary(struct scripted *sv, struct result *r)
{
    memset(r, 0, sizeof *r);
    rpc_unary(sv->f.channel, "/test.Wire/Echo", bytes_str("x"), 20000, NULL, 0, result_done, r);
}

/* What each way to end a stream means, and whether the request may have been carried out. */
static void test_resets(void **state)
{
    static const struct {
        uint32_t error;
        int status;
        bool sent;
    } cases[] = {{NGHTTP2_REFUSED_STREAM, 14, false},
                 {NGHTTP2_CANCEL, 1, true},
                 {NGHTTP2_ENHANCE_YOUR_CALM, 8, true},
                 {NGHTTP2_INTERNAL_ERROR, 13, true},
                 {NGHTTP2_NO_ERROR, 13, true}};
    struct scripted sv;
    struct result r;
    (void)state;
    scripted_start(&sv, NULL);
    scripted_accept(&sv);
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = {0};
        uint8_t error[4];
        unary(&sv, &r);
        RUN_UNTIL(&sv.f.loop, scripted_requests(&sv) == (int)i + 1);
        put_be32(error, cases[i].error);
        add_frame(&out, RST_STREAM, 0, 2 * i + 1, bytes_of(error, 4));
        raw_send(&sv.f, sv.fd, buf_bytes(&out));
        RUN_UNTIL(&sv.f.loop, r.count == 1);
        assert_int_equal(r.status, cases[i].status);
        assert_int_equal(r.sent, cases[i].sent);
        result_free(&r);
        buf_free(&out);
    }
    scripted_end(&sv);
}

/* GOAWAY: calls above its last stream were not processed, those below go on, new ones reconnect. */
static void test_goaway(void **state)
{
    struct scripted sv;
    struct result low, high, next;
    struct buf out = {0}, block = {0};
    uint8_t goaway[8] = {0, 0, 0, 1, 0, 0, 0, 0};
    (void)state;
    scripted_start(&sv, NULL);
    scripted_accept(&sv);
    unary(&sv, &low);
    unary(&sv, &high);
    RUN_UNTIL(&sv.f.loop, scripted_requests(&sv) == 2);
    add_frame(&out, GOAWAY, 0, 0, bytes_of(goaway, sizeof goaway));
    raw_send(&sv.f, sv.fd, buf_bytes(&out));
    RUN_UNTIL(&sv.f.loop, high.count == 1);
    assert_int_equal(high.status, 14);
    assert_false(high.sent);
    assert_int_equal(low.count, 0);
    assert_false(rpc_channel_is_up(sv.f.channel));
    assert_int_equal(sv.f.downs, 1);

    int old = sv.fd;
    unary(&sv, &next);
    scripted_accept(&sv);
    RUN_UNTIL(&sv.f.loop, scripted_requests(&sv) == 1);

    out.n = 0;
    add_field(&block, ":status", "200");
    add_field(&block, "content-type", "application/grpc");
    add_field(&block, "grpc-status", "5");
    add_field(&block, "grpc-message", "the old one answers");
    add_frame(&out, HEADERS, END_HEADERS | END_STREAM, 1, buf_bytes(&block));
    raw_send(&sv.f, old, buf_bytes(&out));
    RUN_UNTIL(&sv.f.loop, low.count == 1);
    assert_int_equal(low.status, 5);
    assert_string_equal(low.text, "the old one answers");
    struct buf rest = {0};
    RUN_UNTIL(&sv.f.loop, raw_drain(old, &rest)); /* and then it is closed */
    assert_true(rpc_channel_is_up(sv.f.channel));
    assert_int_equal(sv.f.downs, 1);
    close(old);

    close(sv.fd); /* the end of the new one */
    sv.fd = -1;
    RUN_UNTIL(&sv.f.loop, next.count == 1);
    assert_int_equal(next.status, 14);
    assert_true(next.sent);
    assert_true(sv.f.refused);
    result_free(&low);
    result_free(&high);
    result_free(&next);
    buf_free(&rest);
    buf_free(&out);
    buf_free(&block);
    scripted_end(&sv);
}

/* An answer that is no gRPC: its HTTP status is all there is. */
static void test_not_grpc(void **state)
{
    static const struct {
        const char *http_status, *type;
        int status;
    } cases[] = {{"503", "text/html", 14},
                 {"404", "text/html", 12},
                 {"200", "text/html", 2},
                 {"200", "application/grpc", 2}};
    struct scripted sv;
    struct result r;
    (void)state;
    scripted_start(&sv, NULL);
    scripted_accept(&sv);
    for (uint32_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf out = {0}, block = {0};
        unary(&sv, &r);
        RUN_UNTIL(&sv.f.loop, scripted_requests(&sv) == (int)i + 1);
        add_field(&block, ":status", cases[i].http_status);
        add_field(&block, "content-type", cases[i].type);
        add_frame(&out, HEADERS, END_HEADERS, 2 * i + 1, buf_bytes(&block));
        add_frame(&out, DATA, END_STREAM, 2 * i + 1, i < 3 ? bytes_str("<html>") : BYTES_EMPTY);
        raw_send(&sv.f, sv.fd, buf_bytes(&out));
        RUN_UNTIL(&sv.f.loop, r.count == 1);
        assert_int_equal(r.status, cases[i].status);
        assert_true(r.sent);
        result_free(&r);
        buf_free(&out);
        buf_free(&block);
    }
    scripted_end(&sv);
}

/* A process that hangs: its kernel accepts, but no SETTINGS come. Nothing was sent to it. */
static void test_hung_server(void **state)
{
    struct rpc_channel_config cc = {.connect_timeout_ms = 50};
    struct scripted sv;
    struct result r;
    (void)state;
    scripted_start(&sv, &cc);
    unary(&sv, &r);
    RUN_UNTIL(&sv.f.loop, r.count == 1);
    assert_int_equal(r.status, 14);
    assert_false(r.sent);
    assert_false(sv.f.refused);
    assert_non_null(strstr(r.text, "timed out"));
    result_free(&r);
    scripted_end(&sv);
}

static void test_keepalive(void **state)
{
    struct rpc_channel_config cc = {.keepalive_ms = 30};
    struct scripted sv;
    struct result r;
    uint32_t n;
    (void)state;
    scripted_start(&sv, &cc);
    scripted_accept(&sv);
    unary(&sv, &r);
    RUN_UNTIL(&sv.f.loop, r.count == 1);
    assert_int_equal(r.status, 14);
    assert_true(r.sent);
    assert_false(sv.f.refused);
    assert_non_null(strstr(sv.f.reason, "keepalive"));
    raw_drain(sv.fd, &sv.in);
    buf_consume(&sv.in, strlen(MAGIC));
    assert_non_null(find_frame(&sv.in, PING, &n));
    result_free(&r);
    scripted_end(&sv);
}

/* Random bytes instead of an answer. */
static void test_garbage_to_channel(void **state)
{
    uint64_t seed = 77;
    struct scripted sv;
    (void)state;
    for (int i = 0; i < 300; i++) {
        struct result r;
        struct buf out = {0};
        scripted_start(&sv, NULL);
        scripted_accept(&sv);
        unary(&sv, &r);
        fuzz_bytes(&seed, &out);
        size_t skip = out.n > strlen(MAGIC) && i % 2 ? strlen(MAGIC) : 0;
        raw_send(&sv.f, sv.fd, bytes_of(out.p + skip, out.n - skip));
        close(sv.fd);
        sv.fd = -1;
        RUN_UNTIL(&sv.f.loop, r.count == 1);
        assert_true(r.status != 0);
        result_free(&r);
        buf_free(&out);
        scripted_end(&sv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http1),
        cmocka_unit_test(test_other_requests),
        cmocka_unit_test(test_bad_messages),
        cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_ping_flood),
        cmocka_unit_test(test_no_preface),
        cmocka_unit_test(test_too_many_connections),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_resets),
        cmocka_unit_test(test_goaway),
        cmocka_unit_test(test_not_grpc),
        cmocka_unit_test(test_hung_server),
        cmocka_unit_test(test_keepalive),
        cmocka_unit_test(test_garbage_to_channel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
