/* Contents of files: immutable bytes with a reference count, and the limit of what is cached of them.
 *
 * A version that a handle reads stays alive as long as the handle pins it, whatever the cache drops. One
 * thread. */
#ifndef FUSE_VALUE_H
#define FUSE_VALUE_H

#include "lib/base/bytes.h"
#include "lib/base/list.h"

struct value {
    unsigned refs;
    size_t n;
    uint8_t p[];
};

struct value *value_new(struct bytes content); /* with one reference */
struct value *value_ref(struct value *v);      /* NULL stays NULL */
void value_unref(struct value *v);             /* NULL is fine */

static inline struct bytes value_bytes(const struct value *v)
{
    return v ? bytes_of(v->p, v->n) : BYTES_EMPTY;
}

/* One holder of a cached value: the mirror's entry of a key. */
struct cached_value {
    struct value *value; /* NULL: not in memory */
    struct list link;    /* in the cache's list while there is a value */
};

struct value_cache {
    struct list recent; /* the longest unused first */
    size_t bytes, bytes_max;
};

void value_cache_init(struct value_cache *cache, size_t bytes_max);
/* Takes over the caller's reference; drops others' values, the longest unused first, beyond the limit. */
void value_cache_put(struct value_cache *cache, struct cached_value *slot, struct value *v);
struct value *value_cache_get(struct value_cache *cache, struct cached_value *slot); /* borrowed */
void value_cache_drop(struct value_cache *cache, struct cached_value *slot);

#endif
