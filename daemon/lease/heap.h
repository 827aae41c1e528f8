/* A binary min-heap of times whose items know their place, so that any of them can be moved or taken out
 * in O(log n). An item sits inside its owner and is in one heap at most. */
#ifndef LEASE_HEAP_H
#define LEASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct heap_item {
    uint64_t when;
    uint64_t tie; /* equal times come in this order, so that a run can be repeated */
    size_t place; /* 1-based; 0: in no heap */
};

struct heap {
    struct heap_item **items;
    size_t count, cap;
};

void heap_set(struct heap *h, struct heap_item *item, uint64_t when); /* adds or moves */
void heap_remove(struct heap *h, struct heap_item *item);             /* no-op if it is in none */
struct heap_item *heap_first(const struct heap *h);                   /* NULL if empty */
void heap_free(struct heap *h);                                       /* items stay their owners' */

#endif
