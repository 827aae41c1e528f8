/* One node of the B+ tree of btree.h: what only btree.c and btree_node.c need.
 *
 * A leaf holds items. A branch holds n separators and n + 1 children; a separator is the branch's own
 * copy of as few bytes as tell the children on its sides apart, so it stays right when items go. */
#ifndef STORE_BTREE_NODE_H
#define STORE_BTREE_NODE_H

#include "daemon/store/btree.h"

/* Below this a node is joined with a neighbour or takes from it. A quarter, not a half: removal comes
 * in waves (compaction) and insertion refills what is left. */
#define NODE_FILL_MIN (BTREE_ORDER / 4)

struct btree_node {
    bool is_leaf;
    uint16_t n;                   /* keys */
    uint32_t prefix_n;            /* bytes that all keys share */
    uint64_t weight;              /* of all items below */
    uint64_t cached[BTREE_ORDER]; /* 8 bytes of each key after the prefix, zero-padded */
};

struct leaf {
    struct btree_node node; /* first */
    struct btree_item *items[BTREE_ORDER];
    struct btree_node *prev, *next; /* in key order */
};

struct branch {
    struct btree_node node;         /* first */
    struct bytes seps[BTREE_ORDER]; /* owned */
    struct btree_node *children[BTREE_ORDER + 1];
};

#define AS_LEAF(node_) ((struct leaf *)(node_))
#define AS_BRANCH(node_) ((struct branch *)(node_))

static inline struct bytes node_key(const struct btree_node *node, unsigned i)
{
    return node->is_leaf ? btree_key(AS_LEAF(node)->items[i]) : AS_BRANCH(node)->seps[i];
}

/* A new right neighbour, and the first key that may stand there. right == NULL: no split. */
struct node_split {
    struct btree_node *right;
    struct bytes separator; /* owned by who gets it */
};

struct btree_node *leaf_new(void);
struct btree_node *branch_new_root(struct btree_node *left, struct node_split split);
void node_free(struct btree_node *node); /* it alone: not its items or children */

/* The first key >= `key`; *ret_equal tells whether it is `key`. */
unsigned node_search(const struct btree_node *node, struct bytes key, bool *ret_equal);
void node_check_prefix(const struct btree_node *node);

void leaf_put(struct btree_node *node, unsigned i, struct btree_item *item); /* there is room */
struct btree_item *leaf_take(struct btree_node *node, unsigned i);
/* Moves the items from `keep` on into a new leaf; the separator is left to be set. */
struct node_split leaf_split(struct btree_node *node, unsigned keep);
struct bytes leaf_separator(const struct btree_node *left, const struct btree_node *right);

/* Puts a separator at i and the child right of it; there is room. Weights are not touched. */
void branch_put(struct btree_node *node, unsigned i, struct bytes separator,
                struct btree_node *right);
/* Splits a full branch and puts `below` at i of what was one. */
struct node_split branch_split(struct btree_node *node, unsigned i, struct node_split below);
/* Joins the children i and i + 1, or shares their keys evenly if they don't fit into one. */
void branch_refill(struct btree_node *node, unsigned i);

#endif
