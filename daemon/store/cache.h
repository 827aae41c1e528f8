/* Revisions in memory, found by their id: those not yet in SQLite (pinned: SQLite can't give them) and
 * a bounded number of bytes of others, dropped in the way of a clock: one that was asked for since the
 * hand came by gets another round. One thread. */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include "daemon/store/mvcc.h"
#include "lib/base/list.h"

struct cache_slot;

struct cache {
    struct cache_slot **slots; /* chains; a power of two */
    size_t slots_n, count;
    struct list clock;       /* of the entries that may be dropped; the hand is at its head */
    size_t bytes, bytes_max; /* of those */
};

void cache_init(struct cache *c, size_t bytes_max);
void cache_free(struct cache *c); /* drops all references */

/* The kv, borrowed until the next call; NULL: not in memory. */
struct mvcc_kv *cache_get(struct cache *c, uint64_t id);

void cache_add(struct cache *c, struct mvcc_kv *kv, bool pinned); /* takes a reference of its own */
void cache_unpin(struct cache *c, uint64_t id);
void cache_remove(struct cache *c, uint64_t id); /* if it is there */

size_t kv_bytes(const struct mvcc_kv *kv); /* what it takes in memory */

#endif
