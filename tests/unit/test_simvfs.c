/* SQLite on the simulated disk: in WAL mode with two connections, through crashes. This checks both the
 * disk and the VFS: a disk that kept too little, or a VFS that forgot a sync, corrupts databases that
 * SQLite guarantees; and with synchronous=OFF, where it guarantees nothing, they must get corrupt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/simdisk.h"
#include "tests/sim/simvfs.h"

#define SEEDS 200

struct fixture {
    struct env env;
    struct simrng rng;
    struct simdisk *sim;
    struct simvfs *vfs;
    sqlite3 *db;
};

static uint64_t fixed_time(struct env *env)
{
    (void)env;
    return 1700000000ull * 1000000000;
}

static uint64_t seeded(struct env *env)
{
    return simrng_next(&CONTAINER_OF(env, struct fixture, env)->rng);
}

static void begin(struct fixture *f, uint64_t seed)
{
    memset(f, 0, sizeof(*f));
    f->rng.state = seed;
    f->env = (struct env){fixed_time, fixed_time, seeded};
    f->sim = simdisk_new(seed);
    f->vfs = simvfs_new("sim-1", simdisk_disk(f->sim), &f->env);
    simvfs_seed((uint32_t)seed + 1);
}

static void end(struct fixture *f)
{
    assert_int_equal(sqlite3_close(f->db), SQLITE_OK);
    simvfs_free(f->vfs);
    assert_int_equal(simdisk_handles(f->sim), 0);
    simdisk_free(f->sim);
}

static int run(sqlite3 *db, const char *sql)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static void must(sqlite3 *db, const char *sql)
{
    if (run(db, sql) == SQLITE_OK)
        return;
    print_error("%s: %s\n", sql, sqlite3_errmsg(db));
    fail();
}

/* The first column of the first row, -1 if there is none or an error. */
static long long number(sqlite3 *db, const char *sql)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL))
        return -1;
    long long n = sqlite3_step(s) == SQLITE_ROW ? sqlite3_column_int64(s, 0) : -1;
    sqlite3_finalize(s);
    return n;
}

static bool text_is(sqlite3 *db, const char *sql, const char *want)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db, sql, -1, &s, NULL))
        return false;
    bool is =
        sqlite3_step(s) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), want) == 0;
    sqlite3_finalize(s);
    return is;
}

static sqlite3 *open_db(const char *synchronous)
{
    sqlite3 *db;
    assert_int_equal(
        sqlite3_open_v2("store.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "sim-1"),
        SQLITE_OK);
    assert_true(text_is(db, "PRAGMA journal_mode = WAL", "wal"));
    char sql[64];
    snprintf(sql, sizeof(sql), "PRAGMA synchronous = %s", synchronous);
    must(db, sql);
    return db;
}

static void crash(struct fixture *f)
{
    struct simrng rng = {simrng_next(&f->rng)};
    simdisk_crash(f->sim, &rng);
    simvfs_crash(f->vfs);
    sqlite3_close(f->db);
    f->db = NULL;
}

static void test_two_connections(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 1);
    f.db = open_db("NORMAL");
    sqlite3 *reader = open_db("NORMAL");
    must(f.db, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    must(f.db, "INSERT INTO t (v) VALUES (1), (2)");
    must(reader, "BEGIN");
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 2);
    must(f.db, "INSERT INTO t (v) VALUES (3)"); /* beside a reader */
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 2);
    assert_int_equal(run(reader, "INSERT INTO t (v) VALUES (4)"), SQLITE_BUSY);
    must(reader, "COMMIT");
    assert_int_equal(number(reader, "SELECT count(*) FROM t"), 3);
    must(reader, "BEGIN IMMEDIATE");
    assert_int_equal(run(f.db, "INSERT INTO t (v) VALUES (4)"), SQLITE_BUSY);
    must(reader, "ROLLBACK");
    assert_int_equal(number(f.db, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    struct buf wal = {0};
    assert_int_equal(simdisk_contents(f.sim, "store.db-wal", &wal), ERR_OK);
    assert_int_equal(wal.n, 0);
    buf_free(&wal);
    assert_int_equal(sqlite3_close(reader), SQLITE_OK);
    assert_int_equal(sqlite3_close(f.db), SQLITE_OK);
    /* The last one to close takes the WAL file with it. */
    assert_int_equal(simdisk_contents(f.sim, "store.db-wal", &wal), ERR_NOT_FOUND);
    f.db = open_db("NORMAL");
    assert_int_equal(number(f.db, "SELECT count(*) FROM t"), 3);
    end(&f);
}

/* EXTRA: with FULL SQLite does not sync the folder after it has removed the journal, and a commit may
 * be undone by a crash, as it documents. */
static void test_rollback_journal(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct fixture f;
        begin(&f, seed);
        f.db = open_db("EXTRA");
        assert_true(text_is(f.db, "PRAGMA journal_mode = DELETE", "delete"));
        must(f.db, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
        simdisk_power_off_at(f.sim, 1 + simrng_below(&f.rng, 200));
        long long acked = 0;
        while (run(f.db, "INSERT INTO t (v) VALUES (randomblob(1500))") == SQLITE_OK)
            acked++;
        crash(&f);
        assert_int_equal(sqlite3_open_v2("store.db", &f.db, SQLITE_OPEN_READWRITE, "sim-1"),
                         SQLITE_OK);
        assert_true(text_is(f.db, "PRAGMA integrity_check", "ok"));
        long long n = number(f.db, "SELECT count(*) FROM t");
        assert_true(n == acked || n == acked + 1);
        end(&f);
    }
}

static void test_time_and_errors(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 1);
    f.db = open_db("NORMAL");
    assert_true(text_is(f.db, "SELECT datetime('now')", "2023-11-14 22:13:20"));
    must(f.db, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    simdisk_fail_at(f.sim, 1, SIMDISK_WRITE, ERR_IO, false);
    assert_int_equal(run(f.db, "INSERT INTO t (v) VALUES (1)"), SQLITE_IOERR);
    simdisk_set_capacity(f.sim, simdisk_used(f.sim) + 1);
    assert_int_equal(run(f.db, "INSERT INTO t (v) VALUES (randomblob(90000))"), SQLITE_FULL);
    simdisk_set_capacity(f.sim, 0);
    must(f.db, "INSERT INTO t (v) VALUES (1)");
    sqlite3 *other;
    assert_int_equal(sqlite3_open_v2("none.db", &other, SQLITE_OPEN_READWRITE, "sim-1"),
                     SQLITE_CANTOPEN);
    sqlite3_close(other);
    end(&f);
}

struct outcome {
    size_t corrupt, lost_acked, lost_checkpointed;
};

/* Transactions of several rows, checkpoints now and then, until the power goes. Rows carry a sum, so
 * that half a transaction or a wrong value shows as corruption. */
static void crash_once(uint64_t seed, const char *synchronous, struct outcome *out)
{
    struct fixture f;
    begin(&f, seed);
    f.db = open_db(synchronous);
    must(f.db, "CREATE TABLE t (id INTEGER PRIMARY KEY, batch INT, v BLOB)");
    must(f.db, "CREATE INDEX i ON t (batch, v)");
    must(f.db, "PRAGMA wal_checkpoint(PASSIVE)");
    must(f.db, "PRAGMA wal_autocheckpoint = 0");
    simdisk_power_off_at(f.sim, 30 + simrng_below(&f.rng, 800));
    long long acked = 0, checkpointed = 0;
    for (;;) {
        char sql[256];
        snprintf(sql, sizeof(sql),
                 "WITH RECURSIVE c(x) AS (VALUES(1) UNION ALL SELECT x+1 FROM c WHERE x<7) "
                 "INSERT INTO t (batch, v) SELECT %lld, randomblob(300) FROM c",
                 acked + 1);
        if (run(f.db, sql) != SQLITE_OK)
            break;
        acked++;
        if (simrng_chance(&f.rng, 10)) {
            if (run(f.db, "PRAGMA wal_checkpoint(PASSIVE)") != SQLITE_OK)
                break;
            checkpointed = acked;
        }
    }
    crash(&f);
    assert_int_equal(sqlite3_open_v2("store.db", &f.db, SQLITE_OPEN_READWRITE, "sim-1"), SQLITE_OK);
    long long batches = number(f.db, "SELECT count(DISTINCT batch) FROM t");
    bool whole = text_is(f.db, "PRAGMA integrity_check", "ok") && batches >= 0 &&
                 number(f.db, "SELECT count(*) FROM t") == batches * 7 &&
                 number(f.db, "SELECT coalesce(max(batch), 0) FROM t") == batches;
    out->corrupt += !whole;
    out->lost_acked += whole && batches < acked;
    out->lost_checkpointed += whole && batches < checkpointed;
    assert_true(!whole || batches <= acked + 1);
    end(&f);
}

static struct outcome crash_often(const char *synchronous, uint64_t seeds)
{
    struct outcome out = {0};
    for (uint64_t seed = 1; seed <= seeds; seed++)
        crash_once(seed, synchronous, &out);
    return out;
}

static void test_normal(void **state)
{
    (void)state;
    struct outcome out = crash_often("NORMAL", SEEDS);
    assert_int_equal(out.corrupt, 0);
    assert_int_equal(out.lost_checkpointed, 0);
    assert_true(out.lost_acked > 0); /* the disk does lose what it may */
}

static void test_full(void **state)
{
    (void)state;
    struct outcome out = crash_often("FULL", SEEDS);
    assert_int_equal(out.corrupt, 0);
    assert_int_equal(out.lost_acked, 0);
}

static void test_off(void **state)
{
    (void)state;
    struct outcome out = crash_often("OFF", 20);
    assert_true(out.corrupt > 10);
}

static uint64_t traced(uint64_t seed)
{
    struct fixture f;
    begin(&f, seed);
    f.db = open_db("NORMAL");
    must(f.db, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)");
    must(f.db, "INSERT INTO t (v) VALUES (randomblob(100))");
    uint64_t trace = simdisk_trace(f.sim);
    end(&f);
    return trace;
}

static void test_deterministic(void **state)
{
    (void)state;
    uint64_t same = traced(7);
    assert_true(same == traced(7));
    assert_true(same != traced(8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_connections),
        cmocka_unit_test(test_rollback_journal),
        cmocka_unit_test(test_time_and_errors),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_deterministic),
    };
    return cmocka_run_group_tests_name("simvfs", tests, NULL, NULL);
}
