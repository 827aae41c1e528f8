/* Streaming both ways: order, ends, back-pressure and pauses in both directions. */
#include "tests/unit/rpc_fixture.h"

/* More than a sender can be ahead: its queue, the windows, and what the sockets hold. */
#define FLOOD_TOTAL (64 * 1024 * 1024)
#define FLOOD_MESSAGE 10000
#define AHEAD_MAX (16 * 1024 * 1024)

struct service {
    struct rpc_call *call;
    int messages, half_closed, closed, writable;
    size_t received;
    bool pause_each; /* /Sink pauses after each message */
    uint32_t next;   /* number of the next message to expect or to make */
    size_t produced, queued_max;
};

/* ---- The service ------------------------------------------------------------------------------- */

static void any_started(struct rpc_call *call, void *service)
{
    ((struct service *)service)->call = call;
}

static void any_closed(struct rpc_call *call, void *service)
{
    struct service *s = service;
    (void)call;
    s->closed++;
    s->call = NULL;
}

static void echo_message(struct rpc_call *call, void *service, struct bytes message)
{
    ((struct service *)service)->messages++;
    rpc_call_send(call, message);
}

static void echo_half_closed(struct rpc_call *call, void *service)
{
    ((struct service *)service)->half_closed++;
    rpc_call_finish(call, 0, NULL);
}

static void produce(struct rpc_call *call, struct service *s)
{
    uint8_t message[FLOOD_MESSAGE] = {0};
    while (rpc_call_writable(call) && s->produced < FLOOD_TOTAL) {
        put_le32(message, s->next++);
        rpc_call_send(call, bytes_of(message, sizeof message));
        s->produced += sizeof message;
        if (rpc_call_queued(call) > s->queued_max)
            s->queued_max = rpc_call_queued(call);
    }
    if (s->produced >= FLOOD_TOTAL)
        rpc_call_finish(call, 0, "done");
}

static void flood_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)message;
    produce(call, service);
}

static void flood_writable(struct rpc_call *call, void *service)
{
    ((struct service *)service)->writable++;
    produce(call, service);
}

static void sink_message(struct rpc_call *call, void *service, struct bytes message)
{
    struct service *s = service;
    assert_int_equal(get_le32(message.p), s->next);
    s->next++;
    s->messages++;
    s->received += message.n;
    if (s->pause_each)
        rpc_call_pause(call);
}

static const struct rpc_method methods[] = {
    {.path = "/test.Stream/Echo",
     .client_streams = true,
     .started = any_started,
     .message = echo_message,
     .half_closed = echo_half_closed,
     .closed = any_closed},
    {.path = "/test.Stream/Flood",
     .started = any_started,
     .message = flood_message,
     .writable = flood_writable,
     .closed = any_closed},
    {.path = "/test.Stream/Sink",
     .client_streams = true,
     .started = any_started,
     .message = sink_message,
     .half_closed = echo_half_closed,
     .closed = any_closed},
};

/* ---- The client -------------------------------------------------------------------------------- */

struct client {
    struct rpc_stream *stream;
    int messages, closed, writable;
    size_t received;
    int status;
    char text[128];
    bool sent;
    bool pause_each;
    uint32_t next;
    size_t produced;
};

static void client_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    struct client *c = ctx;
    assert_int_equal(c->closed, 0);
    assert_int_equal(get_le32(message.p), c->next);
    c->next++;
    c->messages++;
    c->received += message.n;
    if (c->pause_each)
        rpc_stream_pause(st);
}

static void client_produce(struct client *c)
{
    uint8_t message[FLOOD_MESSAGE] = {0};
    while (rpc_stream_writable(c->stream) && c->produced < FLOOD_TOTAL) {
        put_le32(message, (uint32_t)(c->produced / FLOOD_MESSAGE));
        rpc_stream_send(c->stream, bytes_of(message, sizeof message));
        c->produced += sizeof message;
    }
    if (c->produced >= FLOOD_TOTAL)
        rpc_stream_half_close(c->stream);
}

static void client_writable(struct rpc_stream *st, void *ctx)
{
    struct client *c = ctx;
    (void)st;
    c->writable++;
    if (c->produced)
        client_produce(c);
}

static void client_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    struct client *c = ctx;
    (void)st;
    c->closed++;
    c->status = status;
    c->sent = sent;
    snprintf(c->text, sizeof c->text, "%s", text);
}

static const struct rpc_stream_handler handler = {
    .message = client_message,
    .writable = client_writable,
    .closed = client_closed,
};

static void start(struct fixture *f, struct service *service, struct client *client,
                  const char *path)
{
    memset(service, 0, sizeof *service);
    memset(client, 0, sizeof *client);
    fixture_start(f, "http://127.0.0.1:0", NULL, NULL, methods, sizeof methods / sizeof methods[0],
                  service);
    client->stream = rpc_stream_open(f->channel, path, 0, NULL, 0, &handler, client);
}

static void send_number(struct client *c, uint32_t number, size_t size)
{
    uint8_t *message = calloc(1, size);
    put_le32(message, number);
    rpc_stream_send(c->stream, bytes_of(message, size));
    free(message);
}

/* Runs the loop until neither side makes progress: for "it stops here". */
static void run_until_still(struct fixture *f, const size_t *progress)
{
    size_t before;
    do {
        before = *progress;
        for (int i = 0; i < 200; i++)
            uv_run(&f->loop, UV_RUN_NOWAIT);
    } while (*progress != before);
}

/* ---- Tests ------------------------------------------------------------------------------------- */

static void test_echo(void **state)
{
    struct fixture f;
    struct service s;
    struct client c;
    (void)state;
    start(&f, &s, &c, "/test.Stream/Echo");
    for (uint32_t i = 0; i < 1000; i++)
        send_number(&c, i, 4 + i * 37 % 3000);
    RUN_UNTIL(&f.loop, c.messages == 1000);
    assert_int_equal(c.closed, 0);
    send_number(&c, 1000, 4); /* one by one, too */
    RUN_UNTIL(&f.loop, c.messages == 1001);
    rpc_stream_half_close(c.stream);
    RUN_UNTIL(&f.loop, c.closed && s.closed);
    assert_int_equal(c.status, 0);
    assert_int_equal(s.half_closed, 1);
    assert_int_equal(c.messages, 1001);
    fixture_end(&f);
    assert_int_equal(c.closed, 1);
}

/* The server ends a call whose client would send more. */
static void test_server_ends_first(void **state)
{
    struct fixture f;
    struct service s;
    struct client c;
    (void)state;
    start(&f, &s, &c, "/test.Stream/Echo");
    send_number(&c, 0, 100);
    RUN_UNTIL(&f.loop, c.messages == 1);
    rpc_call_finish(s.call, 10, "enough");
    rpc_stream_send(c.stream, bytes_str("crosses the end"));
    RUN_UNTIL(&f.loop, c.closed && s.closed);
    assert_int_equal(c.status, 10);
    assert_string_equal(c.text, "enough");
    assert_int_equal(s.messages, 1);
    assert_int_equal(f.log_lines, 0);
    fixture_end(&f);
}

/* A reader that stops makes the producer stop, within bounds; nothing is lost. */
static void test_slow_client(void **state)
{
    struct fixture f;
    struct service s;
    struct client c;
    (void)state;
    start(&f, &s, &c, "/test.Stream/Flood");
    c.pause_each = true;
    rpc_stream_send(c.stream, bytes_str("go"));
    rpc_stream_half_close(c.stream);
    RUN_UNTIL(&f.loop, c.messages == 1);
    run_until_still(&f, &s.produced);
    assert_int_equal(c.messages, 1);
    assert_true(s.produced < AHEAD_MAX);
    assert_true(s.queued_max <= RPC_SEND_QUEUE_MAX + FLOOD_MESSAGE + 5);

    for (int i = 2; i <= 20; i++) { /* each resume gives exactly one more */
        rpc_stream_resume(c.stream);
        RUN_UNTIL(&f.loop, c.messages == i);
        for (int j = 0; j < 10; j++)
            uv_run(&f.loop, UV_RUN_NOWAIT);
        assert_int_equal(c.messages, i);
    }
    c.pause_each = false;
    rpc_stream_resume(c.stream);
    RUN_UNTIL(&f.loop, c.closed && s.closed);
    assert_int_equal(c.status, 0);
    assert_string_equal(c.text, "done");
    assert_true(c.received >= FLOOD_TOTAL);
    assert_true(s.writable > 10);
    assert_true(s.queued_max <= RPC_SEND_QUEUE_MAX + FLOOD_MESSAGE + 5);
    fixture_end(&f);
}

/* The same in the other direction; and other calls go on meanwhile. */
static void test_slow_server(void **state)
{
    struct fixture f;
    struct service s;
    struct client c, other = {0};
    (void)state;
    start(&f, &s, &c, "/test.Stream/Sink");
    s.pause_each = true;
    client_produce(&c);
    RUN_UNTIL(&f.loop, s.messages == 1);
    run_until_still(&f, &c.produced);
    assert_int_equal(s.messages, 1);
    assert_true(c.produced < AHEAD_MAX);
    struct rpc_call *sink = s.call;

    other.stream = rpc_stream_open(f.channel, "/test.Stream/Echo", 0, NULL, 0, &handler, &other);
    for (uint32_t i = 0; i < 1000; i++)
        send_number(&other, i, 8000); /* more than a connection's window */
    rpc_stream_half_close(other.stream);
    RUN_UNTIL(&f.loop, other.closed);
    assert_int_equal(other.messages, 1000);

    s.messages = 1;
    s.pause_each = false;
    rpc_call_resume(sink);
    RUN_UNTIL(&f.loop, c.closed);
    assert_int_equal(c.status, 0);
    assert_true(s.received >= FLOOD_TOTAL);
    assert_true(c.writable > 10);
    fixture_end(&f);
}

/* The end of a stream waits behind the messages that a pause holds back. */
static void test_end_after_pause(void **state)
{
    struct fixture f;
    struct service s;
    struct client c;
    (void)state;
    start(&f, &s, &c, "/test.Stream/Echo");
    c.pause_each = true;
    for (uint32_t i = 0; i < 3; i++)
        send_number(&c, i, 10);
    rpc_stream_half_close(c.stream);
    RUN_UNTIL(&f.loop, c.messages == 1 && s.closed);
    for (int i = 0; i < 50; i++)
        uv_run(&f.loop, UV_RUN_NOWAIT);
    assert_int_equal(c.closed, 0);
    fixture_stop_server(&f, 1000); /* not even the connection is needed any more */
    RUN_UNTIL(&f.loop, f.stopped && f.downs);
    assert_int_equal(c.closed, 0);
    for (int i = 2; i <= 3; i++) {
        rpc_stream_resume(c.stream);
        RUN_UNTIL(&f.loop, c.messages == i);
    }
    rpc_stream_resume(c.stream);
    RUN_UNTIL(&f.loop, c.closed);
    assert_int_equal(c.status, 0);
    fixture_end(&f);
}

/* Many paused streams with full windows must not stop the connection for others. */
static void test_many_paused(void **state)
{
    enum { STREAMS = 12 };
    struct fixture f;
    struct service s;
    struct client c, clients[STREAMS];
    (void)state;
    start(&f, &s, &c, "/test.Stream/Echo");
    memset(clients, 0, sizeof clients);
    size_t produced = 0;
    for (int i = 0; i < STREAMS; i++) {
        clients[i].stream =
            rpc_stream_open(f.channel, "/test.Stream/Echo", 0, NULL, 0, &handler, &clients[i]);
        rpc_stream_pause(clients[i].stream);
        for (uint32_t n = 0; n < 100; n++)
            send_number(&clients[i], n, 10000);
        rpc_stream_half_close(clients[i].stream);
    }
    RUN_UNTIL(&f.loop, s.half_closed == STREAMS);
    run_until_still(&f, &produced);
    send_number(&c, 0, 4);
    RUN_UNTIL(&f.loop, c.messages == 1);
    for (int i = 0; i < STREAMS; i++) {
        assert_int_equal(clients[i].messages, 0);
        rpc_stream_resume(clients[i].stream);
    }
    for (int i = 0; i < STREAMS; i++) {
        RUN_UNTIL(&f.loop, clients[i].closed);
        assert_int_equal(clients[i].messages, 100);
        assert_int_equal(clients[i].status, 0);
    }
    fixture_end(&f);
    assert_int_equal(c.closed, 1);
    assert_int_equal(c.status, 14); /* the channel was freed under it */
}

/* Producers that ignore that they are to wait: a bug of ours, but it must not take all memory. */
static void test_overrun(void **state)
{
    struct fixture f;
    struct service s;
    struct client c, second = {0};
    (void)state;
    start(&f, &s, &c, "/test.Stream/Sink");
    s.pause_each = true;
    for (uint32_t i = 0; i < 100; i++)
        send_number(&c, i, 1024 * 1024);
    assert_int_equal(c.closed, 0); /* not from inside */
    RUN_UNTIL(&f.loop, c.closed);
    assert_int_equal(c.status, 8);

    second.stream = rpc_stream_open(f.channel, "/test.Stream/Echo", 0, NULL, 0, &handler, &second);
    rpc_stream_pause(second.stream);
    send_number(&second, 0, 4);
    RUN_UNTIL(&f.loop, s.call && s.messages);
    uint8_t *message = calloc(1, 1024 * 1024);
    for (int i = 0; i < 100; i++)
        rpc_call_send(s.call, bytes_of(message, 1024 * 1024));
    free(message);
    RUN_UNTIL(&f.loop, second.closed && !s.call);
    assert_int_equal(second.status, 8);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),
        cmocka_unit_test(test_server_ends_first),
        cmocka_unit_test(test_slow_client),
        cmocka_unit_test(test_slow_server),
        cmocka_unit_test(test_end_after_pause),
        cmocka_unit_test(test_many_paused),
        cmocka_unit_test(test_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
