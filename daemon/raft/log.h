/* The log's tail in memory: entries from base_index + 1 on, consecutive, terms never going back.
 *
 * Everything here is about the sequence itself; what is persisted, committed or applied is kept in
 * `struct raft`. Entries are referenced by the log and by whoever else keeps them. */
#ifndef RAFT_LOG_H
#define RAFT_LOG_H

#include "daemon/raft/raft.h"

struct raft_log {
    struct raft_entry **items; /* items[start .. start + count) are in use */
    size_t start, count, cap;
    uint64_t base_index,
        base_term; /* the entry before the first one; 0/0 at the log's very begin */
    size_t bytes;  /* memory of the entries, headers included */
};

void raft_log_free(struct raft_log *l);

/* Empties the log: it goes on after `index` of `term`. */
void raft_log_reset(struct raft_log *l, uint64_t index, uint64_t term);

uint64_t raft_log_last(const struct raft_log *l); /* base_index if empty */
uint64_t raft_log_last_term(const struct raft_log *l);

/* The entry at `index`, NULL if it isn't in memory (any more). Borrowed. */
struct raft_entry *raft_log_at(const struct raft_log *l, uint64_t index);

/* Whether the term at `index` is known: base_index <= index <= last. */
bool raft_log_has_term(const struct raft_log *l, uint64_t index);
uint64_t raft_log_term_at(const struct raft_log *l, uint64_t index); /* 0 if it isn't known */

/* The figure's consistency check: an entry (or the base) at `index` with `term`. */
bool raft_log_matches(const struct raft_log *l, uint64_t index, uint64_t term);

/* Appends one entry, whose index must be last + 1, and takes a reference. */
void raft_log_append(struct raft_log *l, struct raft_entry *e);

/* Drops the entries from `index` on. */
void raft_log_truncate(struct raft_log *l, uint64_t index);

/* Drops the entries up to and including `index`, which becomes the base. Nothing if it is at or before
 * the base; `index` must not be behind the last one. */
void raft_log_compact(struct raft_log *l, uint64_t index);

/* The first of the consecutive `entries` that the log doesn't have with the same term, as an offset;
 * `count` if it has them all. */
size_t raft_log_find_conflict(const struct raft_log *l, struct raft_entry *const *entries,
                              size_t count);

/* The last index at or before `index` whose term is at most `term`: the furthest point at which this
 * log may agree with another one that has `term` at `index` (fast back-up, thesis section 5.3). Where
 * terms are no longer known, the index before the base is given with term 0. */
uint64_t raft_log_find_term(const struct raft_log *l, uint64_t index, uint64_t term,
                            uint64_t *ret_term);

/* Up to `count_max` entries from `index` on, until their bytes pass `bytes_max` (at least one if there
 * is one). The new array, which the caller frees, has a reference to each; NULL if there are none. */
struct raft_entry **raft_log_slice(const struct raft_log *l, uint64_t index, size_t count_max,
                                   size_t bytes_max, size_t *ret_count);

#endif
