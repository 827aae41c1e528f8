#include "daemon/store/keyindex.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define ENTRY_OF(item_) ((struct key_entry *)(item_))

static uint64_t *revs_of(struct key_entry *e)
{
    return e->cap > 1 ? e->many : &e->one;
}

static const uint64_t *revs(const struct key_entry *e)
{
    return e->cap > 1 ? e->many : &e->one;
}

static void entry_free(struct btree_item *item)
{
    struct key_entry *e = ENTRY_OF(item);
    if (e->cap > 1)
        free(e->many);
    free(e);
}

void keyindex_free(struct keyindex *x)
{
    btree_free(&x->tree, entry_free);
    x->revisions = 0;
}

struct key_entry *keyindex_find(const struct keyindex *x, struct bytes key)
{
    return ENTRY_OF(btree_find(&x->tree, key));
}

static void entry_append(struct key_entry *e, uint64_t rev)
{
    if (e->n == e->cap) {
        uint32_t cap = e->cap == 1 ? 4 : e->cap * 2;
        uint64_t one = e->one;
        e->many = xrealloc(e->cap == 1 ? NULL : e->many, cap * sizeof(*e->many));
        if (e->cap == 1)
            e->many[0] = one;
        e->cap = cap;
    }
    revs_of(e)[e->n++] = rev;
}

struct key_entry *keyindex_add(struct keyindex *x, struct bytes key, uint64_t id, bool tombstone,
                               const struct key_facts *facts)
{
    struct key_entry *e = keyindex_find(x, key);
    uint64_t rev = id << 1 | tombstone;
    x->revisions++;
    if (e) {
        assert(key_entry_newest(e) < id);
        entry_append(e, rev);
        if (key_entry_alive(e) == tombstone)
            btree_reweigh(&x->tree, &e->item, !tombstone);
    } else {
        e = xmalloc(sizeof(*e) + key.n);
        if (key.n)
            memcpy(e->key, key.p, key.n);
        e->item = (struct btree_item){e->key, (uint32_t)key.n, !tombstone};
        e->n = e->cap = 1;
        e->one = rev;
        struct btree_item *existing = btree_insert(&x->tree, &e->item);
        assert(!existing);
    }
    e->facts = tombstone ? (struct key_facts){.stamp = facts->stamp} : *facts;
    return e;
}

uint64_t key_entry_newest(const struct key_entry *e)
{
    return revs(e)[e->n - 1] >> 1;
}

/* How many of the revisions are at or below main revision `main`. */
static uint32_t count_upto(const struct key_entry *e, int64_t main)
{
    const uint64_t *r = revs(e);
    if (rev_main(r[e->n - 1] >> 1) <= main)
        return e->n;
    uint32_t low = 0, high = e->n;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (rev_main(r[middle] >> 1) <= main)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool key_entry_at(const struct key_entry *e, int64_t main, uint64_t *ret_id)
{
    uint32_t n = count_upto(e, main);
    if (n == 0 || (revs(e)[n - 1] & 1))
        return false;
    *ret_id = revs(e)[n - 1] >> 1;
    return true;
}

static bool is_open_end(struct bytes end)
{
    return end.n == 1 && end.p[0] == 0;
}

uint64_t keyindex_count(const struct keyindex *x, struct bytes key, struct bytes end)
{
    if (!end.p) {
        const struct key_entry *e = keyindex_find(x, key);
        return e && key_entry_alive(e);
    }
    uint64_t before = btree_weight_before(&x->tree, key);
    if (is_open_end(end))
        return btree_weight(&x->tree) - before;
    if (bytes_compare(key, end) >= 0)
        return 0;
    return btree_weight_before(&x->tree, end) - before;
}

struct btree_cursor keyindex_seek(const struct keyindex *x, struct bytes key)
{
    return btree_seek(&x->tree, key);
}

bool keyindex_in_range(const struct btree_cursor *c, struct bytes key, struct bytes end)
{
    if (!c->item)
        return false;
    if (!end.p)
        return bytes_equal(btree_key(c->item), key);
    return is_open_end(end) || bytes_compare(btree_key(c->item), end) < 0;
}

void rev_list_add(struct rev_list *l, uint64_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 64;
        l->ids = xrealloc(l->ids, l->cap * sizeof(*l->ids));
    }
    l->ids[l->n++] = id;
}

void rev_list_free(struct rev_list *l)
{
    free(l->ids);
    *l = (struct rev_list){0};
}

/* Sets *from to the key of the cursor's item, where the next slice begins; false at the end. */
static bool slice_end(const struct btree_cursor *c, struct buf *from)
{
    from->n = 0;
    if (!c->item)
        return false;
    buf_append(from, c->item->key, c->item->key_n);
    return true;
}

/* Forgets the first n revisions of an entry that keeps others. */
static void entry_drop(struct keyindex *x, struct key_entry *e, uint32_t n,
                       struct rev_list *removed)
{
    uint64_t *r = revs_of(e);
    for (uint32_t i = 0; i < n; i++)
        rev_list_add(removed, r[i] >> 1);
    memmove(r, r + n, (e->n - n) * sizeof(*r));
    e->n -= n;
    x->revisions -= n;
    if (e->cap == 1 || e->n > e->cap / 4)
        return;
    uint64_t first = r[0];
    if (e->n == 1) {
        free(e->many);
        e->one = first;
        e->cap = 1;
        return;
    }
    e->cap = e->n;
    e->many = xrealloc(e->many, e->cap * sizeof(*e->many));
}

/* How many of the oldest revisions a compaction at `at` takes from a key. */
static uint32_t count_removed(const struct key_entry *e, int64_t at)
{
    uint32_t n = count_upto(e, at);
    if (n == 0)
        return 0;
    uint64_t newest = revs(e)[n - 1];
    /* A deletion at the compaction revision itself must stay to be watched (e#18089, e#19179). */
    bool gone =
        (newest & 1) && rev_main(newest >> 1) < at + (MUTANT(delete_lost_at_compaction) ? 1 : 0);
    return gone ? n : n - 1;
}

bool keyindex_compact(struct keyindex *x, int64_t at, size_t keys_max, size_t rows_max,
                      struct buf *from, struct rev_list *removed)
{
    /* Entries that lose everything are taken out after the walk: removal moves the tree's nodes. */
    struct key_entry *dead[256];
    size_t dead_n = 0;
    struct btree_cursor c = btree_seek(&x->tree, buf_bytes(from));
    for (size_t i = 0; c.item && i < keys_max && removed->n < rows_max && dead_n < ARRAY_LEN(dead);
         i++, btree_next(&c)) {
        struct key_entry *e = ENTRY_OF(c.item);
        uint32_t n = count_removed(e, at);
        if (n == 0)
            continue;
        if (n < e->n) {
            entry_drop(x, e, n, removed);
            continue;
        }
        for (uint32_t k = 0; k < n; k++)
            rev_list_add(removed, revs(e)[k] >> 1);
        x->revisions -= n;
        dead[dead_n++] = e;
    }
    bool more = slice_end(&c, from);
    for (size_t i = 0; i < dead_n; i++) {
        struct btree_item *gone = btree_remove(&x->tree, btree_key(&dead[i]->item));
        assert(gone == &dead[i]->item);
        entry_free(gone);
    }
    return more;
}

bool keyindex_keep(const struct keyindex *x, int64_t at, int64_t below, size_t keys_max,
                   struct buf *from, struct rev_list *kept, uint64_t *live)
{
    struct btree_cursor c = btree_seek(&x->tree, buf_bytes(from));
    for (size_t i = 0; c.item && i < keys_max; i++, btree_next(&c)) {
        uint64_t id;
        if (!key_entry_at(ENTRY_OF(c.item), at, &id))
            continue;
        ++*live;
        if (rev_main(id) <= below)
            rev_list_add(kept, id);
    }
    return slice_end(&c, from);
}
