/* What goes wrong: limits, unknown methods, deadlines, cancellation, lost connections, peers that speak
 * something else, and the two ways to stop. */
#include "tests/unit/rpc_fixture.h"

struct service {
    struct rpc_call *call;
    int messages, closed;
    struct fixture *fixture;
};

static void hold_started(struct rpc_call *call, void *service)
{
    ((struct service *)service)->call = call;
}

static void hold_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)call;
    (void)message;
    ((struct service *)service)->messages++;
}

static void hold_closed(struct rpc_call *call, void *service)
{
    struct service *s = service;
    (void)call;
    s->closed++;
    s->call = NULL;
}

static void echo_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    rpc_call_reply(call, message);
}

static void big_message(struct rpc_call *call, void *service, struct bytes message)
{
    uint8_t *big = calloc(1, 5000);
    (void)service;
    (void)message;
    rpc_call_reply(call, bytes_of(big, 5000));
    free(big);
}

static void twice_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    rpc_call_send(call, message);
    rpc_call_reply(call, message);
}

static void never_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    (void)message;
    rpc_call_finish(call, 0, "");
}

static void stop_message(struct rpc_call *call, void *service, struct bytes message)
{
    struct service *s = service;
    rpc_call_reply(call, message);
    fixture_stop_server(s->fixture, 5000);
}

static const struct rpc_method methods[] = {
    {.path = "/test.Err/Hold",
     .started = hold_started,
     .message = hold_message,
     .closed = hold_closed},
    {.path = "/test.Err/HoldStream",
     .client_streams = true,
     .started = hold_started,
     .message = hold_message,
     .closed = hold_closed},
    {.path = "/test.Err/Echo", .message = echo_message},
    {.path = "/test.Err/Big", .message = big_message},
    {.path = "/test.Err/Twice", .message = twice_message},
    {.path = "/test.Err/Never", .message = never_message},
    {.path = "/test.Err/Stop", .message = stop_message},
};
#define METHODS methods, sizeof methods / sizeof methods[0]

static void start(struct fixture *f, struct service *s)
{
    memset(s, 0, sizeof *s);
    fixture_start(f, "http://127.0.0.1:0", NULL, NULL, METHODS, s);
    s->fixture = f;
}

static void call(struct fixture *f, const char *path, struct bytes request, struct result *r)
{
    int before = r->count;
    rpc_unary(f->channel, path, request, 20000, NULL, 0, result_done, r);
    RUN_UNTIL(&f->loop, r->count > before);
}

static void check(const struct result *r, int status, const char *text, bool sent)
{
    assert_string_equal(r->text, text);
    assert_int_equal(r->status, status);
    assert_int_equal(r->sent, sent);
}

/* ---- Refused by the server ---------------------------------------------------------------------- */

static void test_unknown(void **state)
{
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    call(&f, "/etcdserverpb.Foo/Range", bytes_str("x"), &r);
    check(&r, 12, "unknown service etcdserverpb.Foo", true);
    call(&f, "/test.Err/Bar", bytes_str("x"), &r);
    check(&r, 12, "unknown method Bar for service test.Err", true);
    call(&f, "/test.Er/Echo", bytes_str("x"), &r);
    check(&r, 12, "unknown service test.Er", true);
    call(&f, "/nothing", bytes_str("x"), &r);
    check(&r, 12, "malformed method name: \"/nothing\"", true);
    result_free(&r);
    fixture_end(&f);
}

static void test_message_limits(void **state)
{
    struct rpc_server_config sc = {.message_max = 6000};
    struct rpc_channel_config cc = {.message_max = 4000};
    uint8_t big[8000] = {0};
    struct fixture f;
    struct service s = {0};
    struct result r = {0};
    (void)state;
    fixture_start(&f, "http://127.0.0.1:0", &sc, &cc, METHODS, &s);
    call(&f, "/test.Err/Echo", bytes_of(big, 6001), &r);
    check(&r, 8, "grpc: received message larger than max (6001 vs. 6000)", true);
    call(&f, "/test.Err/Hold", bytes_of(big, 8000), &r);
    check(&r, 8, "grpc: received message larger than max (8000 vs. 6000)", true);
    RUN_UNTIL(&f.loop, s.closed == 1);
    assert_int_equal(s.messages, 0);
    call(&f, "/test.Err/Big", bytes_str("x"), &r);
    check(&r, 8, "grpc: received message larger than max (5000 vs. 4000)", true);
    call(&f, "/test.Err/Echo", bytes_of(big, 4000), &r); /* the connection is as good as before */
    check(&r, 0, "", true);
    assert_int_equal(f.ups, 1);
    result_free(&r);
    fixture_end(&f);
}

static void test_message_counts(void **state)
{
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    call(&f, "/test.Err/Twice", bytes_str("x"), &r);
    check(&r, 13, "more than one answer", true);
    call(&f, "/test.Err/Never", bytes_str("x"), &r);
    check(&r, 13, "an answer without a message", true);
    result_free(&r);
    fixture_end(&f);
}

static void test_large_headers(void **state)
{
    static char value[20000];
    struct rpc_header header = {bytes_str("big"), bytes_of(value, sizeof value)};
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    memset(value, 'v', sizeof value);
    start(&f, &s);
    rpc_unary(f.channel, "/test.Err/Echo", bytes_str("x"), 0, &header, 1, result_done, &r);
    RUN_UNTIL(&f.loop, r.count == 1);
    assert_int_equal(r.status, 8);
    call(&f, "/test.Err/Echo", bytes_str("x"), &r);
    check(&r, 0, "", true);
    result_free(&r);
    fixture_end(&f);
}

static void test_bad_metadata(void **state)
{
    struct rpc_header timeout = {bytes_str("grpc-timeout"), bytes_str("soon")};
    struct rpc_header binary = {bytes_str("Upper-Case"), bytes_str("x")};
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    rpc_unary(f.channel, "/test.Err/Echo", bytes_str("x"), 0, &timeout, 1, result_done, &r);
    RUN_UNTIL(&f.loop, r.count == 1);
    check(&r, 13, "malformed grpc-timeout", true);
    /* nghttp2 writes names in lower case itself. */
    rpc_unary(f.channel, "/test.Err/Echo", bytes_str("x"), 0, &binary, 1, result_done, &r);
    RUN_UNTIL(&f.loop, r.count == 2);
    check(&r, 0, "", true);
    result_free(&r);
    fixture_end(&f);
}

/* ---- Deadlines and cancellation ----------------------------------------------------------------- */

static void test_deadline_of_client(void **state)
{
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    call(&f, "/test.Err/Echo", bytes_str("x"), &r);
    uint64_t begin = uv_hrtime();
    rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 50, NULL, 0, result_done, &r);
    RUN_UNTIL(&f.loop, r.count == 2 && s.closed == 1);
    check(&r, 4, "context deadline exceeded", true);
    assert_true(uv_hrtime() - begin >= 49 * 1000000ull);
    result_free(&r);
    fixture_end(&f);
}

/* The server keeps it too: here the client doesn't know that there is one. */
static void test_deadline_of_server(void **state)
{
    struct rpc_header timeout = {bytes_str("grpc-timeout"), bytes_str("400m")};
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 0, &timeout, 1, result_done, &r);
    RUN_UNTIL(&f.loop, s.messages == 1);
    assert_true(rpc_call_deadline_ms(s.call) <= uv_now(&f.loop) + 400);
    RUN_UNTIL(&f.loop, r.count == 1 && s.closed == 1);
    check(&r, 4, "context deadline exceeded", true);
    result_free(&r);
    fixture_end(&f);
}

static void test_cancel(void **state)
{
    struct fixture f;
    struct service s;
    struct result r = {0}, never = {0};
    (void)state;
    start(&f, &s);
    struct rpc_stream *st =
        rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 0, NULL, 0, result_done, &never);
    rpc_stream_cancel(st); /* before it was sent: the server never sees it */
    call(&f, "/test.Err/Echo", bytes_str("x"), &r);
    assert_int_equal(s.messages, 0);
    st = rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 5000, NULL, 0, result_done, &never);
    rpc_stream_cancel(st); /* submitted, but not sent */
    st = rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 5000, NULL, 0, result_done, &never);
    RUN_UNTIL(&f.loop, s.messages == 1);
    rpc_stream_cancel(st);
    RUN_UNTIL(&f.loop, s.closed == 1);
    call(&f, "/test.Err/Echo", bytes_str("x"), &r);
    assert_int_equal(never.count, 0);
    assert_int_equal(s.messages, 1);
    result_free(&r);
    fixture_end(&f);
    assert_int_equal(never.count, 0);
}

/* ---- The connection ----------------------------------------------------------------------------- */

static void test_lost(void **state)
{
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 0, NULL, 0, result_done, &r);
    RUN_UNTIL(&f.loop, s.messages == 1);
    fixture_stop_server(&f, 0);
    RUN_UNTIL(&f.loop, f.stopped && r.count == 1);
    assert_int_equal(r.status, 14);
    assert_true(r.sent);
    assert_int_equal(s.closed, 1);
    assert_int_equal(f.downs, 1);
    assert_true(f.refused);
    assert_false(rpc_channel_is_up(f.channel));
    call(&f, "/test.Err/Echo", bytes_str("x"), &r); /* nobody listens any more */
    assert_int_equal(r.status, 14);
    assert_false(r.sent);
    assert_non_null(strstr(r.text, f.url));
    assert_true(f.refused);
    result_free(&r);
    fixture_end(&f);
}

static void test_unreachable(void **state)
{
    static const struct {
        const char *url;
        bool refused;
    } cases[] = {{"unix:/nonexistent/socket", true},
                 {"http://127.0.0.1:1", true},
                 {"http://name.invalid:1", false},
                 {"nonsense", false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct fixture f;
        struct service s;
        struct result r = {0};
        start(&f, &s);
        rpc_channel_free(f.channel);
        struct rpc_channel_config cc = {.state = fixture_on_state, .ctx = &f};
        f.channel = rpc_channel_new(&f.loop, cases[i].url, &cc);
        assert_string_equal(rpc_channel_url(f.channel), cases[i].url);
        call(&f, "/test.Err/Echo", bytes_str("x"), &r);
        assert_int_equal(r.status, 14);
        assert_false(r.sent);
        assert_non_null(strstr(r.text, cases[i].url));
        assert_int_equal(f.refused, cases[i].refused);
        assert_int_equal(f.downs, 1);
        result_free(&r);
        fixture_end(&f);
    }
}

/* No more than a bound of calls waits for a connection. */
static void test_waiting_bound(void **state)
{
    static struct result results[1030];
    struct fixture f;
    struct service s;
    int refused = 0, done = 0;
    (void)state;
    memset(results, 0, sizeof results);
    start(&f, &s);
    for (int i = 0; i < 1030; i++)
        rpc_unary(f.channel, "/test.Err/Echo", bytes_str("x"), 0, NULL, 0, result_done,
                  &results[i]);
    RUN_UNTIL(&f.loop, results[1023].count && results[1029].count);
    for (int i = 0; i < 1030; i++) {
        done += results[i].count;
        refused += results[i].status == 14 && !results[i].sent;
        result_free(&results[i]);
    }
    assert_int_equal(done, 1030);
    assert_int_equal(refused, 6);
    fixture_end(&f);
}

/* ---- Stopping ----------------------------------------------------------------------------------- */

static void test_graceful_stop(void **state)
{
    struct fixture f;
    struct service s;
    struct result held = {0}, later = {0};
    (void)state;
    start(&f, &s);
    rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 0, NULL, 0, result_done, &held);
    RUN_UNTIL(&f.loop, s.messages == 1);
    fixture_stop_server(&f, 60000);
    /* Submitted before the client knows: it never reaches the handler, and may be repeated. */
    rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 0, NULL, 0, result_done, &later);
    RUN_UNTIL(&f.loop, later.count == 1);
    assert_int_equal(later.status, 14);
    assert_false(later.sent);
    assert_int_equal(held.count, 0);
    assert_int_equal(f.downs, 1);
    assert_int_equal(s.messages, 1);
    assert_false(f.stopped);
    rpc_call_reply(s.call, bytes_str("in the end"));
    RUN_UNTIL(&f.loop, held.count == 1 && f.stopped);
    check(&held, 0, "", true);
    assert_string_equal((char *)held.answer, "in the end");
    result_free(&held);
    result_free(&later);
    fixture_end(&f);
}

static void test_stop_within_message(void **state)
{
    struct fixture f;
    struct service s;
    struct result r = {0};
    (void)state;
    start(&f, &s);
    call(&f, "/test.Err/Stop", bytes_str("x"), &r);
    check(&r, 0, "", true);
    RUN_UNTIL(&f.loop, f.stopped);
    result_free(&r);
    fixture_end(&f);
}

/* ---- Freeing within callbacks ------------------------------------------------------------------- */

struct freer {
    struct fixture *f;
    bool in_message;
    int messages, closed;
    struct result other;
};

static void free_channel(struct freer *fr)
{
    rpc_channel_free(fr->f->channel);
    fr->f->channel = NULL;
    assert_int_equal(fr->other.count, 1); /* all calls end before it returns */
}

static void freer_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    struct freer *fr = ctx;
    (void)st;
    fr->messages++;
    if (fr->in_message)
        free_channel(fr);
    assert_int_equal(message.n, 5); /* borrowed until we return, whatever happens meanwhile */
    assert_memory_equal(message.p, "hello", 5);
}

static void freer_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    struct freer *fr = ctx;
    (void)st;
    (void)text;
    assert_true(sent);
    fr->closed++;
    if (!fr->in_message) {
        assert_int_equal(status, 0);
        free_channel(fr);
    }
}

static void test_free_in_callbacks(void **state)
{
    static const struct rpc_stream_handler handler = {.message = freer_message,
                                                      .closed = freer_closed};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        struct service s;
        struct freer fr = {.f = &f, .in_message = i == 0};
        start(&f, &s);
        rpc_unary(f.channel, "/test.Err/Hold", bytes_str("x"), 0, NULL, 0, result_done, &fr.other);
        struct rpc_stream *st =
            rpc_stream_open(f.channel, "/test.Err/Echo", 0, NULL, 0, &handler, &fr);
        rpc_stream_send(st, bytes_str("hello"));
        rpc_stream_half_close(st);
        RUN_UNTIL(&f.loop, fr.closed == 1 && s.closed == 1);
        assert_int_equal(fr.messages, 1);
        assert_int_equal(fr.other.status, 14);
        result_free(&fr.other);
        fixture_end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_message_limits),
        cmocka_unit_test(test_message_counts),
        cmocka_unit_test(test_large_headers),
        cmocka_unit_test(test_bad_metadata),
        cmocka_unit_test(test_deadline_of_client),
        cmocka_unit_test(test_deadline_of_server),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_unreachable),
        cmocka_unit_test(test_waiting_bound),
        cmocka_unit_test(test_graceful_stop),
        cmocka_unit_test(test_stop_within_message),
        cmocka_unit_test(test_free_in_callbacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
