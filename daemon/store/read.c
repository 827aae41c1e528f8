/* Reading states: ranges and single keys, now or as of an older revision. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/store/internal.h"

static bool is_open_end(struct bytes end)
{
    return end.n == 1 && end.p[0] == 0;
}

bool mvcc_range_has(const struct mvcc_range *range, struct bytes key)
{
    if (!range->end.p)
        return bytes_equal(range->key, key);
    return bytes_compare(key, range->key) >= 0 &&
           (is_open_end(range->end) || bytes_compare(key, range->end) < 0);
}

int64_t mvcc_read_revision(const struct mvcc *m)
{
    return m->applied.revision + (m->in_entry && m->changes_n > 0);
}

enum errc read_kv(struct mvcc *m, uint64_t id, bool whole, struct mvcc_kv **ret_kv,
                  struct error *err)
{
    struct mvcc_kv *kv = cache_get(&m->cache, id);
    if (kv) {
        *ret_kv = mvcc_kv_ref(kv);
        return ERR_OK;
    }
    enum errc code = row_read_kv(m->reader, id, whole, ret_kv, err);
    if (code == ERR_OK && whole)
        cache_add(&m->cache, *ret_kv, false);
    return code;
}

struct mvcc_kv *mvcc_get(struct mvcc *m, struct bytes key, bool with_value)
{
    struct key_entry *e = keyindex_find(&m->index, key);
    if (!e || !key_entry_alive(e))
        return NULL;
    if (!with_value)
        return kv_of_entry(e);
    struct mvcc_kv *kv;
    struct error err;
    if (read_kv(m, key_entry_newest(e), true, &kv, &err) == ERR_OK)
        return kv;
    mvcc_fail(m, &err); /* the caller can't be told apart from "no such key" */
    return kv_of_entry(e);
}

/* Revisions of a result that are not in memory: read together, in the order of their rows. */
struct misses {
    struct miss {
        uint64_t id;
        size_t at;
    } * list;
    size_t n, cap;
};

static void miss_add(struct misses *l, uint64_t id, size_t at)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->list = xrealloc(l->list, l->cap * sizeof(*l->list));
    }
    l->list[l->n++] = (struct miss){id, at};
}

static int by_id(const void *a, const void *b)
{
    uint64_t x = ((const struct miss *)a)->id, y = ((const struct miss *)b)->id;
    return x < y ? -1 : x > y;
}

/* One read transaction for all spares a lock and a look at the WAL for each. */
static enum errc fetch(struct mvcc *m, struct misses *l, bool whole, struct mvcc_result *r,
                       struct error *err)
{
    if (l->n == 0)
        return ERR_OK;
    qsort(l->list, l->n, sizeof(*l->list), by_id);
    enum errc code = l->n > 1 ? db_do(m->reader, DB_BEGIN_READ, "begin", err) : ERR_OK;
    if (code != ERR_OK)
        return code;
    for (size_t i = 0; code == ERR_OK && i < l->n; i++)
        code = read_kv(m, l->list[i].id, whole, &r->kvs[l->list[i].at], err);
    if (l->n > 1) {
        enum errc ended = db_do(m->reader, DB_COMMIT, "end", code == ERR_OK ? err : NULL);
        code = code == ERR_OK ? ended : code;
    }
    return code;
}

static enum errc check_revision(const struct mvcc *m, int64_t *revision)
{
    int64_t now = mvcc_read_revision(m);
    if (*revision > now)
        return ERR_FUTURE_REV;
    if (*revision <= 0)
        *revision = now;
    return *revision < mvcc_compact_revision(m) ? ERR_COMPACTED : ERR_OK;
}

/* What a walk over the range finds; kvs that must be read are NULL and in *misses. */
static void collect(struct mvcc *m, const struct mvcc_query *q, int64_t revision,
                    struct mvcc_result *r, struct misses *misses)
{
    bool now = revision == mvcc_read_revision(m);
    size_t cap = 0;
    struct btree_cursor c = keyindex_seek(&m->index, q->range.key);
    for (; keyindex_in_range(&c, q->range.key, q->range.end); btree_next(&c)) {
        struct key_entry *e = (struct key_entry *)c.item;
        uint64_t id;
        if (!key_entry_at(e, revision, &id))
            continue;
        r->total++;
        if (q->count_only)
            continue;
        if (q->limit > 0 && (int64_t)r->count == q->limit) {
            if (q->no_total)
                return; /* total is above count, so there is more */
            if (now)
                break;
            continue;
        }
        struct mvcc_kv *kv = cache_get(&m->cache, id);
        if (kv)
            mvcc_kv_ref(kv);
        else if (q->keys_only && id == key_entry_newest(e))
            kv = kv_of_entry(e);
        else
            miss_add(misses, id, r->count);
        result_add(r, &cap, kv);
    }
    if (now)
        r->total = (int64_t)keyindex_count(&m->index, q->range.key, q->range.end);
}

/* A kv without its value, whatever it was read with. Takes and gives a reference. */
static struct mvcc_kv *without_value(struct mvcc_kv *kv)
{
    if (kv->value.n == 0)
        return kv;
    struct key_facts facts = {kv->create_revision, kv->version, kv->lease, kv->stamp};
    struct mvcc_kv *bare = kv_new(kv_id(kv), kv->key, BYTES_EMPTY, &facts, kv->stamp);
    mvcc_kv_unref(kv);
    return bare;
}

enum errc mvcc_range(struct mvcc *m, const struct mvcc_query *q, struct mvcc_result *ret_result,
                     struct error *err)
{
    int64_t revision = q->revision;
    enum errc code = check_revision(m, &revision);
    if (code != ERR_OK)
        return error_set(err, code, "%s", errc_text(code));
    struct mvcc_result r = {0};
    if (q->count_only && revision == mvcc_read_revision(m)) {
        r.total = (int64_t)keyindex_count(&m->index, q->range.key, q->range.end);
        *ret_result = r;
        return ERR_OK;
    }
    struct error unseen;
    err = err ? err : &unseen;
    struct misses misses = {0};
    collect(m, q, revision, &r, &misses);
    code = fetch(m, &misses, !q->keys_only, &r, err);
    free(misses.list);
    if (code != ERR_OK) {
        mvcc_result_free(&r);
        return read_failed(m, code, err);
    }
    for (size_t i = 0; q->keys_only && i < r.count; i++)
        r.kvs[i] = without_value(r.kvs[i]);
    *ret_result = r;
    return ERR_OK;
}

enum errc mvcc_bucket_each(struct mvcc *m, enum mvcc_bucket bucket,
                           void (*each)(void *ctx, struct bytes key, struct bytes value), void *ctx,
                           struct error *err)
{
    sqlite3_stmt *s;
    struct error unseen;
    err = err ? err : &unseen;
    enum errc code = db_statement(m->reader, DB_BUCKET_ROWS, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, bucket);
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        unsigned which;
        struct bytes key, value;
        code = bucket_take(m->reader, s, &which, &key, &value, NULL, err);
        if (code != ERR_OK)
            break;
        each(ctx, key, value);
    }
    if (code == ERR_OK && rc != SQLITE_DONE)
        code = db_error(m->reader, "read a bucket", err);
    sqlite3_reset(s);
    return read_failed(m, code, err);
}

void mvcc_each_leased(struct mvcc *m, void (*each)(void *ctx, struct bytes key, int64_t lease),
                      void *ctx)
{
    struct btree_cursor c = keyindex_seek(&m->index, BYTES_EMPTY);
    for (; c.item; btree_next(&c)) {
        struct key_entry *e = (struct key_entry *)c.item;
        if (key_entry_alive(e) && e->facts.lease != 0)
            each(ctx, btree_key(c.item), e->facts.lease);
    }
}
