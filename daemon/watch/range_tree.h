/* Which watched ranges hold a key? Ranges are grouped: watchers of the same range share one node, single
 * keys stand in a hash table and real ranges in a treap that is ordered by (start, end) and augmented with
 * the highest end below each node (an interval tree; Cormen et al., 14.3). */
#ifndef WATCH_RANGE_TREE_H
#define WATCH_RANGE_TREE_H

#include "daemon/store/mvcc.h"
#include "lib/base/list.h"

struct range_group {
    struct mvcc_range range;                    /* own copies */
    struct list members;                        /* the user's */
    struct range_group *left, *right, *max_end; /* treap; max_end: the node with the highest end */
    uint32_t priority;
    struct range_group *next; /* hash bucket */
};

struct range_tree {
    struct range_group **buckets;
    size_t bucket_count, key_count;
    struct range_group *root;
    uint32_t seed;
};

void range_tree_init(struct range_tree *t);
void range_tree_free(struct range_tree *t); /* all groups must be gone */
/* The group of a range, made if missing. */
struct range_group *range_tree_get(struct range_tree *t, const struct mvcc_range *range);
/* Frees the group if it has no members left. */
void range_tree_release(struct range_tree *t, struct range_group *g);
/* Calls `each` for every group whose range has the key; the tree must not change meanwhile. */
void range_tree_stab(struct range_tree *t, struct bytes key,
                     void (*each)(void *ctx, struct range_group *g), void *ctx);

/* Is `range` the open-ended one ("\0" as its end), or a single key? */
static inline bool range_is_key(const struct mvcc_range *r)
{
    return r->end.p == NULL || r->end.n == 0;
}

static inline bool range_is_open(const struct mvcc_range *r)
{
    return r->end.n == 1 && r->end.p[0] == 0;
}

#endif
