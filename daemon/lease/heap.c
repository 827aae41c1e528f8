#include "daemon/lease/heap.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

static bool before(const struct heap_item *a, const struct heap_item *b)
{
    return a->when != b->when ? a->when < b->when : a->tie < b->tie;
}

static void put(struct heap *h, size_t place, struct heap_item *item)
{
    h->items[place - 1] = item;
    item->place = place;
}

static void sift_up(struct heap *h, struct heap_item *item)
{
    size_t place = item->place;
    while (place > 1 && before(item, h->items[place / 2 - 1])) {
        put(h, place, h->items[place / 2 - 1]);
        place /= 2;
    }
    put(h, place, item);
}

static void sift_down(struct heap *h, struct heap_item *item)
{
    size_t place = item->place;
    for (;;) {
        size_t child = place * 2;
        if (child > h->count)
            break;
        if (child < h->count && before(h->items[child], h->items[child - 1]))
            child++;
        if (!before(h->items[child - 1], item))
            break;
        put(h, place, h->items[child - 1]);
        place = child;
    }
    put(h, place, item);
}

void heap_set(struct heap *h, struct heap_item *item, uint64_t when)
{
    if (item->place == 0) {
        if (h->count == h->cap) {
            h->cap = h->cap ? h->cap * 2 : 64;
            h->items = xrealloc(h->items, h->cap * sizeof(*h->items));
        }
        h->count++;
        put(h, h->count, item);
    }
    item->when = when;
    sift_up(h, item);
    sift_down(h, item);
}

void heap_remove(struct heap *h, struct heap_item *item)
{
    size_t place = item->place;
    if (place == 0)
        return;
    assert(place <= h->count && h->items[place - 1] == item);
    struct heap_item *last = h->items[--h->count];
    item->place = 0;
    if (last == item)
        return;
    put(h, place, last);
    sift_up(h, last);
    sift_down(h, last);
}

struct heap_item *heap_first(const struct heap *h)
{
    return h->count ? h->items[0] : NULL;
}

void heap_free(struct heap *h)
{
    for (size_t i = 0; i < h->count; i++)
        h->items[i]->place = 0;
    free(h->items);
    *h = (struct heap){0};
}
