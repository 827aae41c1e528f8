/* Log lines: their shape, the level, the sink, standard error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/log.h"

static char last[8192];
static int lines;

static void keep(void *ctx, const char *line)
{
    assert_ptr_equal(ctx, last);
    snprintf(last, sizeof(last), "%s", line);
    lines++;
}

static int use_sink(void **state)
{
    (void)state;
    lines = 0;
    log_set_sink(keep, last);
    log_set_level(LOG_INFO);
    return 0;
}

static int drop_sink(void **state)
{
    (void)state;
    log_set_sink(NULL, NULL);
    return 0;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    int rc = regexec(&re, text, 0, NULL, 0);
    regfree(&re);
    if (rc)
        fail_msg("\"%s\" does not match %s", text, pattern);
}

static void line_has_time_level_and_part(void **state)
{
    (void)state;
    errno = ENOTTY;
    log_warn("raft", "lost the leader leader=%s term=%d", "8e9e05c52164694d", 7);
    assert_int_equal(errno, ENOTTY);
    assert_matches(last, "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]"
                         "\\.[0-9]{3}Z warn raft: lost the leader "
                         "leader=8e9e05c52164694d term=7$");
}

static void level_keeps_lines_back(void **state)
{
    (void)state;
    log_debug("x", "not this");
    assert_int_equal(lines, 0);
    log_set_level(LOG_DEBUG);
    assert_int_equal(log_get_level(), LOG_DEBUG);
    log_debug("x", "this");
    assert_int_equal(lines, 1);
    log_set_level(LOG_ERROR);
    log_warn("x", "not this");
    log_error("x", "and this");
    assert_int_equal(lines, 2);
    assert_matches(last, "Z error x: and this$");
}

static void event_stays_one_line(void **state)
{
    (void)state;
    log_info("x", "a\nb\tc\033[31m");
    assert_matches(last, "Z info x: a b c \\[31m$");
    log_info("x", "%s", "umlaut \303\274");
    assert_matches(last, "umlaut \303\274$");
}

static void long_line_is_cut(void **state)
{
    (void)state;
    log_info("x", "%9000s", "end");
    assert_in_range(strlen(last), 4000, 4096);
    assert_null(strstr(last, "end"));
}

static void standard_error_takes_the_line_in_one_piece(void **state)
{
    (void)state;
    int ends[2], saved = dup(STDERR_FILENO);
    char text[8192];
    assert_int_equal(pipe(ends), 0);
    log_set_sink(NULL, NULL);
    dup2(ends[1], STDERR_FILENO);
    log_info("x", "to a pipe");
    dup2(saved, STDERR_FILENO);
    close(saved);
    ssize_t n = read(ends[0], text, sizeof(text) - 1);
    assert_true(n > 0);
    text[n] = 0;
    assert_matches(text, "Z info x: to a pipe\n$");
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(line_has_time_level_and_part, use_sink, drop_sink),
        cmocka_unit_test_setup_teardown(level_keeps_lines_back, use_sink, drop_sink),
        cmocka_unit_test_setup_teardown(event_stays_one_line, use_sink, drop_sink),
        cmocka_unit_test_setup_teardown(long_line_is_cut, use_sink, drop_sink),
        cmocka_unit_test_setup_teardown(standard_error_takes_the_line_in_one_piece, use_sink,
                                        drop_sink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
