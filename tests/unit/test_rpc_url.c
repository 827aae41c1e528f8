/* Addresses: what is accepted, what is refused, and that the refusal names the URL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rpc/url.h"

static void check(const char *text, const char *host, unsigned port, const char *authority)
{
    struct rpc_url url;
    struct error err;
    char buf[300];
    if (rpc_url_parse(text, &url, &err) != ERR_OK)
        fail_msg("%s", err.message);
    assert_false(url.is_unix);
    assert_string_equal(url.host, host);
    assert_int_equal(url.port, port);
    rpc_url_authority(&url, buf, sizeof buf);
    assert_string_equal(buf, authority);
}

static void test_http(void **state)
{
    (void)state;
    check("http://127.0.0.1:2379", "127.0.0.1", 2379, "127.0.0.1:2379");
    check("http://127.0.0.1:2379/", "127.0.0.1", 2379, "127.0.0.1:2379");
    check("http://localhost:0", "localhost", 0, "localhost:0");
    check("http://node-1.example.org:65535", "node-1.example.org", 65535,
          "node-1.example.org:65535");
    check("http://[::1]:80", "::1", 80, "[::1]:80");
    check("http://[fe80::1%eth0]:80/", "fe80::1%eth0", 80, "[fe80::1%eth0]:80");
}

static void test_unix(void **state)
{
    struct rpc_url url;
    char buf[300];
    (void)state;
    assert_int_equal(rpc_url_parse("unix:/run/quorumd.sock", &url, NULL), ERR_OK);
    assert_true(url.is_unix);
    assert_string_equal(url.path, "/run/quorumd.sock");
    rpc_url_authority(&url, buf, sizeof buf);
    assert_string_equal(buf, "localhost");
    assert_int_equal(rpc_url_parse("unix:relative.sock", &url, NULL), ERR_OK);
    assert_string_equal(url.path, "relative.sock");
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "127.0.0.1:2379",
        "http://",
        "http://127.0.0.1",
        "http://127.0.0.1:",
        "http://127.0.0.1:/",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:99999999999999999999",
        "http://127.0.0.1:23x",
        "http://127.0.0.1:23/path",
        "http://:2379",
        "http://::1:2379",
        "http://[::1:2379",
        "http://[::1]2379",
        "http://[]:2379",
        "http://user@host:2379",
        "http://host/a:2379",
        "https://127.0.0.1:2379",
        "unix:",
        "ftp://127.0.0.1:2379",
    };
    struct rpc_url url = {.port = 7};
    struct error err;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (rpc_url_parse(bad[i], &url, &err) != ERR_INVALID)
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(strncmp(err.message, bad[i], strlen(bad[i])), 0);
    }
    assert_int_equal(url.port, 7); /* failures leave the result alone */

    char long_path[200] = "unix:/", long_host[400] = "http://";
    memset(long_path + 6, 'p', 150);
    assert_int_equal(rpc_url_parse(long_path, &url, &err), ERR_INVALID);
    memset(long_host + 7, 'h', 300);
    strcpy(long_host + 307, ":1");
    assert_int_equal(rpc_url_parse(long_host, &url, &err), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http),
        cmocka_unit_test(test_unix),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
