#include "daemon/watch/range_tree.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

#define BUCKETS_MIN 64

void range_tree_init(struct range_tree *t)
{
    *t = (struct range_tree){.bucket_count = BUCKETS_MIN, .seed = 0x2545f491};
    t->buckets = xcalloc(t->bucket_count, sizeof(*t->buckets));
}

void range_tree_free(struct range_tree *t)
{
    assert(!t->root && t->key_count == 0);
    free(t->buckets);
    *t = (struct range_tree){0};
}

static uint64_t key_hash(struct bytes key)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < key.n; i++)
        h = (h ^ key.p[i]) * 0x100000001b3u;
    return h ^ (h >> 32);
}

static int compare_ends(const struct mvcc_range *a, const struct mvcc_range *b)
{
    if (range_is_open(a) || range_is_open(b))
        return range_is_open(a) - range_is_open(b);
    return bytes_compare(a->end, b->end);
}

static int compare_ranges(const struct mvcc_range *a, const struct mvcc_range *b)
{
    int c = bytes_compare(a->key, b->key);
    return c ? c : compare_ends(a, b);
}

static struct range_group *group_new(const struct mvcc_range *range)
{
    struct range_group *g = xcalloc(1, sizeof(*g));
    g->range.key = bytes_of(bytes_dup(range->key), range->key.n);
    if (!range_is_key(range))
        g->range.end = bytes_of(bytes_dup(range->end), range->end.n);
    list_init(&g->members);
    g->max_end = g;
    return g;
}

static void group_free(struct range_group *g)
{
    free((void *)g->range.key.p);
    free((void *)g->range.end.p);
    free(g);
}

/* ---- single keys -------------------------------------------------------------------------------- */

static void keys_grow(struct range_tree *t)
{
    size_t old_count = t->bucket_count;
    struct range_group **old = t->buckets;
    t->bucket_count *= 2;
    t->buckets = xcalloc(t->bucket_count, sizeof(*t->buckets));
    for (size_t i = 0; i < old_count; i++) {
        for (struct range_group *g = old[i], *next; g; g = next) {
            next = g->next;
            struct range_group **slot = &t->buckets[key_hash(g->range.key) & (t->bucket_count - 1)];
            g->next = *slot;
            *slot = g;
        }
    }
    free(old);
}

static struct range_group **key_slot(const struct range_tree *t, struct bytes key)
{
    struct range_group **at = &t->buckets[key_hash(key) & (t->bucket_count - 1)];
    while (*at && !bytes_equal((*at)->range.key, key))
        at = &(*at)->next;
    return at;
}

/* ---- ranges ------------------------------------------------------------------------------------- */

static void update(struct range_group *g)
{
    g->max_end = g;
    if (g->left && compare_ends(&g->left->max_end->range, &g->max_end->range) > 0)
        g->max_end = g->left->max_end;
    if (g->right && compare_ends(&g->right->max_end->range, &g->max_end->range) > 0)
        g->max_end = g->right->max_end;
}

static struct range_group *rotate_right(struct range_group *g)
{
    struct range_group *l = g->left;
    g->left = l->right;
    l->right = g;
    update(g);
    update(l);
    return l;
}

static struct range_group *rotate_left(struct range_group *g)
{
    struct range_group *r = g->right;
    g->right = r->left;
    r->left = g;
    update(g);
    update(r);
    return r;
}

static struct range_group *insert(struct range_group *at, struct range_group *g)
{
    if (!at)
        return g;
    if (compare_ranges(&g->range, &at->range) < 0) {
        at->left = insert(at->left, g);
        update(at);
        return at->left->priority > at->priority ? rotate_right(at) : at;
    }
    at->right = insert(at->right, g);
    update(at);
    return at->right->priority > at->priority ? rotate_left(at) : at;
}

static struct range_group *merge(struct range_group *a, struct range_group *b)
{
    if (!a || !b)
        return a ? a : b;
    if (a->priority > b->priority) {
        a->right = merge(a->right, b);
        update(a);
        return a;
    }
    b->left = merge(a, b->left);
    update(b);
    return b;
}

static struct range_group *take_out(struct range_group *at, struct range_group *g)
{
    assert(at);
    if (at == g)
        return merge(at->left, at->right);
    if (compare_ranges(&g->range, &at->range) < 0)
        at->left = take_out(at->left, g);
    else
        at->right = take_out(at->right, g);
    update(at);
    return at;
}

static bool end_is_above(const struct mvcc_range *range, struct bytes key)
{
    return range_is_open(range) || bytes_compare(key, range->end) < 0;
}

static void stab(struct range_group *at, struct bytes key,
                 void (*each)(void *ctx, struct range_group *g), void *ctx)
{
    for (; at && end_is_above(&at->max_end->range, key); at = at->right) {
        stab(at->left, key, each, ctx);
        if (bytes_compare(at->range.key, key) > 0)
            return; /* all starts to the right are beyond the key */
        if (end_is_above(&at->range, key))
            each(ctx, at);
    }
}

/* ---- both --------------------------------------------------------------------------------------- */

struct range_group *range_tree_get(struct range_tree *t, const struct mvcc_range *range)
{
    if (range_is_key(range)) {
        struct range_group *found = *key_slot(t, range->key);
        if (found)
            return found;
        if (t->key_count >= t->bucket_count)
            keys_grow(t);
        struct range_group *g = group_new(range);
        *key_slot(t, range->key) = g;
        t->key_count++;
        return g;
    }
    for (struct range_group *g = t->root; g;) {
        int c = compare_ranges(range, &g->range);
        if (c == 0)
            return g;
        g = c < 0 ? g->left : g->right;
    }
    struct range_group *g = group_new(range);
    t->seed ^= t->seed << 13; /* xorshift: any spread does, the same in every run */
    t->seed ^= t->seed >> 17;
    t->seed ^= t->seed << 5;
    g->priority = t->seed;
    t->root = insert(t->root, g);
    return g;
}

void range_tree_release(struct range_tree *t, struct range_group *g)
{
    if (!list_empty(&g->members))
        return;
    if (range_is_key(&g->range)) {
        struct range_group **at = key_slot(t, g->range.key);
        assert(*at == g);
        *at = g->next;
        t->key_count--;
    } else {
        t->root = take_out(t->root, g);
    }
    group_free(g);
}

void range_tree_stab(struct range_tree *t, struct bytes key,
                     void (*each)(void *ctx, struct range_group *g), void *ctx)
{
    struct range_group *g = *key_slot(t, key);
    if (g)
        each(ctx, g);
    stab(t->root, key, each, ctx);
}
