/* A store in a folder of its own, driven step by step: its jobs run when the test says so. */
#ifndef TESTS_UNIT_STORE_FIXTURE_H
#define TESTS_UNIT_STORE_FIXTURE_H

#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/store/mvcc.h"
#include "lib/base/memory.h"

/* A worker without a thread. Jobs wait for drain() or step(), or run at once if `immediate`. */
struct test_worker {
    struct worker worker;
    struct job *first, **end;
    bool immediate, draining;
    size_t ran;
};

__attribute__((unused)) static bool worker_step(struct test_worker *w)
{
    struct job *j = w->first;
    if (!j)
        return false;
    w->first = j->next;
    if (!w->first)
        w->end = &w->first;
    w->ran++;
    j->run(j);
    j->done(j);
    return true;
}

__attribute__((unused)) static void worker_drain(struct test_worker *w)
{
    if (w->draining)
        return;
    w->draining = true;
    while (worker_step(w))
        continue;
    w->draining = false;
}

__attribute__((unused)) static void worker_submit(struct worker *worker, struct job *job)
{
    struct test_worker *w = (struct test_worker *)worker;
    job->next = NULL;
    *w->end = job;
    w->end = &job->next;
    if (w->immediate)
        worker_drain(w);
}

/* Discards what waits, as a crash does. */
__attribute__((unused)) static void worker_reset(struct test_worker *w)
{
    *w = (struct test_worker){.worker.submit = worker_submit};
    w->end = &w->first;
}

struct store {
    char dir[64];
    struct test_worker worker;
    struct mvcc_config config;
    struct mvcc *m;
    uint64_t index;
    uint64_t durable; /* the last one reported */
    unsigned failures;
    struct error failure;
};

__attribute__((unused)) static void on_durable(void *ctx, uint64_t index)
{
    struct store *s = ctx;
    assert_true(index > s->durable);
    s->durable = index;
}

__attribute__((unused)) static void on_failed(void *ctx, const struct error *err)
{
    struct store *s = ctx;
    s->failures++;
    s->failure = *err;
}

__attribute__((unused)) static enum errc store_try_open(struct store *s, struct error *err)
{
    worker_reset(&s->worker);
    s->config.dir = s->dir;
    if (!s->config.disk)
        s->config.disk = disk_posix();
    s->config.worker = &s->worker.worker;
    s->config.durable = on_durable;
    s->config.failed = on_failed;
    s->config.ctx = s;
    s->m = NULL;
    s->durable = 0;
    enum errc code = mvcc_open(&s->config, &s->m, err);
    if (code == ERR_OK)
        s->index = mvcc_applied_index(s->m);
    return code;
}

__attribute__((unused)) static void store_open(struct store *s)
{
    struct error err = {0};
    if (store_try_open(s, &err) != ERR_OK)
        fail_msg("%s", err.message);
}

__attribute__((unused)) static void store_close(struct store *s)
{
    s->worker.immediate = true;
    worker_drain(&s->worker);
    mvcc_close(s->m);
    s->m = NULL;
}

__attribute__((unused)) static void store_crash(struct store *s)
{
    worker_reset(&s->worker);
    mvcc_abandon(s->m);
    s->m = NULL;
}

/* A new store in a new folder below the build's temporary one. */
__attribute__((unused)) static void store_make(struct store *s)
{
    *s = (struct store){0};
    const char *base = getenv("TMPDIR");
    snprintf(s->dir, sizeof(s->dir), "%.40s/store.XXXXXX", base ? base : "/tmp");
    assert_non_null(mkdtemp(s->dir));
}

__attribute__((unused)) static void remove_name(void *ctx, const char *name)
{
    struct store *s = ctx;
    char path[400];
    snprintf(path, sizeof(path), "%s/%s", s->dir, name);
    unlink(path);
}

__attribute__((unused)) static void store_remove(struct store *s)
{
    struct error err;
    disk_posix()->list(disk_posix(), s->dir, remove_name, s, &err);
    rmdir(s->dir);
}

/* ---- Entries --------------------------------------------------------------------------------------- */

__attribute__((unused)) static void begin(struct store *s)
{
    s->index = mvcc_applied_index(s->m) + 1;
    mvcc_begin(s->m, s->index, 1, 1000 + s->index);
}

__attribute__((unused)) static void end(struct store *s)
{
    mvcc_end(s->m, NULL, NULL);
}

__attribute__((unused)) static void put_lease(struct store *s, const char *key, const char *value,
                                              int64_t lease)
{
    begin(s);
    assert_int_equal(mvcc_put(s->m, bytes_str(key), bytes_str(value), lease, NULL), ERR_OK);
    end(s);
}

__attribute__((unused)) static void put(struct store *s, const char *key, const char *value)
{
    put_lease(s, key, value, 0);
}

__attribute__((unused)) static struct mvcc_range range_of(const char *key, const char *end)
{
    struct mvcc_range r = {.key = bytes_str(key)};
    if (end)
        r.end = end[0] ? bytes_str(end) : bytes_of("", 1);
    return r;
}

/* end: NULL the key alone, "" all from it on. */
__attribute__((unused)) static int64_t del(struct store *s, const char *key, const char *end_)
{
    int64_t deleted = -1;
    struct mvcc_range r = range_of(key, end_);
    begin(s);
    assert_int_equal(mvcc_delete(s->m, &r, &deleted, NULL), ERR_OK);
    end(s);
    return deleted;
}

__attribute__((unused)) static enum errc compact(struct store *s, int64_t revision)
{
    begin(s);
    enum errc code = mvcc_compact(s->m, revision);
    end(s);
    return code;
}

/* ---- Looking --------------------------------------------------------------------------------------- */

/* One kv as text: "key=value c2 m3 v1", with " l5" for a lease; "key! m4" for a tombstone. */
__attribute__((unused)) static void kv_text(struct buf *b, const struct mvcc_kv *kv)
{
    if (kv->tombstone) {
        buf_printf(b, "%.*s! m%lld", (int)kv->key.n, (const char *)kv->key.p,
                   (long long)kv->mod_revision);
        return;
    }
    buf_printf(b, "%.*s=%.*s c%lld m%lld v%lld", (int)kv->key.n, (const char *)kv->key.p,
               (int)kv->value.n, (const char *)kv->value.p, (long long)kv->create_revision,
               (long long)kv->mod_revision, (long long)kv->version);
    if (kv->lease)
        buf_printf(b, " l%lld", (long long)kv->lease);
}

__attribute__((unused)) static char *result_text(const struct mvcc_result *r)
{
    struct buf b = {0};
    for (size_t i = 0; i < r->count; i++) {
        if (i)
            buf_printf(&b, ", ");
        kv_text(&b, r->kvs[i]);
    }
    buf_append(&b, "", 1);
    return (char *)b.p;
}

/* The range as of a revision as text, or the name of the error. The caller frees it. */
__attribute__((unused)) static char *look(struct store *s, const char *key, const char *end_,
                                          int64_t revision)
{
    struct mvcc_query q = {.range = range_of(key, end_), .revision = revision};
    struct mvcc_result r;
    struct error err = {0};
    enum errc code = mvcc_range(s->m, &q, &r, &err);
    if (code == ERR_COMPACTED)
        return xstrdup("compacted");
    if (code == ERR_FUTURE_REV)
        return xstrdup("future");
    if (code == ERR_CORRUPT)
        return xstrdup("corrupt");
    if (code != ERR_OK)
        fail_msg("%s", err.message);
    assert_int_equal(r.total, r.count);
    char *text = result_text(&r);
    mvcc_result_free(&r);
    return text;
}

#define assert_look(s_, key_, end_, revision_, expected_)                                          \
    do {                                                                                           \
        char *text_ = look(s_, key_, end_, revision_);                                             \
        assert_string_equal(text_, expected_);                                                     \
        free(text_);                                                                               \
    } while (0)

/* Everything that can be asked: all states from the compaction on, and the history. To compare stores. */
__attribute__((unused)) static char *store_dump(struct store *s)
{
    struct buf b = {0};
    int64_t from = mvcc_compact_revision(s->m), to = mvcc_revision(s->m);
    buf_printf(&b, "revision %lld, compacted %lld, applied %llu\n", (long long)to, (long long)from,
               (unsigned long long)mvcc_applied_index(s->m));
    for (int64_t rev = from > 0 ? from : 1; rev <= to; rev++) {
        char *text = look(s, "", "", rev);
        buf_printf(&b, "%lld: %s\n", (long long)rev, text);
        free(text);
    }
    struct mvcc_range all = range_of("", "");
    struct error err = {0};
    for (int64_t next = from > 0 ? from : 1; next <= to;) {
        struct mvcc_result r;
        if (mvcc_history(s->m, &all, next, 7, &r, &next, &err) != ERR_OK)
            fail_msg("%s", err.message);
        char *text = result_text(&r);
        buf_printf(&b, "then %s\n", text);
        free(text);
        mvcc_result_free(&r);
    }
    buf_append(&b, "", 1);
    return (char *)b.p;
}

struct hash_answer {
    unsigned count;
    enum errc code;
    uint32_t hash;
    int64_t compacted, revision;
};

__attribute__((unused)) static void on_hash(void *ctx, enum errc code, uint32_t hash,
                                            int64_t compacted, int64_t revision)
{
    struct hash_answer *a = ctx;
    *a = (struct hash_answer){a->count + 1, code, hash, compacted, revision};
}

__attribute__((unused)) static struct hash_answer hash_of(struct store *s, int64_t revision)
{
    struct hash_answer a = {0};
    mvcc_hash_kv(s->m, revision, on_hash, &a);
    worker_drain(&s->worker);
    assert_int_equal(a.count, 1);
    return a;
}

#endif
