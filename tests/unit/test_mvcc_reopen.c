/* Restarts: after a crash at any point and the replay of the log, a store is as if nothing had been. */
#include <sqlite3.h>

#include "lib/base/worker_thread.h"
#include "tests/unit/store_history.h"

static void expect_dump(struct store *s, uint64_t seed)
{
    char *expected = history_expected(seed, mvcc_applied_index(s->m)), *got = history_dump(s);
    assert_string_equal(got, expected);
    free(expected);
    free(got);
}

static void remove_file(struct store *s, const char *name)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", s->dir, name);
    unlink(path);
}

/* Entries and steps of the worker in random order, crashes in between. with_wal: as a killed process
 * leaves the files; without: as a power loss at its worst, only what was reported durable is there. */
static void crashes(uint64_t seed, bool with_wal)
{
    struct store s;
    uint64_t rng = seed * 77 + 1, durable = 0;
    store_make(&s);
    s.config.checkpoint_pages = 8;
    s.config.cache_bytes_max = 4096;
    store_open(&s);
    for (int step = 0; step < 1500; step++) {
        uint64_t dice = history_random(&rng) % 100;
        if (dice < 70) {
            history_apply(&s, seed);
        } else if (dice < 97) {
            worker_step(&s.worker);
            assert_true(s.durable == 0 || s.durable == mvcc_durable_index(s.m));
        } else {
            durable = mvcc_durable_index(s.m);
            store_crash(&s);
            if (!with_wal) {
                remove_file(&s, "store.db-wal");
                remove_file(&s, "store.db-shm");
            }
            store_open(&s);
            if (with_wal)
                assert_true(mvcc_applied_index(s.m) >= durable);
            else
                assert_int_equal(mvcc_applied_index(s.m), durable);
            assert_int_equal(mvcc_durable_index(s.m), mvcc_applied_index(s.m));
        }
    }
    worker_drain(&s.worker);
    expect_dump(&s, seed);
    store_close(&s);
    store_open(&s);
    expect_dump(&s, seed);
    assert_int_equal(s.failures, 0);
    store_close(&s);
    store_remove(&s);
}

static void survives_kills(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 3; i++)
        crashes(history_seed(i), true);
}

static void survives_power_losses(void **state)
{
    (void)state;
    for (uint64_t i = 11; i <= 13; i++)
        crashes(history_seed(i), false);
}

static int64_t rows_in_file(struct store *s)
{
    char path[128];
    sqlite3 *db;
    sqlite3_stmt *stmt;
    snprintf(path, sizeof(path), "%s/store.db", s->dir);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM rev", -1, &stmt, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(stmt, 0);
    sqlite3_finalize(stmt);
    sqlite3_close(db);
    return n;
}

static void on_done(void *ctx)
{
    *(bool *)ctx = true;
}

/* A compaction that a crash cut off is finished after the restart, without being asked for again. */
static void finishes_compactions(void **state)
{
    (void)state;
    for (int slices = 0; slices < 6; slices++) {
        struct store s;
        store_make(&s);
        store_open(&s);
        for (int i = 0; i < 4000; i++)
            put(&s, i % 2 ? "a" : "b", "v");
        worker_drain(&s.worker);
        assert_int_equal(rows_in_file(&s), 4000);
        assert_int_equal(compact(&s, 4001), ERR_OK);
        worker_step(&s.worker); /* the entry */
        for (int i = 0; i < slices; i++)
            worker_step(&s.worker);
        store_crash(&s);
        store_open(&s);
        assert_int_equal(mvcc_compact_revision(s.m), 4001);
        assert_look(&s, "a", NULL, 3000, "compacted");
        assert_look(&s, "", "", 4001, "a=v c3 m4001 v2000, b=v c2 m4000 v2000");
        bool done = false;
        mvcc_compact_wait(s.m, on_done, &done);
        worker_drain(&s.worker);
        assert_true(done);
        assert_int_equal(rows_in_file(&s), 2);
        store_close(&s);
        store_remove(&s);
    }
}

/* Entries without a change must not hold the log for ever. */
static void writes_idle_entries(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    for (int i = 0; i < 30000; i++) {
        begin(&s);
        end(&s);
        worker_drain(&s.worker);
    }
    assert_true(mvcc_durable_index(s.m) >= 18000);
    store_close(&s);
    store_open(&s);
    assert_int_equal(mvcc_applied_index(s.m), 30000);
    assert_int_equal(mvcc_revision(s.m), 1);
    store_close(&s);
    store_remove(&s);
}

/* While one batch is under way the next collects, and is cut at its bounds. */
static void batches_are_bounded(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    for (int i = 0; i < 10000; i++)
        put(&s, "a", "v");
    assert_true(mvcc_backlog_bytes(s.m) > 10000);
    worker_drain(&s.worker);
    assert_int_equal(s.worker.ran, 4); /* one entry, then 4096, 4096 and the rest */
    assert_int_equal(mvcc_backlog_bytes(s.m), 0);
    char *big = xmalloc(1024 * 1024 + 1);
    memset(big, 'x', 1024 * 1024);
    big[1024 * 1024] = 0;
    for (int i = 0; i < 9; i++)
        put(&s, "big", big);
    worker_drain(&s.worker);
    assert_int_equal(s.worker.ran, 4 + 4); /* one, then three each below 4 MiB, and the rest */
    free(big);
    store_close(&s);
    store_remove(&s);
}

/* With a thread: mvcc_close is called on the loop thread with jobs not yet delivered. */
static void closes_with_a_thread(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        struct store s;
        struct error err = {0};
        uv_loop_t loop;
        store_make(&s);
        uv_loop_init(&loop);
        s.config = (struct mvcc_config){.dir = s.dir, .disk = disk_posix()};
        assert_int_equal(worker_thread_start(&loop, "store", &s.config.worker, &err), ERR_OK);
        assert_int_equal(mvcc_open(&s.config, &s.m, &err), ERR_OK);
        s.index = 0;
        for (int i = 0; i < 3000; i++) {
            put(&s, "a", "v");
            if (round > 2 && i % 100 == 0)
                uv_run(&loop, UV_RUN_NOWAIT);
        }
        compact(&s, 2000);
        struct hash_answer a = {0};
        mvcc_hash_kv(s.m, 0, on_hash, &a);
        if (round > 3)
            uv_run(&loop, UV_RUN_DEFAULT);
        mvcc_close(s.m);
        assert_int_equal(a.count, 1);
        assert_int_equal(a.code, round > 3 ? ERR_OK : ERR_CLOSED);
        worker_thread_stop(s.config.worker);
        uv_run(&loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&loop), 0);
        s.config = (struct mvcc_config){0};
        store_open(&s);
        assert_int_equal(mvcc_applied_index(s.m), 3001);
        assert_int_equal(mvcc_revision(s.m), 3001);
        store_close(&s);
        store_remove(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(survives_kills),       cmocka_unit_test(survives_power_losses),
        cmocka_unit_test(finishes_compactions), cmocka_unit_test(writes_idle_entries),
        cmocka_unit_test(batches_are_bounded),  cmocka_unit_test(closes_with_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
