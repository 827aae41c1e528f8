#include <stdlib.h>

#include "fuse/state.h"

/* FNV-1a with a final mix: names are short, and the tables use the low bits. */
uint64_t hash_bytes(uint64_t seed, const void *p, size_t n)
{
    uint64_t h = seed ^ 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    h ^= h >> 33;
    h *= 0xff51afd7ed558ccdu;
    return h ^ (h >> 33);
}

static void resize(struct hash_table *t, size_t size)
{
    struct hash_link **buckets = xcalloc(size, sizeof *buckets);
    for (size_t i = 0; i < t->size; i++) {
        for (struct hash_link *l = t->buckets[i], *next; l; l = next) {
            next = l->next;
            l->next = buckets[l->hash & (size - 1)];
            buckets[l->hash & (size - 1)] = l;
        }
    }
    free(t->buckets);
    t->buckets = buckets;
    t->size = size;
}

void hash_add(struct hash_table *t, struct hash_link *link, uint64_t hash)
{
    if (t->count >= t->size)
        resize(t, t->size ? 2 * t->size : CORE_HASH_SIZE);
    link->hash = hash;
    link->next = t->buckets[hash & (t->size - 1)];
    t->buckets[hash & (t->size - 1)] = link;
    t->count++;
}

void hash_remove(struct hash_table *t, struct hash_link *link)
{
    struct hash_link **at = &t->buckets[link->hash & (t->size - 1)];
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    t->count--;
}

struct hash_link *hash_chain(const struct hash_table *t, uint64_t hash)
{
    return t->size ? t->buckets[hash & (t->size - 1)] : NULL;
}

void hash_free(struct hash_table *t)
{
    free(t->buckets);
    *t = (struct hash_table){0};
}
