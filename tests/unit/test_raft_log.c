/* The log in memory: growth, truncation, compaction, conflicts, and the search behind fast back-up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "daemon/raft/log.h"

static struct raft_log log_of(const uint64_t *terms, size_t n)
{
    struct raft_log l = {0};
    for (size_t i = 0; i < n; i++) {
        struct raft_entry *e =
            raft_entry_new(terms[i], i + 1, RAFT_ENTRY_COMMAND, 0, bytes_str("abc"));
        raft_log_append(&l, e);
        raft_entry_unref(e);
    }
    return l;
}

#define LOG_OF(...)                                                                                \
    log_of((const uint64_t[]){__VA_ARGS__}, sizeof((const uint64_t[]){__VA_ARGS__}) / 8)

static void test_empty_log(void **state)
{
    (void)state;
    struct raft_log l = {0};
    assert_int_equal(raft_log_last(&l), 0);
    assert_int_equal(raft_log_last_term(&l), 0);
    assert_true(raft_log_matches(&l, 0, 0));
    assert_false(raft_log_matches(&l, 1, 1));
    assert_null(raft_log_at(&l, 0));
    assert_null(raft_log_at(&l, 1));
    raft_log_reset(&l, 10, 3);
    assert_int_equal(raft_log_last(&l), 10);
    assert_true(raft_log_matches(&l, 10, 3));
    assert_false(raft_log_has_term(&l, 9));
    raft_log_free(&l);
}

static void test_compaction_keeps_the_base_term(void **state)
{
    (void)state;
    struct raft_log l = LOG_OF(1, 1, 2, 3, 3);
    raft_log_compact(&l, 3);
    assert_int_equal(l.base_index, 3);
    assert_int_equal(raft_log_term_at(&l, 3), 2);
    assert_int_equal(raft_log_term_at(&l, 2), 0);
    assert_null(raft_log_at(&l, 3));
    assert_int_equal(raft_log_at(&l, 4)->term, 3);
    raft_log_compact(&l, 2); /* behind the base: nothing */
    assert_int_equal(l.base_index, 3);
    raft_log_compact(&l, 5);
    assert_int_equal(raft_log_last(&l), 5);
    assert_int_equal(raft_log_last_term(&l), 3);
    assert_int_equal(l.bytes, 0);
    raft_log_free(&l);
}

static void test_truncation(void **state)
{
    (void)state;
    struct raft_log l = LOG_OF(1, 1, 2);
    size_t bytes = l.bytes / 3;
    raft_log_truncate(&l, 2);
    assert_int_equal(raft_log_last(&l), 1);
    assert_int_equal(l.bytes, bytes);
    raft_log_truncate(&l, 2); /* nothing there */
    assert_int_equal(raft_log_last(&l), 1);
    raft_log_free(&l);
}

/* A log that is appended to and compacted for long stays as small as what it holds. */
static void test_array_does_not_grow_with_age(void **state)
{
    (void)state;
    struct raft_log l = {0};
    for (uint64_t i = 1; i <= 10000; i++) {
        struct raft_entry *e = raft_entry_new(1, i, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
        raft_log_append(&l, e);
        raft_entry_unref(e);
        if (i > 50)
            raft_log_compact(&l, i - 50);
    }
    assert_int_equal(l.count, 50);
    assert_true(l.cap <= 256);
    assert_int_equal(raft_log_at(&l, 9951)->index, 9951);
    assert_int_equal(raft_log_at(&l, 10000)->index, 10000);
    raft_log_free(&l);
}

static void test_find_conflict(void **state)
{
    (void)state;
    struct raft_log l = LOG_OF(1, 1, 2, 2);
    struct raft_log other = LOG_OF(1, 1, 2, 3, 3);
    size_t n;
    struct raft_entry **e = raft_log_slice(&other, 2, 100, SIZE_MAX, &n);
    assert_int_equal(n, 4);
    assert_int_equal(raft_log_find_conflict(&l, e, n), 2);     /* entry 4 */
    assert_int_equal(raft_log_find_conflict(&l, e, 2), 2);     /* has both */
    assert_int_equal(raft_log_find_conflict(&other, e, n), 4); /* has all */
    for (size_t i = 0; i < n; i++)
        raft_entry_unref(e[i]);
    free(e);
    raft_log_free(&l);
    raft_log_free(&other);
}

static void test_find_term(void **state)
{
    (void)state;
    struct raft_log l = LOG_OF(1, 1, 4, 4, 6);
    uint64_t term;
    assert_int_equal(raft_log_find_term(&l, 9, 6, &term), 5);
    assert_int_equal(term, 6);
    assert_int_equal(raft_log_find_term(&l, 5, 5, &term), 4);
    assert_int_equal(term, 4);
    assert_int_equal(raft_log_find_term(&l, 5, 3, &term), 2);
    assert_int_equal(term, 1);
    assert_int_equal(raft_log_find_term(&l, 5, 0, &term), 0);
    assert_int_equal(term, 0);
    raft_log_compact(&l, 3);
    assert_int_equal(raft_log_find_term(&l, 5, 3, &term), 2); /* unknown from here on */
    assert_int_equal(term, 0);
    raft_log_free(&l);
}

static void test_slice_limits(void **state)
{
    (void)state;
    struct raft_log l = LOG_OF(1, 1, 1, 1);
    size_t one = sizeof(struct raft_entry) + 3, n;
    struct raft_entry **e = raft_log_slice(&l, 2, 100, 2 * one, &n);
    assert_int_equal(n, 2);
    assert_int_equal(e[0]->index, 2);
    assert_int_equal(e[0]->refs, 2);
    for (size_t i = 0; i < n; i++)
        raft_entry_unref(e[i]);
    free(e);
    e = raft_log_slice(&l, 1, 100, 1, &n); /* at least one */
    assert_int_equal(n, 1);
    raft_entry_unref(e[0]);
    free(e);
    assert_null(raft_log_slice(&l, 5, 100, SIZE_MAX, &n));
    assert_int_equal(n, 0);
    raft_log_free(&l);
}

static void test_conf_change_encoding(void **state)
{
    (void)state;
    uint8_t data[RAFT_CONF_CHANGE_BYTES + 3];
    struct raft_conf_change c = {RAFT_CONF_REMOVE, 0x8e9e05c52164694d}, back;
    struct bytes context;
    raft_conf_change_encode(&c, data);
    memcpy(data + RAFT_CONF_CHANGE_BYTES, "url", 3);
    assert_int_equal(raft_conf_change_decode(bytes_of(data, sizeof data), &back, &context), ERR_OK);
    assert_int_equal(back.type, RAFT_CONF_REMOVE);
    assert_true(back.id == c.id);
    assert_true(bytes_equal(context, bytes_str("url")));
    assert_int_equal(raft_conf_change_decode(bytes_of(data, 15), &back, &context), ERR_INVALID);
    data[0] = 4;
    assert_int_equal(raft_conf_change_decode(bytes_of(data, 16), &back, &context), ERR_INVALID);
    data[0] = 0;
    memset(data + 8, 0, 8);
    assert_int_equal(raft_conf_change_decode(bytes_of(data, 16), &back, &context), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_log),     cmocka_unit_test(test_compaction_keeps_the_base_term),
        cmocka_unit_test(test_truncation),    cmocka_unit_test(test_array_does_not_grow_with_age),
        cmocka_unit_test(test_find_conflict), cmocka_unit_test(test_find_term),
        cmocka_unit_test(test_slice_limits),  cmocka_unit_test(test_conf_change_encoding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
