#include "daemon/store/cache.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/store/keyindex.h"
#include "lib/base/memory.h"

struct cache_slot {
    struct cache_slot *next; /* in its chain */
    struct list link;        /* in the clock unless pinned */
    struct mvcc_kv *kv;
    uint64_t id;
    bool pinned, asked;
};

size_t kv_bytes(const struct mvcc_kv *kv)
{
    return sizeof(*kv) + kv->key.n + kv->value.n;
}

void cache_init(struct cache *c, size_t bytes_max)
{
    *c = (struct cache){.bytes_max = bytes_max, .slots_n = 1024};
    c->slots = xcalloc(c->slots_n, sizeof(struct cache_slot *));
    list_init(&c->clock);
}

static void slot_free(struct cache_slot *s)
{
    mvcc_kv_unref(s->kv);
    free(s);
}

void cache_free(struct cache *c)
{
    for (size_t i = 0; i < c->slots_n; i++) {
        for (struct cache_slot *s = c->slots[i], *next; s; s = next) {
            next = s->next;
            slot_free(s);
        }
    }
    free(c->slots);
    *c = (struct cache){0};
}

/* Ids ascend by sub and main revision: a multiplication spreads them. */
static struct cache_slot **chain(const struct cache *c, uint64_t id)
{
    return &c->slots[(id * UINT64_C(0x9e3779b97f4a7c15)) >> 20 & (c->slots_n - 1)];
}

static struct cache_slot *find(const struct cache *c, uint64_t id)
{
    struct cache_slot *s = *chain(c, id);
    while (s && s->id != id)
        s = s->next;
    return s;
}

struct mvcc_kv *cache_get(struct cache *c, uint64_t id)
{
    struct cache_slot *s = find(c, id);
    if (!s)
        return NULL;
    s->asked = true;
    return s->kv;
}

static void drop(struct cache *c, struct cache_slot *s)
{
    struct cache_slot **at = chain(c, s->id);
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    c->count--;
    if (!s->pinned) {
        list_remove(&s->link);
        c->bytes -= kv_bytes(s->kv);
    }
    slot_free(s);
}

static void shrink(struct cache *c)
{
    while (c->bytes > c->bytes_max) {
        struct cache_slot *s = CONTAINER_OF(c->clock.next, struct cache_slot, link);
        if (!s->asked) {
            drop(c, s);
            continue;
        }
        s->asked = false;
        list_remove(&s->link);
        list_append(&c->clock, &s->link);
    }
}

static void grow(struct cache *c)
{
    struct cache_slot **old = c->slots;
    size_t old_n = c->slots_n;
    c->slots_n *= 2;
    c->slots = xcalloc(c->slots_n, sizeof(struct cache_slot *));
    for (size_t i = 0; i < old_n; i++) {
        for (struct cache_slot *s = old[i], *next; s; s = next) {
            next = s->next;
            struct cache_slot **at = chain(c, s->id);
            s->next = *at;
            *at = s;
        }
    }
    free(old);
}

void cache_add(struct cache *c, struct mvcc_kv *kv, bool pinned)
{
    uint64_t id = rev_id(kv->mod_revision, kv->sub);
    if (find(c, id))
        return;
    if (c->count >= c->slots_n)
        grow(c);
    struct cache_slot *s = xmalloc(sizeof(*s));
    struct cache_slot **at = chain(c, id);
    *s = (struct cache_slot){.next = *at, .kv = mvcc_kv_ref(kv), .id = id, .pinned = pinned};
    *at = s;
    list_init(&s->link);
    c->count++;
    if (pinned)
        return;
    list_append(&c->clock, &s->link);
    c->bytes += kv_bytes(kv);
    shrink(c);
}

void cache_unpin(struct cache *c, uint64_t id)
{
    struct cache_slot *s = find(c, id);
    if (!s || !s->pinned)
        return;
    s->pinned = false;
    list_append(&c->clock, &s->link);
    c->bytes += kv_bytes(s->kv);
    shrink(c);
}

void cache_remove(struct cache *c, uint64_t id)
{
    struct cache_slot *s = find(c, id);
    if (s)
        drop(c, s);
}
