/* Flags and environment variables of quorumd. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "daemon/server/config.h"
#include "lib/base/memory.h"

#define ARGS_MAX 16

static enum errc parse(struct config *c, char *const *environment, struct error *err, ...)
{
    char *argv[ARGS_MAX] = {(char *)"quorumd"};
    char *none[] = {NULL};
    int argc = 1;
    va_list args;
    va_start(args, err);
    for (char *arg; (arg = va_arg(args, char *)) != NULL;)
        argv[argc++] = arg;
    va_end(args);
    return config_parse(c, argc, argv, environment ? environment : none, err);
}

static void expect_refusal(char *arg, char *second, const char *text)
{
    struct config c;
    struct error err;
    assert_int_equal(parse(&c, NULL, &err, arg, second, NULL), ERR_INVALID);
    if (!strstr(err.message, text))
        fail_msg("'%s' is not in '%s'", text, err.message);
    assert_null(strchr(err.message, '\n'));
    config_free(&c);
}

static void nothing_given_is_the_default(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(parse(&c, NULL, NULL, NULL), ERR_OK);
    assert_int_equal(c.action, CONFIG_RUN);
    assert_string_equal(c.server.name, "default");
    assert_null(c.server.data_dir);
    assert_string_equal(c.server.listen_client_urls.url[0], "http://localhost:2379");
    assert_int_equal(c.server.heartbeat_ms, 100);
    assert_int_equal(c.server.election_ms, 1000);
    assert_int_equal(c.server.max_request_bytes, 1572864);
    assert_int_equal(c.server.quota_bytes, 2147483648);
    config_free(&c);
}

static void both_forms_of_a_flag_work(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(parse(&c, NULL, NULL, "--name=a", "--data-dir", "/x", "-snapshot-count", "5",
                           "--listen-client-urls", "http://1.2.3.4:1/,unix:/run/q/", NULL),
                     ERR_OK);
    assert_string_equal(c.server.name, "a");
    assert_string_equal(c.server.data_dir, "/x");
    assert_int_equal(c.server.snapshot_count, 5);
    assert_int_equal(c.server.listen_client_urls.count, 2);
    assert_string_equal(c.server.listen_client_urls.url[0], "http://1.2.3.4:1");
    assert_string_equal(c.server.listen_client_urls.url[1], "unix:/run/q/");
    config_free(&c);
}

static void a_flag_wins_over_its_variable(void **state)
{
    (void)state;
    struct config c;
    char *environment[] = {(char *)"QUORUMD_NAME=env", (char *)"QUORUMD_HEARTBEAT_INTERVAL=50",
                           (char *)"QUORUMD_NO_SUCH=1", (char *)"PATH=/bin", NULL};
    assert_int_equal(parse(&c, environment, NULL, "--name", "flag", NULL), ERR_OK);
    assert_string_equal(c.server.name, "flag");
    assert_int_equal(c.server.heartbeat_ms, 50);
    assert_non_null(memmem(c.notes.p, c.notes.n, "QUORUMD_NO_SUCH", 15));
    config_free(&c);
}

static void a_bad_variable_is_named(void **state)
{
    (void)state;
    struct config c;
    struct error err;
    char *environment[] = {(char *)"QUORUMD_ELECTION_TIMEOUT=soon", NULL};
    assert_int_equal(parse(&c, environment, &err, NULL), ERR_INVALID);
    assert_non_null(strstr(err.message, "QUORUMD_ELECTION_TIMEOUT"));
    assert_non_null(strstr(err.message, "soon"));
    config_free(&c);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    expect_refusal((char *)"--no-such", NULL, "unknown flag --no-such");
    expect_refusal((char *)"word", NULL, "word");
    expect_refusal((char *)"--name", NULL, "--name needs a value");
    expect_refusal((char *)"--name=", NULL, "--name");
    expect_refusal((char *)"--name=a=b", NULL, "'='");
    expect_refusal((char *)"--snapshot-count", (char *)"-1", "--snapshot-count: -1");
    expect_refusal((char *)"--snapshot-count=99999999999999999999", NULL, "--snapshot-count");
    expect_refusal((char *)"--election-timeout=100", NULL, "--heartbeat-interval");
    expect_refusal((char *)"--election-timeout=60000", NULL, "too long");
    expect_refusal((char *)"--initial-cluster-state=old", NULL, "existing");
    expect_refusal((char *)"--log-level=loud", NULL, "debug, info");
    expect_refusal((char *)"--listen-client-urls=localhost:2379", NULL, "http://HOST:PORT");
    expect_refusal((char *)"--listen-client-urls=https://localhost:2379", NULL, "TLS");
    expect_refusal((char *)"--cert-file=x", NULL, "--cert-file is not supported");
    expect_refusal((char *)"--auto-tls", NULL, "--auto-tls is not supported");
    expect_refusal((char *)"--auto-compaction-retention=soon", NULL, "duration");
}

static void foreign_flags_without_effect_are_noted(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(parse(&c, NULL, NULL, "--logger=zap", "--enable-v2=false", NULL), ERR_OK);
    assert_non_null(memmem(c.notes.p, c.notes.n, "--logger=zap", 12));
    config_free(&c);
}

static void retention_depends_on_the_mode(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(parse(&c, NULL, NULL, "--auto-compaction-retention=1000",
                           "--auto-compaction-mode=revision", NULL),
                     ERR_OK);
    assert_int_equal(c.server.compaction_mode, SERVER_COMPACTION_REVISION);
    assert_int_equal(c.server.compaction_retention, 1000);
    config_free(&c);
    assert_int_equal(parse(&c, NULL, NULL, "--auto-compaction-retention=2", NULL), ERR_OK);
    assert_int_equal(c.server.compaction_retention, 7200000);
    config_free(&c);
}

static void durations_are_gos(void **state)
{
    (void)state;
    uint64_t ms;
    assert_int_equal(config_duration("1h30m", &ms), ERR_OK);
    assert_int_equal(ms, 5400000);
    assert_int_equal(config_duration("250ms", &ms), ERR_OK);
    assert_int_equal(ms, 250);
    assert_int_equal(config_duration("1.5s", &ms), ERR_OK);
    assert_int_equal(ms, 1500);
    assert_int_equal(config_duration("5x", &ms), ERR_INVALID);
    assert_int_equal(config_duration("s", &ms), ERR_INVALID);
    assert_int_equal(config_duration("-5s", &ms), ERR_INVALID);
}

static void help_and_version_need_no_sense_elsewhere(void **state)
{
    (void)state;
    struct config c;
    struct buf text = {0};
    assert_int_equal(parse(&c, NULL, NULL, "--help", NULL), ERR_OK);
    assert_int_equal(c.action, CONFIG_HELP);
    config_free(&c);
    assert_int_equal(parse(&c, NULL, NULL, "--version", NULL), ERR_OK);
    assert_int_equal(c.action, CONFIG_VERSION);
    config_free(&c);
    config_help(&text);
    assert_non_null(memmem(text.p, text.n, "--initial-cluster-token", 23));
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_is_the_default),
        cmocka_unit_test(both_forms_of_a_flag_work),
        cmocka_unit_test(a_flag_wins_over_its_variable),
        cmocka_unit_test(a_bad_variable_is_named),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(foreign_flags_without_effect_are_noted),
        cmocka_unit_test(retention_depends_on_the_mode),
        cmocka_unit_test(durations_are_gos),
        cmocka_unit_test(help_and_version_need_no_sense_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
