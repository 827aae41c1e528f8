#include "daemon/raft/log.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"

#define LOG_CAP_MIN 64 /* entries; small enough for a test, saves the first few growths */

static size_t entry_bytes(const struct raft_entry *e)
{
    return sizeof *e + e->size;
}

static void drop_all(struct raft_log *l)
{
    for (size_t i = 0; i < l->count; i++)
        raft_entry_unref(l->items[l->start + i]);
    l->start = 0;
    l->count = 0;
    l->bytes = 0;
}

void raft_log_free(struct raft_log *l)
{
    drop_all(l);
    free(l->items);
    *l = (struct raft_log){0};
}

void raft_log_reset(struct raft_log *l, uint64_t index, uint64_t term)
{
    drop_all(l);
    l->base_index = index;
    l->base_term = term;
}

uint64_t raft_log_last(const struct raft_log *l)
{
    return l->base_index + l->count;
}

uint64_t raft_log_last_term(const struct raft_log *l)
{
    return l->count == 0 ? l->base_term : l->items[l->start + l->count - 1]->term;
}

struct raft_entry *raft_log_at(const struct raft_log *l, uint64_t index)
{
    if (index <= l->base_index || index > raft_log_last(l))
        return NULL;
    return l->items[l->start + (size_t)(index - l->base_index - 1)];
}

bool raft_log_has_term(const struct raft_log *l, uint64_t index)
{
    return index >= l->base_index && index <= raft_log_last(l);
}

uint64_t raft_log_term_at(const struct raft_log *l, uint64_t index)
{
    if (index == l->base_index)
        return l->base_term;
    const struct raft_entry *e = raft_log_at(l, index);
    return e == NULL ? 0 : e->term;
}

bool raft_log_matches(const struct raft_log *l, uint64_t index, uint64_t term)
{
    return raft_log_has_term(l, index) && raft_log_term_at(l, index) == term;
}

/* Makes room for one more at the end: by moving down when half of the array is free in front, which
 * keeps the cost of compaction constant for each entry, else by growing. */
static void make_room(struct raft_log *l)
{
    if (l->start + l->count < l->cap)
        return;
    if (l->start > 0 && l->start >= l->cap / 2) {
        memmove(l->items, l->items + l->start, l->count * sizeof *l->items);
        l->start = 0;
        return;
    }
    l->cap = l->cap == 0 ? LOG_CAP_MIN : l->cap * 2;
    l->items = xrealloc(l->items, l->cap * sizeof *l->items);
}

void raft_log_append(struct raft_log *l, struct raft_entry *e)
{
    assert(e->index == raft_log_last(l) + 1);
    assert(e->term >= raft_log_last_term(l));
    make_room(l);
    l->items[l->start + l->count++] = raft_entry_ref(e);
    l->bytes += entry_bytes(e);
}

void raft_log_truncate(struct raft_log *l, uint64_t index)
{
    assert(index > l->base_index);
    while (raft_log_last(l) >= index) {
        struct raft_entry *e = l->items[l->start + --l->count];
        l->bytes -= entry_bytes(e);
        raft_entry_unref(e);
    }
}

void raft_log_compact(struct raft_log *l, uint64_t index)
{
    if (index <= l->base_index)
        return;
    assert(index <= raft_log_last(l));
    uint64_t term = raft_log_term_at(l, index);
    while (l->base_index < index) {
        struct raft_entry *e = l->items[l->start++];
        l->count--;
        l->base_index++;
        l->bytes -= entry_bytes(e);
        raft_entry_unref(e);
    }
    l->base_term = term;
}

size_t raft_log_find_conflict(const struct raft_log *l, struct raft_entry *const *entries,
                              size_t count)
{
    size_t i = 0;
    while (i < count && raft_log_matches(l, entries[i]->index, entries[i]->term))
        i++;
    return i;
}

uint64_t raft_log_find_term(const struct raft_log *l, uint64_t index, uint64_t term,
                            uint64_t *ret_term)
{
    if (index > raft_log_last(l))
        index = raft_log_last(l);
    while (index >= l->base_index) {
        uint64_t t = raft_log_term_at(l, index);
        if (t <= term) {
            *ret_term = t;
            return index;
        }
        if (index == 0)
            break;
        index--;
    }
    *ret_term = 0;
    return index;
}

struct raft_entry **raft_log_slice(const struct raft_log *l, uint64_t index, size_t count_max,
                                   size_t bytes_max, size_t *ret_count)
{
    size_t n = 0, bytes = 0;
    const struct raft_entry *e;
    while (n < count_max && (e = raft_log_at(l, index + n)) != NULL) {
        bytes += entry_bytes(e);
        if (n > 0 && bytes > bytes_max)
            break;
        n++;
    }
    *ret_count = n;
    if (n == 0)
        return NULL;
    struct raft_entry **items = xmalloc(n * sizeof *items);
    for (size_t i = 0; i < n; i++)
        items[i] = raft_entry_ref(raft_log_at(l, index + i));
    return items;
}
