/* Flipped bytes in the database: an error that names the file, or the right answer. Never a wrong one. */
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include "daemon/store/internal.h"
#include "daemon/store/salvage.h"
#include "tests/unit/store_history.h"

static void path_of(struct store *s, const char *name, char *path)
{
    snprintf(path, 128, "%s/%s", s->dir, name);
}

static uint8_t *slurp(struct store *s, const char *name, size_t *ret_n)
{
    char path[128];
    struct stat st;
    path_of(s, name, path);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *p = xmalloc((size_t)st.st_size + 1);
    assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
    close(fd);
    *ret_n = (size_t)st.st_size;
    return p;
}

static void spit(struct store *s, const char *name, const uint8_t *p, size_t n)
{
    char path[128];
    path_of(s, name, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    close(fd);
}

static void expect_advice(const struct error *err, const char *file)
{
    assert_non_null(strstr(err->message, file));
    assert_non_null(strstr(err->message, "remove the member's data directory and let it rejoin"));
    assert_non_null(strstr(err->message, "--rescue"));
}

/* All states and the history, each line as it is or "corrupt". False: a line is neither. */
static void compare(struct store *s, char **expected, unsigned *found)
{
    int64_t to = mvcc_revision(s->m);
    for (int64_t rev = mvcc_compact_revision(s->m); rev <= to; rev++) {
        char *text = look(s, "", "", rev);
        if (strcmp(text, "corrupt") == 0)
            ++*found;
        else
            assert_string_equal(text, expected[rev]);
        free(text);
    }
    struct mvcc_range all = range_of("", "");
    struct mvcc_result r;
    struct error err = {0};
    int64_t next;
    if (mvcc_history(s->m, &all, mvcc_compact_revision(s->m), 100000, &r, &next, &err) != ERR_OK) {
        assert_int_equal(err.code, ERR_CORRUPT);
        expect_advice(&err, "store.db");
        ++*found;
        return;
    }
    char *text = result_text(&r);
    assert_string_equal(text, expected[0]);
    free(text);
    mvcc_result_free(&r);
}

static void expect_all(struct store *s, char **expected)
{
    int64_t to = mvcc_revision(s->m), next;
    assert_true(to < 1000 && mvcc_compact_revision(s->m) > 0);
    for (int64_t rev = mvcc_compact_revision(s->m); rev <= to; rev++)
        expected[rev] = look(s, "", "", rev);
    struct mvcc_range all = range_of("", "");
    struct mvcc_result r;
    assert_int_equal(mvcc_history(s->m, &all, mvcc_compact_revision(s->m), 100000, &r, &next, NULL),
                     ERR_OK);
    expected[0] = result_text(&r);
    mvcc_result_free(&r);
}

/* One place of the file is harmed: a bit, a byte, a sector or page of zeros or of anything, the end cut off, or
 * (`header`) a byte of the first hundred. The result is the caller's. */
static uint8_t *harm(const uint8_t *good, size_t n, int round, uint64_t *rng, size_t *ret_n,
                     size_t *ret_at)
{
    uint8_t *p = xmalloc(n);
    memcpy(p, good, n);
    size_t at = history_random(rng) % n;
    *ret_n = n;
    size_t block = round % 2 ? 512 : 4096;
    switch (round % 8) {
    case 0:
    case 1:
    case 2:
        p[at] ^= (uint8_t)(1u << history_random(rng) % 8);
        break;
    case 3:
        at %= 100;
        p[at] ^= (uint8_t)(1u << history_random(rng) % 8);
        break;
    case 4:
        p[at] ^= 0xff;
        break;
    case 5:
        at -= at % block;
        memset(p + at, 0, n - at < block ? n - at : block);
        break;
    case 6:
        at -= at % block;
        for (size_t i = at; i < n && i < at + block; i++)
            p[i] = (uint8_t)history_random(rng);
        break;
    default:
        *ret_n = round % 16 < 8 ? at - at % 4096 : at;
    }
    *ret_at = at;
    return p;
}

/* Whether a pass of the scrub finds damage. */
static bool scrub_finds(struct store *s)
{
    unsigned before = s->failures;
    for (uint64_t now = 1; mvcc_scrub_passes(s->m) == 0 && s->failures == before; now += 1000) {
        mvcc_scrub_tick(s->m, now, 1);
        worker_drain(&s->worker);
    }
    if (s->failures > before)
        assert_int_equal(s->failure.code, ERR_CORRUPT);
    return s->failures > before;
}

static void is_never_silently_wrong(void **state)
{
    (void)state;
    uint64_t rng = history_seed(3) | 1;
    struct store s;
    char *expected[1000] = {0};
    unsigned at_open = 0, at_read = 0, by_scrub = 0, unnoticed = 0;
    store_make(&s);
    s.config.cache_bytes_max = 1;
    store_open(&s);
    for (int i = 0; i < 300; i++)
        history_apply(&s, 8);
    worker_drain(&s.worker);
    expect_all(&s, expected);
    char *buckets = history_dump(&s);
    store_close(&s);
    size_t n;
    uint8_t *good = slurp(&s, "store.db", &n);
    const char *many = getenv("DAMAGE_ROUNDS");
    int rounds = many ? atoi(many) : 240;
    for (int round = 0; round < rounds; round++) {
        size_t at, bad_n;
        uint8_t *bad = harm(good, n, round, &rng, &bad_n, &at);
        spit(&s, "store.db", bad, bad_n);
        free(bad);
        struct error err = {0};
        unsigned found = 0;
        s.failures = 0;
        enum errc code = store_try_open(&s, &err);
        if (code != ERR_OK) {
            if (code != ERR_CORRUPT)
                fail_msg("round %d, byte %zu: %s", round, at, err.message);
            assert_non_null(strstr(err.message, "store.db"));
            at_open++;
        } else {
            compare(&s, expected, &found);
            if (found == 0) {
                char *dump = history_dump(&s);
                assert_string_equal(dump, buckets);
                free(dump);
            }
            store_crash(&s);
            s.failures = 0;
            store_open(&s);
            bool scrubbed = scrub_finds(&s);
            if (found > 0 && !scrubbed)
                fail_msg("round %d, byte %zu: the scrub did not find it", round, at);
            at_read += found > 0;
            by_scrub += found == 0 && scrubbed;
            unnoticed += found == 0 && !scrubbed;
            store_crash(&s);
        }
        char path[128];
        path_of(&s, "store.db-wal", path);
        unlink(path);
        path_of(&s, "store.db-shm", path);
        unlink(path);
    }
    print_message("noticed at opening %u, at reading %u, by the scrub only %u, harmless %u\n",
                  at_open, at_read, by_scrub, unnoticed);
    assert_true(at_open > 10 && at_read > 0 && by_scrub > 0);
    for (size_t i = 0; i < ARRAY_LEN(expected); i++)
        free(expected[i]);
    free(buckets);
    free(good);
    store_remove(&s);
}

static void run_sql(struct store *s, const char *sql)
{
    char path[128];
    sqlite3 *db;
    path_of(s, "store.db", path);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    char *message = NULL;
    if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
    sqlite3_close(db);
}

/* Damage that leaves a database that SQLite likes, each in a store of its own. */
static void names_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *text;
    } cases[] = {
        {"DELETE FROM rev WHERE id = 2 << 23", "2 rows were found where 3 were written"},
        {"DELETE FROM bucket", "2 rows were found where 3 were written"},
        {"UPDATE rev SET lease = 9 WHERE id = 2 << 23", "the row of revision 2.0 (key \"a\")"},
        {"UPDATE rev SET key = 'A' WHERE id = 2 << 23", "the row of revision 2.0 (key \"A\")"},
        {"UPDATE rev SET id = 7 << 23 WHERE id = 2 << 23", "revision 7.0"},
        {"UPDATE bucket SET value = 'x'", "the row \"member\" of bucket 1"},
        {"UPDATE state SET applied = 1", "the state row is damaged"},
        {"DELETE FROM state", "the state row is missing"},
        {"PRAGMA application_id = 1", "this is not a store of quorumd"},
        {"DROP TABLE rev", "rev"},
        {"PRAGMA user_version = 2", "format 2 is not known"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct store s;
        struct error err = {0};
        store_make(&s);
        store_open(&s);
        put(&s, "a", "1");
        put(&s, "b", "2");
        begin(&s);
        mvcc_bucket_put(s.m, MVCC_BUCKET_MEMBER, bytes_str("member"), bytes_str("v"));
        end(&s);
        store_close(&s);
        run_sql(&s, cases[i].sql);
        assert_true(store_try_open(&s, &err) != ERR_OK);
        if (!strstr(err.message, cases[i].text))
            fail_msg("%s gave: %s", cases[i].sql, err.message);
        store_remove(&s);
    }
}

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    *(enum errc *)ctx = code;
    assert_true(code != ERR_OK || !last);
    (void)chunk;
}

/* A hash, a watch's history, a snapshot that is being sent. */
static void meet_damage(struct store *s, int by)
{
    struct mvcc_range all = range_of("", "");
    struct mvcc_result r;
    int64_t next;
    enum errc code = ERR_OK;
    if (by == 0) {
        code = hash_of(s, 0).code;
    } else if (by == 1) {
        code = mvcc_history(s->m, &all, 1, 100, &r, &next, NULL);
    } else {
        uint64_t index, term;
        struct mvcc_snapshot *snap = mvcc_snapshot_begin(s->m, &index, &term);
        for (int i = 0; i < 3 && code == ERR_OK; i++) {
            mvcc_snapshot_next(snap, on_chunk, &code);
            worker_drain(&s->worker);
        }
        mvcc_snapshot_end(snap);
    }
    assert_int_equal(code, ERR_CORRUPT);
}

/* A value is looked at when it is read; where an entry's answer needs it, the store stops. */
static void damaged_values(void **state)
{
    (void)state;
    struct store s;
    struct mvcc_result r;
    struct error err = {0};
    store_make(&s);
    store_open(&s);
    put(&s, "a", "1");
    put(&s, "b", "2");
    store_close(&s);
    run_sql(&s, "UPDATE rev SET value = 'x' WHERE id = 2 << 23");
    store_open(&s);
    assert_look(&s, "b", NULL, 0, "b=2 c3 m3 v1");
    struct mvcc_query q = {.range = range_of("a", NULL)};
    assert_int_equal(mvcc_range(s.m, &q, &r, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.message, "the value of revision 2.0 (key \"a\") is damaged"));
    expect_advice(&err, "store.db");
    q.keys_only = true; /* needs no value */
    assert_int_equal(mvcc_range(s.m, &q, &r, &err), ERR_OK);
    mvcc_result_free(&r);
    assert_int_equal(s.failures, 1); /* a read that meets damage ends the store, once */
    assert_int_equal(s.failure.code, ERR_CORRUPT);
    assert_int_equal(mvcc_range(s.m, &(struct mvcc_query){.range = range_of("a", NULL)}, &r, NULL),
                     ERR_CORRUPT);
    assert_int_equal(s.failures, 1);
    store_crash(&s);
    for (int by = 0; by < 3; by++) {
        s.failures = 0;
        store_open(&s);
        meet_damage(&s, by);
        assert_int_equal(s.failures, 1);
        assert_int_equal(s.failure.code, ERR_CORRUPT);
        assert_non_null(strstr(s.failure.message, "the value of revision 2.0 (key \"a\")"));
        store_crash(&s);
    }
    s.failures = 0;
    store_open(&s);
    /* Replacing it needs no look at it, unless it is asked for. */
    begin(&s);
    struct mvcc_kv *prev;
    assert_int_equal(mvcc_put(s.m, bytes_str("a"), bytes_str("n"), 0, NULL), ERR_OK);
    end(&s);
    assert_look(&s, "a", NULL, 0, "a=n c2 m4 v2");
    store_crash(&s);
    store_open(&s);
    begin(&s);
    assert_int_equal(mvcc_put(s.m, bytes_str("a"), bytes_str("n"), 0, &prev), ERR_CORRUPT);
    end(&s);
    assert_int_equal(s.failures, 1);
    assert_int_equal(s.failure.code, ERR_CORRUPT);
    store_crash(&s);
    store_remove(&s);
}

static void files_that_are_not_there(void **state)
{
    (void)state;
    struct store s;
    struct error err = {0};
    char path[128];
    store_make(&s);
    store_open(&s);
    put(&s, "a", "1");
    store_close(&s);
    path_of(&s, "store.db", path);
    unlink(path);
    assert_int_equal(store_try_open(&s, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.message, "store.db is missing"));
    spit(&s, "store.db", (const uint8_t *)"", 0);
    assert_int_equal(store_try_open(&s, &err), ERR_CORRUPT);
    spit(&s, "store.db", (const uint8_t *)"no database at all, but text", 28);
    assert_int_equal(store_try_open(&s, &err), ERR_CORRUPT);
    spit(&s, "store.current", (const uint8_t *)"store.db 00000000\n", 18);
    assert_int_equal(store_try_open(&s, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.message, "store.current is damaged"));
    path_of(&s, "store.current", path);
    unlink(path);
    path_of(&s, "store.db", path);
    unlink(path);
    spit(&s, "store-4.db", (const uint8_t *)"", 0);
    assert_int_equal(store_try_open(&s, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.message, "store.current is missing"));
    store_remove(&s);
}

/* A write that fails is reported once, and nothing is written after it. */
static void failed_writes(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    put(&s, "a", "1");
    worker_drain(&s.worker);
    run_sql(&s, "CREATE TRIGGER t BEFORE INSERT ON rev BEGIN SELECT raise(ABORT, 'no'); END");
    put(&s, "b", "2");
    put(&s, "c", "3");
    worker_drain(&s.worker);
    put(&s, "d", "4");
    worker_drain(&s.worker);
    assert_int_equal(s.failures, 1);
    assert_non_null(strstr(s.failure.message, "store.db"));
    assert_look(&s, "c", NULL, 0, "c=3 c4 m4 v1"); /* from memory, until the process ends */
    store_close(&s);
    run_sql(&s, "DROP TRIGGER t");
    store_open(&s);
    assert_int_equal(mvcc_applied_index(s.m), 1);
    store_close(&s);
    store_remove(&s);
}

/* Three changes in revision 3, two in the last one. */
static void make_long_revisions(struct store *s)
{
    store_make(s);
    store_open(s);
    put(s, "a", "1");
    begin(s);
    mvcc_put(s->m, bytes_str("b"), bytes_str("2"), 0, NULL);
    mvcc_put(s->m, bytes_str("c"), bytes_str("3"), 0, NULL);
    mvcc_put(s->m, bytes_str("d"), bytes_str("4"), 0, NULL);
    end(s);
    put(s, "e", "5");
    begin(s);
    mvcc_put(s->m, bytes_str("f"), bytes_str("6"), 0, NULL);
    mvcc_put(s->m, bytes_str("g"), bytes_str("7"), 0, NULL);
    end(s);
    worker_drain(&s->worker);
}

static enum errc read_history(struct store *s, int64_t from)
{
    struct mvcc_range all = range_of("", "");
    struct mvcc_result r = {0};
    int64_t next;
    enum errc code = mvcc_history(s->m, &all, from, 100, &r, &next, NULL);
    mvcc_result_free(&r);
    return code;
}

/* A lost write took rows away from a store that is open. What is left of a revision says that there was more. */
static void the_end_of_a_revision_is_missed(void **state)
{
    (void)state;
    static const struct {
        const char *sql, *text;
        int64_t from, sound_from;
    } cases[] = {
        {"DELETE FROM rev WHERE id = (3 << 23) + 2", "a row before revision 4.0 is missing", 2, 4},
        {"DELETE FROM rev WHERE id IN ((3 << 23) + 1, (3 << 23) + 2)",
         "a row before revision 4.0 is missing", 3, 4},
        {"DELETE FROM rev WHERE id = (5 << 23) + 1", "the rows behind revision 5.0 are missing", 1,
         6},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct store s;
        make_long_revisions(&s);
        assert_int_equal(read_history(&s, 1), ERR_OK);
        run_sql(&s, cases[i].sql);
        assert_int_equal(read_history(&s, cases[i].sound_from), ERR_OK);
        assert_int_equal(s.failures, 0);
        assert_int_equal(read_history(&s, cases[i].from), ERR_CORRUPT);
        assert_int_equal(s.failures, 1);
        if (!strstr(s.failure.message, cases[i].text))
            fail_msg("%s gave: %s", cases[i].sql, s.failure.message);
        store_crash(&s);
        store_remove(&s);
    }
}

/* What a compaction leaves of a revision is no damage. */
static void what_was_compacted_is_not_missed(void **state)
{
    (void)state;
    struct store s;
    make_long_revisions(&s);
    put(&s, "c", "8");
    put(&s, "d", "9");
    assert_int_equal(compact(&s, 6), ERR_OK); /* takes c of revision 3, and leaves b */
    worker_drain(&s.worker);
    assert_int_equal(read_history(&s, 6), ERR_OK);
    assert_false(scrub_finds(&s));
    assert_look(&s, "b", NULL, 0, "b=2 c3 m3 v1");
    store_close(&s);
    store_remove(&s);
}

/* Rows that were written before a row knew of the next one. */
static void an_older_store_is_sound(void **state)
{
    (void)state;
    struct store s;
    char path[128];
    struct db *db;
    struct error err = {0};
    make_long_revisions(&s);
    uint32_t hash = hash_of(&s, 0).hash;
    store_close(&s);
    path_of(&s, "store.db", path);
    assert_int_equal(db_open(path, NULL, DB_WRITE, &db, &err), ERR_OK);
    assert_int_equal(txn_begin(db, &err), ERR_OK);
    for (int32_t sub = 0; sub < 3; sub++) {
        struct mvcc_kv *kv;
        struct row row;
        assert_int_equal(row_read_kv(db, rev_id(3, sub), true, &kv, &err), ERR_OK);
        assert_int_equal(row_delete(db, rev_id(3, sub), &err), ERR_OK);
        row_of_kv(kv, false, &row);
        assert_int_equal(row_insert(db, &row, &err), ERR_OK);
        mvcc_kv_unref(kv);
    }
    assert_int_equal(txn_end(db, ERR_OK, &err), ERR_OK);
    db_close(db, false);
    store_open(&s);
    assert_int_equal(read_history(&s, 1), ERR_OK);
    assert_int_equal(hash_of(&s, 0).hash, hash);
    assert_false(scrub_finds(&s));
    store_close(&s);
    store_remove(&s);
}

/* A rescue that lost rows leaves a store that knows of no history with holes in it. */
static void what_was_saved_is_sound(void **state)
{
    (void)state;
    struct store s, saved;
    struct error err = {0};
    struct salvage *salvage;
    struct db_state was;
    struct buf report = {0};
    bool whole = true;
    make_long_revisions(&s);
    store_close(&s);
    run_sql(
        &s,
        "DELETE FROM rev WHERE id = (3 << 23) + 2; UPDATE rev SET value = 'x' WHERE id = 4 << 23");
    store_make(&saved);
    assert_int_equal(
        salvage_begin(disk_posix(), s.dir, saved.dir, &report, &salvage, &was, &whole, &err),
        ERR_OK);
    assert_false(whole);
    assert_int_equal(salvage_finish(salvage, was.applied, was.term, bytes_str("12345678"),
                                    bytes_str("member"), &err),
                     ERR_OK);
    store_open(&saved);
    assert_int_equal(mvcc_revision(saved.m), 5);
    assert_int_equal(read_history(&saved, 1), ERR_COMPACTED);
    assert_int_equal(read_history(&saved, 5), ERR_OK);
    assert_false(scrub_finds(&saved));
    assert_look(&saved, "b", NULL, 0, "b=2 c3 m3 v1");
    buf_append(&report, "", 1);
    assert_non_null(strstr((char *)report.p, "compacted at revision 5"));
    buf_free(&report);
    store_close(&saved);
    store_remove(&saved);
    store_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_never_silently_wrong),
        cmocka_unit_test(names_what_is_wrong),
        cmocka_unit_test(damaged_values),
        cmocka_unit_test(files_that_are_not_there),
        cmocka_unit_test(failed_writes),
        cmocka_unit_test(the_end_of_a_revision_is_missed),
        cmocka_unit_test(what_was_compacted_is_not_missed),
        cmocka_unit_test(an_older_store_is_sound),
        cmocka_unit_test(what_was_saved_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
