#include "daemon/lease/lease_keys.h"

#include <assert.h>
#include <search.h>
#include <stdlib.h>

#include "lib/base/memory.h"

static int compare(const void *a, const void *b)
{
    return bytes_compare(*(const struct bytes *)a, *(const struct bytes *)b);
}

static void item_free(void *p)
{
    struct bytes *item = p;
    free((void *)item->p);
    free(item);
}

void lease_keys_add(struct lease_keys *k, struct bytes key)
{
    struct bytes *item = xmalloc(sizeof(*item));
    *item = bytes_of(bytes_dup(key), key.n);
    struct bytes **found = tsearch(item, &k->root, compare);
    if (!found)
        abort(); /* out of memory, as in xmalloc */
    if (*found != item)
        item_free(item);
    else
        k->count++;
}

void lease_keys_remove(struct lease_keys *k, struct bytes key)
{
    struct bytes **found = tfind(&key, &k->root, compare);
    if (!found)
        return;
    struct bytes *item = *found;
    tdelete(item, &k->root, compare);
    item_free(item);
    k->count--;
}

struct walk {
    void (*each)(void *ctx, struct bytes key);
    void *ctx;
};

static void visit(const void *node, VISIT which, void *closure)
{
    struct walk *w = closure;
    if (which == postorder || which == leaf)
        w->each(w->ctx, **(struct bytes *const *)node);
}

void lease_keys_each(const struct lease_keys *k, void (*each)(void *ctx, struct bytes key),
                     void *ctx)
{
    struct walk w = {each, ctx};
    twalk_r(k->root, visit, &w);
}

struct collect {
    struct bytes *keys;
    size_t count;
};

static void collect_key(void *ctx, struct bytes key)
{
    struct collect *c = ctx;
    c->keys[c->count++] = key;
}

struct bytes *lease_keys_take(struct lease_keys *k, size_t *ret_count)
{
    struct collect c = {xcalloc(k->count + 1, sizeof(*c.keys)), 0};
    lease_keys_each(k, collect_key, &c);
    assert(c.count == k->count);
    tdestroy(k->root, free); /* the items; their bytes are the caller's now */
    *k = (struct lease_keys){0};
    *ret_count = c.count;
    return c.keys;
}

void lease_keys_free(struct lease_keys *k)
{
    tdestroy(k->root, item_free);
    *k = (struct lease_keys){0};
}
