/* An ordered map of byte-string keys in memory: a B+ tree of order 32.
 *
 * What makes it fast is that a search seldom leaves the node: each node knows the prefix that all of
 * its keys share and keeps the 8 bytes behind it, big-endian, of every key. Only keys that are equal
 * there too are compared in full.
 *
 * Items are the caller's: embed a `struct btree_item` and keep its key's bytes in place and unchanged
 * while it is in the tree. Each item has a weight, and each node the sum below it, so that counting a
 * range (with weights 0 and 1) costs O(log n). Keys may be empty and hold any bytes; order is
 * bytes_compare's. One thread; any change invalidates cursors. Memory: 16 bytes an item and node slack. */
#ifndef STORE_BTREE_H
#define STORE_BTREE_H

#include "lib/base/bytes.h"

#define BTREE_ORDER 32 /* keys a node: a node is some ten cache lines, a million keys four levels */

struct btree_item {
    const uint8_t *key;
    uint32_t key_n;
    uint32_t weight; /* changed by btree_reweigh only while in the tree */
};

static inline struct bytes btree_key(const struct btree_item *item)
{
    return (struct bytes){item->key, item->key_n};
}

struct btree_node;

struct btree {
    struct btree_node *root; /* NULL: empty */
    size_t count;
};

void btree_free(struct btree *t, void (*free_item)(struct btree_item *item));

struct btree_item *btree_find(const struct btree *t, struct bytes key); /* NULL: none */

/* Takes the item in; if its key is there already, nothing changes and that item is returned. */
struct btree_item *btree_insert(struct btree *t, struct btree_item *item);

/* Takes the item with that key out and returns it; NULL: none. */
struct btree_item *btree_remove(struct btree *t, struct bytes key);

void btree_reweigh(struct btree *t, struct btree_item *item, uint32_t weight);
uint64_t btree_weight(const struct btree *t);                          /* of all items */
uint64_t btree_weight_before(const struct btree *t, struct bytes key); /* of items < key */

/* Walking in key order. item is NULL behind the last one. */
struct btree_cursor {
    struct btree_item *item;
    struct btree_node *leaf;
    unsigned at;
};
struct btree_cursor btree_seek(const struct btree *t, struct bytes key); /* first item >= key */
void btree_next(struct btree_cursor *c);

/* Checks order, fill, prefixes and weights with assertions: for tests. */
void btree_check(const struct btree *t);

#endif
