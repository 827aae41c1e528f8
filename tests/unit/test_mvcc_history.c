/* The history in revision order: nothing skipped, nothing twice, no revision cut in two. */
#include "tests/unit/store_fixture.h"

#define assert_history(s_, key_, end_, from_, rows_, expected_, next_)                             \
    do {                                                                                           \
        int64_t got_next_ = 0;                                                                     \
        char *text_ = history(s_, key_, end_, from_, rows_, &got_next_);                           \
        assert_string_equal(text_, expected_);                                                     \
        assert_int_equal(got_next_, next_);                                                        \
        free(text_);                                                                               \
    } while (0)

static char *history(struct store *s, const char *key, const char *end_, int64_t from, size_t rows,
                     int64_t *ret_next)
{
    struct mvcc_range range = range_of(key, end_);
    struct mvcc_result r;
    struct error err = {0};
    if (mvcc_history(s->m, &range, from, rows, &r, ret_next, &err) != ERR_OK)
        fail_msg("%s", err.message);
    char *text = result_text(&r);
    mvcc_result_free(&r);
    return text;
}

static void make(struct store *s)
{
    struct mvcc_range all = range_of("", "");
    put(s, "a", "1"); /* 2 */
    begin(s);         /* 3 */
    mvcc_put(s->m, bytes_str("a"), bytes_str("2"), 0, NULL);
    mvcc_put(s->m, bytes_str("b"), bytes_str("2"), 0, NULL);
    mvcc_put(s->m, bytes_str("c"), bytes_str("2"), 0, NULL);
    end(s);
    put(s, "d", "3"); /* 4 */
    begin(s);         /* 5 */
    mvcc_delete(s->m, &all, NULL, NULL);
    end(s);
    put(s, "b", "5"); /* 6 */
}

static void check(struct store *s)
{
    assert_history(s, "", "", 1, 100,
                   "a=1 c2 m2 v1, a=2 c2 m3 v2, b=2 c3 m3 v1, c=2 c3 m3 v1, d=3 c4 m4 v1, "
                   "a! m5, b! m5, c! m5, d! m5, b=5 c6 m6 v1",
                   7);
    assert_history(s, "", "", 3, 1, "a=2 c2 m3 v2, b=2 c3 m3 v1, c=2 c3 m3 v1", 4);
    assert_history(s, "", "", 3, 3, "a=2 c2 m3 v2, b=2 c3 m3 v1, c=2 c3 m3 v1", 4);
    assert_history(s, "", "", 3, 4, "a=2 c2 m3 v2, b=2 c3 m3 v1, c=2 c3 m3 v1, d=3 c4 m4 v1", 5);
    assert_history(s, "b", NULL, 1, 100, "b=2 c3 m3 v1, b! m5, b=5 c6 m6 v1", 7);
    assert_history(s, "b", NULL, 1, 2, "b=2 c3 m3 v1", 4);
    assert_history(s, "x", NULL, 1, 2, "", 4); /* looked at, none of them in the range */
    assert_history(s, "", "", 6, 1, "b=5 c6 m6 v1", 7);
    assert_history(s, "", "", 7, 1, "", 7);
    assert_history(s, "", "", 9, 1, "", 9);
}

static void is_the_same_wherever_it_is(void **state)
{
    (void)state;
    /* All of it in memory; the first jobs run, so that it is half and half; all in SQLite. */
    for (int steps = 0; steps < 3; steps++) {
        struct store s;
        store_make(&s);
        store_open(&s);
        make(&s);
        for (int i = 0; i < steps; i++)
            worker_step(&s.worker);
        check(&s);
        store_close(&s);
        store_open(&s);
        check(&s);
        store_close(&s);
        store_remove(&s);
    }
}

/* etcd 3.4 loses deletions made at the compaction revision itself; a watch may begin there. */
static void begins_at_the_compaction_revision(void **state)
{
    (void)state;
    struct store s;
    struct mvcc_result r;
    struct mvcc_range all = range_of("", "");
    int64_t next;
    store_make(&s);
    store_open(&s);
    make(&s);
    assert_int_equal(compact(&s, 5), ERR_OK);
    for (int round = 0; round < 2; round++) {
        worker_drain(&s.worker);
        assert_int_equal(mvcc_history(s.m, &all, 4, 10, &r, &next, NULL), ERR_COMPACTED);
        assert_history(&s, "", "", 5, 100, "a! m5, b! m5, c! m5, d! m5, b=5 c6 m6 v1", 7);
        store_close(&s);
        store_open(&s);
    }
    assert_int_equal(compact(&s, 6), ERR_OK);
    worker_drain(&s.worker);
    assert_int_equal(mvcc_history(s.m, &all, 5, 10, &r, &next, NULL), ERR_COMPACTED);
    assert_history(&s, "", "", 6, 100, "b=5 c6 m6 v1", 7);
    store_close(&s);
    store_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_the_same_wherever_it_is),
        cmocka_unit_test(begins_at_the_compaction_revision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
