#include "daemon/store/btree_node.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

static size_t common_prefix(struct bytes a, struct bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n, i = 0;
    while (i < n && a.p[i] == b.p[i])
        i++;
    return i;
}

/* The 8 bytes of a key from `from` on, as a number that orders as they do. */
static uint64_t load8(struct bytes key, size_t from)
{
    if (key.n >= from + 8)
        return get_be64(key.p + from);
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++)
        v = v << 8 | (from + i < key.n ? key.p[from + i] : 0);
    return v;
}

/* The keys are in order, so what the first and the last share is shared by all. */
static uint32_t shared_prefix(const struct btree_node *node)
{
    if (node->n == 0)
        return 0;
    return (uint32_t)common_prefix(node_key(node, 0), node_key(node, node->n - 1u));
}

static void cache_all(struct btree_node *node)
{
    node->prefix_n = shared_prefix(node);
    for (unsigned i = 0; i < node->n; i++)
        node->cached[i] = load8(node_key(node, i), node->prefix_n);
}

/* After a key was put in at i: its cached bytes, or all if the prefix became shorter. A prefix that
 * could be longer now (a key was taken out) is found at the next split or join. */
static void cache_one(struct btree_node *node, unsigned i)
{
    if (node->n == 1 || ((i == 0 || i + 1 == node->n) && shared_prefix(node) < node->prefix_n))
        cache_all(node);
    else
        node->cached[i] = load8(node_key(node, i), node->prefix_n);
}

void node_check_prefix(const struct btree_node *node)
{
    assert(node->n == 0 || node->prefix_n <= shared_prefix(node));
    for (unsigned i = 0; i < node->n; i++)
        assert(node->cached[i] == load8(node_key(node, i), node->prefix_n));
}

unsigned node_search(const struct btree_node *node, struct bytes key, bool *ret_equal)
{
    *ret_equal = false;
    if (node->n == 0)
        return 0;
    if (node->prefix_n > 0) {
        struct bytes first = node_key(node, 0);
        size_t n = key.n < node->prefix_n ? key.n : node->prefix_n;
        int c = n ? memcmp(key.p, first.p, n) : 0;
        if (c > 0)
            return node->n;
        if (c < 0 || key.n < node->prefix_n)
            return 0;
    }
    uint64_t want = load8(key, node->prefix_n);
    unsigned low = 0, high = node->n;
    while (low < high) {
        unsigned middle = (low + high) / 2;
        if (node->cached[middle] < want)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < node->n && node->cached[low] == want; low++) {
        int c = bytes_compare(key, node_key(node, low));
        if (c <= 0) {
            *ret_equal = c == 0;
            return low;
        }
    }
    return low;
}

struct btree_node *leaf_new(void)
{
    struct leaf *leaf = xcalloc(1, sizeof(*leaf));
    leaf->node.is_leaf = true;
    return &leaf->node;
}

void node_free(struct btree_node *node)
{
    for (unsigned i = 0; !node->is_leaf && i < node->n; i++)
        free((void *)AS_BRANCH(node)->seps[i].p);
    free(node);
}

/* Opens a gap at i of an array of n elements. */
#define GAP(array, n, i) memmove(&(array)[(i) + 1], &(array)[i], ((n) - (i)) * sizeof(*(array)))
#define CLOSE_GAP(array, n, i)                                                                     \
    memmove(&(array)[i], &(array)[(i) + 1], ((n) - (i)-1) * sizeof(*(array)))

void leaf_put(struct btree_node *node, unsigned i, struct btree_item *item)
{
    struct leaf *leaf = AS_LEAF(node);
    assert(node->n < BTREE_ORDER && i <= node->n);
    GAP(leaf->items, node->n, i);
    GAP(node->cached, node->n, i);
    leaf->items[i] = item;
    node->n++;
    node->weight += item->weight;
    cache_one(node, i);
}

struct btree_item *leaf_take(struct btree_node *node, unsigned i)
{
    struct leaf *leaf = AS_LEAF(node);
    struct btree_item *item = leaf->items[i];
    CLOSE_GAP(leaf->items, node->n, i);
    CLOSE_GAP(node->cached, node->n, i);
    node->n--;
    node->weight -= item->weight;
    return item;
}

/* Sums and prefixes of a node whose slots were filled by hand. */
static void node_settle(struct btree_node *node)
{
    node->weight = 0;
    for (unsigned i = 0; node->is_leaf && i < node->n; i++)
        node->weight += AS_LEAF(node)->items[i]->weight;
    for (unsigned i = 0; !node->is_leaf && i <= node->n; i++)
        node->weight += AS_BRANCH(node)->children[i]->weight;
    cache_all(node);
}

struct node_split leaf_split(struct btree_node *node, unsigned keep)
{
    struct leaf *left = AS_LEAF(node), *right = AS_LEAF(leaf_new());
    right->node.n = (uint16_t)(node->n - keep);
    memcpy(right->items, left->items + keep, right->node.n * sizeof(*right->items));
    node->n = (uint16_t)keep;
    right->prev = node;
    right->next = left->next;
    if (left->next)
        AS_LEAF(left->next)->prev = &right->node;
    left->next = &right->node;
    node_settle(node);
    node_settle(&right->node);
    return (struct node_split){.right = &right->node};
}

struct bytes leaf_separator(const struct btree_node *left, const struct btree_node *right)
{
    struct bytes first = node_key(right, 0);
    size_t n = common_prefix(node_key(left, left->n - 1u), first) + 1;
    assert(n <= first.n);
    return bytes_of(bytes_dup(bytes_of(first.p, n)), n);
}

struct btree_node *branch_new_root(struct btree_node *left, struct node_split split)
{
    struct branch *b = xcalloc(1, sizeof(*b));
    b->node.n = 1;
    b->seps[0] = split.separator;
    b->children[0] = left;
    b->children[1] = split.right;
    node_settle(&b->node);
    return &b->node;
}

void branch_put(struct btree_node *node, unsigned i, struct bytes separator,
                struct btree_node *right)
{
    struct branch *b = AS_BRANCH(node);
    assert(node->n < BTREE_ORDER && i <= node->n);
    GAP(b->seps, node->n, i);
    GAP(node->cached, node->n, i);
    GAP(b->children, node->n + 1u, i + 1);
    b->seps[i] = separator;
    b->children[i + 1] = right;
    node->n++;
    cache_one(node, i);
}

/* Both sides of a join or a split, side by side. */
struct branch_row {
    struct bytes seps[2 * BTREE_ORDER + 2];
    struct btree_node *children[2 * BTREE_ORDER + 3];
    unsigned n; /* separators */
};

static void branch_fill(struct branch *b, const struct branch_row *row, unsigned from, unsigned n)
{
    memcpy(b->seps, row->seps + from, n * sizeof(*b->seps));
    memcpy(b->children, row->children + from, (n + 1) * sizeof(*b->children));
    b->node.n = (uint16_t)n;
    node_settle(&b->node);
}

static void row_append(struct branch_row *row, const struct branch *b)
{
    memcpy(row->seps + row->n, b->seps, b->node.n * sizeof(*b->seps));
    memcpy(row->children + row->n, b->children, (b->node.n + 1u) * sizeof(*b->children));
    row->n += b->node.n;
}

struct node_split branch_split(struct btree_node *node, unsigned i, struct node_split below)
{
    struct branch *left = AS_BRANCH(node), *right = xcalloc(1, sizeof(*right));
    struct branch_row row = {0};
    row_append(&row, left);
    GAP(row.seps, row.n, i);
    GAP(row.children, row.n + 1, i + 1);
    row.seps[i] = below.separator;
    row.children[i + 1] = below.right;
    row.n++;
    /* In ascending order the left side is left nearly full, as in the leaves. */
    unsigned keep = i + 1 == row.n ? BTREE_ORDER - NODE_FILL_MIN : BTREE_ORDER / 2;
    branch_fill(left, &row, 0, keep);
    branch_fill(right, &row, keep + 1, row.n - keep - 1);
    return (struct node_split){.right = &right->node, .separator = row.seps[keep]};
}

/* Takes the separator at i and the child right of it out of a branch. */
static void branch_drop(struct btree_node *node, unsigned i)
{
    struct branch *b = AS_BRANCH(node);
    CLOSE_GAP(b->seps, node->n, i);
    CLOSE_GAP(node->cached, node->n, i);
    CLOSE_GAP(b->children, node->n + 1u, i + 1);
    node->n--;
}

static void refill_leaves(struct btree_node *parent, unsigned i)
{
    struct branch *b = AS_BRANCH(parent);
    struct leaf *left = AS_LEAF(b->children[i]), *right = AS_LEAF(b->children[i + 1]);
    struct btree_item *all[2 * BTREE_ORDER];
    unsigned n = left->node.n + right->node.n;
    memcpy(all, left->items, left->node.n * sizeof(*all));
    memcpy(all + left->node.n, right->items, right->node.n * sizeof(*all));
    unsigned keep = n <= BTREE_ORDER ? n : n / 2;
    memcpy(left->items, all, keep * sizeof(*all));
    memcpy(right->items, all + keep, (n - keep) * sizeof(*all));
    left->node.n = (uint16_t)keep;
    right->node.n = (uint16_t)(n - keep);
    node_settle(&left->node);
    free((void *)b->seps[i].p);
    if (keep < n) {
        node_settle(&right->node);
        b->seps[i] = leaf_separator(&left->node, &right->node);
        cache_all(parent);
        return;
    }
    left->next = right->next;
    if (right->next)
        AS_LEAF(right->next)->prev = &left->node;
    node_free(&right->node);
    branch_drop(parent, i);
}

static void refill_branches(struct btree_node *parent, unsigned i)
{
    struct branch *b = AS_BRANCH(parent);
    struct branch *left = AS_BRANCH(b->children[i]), *right = AS_BRANCH(b->children[i + 1]);
    struct branch_row row = {0};
    row_append(&row, left);
    row.seps[row.n++] = b->seps[i];
    row_append(&row, right);
    if (row.n <= BTREE_ORDER) {
        branch_fill(left, &row, 0, row.n);
        free(right); /* its separators moved */
        branch_drop(parent, i);
        return;
    }
    unsigned keep = row.n / 2;
    branch_fill(left, &row, 0, keep);
    branch_fill(right, &row, keep + 1, row.n - keep - 1);
    b->seps[i] = row.seps[keep];
    cache_all(parent);
}

void branch_refill(struct btree_node *node, unsigned i)
{
    assert(i < node->n);
    if (AS_BRANCH(node)->children[i]->is_leaf)
        refill_leaves(node, i);
    else
        refill_branches(node, i);
}
