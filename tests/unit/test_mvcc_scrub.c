/* The scrub reads every row again, finds what is damaged or gone, and nothing where all is well, however
 * much changes beside it. */
#include <sqlite3.h>

#include "tests/unit/store_history.h"

static uint64_t now_ms;

static void run_sql(struct store *s, const char *sql)
{
    char path[128];
    sqlite3 *db;
    snprintf(path, sizeof(path), "%s/store.db", s->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_close(db);
}

static void on_defragmented(void *ctx, enum errc code)
{
    (void)ctx, (void)code;
}

static void scrub_pass(struct store *s)
{
    uint64_t passes = mvcc_scrub_passes(s->m);
    for (int i = 0; mvcc_scrub_passes(s->m) == passes && s->failures == 0; i++) {
        assert_true(i < 10000);
        mvcc_scrub_tick(s->m, now_ms += 1000, 1);
        worker_drain(&s->worker);
    }
}

static void make(struct store *s, int entries)
{
    store_make(s);
    s->config.cache_bytes_max = 1;
    store_open(s);
    for (int i = 0; i < entries; i++)
        history_apply(s, 20);
    worker_drain(&s->worker);
}

/* Puts, deletions, compactions, rewritten rows and a snapshot on its way out, between any two slices. */
static void is_quiet_beside_changes(void **state)
{
    (void)state;
    uint64_t rng = history_seed(5) | 1;
    struct store s;
    make(&s, 500);
    for (int i = 0; i < 1200; i++) {
        if (history_random(&rng) % 2)
            history_apply(&s, 20);
        if (history_random(&rng) % 100 == 0)
            compact(&s, mvcc_revision(s.m) - 50);
        if (history_random(&rng) % 100 == 0)
            mvcc_defragment(s.m, on_defragmented, NULL);
        mvcc_scrub_tick(s.m, now_ms += 1000, 1);
        for (uint64_t n = history_random(&rng) % 4; n > 0; n--)
            worker_step(&s.worker);
        if (s.failures)
            fail_msg("%s", s.failure.message);
    }
    worker_drain(&s.worker);
    assert_int_equal(s.failures, 0);
    assert_true(mvcc_scrub_passes(s.m) > 20);
    store_close(&s);
    store_remove(&s);
}

/* In a store that is open, and that has read all of it before. */
static void finds_damage(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *text;
    } cases[] = {
        {"UPDATE rev SET value = 'x' WHERE id = 2 << 23", "the value of revision 2.0"},
        {"UPDATE rev SET lease = 99 WHERE id = 3 << 23", "the row of revision 3.0"},
        {"DELETE FROM rev WHERE id = 2 << 23", "a row before revision 3.0 is missing"},
        {"DELETE FROM rev WHERE id = (4 << 23) + 1", "rows behind revision 4.0 are missing"},
        {"UPDATE bucket SET value = 'x'", "of bucket"},
        {"DELETE FROM bucket", "rows were found where"},
        {"UPDATE state SET digest = 1", "the state row is damaged"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct store s;
        store_make(&s);
        store_open(&s);
        put(&s, "a", "1");
        put(&s, "b", "2");
        begin(&s);
        mvcc_put(s.m, bytes_str("c"), bytes_str("3"), 0, NULL);
        mvcc_put(s.m, bytes_str("d"), bytes_str("4"), 0, NULL);
        mvcc_bucket_put(s.m, MVCC_BUCKET_MEMBER, bytes_str("member"), bytes_str("v"));
        end(&s);
        worker_drain(&s.worker);
        scrub_pass(&s);
        assert_int_equal(s.failures, 0);
        run_sql(&s, cases[i].sql);
        scrub_pass(&s);
        assert_int_equal(s.failures, 1);
        assert_int_equal(s.failure.code, ERR_CORRUPT);
        if (!strstr(s.failure.message, cases[i].text))
            fail_msg("%s gave: %s", cases[i].sql, s.failure.message);
        store_crash(&s);
        store_remove(&s);
    }
}

/* A pass takes the time it is given, in slices; 0 is never. */
static void keeps_its_time(void **state)
{
    (void)state;
    struct store s;
    char key[32];
    make(&s, 0);
    for (int i = 0; i < 4000; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        put(&s, key, "v");
    }
    worker_drain(&s.worker);
    for (int i = 0; i < 100; i++) {
        mvcc_scrub_tick(s.m, now_ms += 1000, 0);
        worker_drain(&s.worker);
    }
    assert_int_equal(mvcc_scrub_passes(s.m), 0);
    uint64_t begin_ms = now_ms;
    size_t slices = 0;
    while (mvcc_scrub_passes(s.m) == 0) {
        size_t ran = s.worker.ran;
        mvcc_scrub_tick(s.m, now_ms += 100, 60000);
        worker_drain(&s.worker);
        slices += s.worker.ran > ran;
    }
    assert_true(slices >= 3);
    assert_true(now_ms - begin_ms > 20000 && now_ms - begin_ms <= 70000);
    store_close(&s);
    store_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_quiet_beside_changes),
        cmocka_unit_test(finds_damage),
        cmocka_unit_test(keeps_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
