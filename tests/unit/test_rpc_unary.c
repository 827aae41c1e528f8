/* Unary calls: answers, metadata, sizes, many at once, over TCP and over a socket file. */
#include "tests/unit/rpc_fixture.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct service {
    int started, messages, half_closed, closed;
    struct rpc_call *held; /* a call that /test.Echo/Hold left open */
};

static void echo_started(struct rpc_call *call, void *service)
{
    ((struct service *)service)->started++;
    rpc_call_set_user(call, service);
}

static void echo_message(struct rpc_call *call, void *service, struct bytes message)
{
    ((struct service *)service)->messages++;
    assert_ptr_equal(rpc_call_user(call), service);
    rpc_call_reply(call, message);
}

static void echo_half_closed(struct rpc_call *call, void *service)
{
    (void)call;
    ((struct service *)service)->half_closed++;
}

static void echo_closed(struct rpc_call *call, void *service)
{
    assert_ptr_equal(rpc_call_user(call), service);
    ((struct service *)service)->closed++;
}

/* Answers with "authority|token|binary|peer|has a deadline". */
static void meta_message(struct rpc_call *call, void *service, struct bytes message)
{
    char text[256];
    struct bytes authority = rpc_call_header(call, ":authority");
    struct bytes token = rpc_call_header(call, "token");
    struct bytes binary = rpc_call_header(call, "data-bin");
    (void)service;
    (void)message;
    assert_null(rpc_call_header(call, "not-there").p);
    snprintf(text, sizeof text, "%.*s|%.*s|%zu|%.5s|%d", (int)authority.n, authority.p,
             (int)token.n, token.p, binary.n, rpc_call_peer(call),
             rpc_call_deadline_ms(call) != UINT64_MAX);
    for (size_t i = 0; i < binary.n; i++)
        assert_int_equal(binary.p[i], i);
    rpc_call_reply(call, bytes_str(text));
}

static void fail_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    (void)message;
    rpc_call_finish(call, 9, "no: 100 % \"caf\xc3\xa9\"\n");
}

static void code_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    (void)message;
    rpc_call_fail(call, ERR_COMPACTED);
}

static void hold_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)message;
    ((struct service *)service)->held = call;
}

static const struct rpc_method methods[] = {
    {.path = "/test.Echo/Echo",
     .started = echo_started,
     .message = echo_message,
     .half_closed = echo_half_closed,
     .closed = echo_closed},
    {.path = "/test.Echo/Meta", .message = meta_message},
    {.path = "/test.Echo/Fail", .message = fail_message},
    {.path = "/test.Echo/Code", .message = code_message},
    {.path = "/test.Echo/Hold", .message = hold_message},
};

static void start(struct fixture *f, const char *url, struct service *service)
{
    memset(service, 0, sizeof *service);
    fixture_start(f, url, NULL, NULL, methods, sizeof methods / sizeof methods[0], service);
}

static void call(struct fixture *f, const char *path, struct bytes request, struct result *r)
{
    int before = r->count;
    rpc_unary(f->channel, path, request, 10000, NULL, 0, result_done, r);
    assert_int_equal(r->count, before); /* never from inside */
    RUN_UNTIL(&f->loop, r->count > before);
}

static void test_echo(void **state)
{
    struct fixture f;
    struct service service;
    struct result r = {0};
    (void)state;
    start(&f, "http://127.0.0.1:0", &service);
    assert_false(rpc_channel_is_up(f.channel));
    call(&f, "/test.Echo/Echo", bytes_str("hello"), &r);
    assert_int_equal(r.status, 0);
    assert_string_equal(r.text, "");
    assert_string_equal((char *)r.answer, "hello");
    assert_true(r.sent);
    assert_true(rpc_channel_is_up(f.channel));
    call(&f, "/test.Echo/Echo", BYTES_EMPTY, &r);
    assert_int_equal(r.status, 0);
    assert_int_equal(r.answer_n, 0);
    RUN_UNTIL(&f.loop, service.closed == 2);
    assert_int_equal(service.started, 2);
    assert_int_equal(service.messages, 2);
    assert_int_equal(f.ups, 1);
    assert_int_equal(f.log_lines, 0);
    result_free(&r);
    fixture_end(&f);
    assert_int_equal(service.closed, 2);
}

static void test_metadata(void **state)
{
    struct fixture f;
    struct service service;
    struct result r = {0};
    uint8_t binary[256];
    char expected[300];
    struct rpc_header headers[] = {{bytes_str("token"), bytes_str("abc.def")},
                                   {bytes_str("data-bin"), bytes_of(binary, sizeof binary)}};
    (void)state;
    for (size_t i = 0; i < sizeof binary; i++)
        binary[i] = (uint8_t)i;
    start(&f, "http://127.0.0.1:0", &service);
    for (size_t n = 253; n <= 256; n++) { /* every length of base64's last group */
        headers[1].value.n = n;
        rpc_unary(f.channel, "/test.Echo/Meta", bytes_str("x"), 10000, headers, 2, result_done, &r);
        int before = r.count;
        RUN_UNTIL(&f.loop, r.count > before);
        snprintf(expected, sizeof expected, "%.40s|abc.def|%zu|127.0|1", f.url + 7, n);
        assert_string_equal((char *)r.answer, expected);
    }
    result_free(&r);
    fixture_end(&f);
}

static void test_statuses(void **state)
{
    struct fixture f;
    struct service service;
    struct result r = {0};
    (void)state;
    start(&f, "http://127.0.0.1:0", &service);
    call(&f, "/test.Echo/Fail", bytes_str("x"), &r);
    assert_int_equal(r.status, 9);
    assert_string_equal(r.text, "no: 100 % \"caf\xc3\xa9\"\n");
    assert_int_equal(r.answer_n, 0);
    call(&f, "/test.Echo/Code", bytes_str("x"), &r);
    assert_int_equal(r.status, 11);
    assert_string_equal(r.text, "etcdserver: mvcc: required revision has been compacted");
    result_free(&r);
    fixture_end(&f);
}

/* Larger than a frame, than a window's half, and than the windows: bytes must arrive as they were. */
static void test_sizes(void **state)
{
    static const size_t sizes[] = {1, 16379, 16384, 65536, 600000, 1024 * 1024, 2 * 1024 * 1024};
    struct fixture f;
    struct service service;
    struct result r = {0};
    uint8_t *data = malloc(2 * 1024 * 1024);
    (void)state;
    for (size_t i = 0; i < 2 * 1024 * 1024; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    start(&f, "http://127.0.0.1:0", &service);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        call(&f, "/test.Echo/Echo", bytes_of(data, sizes[i]), &r);
        assert_int_equal(r.status, 0);
        assert_int_equal(r.answer_n, sizes[i]);
        assert_memory_equal(r.answer, data, sizes[i]);
    }
    free(data);
    result_free(&r);
    fixture_end(&f);
}

static void count_done(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    (void)text;
    assert_int_equal(status, 0);
    assert_int_equal(answer.n, 100);
    assert_true(sent);
    ++*(int *)ctx;
}

/* 1,000 before the connection is up, all in one turn; then 3,000 more at once. */
static void test_many_at_once(void **state)
{
    struct fixture f;
    struct service service;
    int done = 0;
    uint8_t data[100] = {7};
    (void)state;
    start(&f, "http://127.0.0.1:0", &service);
    for (int i = 0; i < 1000; i++)
        rpc_unary(f.channel, "/test.Echo/Echo", bytes_of(data, 100), 20000, NULL, 0, count_done,
                  &done);
    RUN_UNTIL(&f.loop, done == 1000);
    for (int i = 0; i < 3000; i++)
        rpc_unary(f.channel, "/test.Echo/Echo", bytes_of(data, 100), 0, NULL, 0, count_done, &done);
    RUN_UNTIL(&f.loop, done == 4000 && service.closed == 4000);
    fixture_end(&f);
}

/* A reply that comes long after `message` returned, as a proposal's does. */
static void test_late_reply(void **state)
{
    struct fixture f;
    struct service service;
    struct result r = {0}, other = {0};
    (void)state;
    start(&f, "http://127.0.0.1:0", &service);
    rpc_unary(f.channel, "/test.Echo/Hold", bytes_str("x"), 0, NULL, 0, result_done, &r);
    RUN_UNTIL(&f.loop, service.held);
    call(&f, "/test.Echo/Echo", bytes_str("overtakes"), &other);
    assert_int_equal(r.count, 0);
    rpc_call_reply(service.held, bytes_str("late"));
    RUN_UNTIL(&f.loop, r.count);
    assert_string_equal((char *)r.answer, "late");
    result_free(&r);
    result_free(&other);
    fixture_end(&f);
}

static void test_unix_socket(void **state)
{
    struct fixture f;
    struct service service;
    struct result r = {0};
    struct error err;
    char directory[] = "/tmp/test_rpc_XXXXXX", url[256], path[200];
    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/socket", directory);
    snprintf(url, sizeof url, "unix:%s", path);

    /* A file that a killed process left behind. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%.100s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);

    start(&f, url, &service);
    assert_string_equal(f.url, url);
    call(&f, "/test.Echo/Meta", bytes_str("x"), &r);
    assert_string_equal((char *)r.answer, "localhost||0|unix:|1");
    assert_int_equal(rpc_server_listen(f.server, url, NULL, &err), ERR_BUSY);
    assert_non_null(strstr(err.message, path));
    result_free(&r);
    fixture_end(&f);
    struct stat st;
    assert_int_equal(stat(path, &st), -1); /* the server took it away */
    rmdir(directory);
}

static void test_listen_errors(void **state)
{
    struct fixture f;
    struct service service;
    struct error err;
    char second[256];
    (void)state;
    start(&f, "http://127.0.0.1:0", &service);
    assert_int_equal(rpc_server_listen(f.server, f.url, NULL, &err), ERR_BUSY);
    assert_non_null(strstr(err.message, f.url));
    assert_int_equal(rpc_server_listen(f.server, "127.0.0.1:1", NULL, &err), ERR_INVALID);
    assert_int_equal(rpc_server_listen(f.server, "unix:/proc/self/status", NULL, &err),
                     ERR_INVALID);
    assert_int_equal(rpc_server_listen(f.server, "unix:/nonexistent/socket", NULL, &err), ERR_IO);
    assert_int_equal(rpc_server_listen(f.server, "http://localhost:0", second, &err), ERR_OK);
    assert_string_not_equal(second, f.url);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),         cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_statuses),     cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_many_at_once), cmocka_unit_test(test_late_reply),
        cmocka_unit_test(test_unix_socket),  cmocka_unit_test(test_listen_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
