/* Compaction: what it answers, what stays readable, and that its rows and the space really go. */
#include "tests/unit/store_history.h"

static void answers_as_etcd(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    assert_int_equal(compact(&s, 0), ERR_OK); /* as the first one, etcd takes it */
    assert_int_equal(compact(&s, 0), ERR_COMPACTED);
    assert_int_equal(compact(&s, 2), ERR_FUTURE_REV);
    put(&s, "a", "1");
    put(&s, "b", "2");
    put(&s, "a", "3");
    del(&s, "b", NULL); /* 5 */
    assert_int_equal(compact(&s, 6), ERR_FUTURE_REV);
    assert_int_equal(compact(&s, 3), ERR_OK);
    assert_int_equal(mvcc_compact_revision(s.m), 3);
    assert_int_equal(compact(&s, 3), ERR_COMPACTED);
    assert_int_equal(compact(&s, 2), ERR_COMPACTED);
    assert_look(&s, "a", NULL, 2, "compacted");
    assert_look(&s, "a", NULL, 3, "a=1 c2 m2 v1"); /* the compaction revision itself is readable */
    worker_drain(&s.worker);
    assert_look(&s, "", "", 3, "a=1 c2 m2 v1, b=2 c3 m3 v1");
    assert_look(&s, "", "", 4, "a=3 c2 m4 v2, b=2 c3 m3 v1");
    assert_int_equal(compact(&s, 5), ERR_OK);
    worker_drain(&s.worker);
    assert_look(&s, "", "", 0, "a=3 c2 m4 v2");
    assert_look(&s, "", "", 4, "compacted");
    store_close(&s);
    store_open(&s);
    assert_int_equal(mvcc_compact_revision(s.m), 5);
    assert_look(&s, "", "", 5, "a=3 c2 m4 v2");
    assert_look(&s, "", "", 4, "compacted");
    put(&s, "a", "4"); /* 6: version and creation go on over the compaction */
    assert_look(&s, "a", NULL, 0, "a=4 c2 m6 v3");
    store_close(&s);
    store_remove(&s);
}

/* An entry may put and compact at once; the put counts. */
static void within_an_entry(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    begin(&s);
    mvcc_put(s.m, bytes_str("a"), bytes_str("1"), 0, NULL);
    assert_int_equal(mvcc_compact(s.m, 3), ERR_FUTURE_REV);
    assert_int_equal(mvcc_compact(s.m, 2), ERR_OK);
    assert_int_equal(mvcc_compact(s.m, 2), ERR_COMPACTED);
    assert_int_equal(mvcc_compact_revision(s.m), 2);
    end(&s);
    worker_drain(&s.worker);
    assert_look(&s, "a", NULL, 2, "a=1 c2 m2 v1");
    assert_look(&s, "a", NULL, 1, "compacted");
    store_close(&s);
    store_remove(&s);
}

static void on_done(void *ctx)
{
    ++*(unsigned *)ctx;
}

static void on_defragmented(void *ctx, enum errc code)
{
    assert_int_equal(code, ERR_OK);
    ++*(unsigned *)ctx;
}

static void waits_are_answered_in_turn(void **state)
{
    (void)state;
    struct store s;
    unsigned first = 0, second = 0;
    store_make(&s);
    store_open(&s);
    mvcc_compact_wait(s.m, on_done, &first);
    worker_drain(&s.worker);
    assert_int_equal(first, 1);
    for (int i = 0; i < 3000; i++)
        put(&s, "a", "v");
    compact(&s, 3001);
    mvcc_compact_wait(s.m, on_done, &second);
    assert_int_equal(second, 0);
    worker_step(&s.worker);
    assert_int_equal(second, 0);
    worker_drain(&s.worker);
    assert_int_equal(second, 1);
    store_close(&s);
    store_remove(&s);
}

/* Sizes after: all of one key's history goes; every second key goes (half-empty pages are filled). */
static void gives_space_back(void **state)
{
    (void)state;
    struct store s;
    char value[1001], key[16];
    memset(value, 'v', 1000);
    value[1000] = 0;
    store_make(&s);
    store_open(&s);
    for (int i = 0; i < 8000; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(&s, key, value);
    }
    for (int i = 0; i < 8000; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        if (i % 2)
            del(&s, key, NULL);
    }
    worker_drain(&s.worker);
    uint64_t full = mvcc_size(s.m);
    assert_true(full > 8000 * 1000);
    assert_int_equal(compact(&s, mvcc_revision(s.m)), ERR_OK);
    worker_drain(&s.worker);
    unsigned done = 0;
    mvcc_defragment(s.m, on_defragmented, &done);
    put(&s, "beside", "it");
    worker_drain(&s.worker);
    assert_int_equal(done, 1);
    assert_true(mvcc_size(s.m) < full * 6 / 10);
    assert_int_equal(mvcc_size(s.m), mvcc_size_in_use(s.m));
    store_close(&s);
    store_open(&s); /* count and digest are right: nothing got lost on the way */
    assert_true(mvcc_size(s.m) < full * 6 / 10);
    assert_look(&s, "k1", NULL, 0, "");
    struct mvcc_query q = {.range = range_of("", ""), .count_only = true};
    struct mvcc_result r;
    assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
    assert_int_equal(r.total, 4001);
    del(&s, "", "");
    assert_int_equal(compact(&s, mvcc_revision(s.m)), ERR_OK);
    worker_drain(&s.worker); /* most pages are free now: they go without being asked for */
    assert_true(mvcc_size(s.m) < full / 2);
    store_close(&s);
    store_remove(&s);
}

/* Compactions at random points change no state that may still be asked for. */
static void changes_nothing_readable(void **state)
{
    (void)state;
    uint64_t seed = history_seed(5), rng = seed | 1;
    struct store s;
    store_make(&s);
    s.config.cache_bytes_max = 1;
    store_open(&s);
    for (int i = 0; i < 2000; i++) {
        history_apply(&s, seed);
        if (history_random(&rng) % 3 == 0)
            worker_step(&s.worker);
        if (i % 400 != 399)
            continue;
        char *before = store_dump(&s);
        worker_drain(&s.worker);
        char *after = store_dump(&s);
        assert_string_equal(before, after);
        free(before);
        free(after);
    }
    store_close(&s);
    store_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_as_etcd),
        cmocka_unit_test(within_an_entry),
        cmocka_unit_test(waits_are_answered_in_turn),
        cmocka_unit_test(gives_space_back),
        cmocka_unit_test(changes_nothing_readable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
