/* Snapshots: taken beside a writer, carried in pieces, damaged on the way, and installed with a crash at
 * every step of it. */
#include "tests/unit/store_history.h"

struct chunks {
    struct buf all;
    unsigned count;
    size_t longest;
    bool last;
    enum errc code;
    bool waiting;
};

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct chunks *c = ctx;
    c->waiting = false;
    c->code = code;
    c->last = last;
    c->count++;
    if (chunk.n)
        buf_append(&c->all, chunk.p, chunk.n);
    c->longest = chunk.n > c->longest ? chunk.n : c->longest;
}

/* Reads a snapshot to its end; `beside` entries are applied between its chunks. */
static void read_all(struct store *s, struct mvcc_snapshot *snap, struct chunks *c, uint64_t seed,
                     int beside)
{
    *c = (struct chunks){0};
    while (!c->last) {
        c->waiting = true;
        mvcc_snapshot_next(snap, on_chunk, c);
        for (int i = 0; i < beside; i++)
            history_apply(s, seed);
        while (c->waiting)
            assert_true(worker_step(&s->worker));
        assert_int_equal(c->code, ERR_OK);
    }
    mvcc_snapshot_end(snap);
}

struct answer {
    unsigned count;
    enum errc code;
    uint64_t index, term;
};

static void on_code(void *ctx, enum errc code)
{
    struct answer *a = ctx;
    a->count++;
    a->code = code;
}

static void on_finished(void *ctx, enum errc code, uint64_t index, uint64_t term)
{
    struct answer *a = ctx;
    *a = (struct answer){a->count + 1, code, index, term};
}

/* Feeds the bytes in pieces of `piece` and finishes; the first failure, or ERR_OK. */
static enum errc feed(struct store *s, struct mvcc_restore *r, struct bytes all, size_t piece,
                      uint64_t *ret_index)
{
    struct answer a = {0};
    for (size_t at = 0; at < all.n && a.code == ERR_OK; at += piece) {
        size_t n = all.n - at < piece ? all.n - at : piece;
        mvcc_restore_chunk(r, bytes_of(all.p + at, n), on_code, &a);
        worker_drain(&s->worker);
    }
    if (a.code != ERR_OK)
        return a.code;
    a.count = 0;
    mvcc_restore_finish(r, NULL, on_finished, &a);
    worker_drain(&s->worker);
    assert_int_equal(a.count, 1);
    *ret_index = a.index;
    return a.code;
}

static void make(struct store *s, uint64_t seed, int entries)
{
    store_make(s);
    s->config.cache_bytes_max = 1000;
    store_open(s);
    for (int i = 0; i < entries; i++)
        history_apply(s, seed);
}

static void drop(struct store *s)
{
    store_close(s);
    store_remove(s);
}

static void install(struct store *s, struct bytes all, size_t piece)
{
    uint64_t index = 0;
    struct answer a = {0};
    struct mvcc_restore *r = mvcc_restore_begin(s->m, NULL);
    assert_int_equal(feed(s, r, all, piece, &index), ERR_OK);
    mvcc_restore_install(r, on_code, &a);
    worker_drain(&s->worker);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(mvcc_applied_index(s->m), index);
    assert_int_equal(mvcc_durable_index(s->m), index);
}

/* The receiver is as the sender was at the begin, and both go on from there. */
static void is_as_of_its_begin(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct store from, to;
        struct chunks c;
        uint64_t index, term;
        make(&from, seed, 700);
        make(&to, seed + 50, 200);
        /* Some of it isn't written yet, and an entry without a change comes last. */
        begin(&from);
        end(&from);
        struct mvcc_snapshot *snap = mvcc_snapshot_begin(from.m, &index, &term);
        assert_int_equal(index, mvcc_applied_index(from.m));
        read_all(&from, snap, &c, seed, 40);
        assert_true(c.count > 1 || c.all.n < MVCC_SNAPSHOT_CHUNK);
        assert_true(c.longest <= MVCC_SNAPSHOT_CHUNK);
        static const size_t pieces[] = {1000000, 7777, 100};
        install(&to, buf_bytes(&c.all), pieces[seed - 1]);
        assert_int_equal(mvcc_applied_index(to.m), index);
        assert_int_equal(mvcc_applied_term(to.m), term);
        while (mvcc_applied_index(to.m) < mvcc_applied_index(from.m))
            history_apply(&to, seed);
        /* The idle entry of above stands for that of the history: no change but the index. */
        struct hash_answer a = hash_of(&from, 0), b = hash_of(&to, 0);
        assert_int_equal(a.hash, b.hash);
        char *x = history_dump(&from), *y = history_dump(&to);
        assert_string_equal(x, y);
        free(x);
        store_close(&to);
        store_open(&to);
        x = history_dump(&to);
        assert_string_equal(x, y);
        free(x);
        free(y);
        buf_free(&c.all);
        drop(&from);
        drop(&to);
    }
}

/* Compaction waits for the end of a snapshot; one row longer than a chunk comes in a chunk of its own. */
static void fences_compaction(void **state)
{
    (void)state;
    struct store from, to;
    struct chunks c;
    uint64_t index, term;
    store_make(&from);
    store_open(&from);
    make(&to, 1, 0);
    char *big = xmalloc(400001);
    memset(big, 'x', 400000);
    big[400000] = 0;
    put(&from, "big", big);
    for (int i = 0; i < 3000; i++)
        put(&from, "a", i % 500 ? "v" : "w");
    put(&from, "big", big);
    worker_drain(&from.worker);
    char *before = store_dump(&from);
    struct mvcc_snapshot *snap = mvcc_snapshot_begin(from.m, &index, &term);
    assert_int_equal(compact(&from, mvcc_revision(from.m)), ERR_OK);
    worker_drain(&from.worker);
    read_all(&from, snap, &c, 1, 0);
    assert_true(c.longest > 400000);
    worker_drain(&from.worker); /* now it comes */
    install(&to, buf_bytes(&c.all), 50000);
    char *after = store_dump(&to);
    assert_string_equal(before, after);
    free(before);
    free(after);
    free(big);
    buf_free(&c.all);
    drop(&from);
    drop(&to);
}

static void empty_store(void **state)
{
    (void)state;
    struct store from, to;
    struct chunks c;
    uint64_t index, term;
    make(&from, 1, 0);
    make(&to, 1, 300);
    struct mvcc_snapshot *snap = mvcc_snapshot_begin(from.m, &index, &term);
    read_all(&from, snap, &c, 1, 0);
    install(&to, buf_bytes(&c.all), 1 << 20);
    assert_int_equal(mvcc_revision(to.m), 1);
    assert_look(&to, "", "", 0, "");
    put(&to, "a", "1");
    buf_free(&c.all);
    drop(&from);
    drop(&to);
}

/* Whatever is damaged, cut off or left out, the store stays as it was. */
static void refuses_damage(void **state)
{
    (void)state;
    struct store from, to;
    struct chunks c;
    uint64_t index, term, rng = history_seed(9) | 1;
    make(&from, 3, 150);
    make(&to, 4, 100);
    char *before = history_dump(&to);
    struct mvcc_snapshot *snap = mvcc_snapshot_begin(from.m, &index, &term);
    read_all(&from, snap, &c, 3, 0);
    for (int round = 0; round < 60; round++) {
        struct buf bad = {0};
        size_t at = history_random(&rng) % c.all.n;
        buf_append(&bad, c.all.p, c.all.n);
        if (round % 3 == 0)
            bad.n = at;
        else if (round % 3 == 1)
            bad.p[at] ^= (uint8_t)(1u << history_random(&rng) % 8);
        else
            buf_append(&bad, "x", 1);
        struct mvcc_restore *r = mvcc_restore_begin(to.m, NULL);
        assert_int_equal(feed(&to, r, buf_bytes(&bad), 5000, &index), ERR_CORRUPT);
        mvcc_restore_abort(r);
        worker_drain(&to.worker);
        buf_free(&bad);
    }
    char *after = history_dump(&to);
    assert_string_equal(before, after);
    assert_int_equal(to.failures, 0);
    free(before);
    free(after);
    buf_free(&c.all);
    drop(&from);
    drop(&to);
}

/* ---- Crashes during the installation ------------------------------------------------------------- */

/* The real disk, until the process "dies": from operation number `alive` on nothing happens any more. */
struct mortal_disk {
    struct disk disk;
    int alive;
};

static bool dies(struct disk *d)
{
    return ((struct mortal_disk *)d)->alive-- <= 0;
}

static enum errc m_open(struct disk *d, const char *path, int flags, struct disk_file **ret,
                        struct error *err)
{
    if (dies(d))
        return error_set(err, ERR_IO, "dead");
    return disk_posix()->open(disk_posix(), path, flags, ret, err);
}

static enum errc m_write(struct disk *d, struct disk_file *f, uint64_t offset, const void *p,
                         size_t n, struct error *err)
{
    if (dies(d)) { /* torn */
        disk_posix()->write(disk_posix(), f, offset, p, n / 2, err);
        return error_set(err, ERR_IO, "dead");
    }
    return disk_posix()->write(disk_posix(), f, offset, p, n, err);
}

static enum errc m_sync(struct disk *d, struct disk_file *f, struct error *err)
{
    return dies(d) ? error_set(err, ERR_IO, "dead") : disk_posix()->sync(disk_posix(), f, err);
}

static enum errc m_truncate(struct disk *d, struct disk_file *f, uint64_t size, struct error *err)
{
    return dies(d) ? error_set(err, ERR_IO, "dead")
                   : disk_posix()->truncate(disk_posix(), f, size, err);
}

static enum errc m_rename(struct disk *d, const char *from, const char *to, struct error *err)
{
    return dies(d) ? error_set(err, ERR_IO, "dead")
                   : disk_posix()->rename(disk_posix(), from, to, err);
}

static enum errc m_unlink(struct disk *d, const char *path, struct error *err)
{
    return dies(d) ? error_set(err, ERR_IO, "dead") : disk_posix()->unlink(disk_posix(), path, err);
}

static enum errc m_sync_dir(struct disk *d, const char *path, struct error *err)
{
    return dies(d) ? error_set(err, ERR_IO, "dead")
                   : disk_posix()->sync_dir(disk_posix(), path, err);
}

static struct mortal_disk mortal(void)
{
    struct mortal_disk m = {.disk = *disk_posix(), .alive = 1 << 30};
    m.disk.open = m_open;
    m.disk.write = m_write;
    m.disk.sync = m_sync;
    m.disk.truncate = m_truncate;
    m.disk.rename = m_rename;
    m.disk.unlink = m_unlink;
    m.disk.sync_dir = m_sync_dir;
    return m;
}

static void count_name(void *ctx, const char *name)
{
    *(unsigned *)ctx += strncmp(name, "store", 5) == 0 && strstr(name, ".db") != NULL &&
                        strstr(name, ".db-") == NULL;
}

/* One installation that dies after `alive` operations of the disk and `steps` of the worker, if it gets
 * there. True: it came to its end. */
static bool install_dying(struct bytes all, const char *old, const char *new, int alive, int steps)
{
    struct store s;
    struct mortal_disk disk = mortal();
    uint64_t index = 0;
    store_make(&s);
    store_open(&s);
    s.config.disk = &disk.disk;
    for (int i = 0; i < 30; i++)
        history_apply(&s, 21);
    worker_drain(&s.worker);
    store_close(&s);
    struct error err = {0};
    store_open(&s);
    mvcc_abandon(s.m);
    s.config.disk = &disk.disk;
    s.m = NULL;
    assert_int_equal(mvcc_open(&s.config, &s.m, &err), ERR_OK);
    struct mvcc_restore *r = mvcc_restore_begin(s.m, NULL);
    assert_int_equal(feed(&s, r, all, 1 << 20, &index), ERR_OK);
    struct answer a = {0};
    mvcc_restore_install(r, on_code, &a);
    disk.alive = alive;
    bool ended = false;
    for (int i = 0; i < steps && !ended; i++)
        ended = !worker_step(&s.worker);
    bool answered = a.count > 0;
    store_crash(&s);
    s.config.disk = disk_posix();
    store_open(&s);
    char *dump = history_dump(&s);
    if (answered && a.code == ERR_OK)
        assert_string_equal(dump, new);
    else
        assert_true(strcmp(dump, old) == 0 || strcmp(dump, new) == 0);
    unsigned databases = 0;
    disk_posix()->list(disk_posix(), s.dir, count_name, &databases, &err);
    assert_in_range(databases, 1, 2);
    mvcc_drop_partial(s.m); /* nobody goes on with it */
    worker_drain(&s.worker);
    databases = 0;
    disk_posix()->list(disk_posix(), s.dir, count_name, &databases, &err);
    assert_int_equal(databases, 1);
    free(dump);
    drop(&s);
    return ended && disk.alive > 0;
}

static void is_installed_or_not(void **state)
{
    (void)state;
    struct store from;
    struct chunks c;
    uint64_t index, term;
    make(&from, 20, 60);
    char *old = history_expected(21, 30), *new = history_dump(&from);
    struct mvcc_snapshot *snap = mvcc_snapshot_begin(from.m, &index, &term);
    read_all(&from, snap, &c, 20, 0);
    bool whole = false;
    for (int alive = 0; !whole; alive++) {
        assert_true(alive < 40);
        whole = install_dying(buf_bytes(&c.all), old, new, alive, 100);
    }
    for (int steps = 0; steps < 4; steps++)
        install_dying(buf_bytes(&c.all), old, new, 1000, steps);
    free(old);
    free(new);
    buf_free(&c.all);
    drop(&from);
}

/* ---- Endings -------------------------------------------------------------------------------------- */

static void ends_in_any_order(void **state)
{
    (void)state;
    struct store s;
    struct chunks c = {0};
    struct answer a = {0};
    uint64_t index, term;
    make(&s, 1, 100);
    /* Ended with its jobs under way: nothing is delivered. */
    struct mvcc_snapshot *snap = mvcc_snapshot_begin(s.m, &index, &term);
    mvcc_snapshot_next(snap, on_chunk, &c);
    mvcc_snapshot_end(snap);
    worker_drain(&s.worker);
    assert_int_equal(c.count, 0);
    /* A restore aborted before, during and after a chunk. */
    mvcc_restore_abort(mvcc_restore_begin(s.m, NULL));
    struct mvcc_restore *r = mvcc_restore_begin(s.m, NULL);
    mvcc_restore_chunk(r, bytes_str("QFSN"), on_code, &a);
    mvcc_restore_abort(r);
    worker_drain(&s.worker);
    assert_int_equal(a.count, 0);
    r = mvcc_restore_begin(s.m, NULL);
    mvcc_restore_chunk(r, bytes_str("QFSN"), on_code, &a);
    worker_drain(&s.worker);
    assert_int_equal(a.count, 1);
    mvcc_restore_abort(r);
    worker_drain(&s.worker);
    /* Closed under an open snapshot and an open restore. */
    snap = mvcc_snapshot_begin(s.m, &index, &term);
    mvcc_snapshot_next(snap, on_chunk, &c);
    r = mvcc_restore_begin(s.m, NULL);
    worker_step(&s.worker);
    s.worker.immediate = true;
    mvcc_close(s.m);
    assert_int_equal(c.count, 1);
    assert_int_equal(c.code, ERR_CLOSED);
    mvcc_snapshot_next(snap, on_chunk, &c);
    assert_int_equal(c.count, 2);
    mvcc_snapshot_end(snap);
    mvcc_restore_abort(r);
    store_open(&s);
    drop(&s);
}

/* What is open when another content comes is told so. */
static void installing_cancels_what_is_open(void **state)
{
    (void)state;
    struct store s;
    struct chunks c, mine = {0};
    struct answer a = {0};
    uint64_t index, term;
    make(&s, 1, 300);
    struct mvcc_snapshot *snap = mvcc_snapshot_begin(s.m, &index, &term);
    read_all(&s, snap, &c, 1, 0);
    struct mvcc_restore *r = mvcc_restore_begin(s.m, NULL);
    assert_int_equal(feed(&s, r, buf_bytes(&c.all), 1 << 20, &index), ERR_OK);
    snap = mvcc_snapshot_begin(s.m, &index, &term);
    mvcc_snapshot_next(snap, on_chunk, &mine);
    struct hash_answer hash = {0};
    mvcc_hash_kv(s.m, 0, on_hash, &hash);
    history_apply(&s, 2); /* never written: it belongs to what goes */
    mvcc_restore_install(r, on_code, &a);
    assert_int_equal(hash.count, 1);
    assert_int_equal(hash.code, ERR_CANCELLED);
    assert_int_equal(mine.count, 1);
    assert_int_equal(mine.code, ERR_CANCELLED);
    worker_drain(&s.worker);
    mvcc_snapshot_end(snap);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.code, ERR_OK);
    char *got = history_dump(&s), *expected = history_expected(1, 300);
    assert_string_equal(got, expected);
    free(got);
    free(expected);
    buf_free(&c.all);
    drop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_as_of_its_begin),
        cmocka_unit_test(fences_compaction),
        cmocka_unit_test(empty_store),
        cmocka_unit_test(refuses_damage),
        cmocka_unit_test(is_installed_or_not),
        cmocka_unit_test(ends_in_any_order),
        cmocka_unit_test(installing_cancels_what_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
