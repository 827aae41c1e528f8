#include "daemon/store/btree.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/store/btree_node.h"
#include "lib/base/memory.h"

static void free_node(struct btree_node *node, void (*free_item)(struct btree_item *item))
{
    for (unsigned i = 0; node->is_leaf && i < node->n; i++)
        free_item(AS_LEAF(node)->items[i]);
    for (unsigned i = 0; !node->is_leaf && i <= node->n; i++)
        free_node(AS_BRANCH(node)->children[i], free_item);
    node_free(node);
}

void btree_free(struct btree *t, void (*free_item)(struct btree_item *item))
{
    if (t->root)
        free_node(t->root, free_item);
    *t = (struct btree){0};
}

/* The child whose keys are those from seps[i - 1] on and below seps[i]. */
static unsigned child_of(const struct btree_node *node, struct bytes key)
{
    bool equal;
    unsigned i = node_search(node, key, &equal);
    return i + equal;
}

static struct btree_node *leaf_of(const struct btree *t, struct bytes key)
{
    struct btree_node *node = t->root;
    while (node && !node->is_leaf)
        node = AS_BRANCH(node)->children[child_of(node, key)];
    return node;
}

struct btree_item *btree_find(const struct btree *t, struct bytes key)
{
    struct btree_node *leaf = leaf_of(t, key);
    if (!leaf)
        return NULL;
    bool equal;
    unsigned i = node_search(leaf, key, &equal);
    return equal ? AS_LEAF(leaf)->items[i] : NULL;
}

/* ---- Insertion --------------------------------------------------------------------------------- */

static struct btree_item *insert_leaf(struct btree_node *node, struct btree_item *item,
                                      struct node_split *ret_split)
{
    bool equal;
    unsigned i = node_search(node, btree_key(item), &equal);
    if (equal)
        return AS_LEAF(node)->items[i];
    if (node->n < BTREE_ORDER) {
        leaf_put(node, i, item);
        return NULL;
    }
    /* Keys that come in order leave full nodes behind them rather than half-full ones. */
    bool at_end = i == node->n && !AS_LEAF(node)->next;
    *ret_split = leaf_split(node, at_end ? BTREE_ORDER : BTREE_ORDER / 2);
    if (at_end || i > node->n)
        leaf_put(ret_split->right, i - node->n, item);
    else
        leaf_put(node, i, item);
    /* Only now both sides have keys to tell apart by. */
    ret_split->separator = leaf_separator(node, ret_split->right);
    return NULL;
}

/* Returns the item that has the key already, else NULL; *ret_split tells what the parent must take. */
static struct btree_item *insert_below(struct btree_node *node, struct btree_item *item,
                                       struct node_split *ret_split)
{
    if (node->is_leaf)
        return insert_leaf(node, item, ret_split);
    struct node_split below = {0};
    unsigned i = child_of(node, btree_key(item));
    struct btree_item *existing = insert_below(AS_BRANCH(node)->children[i], item, &below);
    if (existing)
        return existing;
    node->weight += item->weight;
    if (!below.right)
        return NULL;
    if (node->n < BTREE_ORDER) {
        branch_put(node, i, below.separator, below.right);
        return NULL;
    }
    /* The weight of `below.right` is in its left sibling's no more: both halves are summed anew. */
    *ret_split = branch_split(node, i, below);
    return NULL;
}

struct btree_item *btree_insert(struct btree *t, struct btree_item *item)
{
    if (!t->root)
        t->root = leaf_new();
    struct node_split split = {0};
    struct btree_item *existing = insert_below(t->root, item, &split);
    if (existing)
        return existing;
    if (split.right)
        t->root = branch_new_root(t->root, split);
    t->count++;
    return NULL;
}

/* ---- Removal ----------------------------------------------------------------------------------- */

static struct btree_item *remove_below(struct btree_node *node, struct bytes key)
{
    if (node->is_leaf) {
        bool equal;
        unsigned i = node_search(node, key, &equal);
        return equal ? leaf_take(node, i) : NULL;
    }
    unsigned i = child_of(node, key);
    struct btree_node *child = AS_BRANCH(node)->children[i];
    struct btree_item *item = remove_below(child, key);
    if (!item)
        return NULL;
    node->weight -= item->weight;
    if (child->n < NODE_FILL_MIN)
        branch_refill(node, i < node->n ? i : i - 1);
    return item;
}

struct btree_item *btree_remove(struct btree *t, struct bytes key)
{
    if (!t->root)
        return NULL;
    struct btree_item *item = remove_below(t->root, key);
    if (!item)
        return NULL;
    t->count--;
    struct btree_node *root = t->root;
    if (root->n == 0) {
        t->root = root->is_leaf ? NULL : AS_BRANCH(root)->children[0];
        node_free(root);
    }
    return item;
}

/* ---- Weights ----------------------------------------------------------------------------------- */

void btree_reweigh(struct btree *t, struct btree_item *item, uint32_t weight)
{
    struct bytes key = btree_key(item);
    uint64_t change = (uint64_t)weight - item->weight; /* modulo 2^64: may be "negative" */
    struct btree_node *node = t->root;
    assert(node);
    for (;; node = AS_BRANCH(node)->children[child_of(node, key)]) {
        node->weight += change;
        if (node->is_leaf)
            break;
    }
    item->weight = weight;
}

uint64_t btree_weight(const struct btree *t)
{
    return t->root ? t->root->weight : 0;
}

uint64_t btree_weight_before(const struct btree *t, struct bytes key)
{
    uint64_t sum = 0;
    struct btree_node *node = t->root;
    while (node && !node->is_leaf) {
        unsigned i = child_of(node, key);
        for (unsigned k = 0; k < i; k++)
            sum += AS_BRANCH(node)->children[k]->weight;
        node = AS_BRANCH(node)->children[i];
    }
    if (!node)
        return 0;
    bool equal;
    unsigned n = node_search(node, key, &equal);
    for (unsigned k = 0; k < n; k++)
        sum += AS_LEAF(node)->items[k]->weight;
    return sum;
}

/* ---- Walking ----------------------------------------------------------------------------------- */

static void cursor_settle(struct btree_cursor *c)
{
    while (c->leaf && c->at >= c->leaf->n) {
        c->leaf = AS_LEAF(c->leaf)->next;
        c->at = 0;
    }
    c->item = c->leaf ? AS_LEAF(c->leaf)->items[c->at] : NULL;
}

struct btree_cursor btree_seek(const struct btree *t, struct bytes key)
{
    struct btree_cursor c = {.leaf = leaf_of(t, key)};
    bool equal;
    if (c.leaf)
        c.at = node_search(c.leaf, key, &equal);
    cursor_settle(&c);
    return c;
}

void btree_next(struct btree_cursor *c)
{
    assert(c->item);
    c->at++;
    cursor_settle(c);
}

/* ---- Checking ---------------------------------------------------------------------------------- */

static uint64_t check_node(const struct btree_node *node, bool is_root, const struct bytes *low,
                           const struct bytes *high, size_t *count, unsigned *ret_depth)
{
    node_check_prefix(node);
    assert(node->n <= BTREE_ORDER);
    assert(is_root || node->n >= 1);
    for (unsigned i = 0; i < node->n; i++) {
        struct bytes key = node_key(node, i);
        assert(i == 0 || bytes_compare(node_key(node, i - 1), key) < 0);
        assert(!low || bytes_compare(*low, key) <= 0);
        assert(!high || bytes_compare(key, *high) < 0);
    }
    uint64_t weight = 0;
    *ret_depth = 1;
    for (unsigned i = 0; node->is_leaf && i < node->n; i++)
        weight += AS_LEAF(node)->items[i]->weight;
    *count += node->is_leaf ? node->n : 0;
    unsigned depth = 0, first_depth = 0;
    for (unsigned i = 0; !node->is_leaf && i <= node->n; i++) {
        const struct branch *b = AS_BRANCH(node);
        weight += check_node(b->children[i], false, i ? &b->seps[i - 1] : low,
                             i < node->n ? &b->seps[i] : high, count, &depth);
        if (i == 0)
            first_depth = depth;
        assert(depth == first_depth);
    }
    *ret_depth += first_depth;
    assert(weight == node->weight);
    return weight;
}

void btree_check(const struct btree *t)
{
    size_t count = 0;
    unsigned depth;
    if (t->root)
        check_node(t->root, true, NULL, NULL, &count, &depth);
    assert(count == t->count);
}
