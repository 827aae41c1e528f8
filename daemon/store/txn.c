/* Applying one log entry: the changes go into the index and the cache at once, and into a list that the
 * writer takes from. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/store/internal.h"

static struct bytes copy(struct bytes b)
{
    return b.p ? bytes_of(bytes_dup(b), b.n) : b;
}

static void changes_clear(struct mvcc *m)
{
    for (size_t i = 0; i < m->changes_n; i++) {
        mvcc_kv_unref(m->changes[i].kv);
        mvcc_kv_unref(m->changes[i].prev);
    }
    m->changes_n = 0;
}

void apply_reset(struct mvcc *m)
{
    changes_clear(m);
    free(m->changes);
    m->changes = NULL;
    m->changes_cap = 0;
    LIST_FOR_EACH_SAFE(link, next, &m->unwritten)
    {
        list_remove(link);
        entry_write_free(CONTAINER_OF(link, struct entry_write, link));
    }
    entry_write_free(m->entry_write);
    m->entry_write = NULL;
    m->unwritten_bytes = 0;
}

void mvcc_begin(struct mvcc *m, uint64_t index, uint64_t term, uint64_t stamp)
{
    assert(!m->in_entry && !m->installing);
    assert(index == m->applied.applied + 1);
    changes_clear(m);
    m->in_entry = true;
    m->entry = m->applied;
    m->entry.applied = index;
    m->entry.term = term;
    m->entry.stamp = stamp;
}

static struct entry_write *writing(struct mvcc *m)
{
    assert(m->in_entry);
    if (!m->entry_write) {
        m->entry_write = xcalloc(1, sizeof(*m->entry_write));
        m->entry_write->bytes = sizeof(*m->entry_write);
    }
    return m->entry_write;
}

/* Takes the references of kv and prev. */
static void change_add(struct mvcc *m, struct mvcc_kv *kv, struct mvcc_kv *prev)
{
    struct entry_write *w = writing(m);
    if (w->kvs_n == w->kvs_cap) {
        w->kvs_cap = w->kvs_cap ? w->kvs_cap * 2 : 4;
        w->kvs = xrealloc(w->kvs, w->kvs_cap * sizeof(struct mvcc_kv *));
    }
    w->kvs[w->kvs_n++] = mvcc_kv_ref(kv);
    w->bytes += kv_bytes(kv);
    if (m->changes_n == m->changes_cap) {
        m->changes_cap = m->changes_cap ? m->changes_cap * 2 : 16;
        m->changes = xrealloc(m->changes, m->changes_cap * sizeof(*m->changes));
    }
    m->changes[m->changes_n++] = (struct mvcc_change){.kv = kv, .prev = prev};
}

/* Failures inside an entry can't be undone and must not differ from what other members do with the
 * entry: the process has to end, so `failed` gets the reason, which the caller's code alone lacks. */
static enum errc broken(struct mvcc *m, const struct error *err)
{
    mvcc_fail(m, err);
    return err->code;
}

/* The state that a change replaces: with its value if that is in memory or if it is asked for. */
static enum errc before_change(struct mvcc *m, const struct key_entry *e, bool whole,
                               struct mvcc_kv **ret_prev)
{
    struct error err;
    struct mvcc_kv *kv = whole ? NULL : cache_get(&m->cache, key_entry_newest(e));
    if (kv)
        *ret_prev = mvcc_kv_ref(kv);
    else if (!whole)
        *ret_prev = kv_of_entry(e);
    else if (read_kv(m, key_entry_newest(e), true, ret_prev, &err) != ERR_OK)
        return broken(m, &err);
    return ERR_OK;
}

struct mvcc_kv *mvcc_change_prev(struct mvcc *m, const struct mvcc_change *change)
{
    struct mvcc_kv *prev = change->prev, *whole;
    struct error err;
    if (!prev || prev->value.p)
        return prev;
    size_t at = (size_t)(change - m->changes);
    assert(at < m->changes_n);
    if (read_kv(m, kv_id(prev), true, &whole, &err) != ERR_OK) {
        broken(m, &err);
        return NULL;
    }
    mvcc_kv_unref(prev);
    m->changes[at].prev = whole; /* the next who asks has it */
    return whole;
}

static uint64_t next_id(const struct mvcc *m)
{
    assert(m->entry.revision < REV_MAIN_MAX && m->changes_n <= REV_SUB_MAX);
    return rev_id(m->entry.revision + 1, (int32_t)m->changes_n);
}

enum errc mvcc_put(struct mvcc *m, struct bytes key, struct bytes value, int64_t lease,
                   struct mvcc_kv **ret_prev)
{
    assert(m->in_entry);
    struct key_entry *e = keyindex_find(&m->index, key);
    struct mvcc_kv *prev = NULL;
    uint64_t id = next_id(m);
    struct key_facts facts = {rev_main(id), 1, lease, m->entry.stamp};
    if (e && key_entry_alive(e)) {
        enum errc code = before_change(m, e, ret_prev != NULL, &prev);
        if (code != ERR_OK)
            return code;
        facts.create_revision = e->facts.create_revision;
        facts.version = e->facts.version + 1;
    }
    struct mvcc_kv *kv = kv_new(id, key, value, &facts, m->entry.stamp);
    keyindex_add(&m->index, key, id, false, &facts);
    cache_add(&m->cache, kv, true);
    change_add(m, kv, prev);
    if (ret_prev)
        *ret_prev = prev ? mvcc_kv_ref(prev) : NULL;
    return ERR_OK;
}

enum errc mvcc_delete(struct mvcc *m, const struct mvcc_range *range, int64_t *ret_deleted,
                      struct mvcc_result *ret_prevs)
{
    assert(m->in_entry);
    struct mvcc_result prevs = {0};
    size_t cap = 0;
    int64_t deleted = 0;
    /* A tombstone changes weights in the tree, not its shape: the cursor stays valid. */
    struct btree_cursor c = keyindex_seek(&m->index, range->key);
    for (; keyindex_in_range(&c, range->key, range->end); btree_next(&c)) {
        struct key_entry *e = (struct key_entry *)c.item;
        if (!key_entry_alive(e))
            continue;
        struct mvcc_kv *prev;
        enum errc code = before_change(m, e, ret_prevs != NULL, &prev);
        if (code != ERR_OK) {
            mvcc_result_free(&prevs);
            return code;
        }
        uint64_t id = next_id(m);
        struct key_facts facts = {.stamp = m->entry.stamp};
        struct mvcc_kv *kv = kv_new(id, btree_key(c.item), BYTES_EMPTY, NULL, m->entry.stamp);
        keyindex_add(&m->index, kv->key, id, true, &facts);
        change_add(m, kv, prev);
        deleted++;
        if (ret_prevs)
            result_add(&prevs, &cap, mvcc_kv_ref(prev));
    }
    if (ret_deleted)
        *ret_deleted = deleted;
    prevs.total = deleted;
    if (ret_prevs)
        *ret_prevs = prevs;
    return ERR_OK;
}

void mvcc_bucket_put(struct mvcc *m, enum mvcc_bucket bucket, struct bytes key, struct bytes value)
{
    assert(bucket < MVCC_BUCKET_COUNT);
    struct entry_write *w = writing(m);
    if (w->ops_n == w->ops_cap) {
        w->ops_cap = w->ops_cap ? w->ops_cap * 2 : 4;
        w->ops = xrealloc(w->ops, w->ops_cap * sizeof(*w->ops));
    }
    key = copy(key);
    value = copy(value);
    w->ops[w->ops_n++] =
        (struct bucket_op){bucket, (uint8_t *)key.p, (uint8_t *)value.p, key.n, value.n};
    w->bytes += sizeof(*w->ops) + key.n + value.n;
}

enum errc mvcc_compact(struct mvcc *m, int64_t revision)
{
    if (revision <= m->entry.compact_revision)
        return ERR_COMPACTED;
    if (revision > mvcc_read_revision(m))
        return ERR_FUTURE_REV;
    writing(m); /* the new compaction revision is a change of its own */
    m->entry.compact_revision = revision;
    return ERR_OK;
}

void mvcc_end(struct mvcc *m, const struct mvcc_change **ret_changes, size_t *ret_count)
{
    assert(m->in_entry);
    struct entry_write *w = m->entry_write;
    bool compacts = m->entry.compact_revision > m->applied.compact_revision;
    m->in_entry = false;
    m->entry_write = NULL;
    m->entry.revision += m->changes_n > 0;
    m->applied = m->entry;
    if (w) {
        w->state = m->applied;
        list_append(&m->unwritten, &w->link);
        m->unwritten_bytes += w->bytes;
    }
    if (ret_changes) {
        *ret_changes = m->changes;
        *ret_count = m->changes_n;
    }
    writer_kick(m);
    if (compacts)
        compact_start(m, m->applied.compact_revision, m->applied.applied);
}
