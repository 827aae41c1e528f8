/* The B+ tree against a model: a sorted array of the same keys. SEED=n replays a run. */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/store/btree.h"
#include "lib/base/memory.h"

struct item {
    struct btree_item item;
    uint8_t key[];
};

struct model {
    struct btree tree;
    struct item **items; /* in key order */
    size_t n, cap;
    uint64_t rng;
};

static uint64_t next(struct model *m)
{
    m->rng ^= m->rng << 13;
    m->rng ^= m->rng >> 7;
    m->rng ^= m->rng << 17;
    return m->rng;
}

static struct item *item_new(struct bytes key, uint32_t weight)
{
    struct item *it = xcalloc(1, sizeof(*it) + key.n + 1);
    if (key.n)
        memcpy(it->key, key.p, key.n);
    it->item = (struct btree_item){.key = it->key, .key_n = (uint32_t)key.n, .weight = weight};
    return it;
}

static void item_free(struct btree_item *item)
{
    free(item);
}

static size_t model_at(const struct model *m, struct bytes key, bool *ret_equal)
{
    size_t low = 0, high = m->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (bytes_compare(btree_key(&m->items[middle]->item), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_equal = low < m->n && bytes_equal(btree_key(&m->items[low]->item), key);
    return low;
}

static void put(struct model *m, struct bytes key)
{
    bool equal;
    size_t at = model_at(m, key, &equal);
    struct item *it = item_new(key, (uint32_t)(next(m) % 3));
    struct btree_item *existing = btree_insert(&m->tree, &it->item);
    if (equal) {
        assert_ptr_equal(existing, &m->items[at]->item);
        free(it);
        return;
    }
    assert_null(existing);
    if (m->n == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 64;
        m->items = xrealloc(m->items, m->cap * sizeof(*m->items));
    }
    memmove(m->items + at + 1, m->items + at, (m->n - at) * sizeof(*m->items));
    m->items[at] = it;
    m->n++;
}

static void take(struct model *m, struct bytes key)
{
    bool equal;
    size_t at = model_at(m, key, &equal);
    struct btree_item *got = btree_remove(&m->tree, key);
    if (!equal) {
        assert_null(got);
        return;
    }
    assert_ptr_equal(got, &m->items[at]->item);
    free(m->items[at]);
    memmove(m->items + at, m->items + at + 1, (m->n - at - 1) * sizeof(*m->items));
    m->n--;
}

static void look(struct model *m, struct bytes key)
{
    bool equal;
    size_t at = model_at(m, key, &equal);
    struct btree_item *expected = at < m->n ? &m->items[at]->item : NULL;
    struct btree_cursor c = btree_seek(&m->tree, key);
    assert_ptr_equal(c.item, expected);
    assert_ptr_equal(btree_find(&m->tree, key), equal ? expected : NULL);
    uint64_t before = 0;
    for (size_t i = 0; i < at; i++)
        before += m->items[i]->item.weight;
    assert_int_equal(btree_weight_before(&m->tree, key), before);
    if (equal)
        btree_reweigh(&m->tree, c.item, (uint32_t)(next(m) % 3));
}

static void compare_all(struct model *m)
{
    btree_check(&m->tree);
    assert_int_equal(m->tree.count, m->n);
    struct btree_cursor c = btree_seek(&m->tree, BYTES_EMPTY);
    uint64_t weight = 0;
    for (size_t i = 0; i < m->n; i++, btree_next(&c)) {
        assert_ptr_equal(c.item, &m->items[i]->item);
        weight += c.item->weight;
    }
    assert_null(c.item);
    assert_int_equal(btree_weight(&m->tree), weight);
}

static void model_free(struct model *m)
{
    btree_free(&m->tree, item_free);
    free(m->items);
}

/* Keys that are hard on prefixes: NULs at the end, long common parts, one byte of difference. */
static struct bytes hostile(struct model *m, uint8_t *p, unsigned kind)
{
    static const char alphabet[] = "\0\x01\x7f\x80\xff/a";
    size_t n = 0;
    switch (kind) {
    case 0: /* short, of few letters */
        n = next(m) % 6;
        for (size_t i = 0; i < n; i++)
            p[i] = (uint8_t)alphabet[next(m) % 7];
        break;
    case 1: /* a long common prefix and NULs behind it */
        n = 40 + next(m) % 20;
        memset(p, 'x', 40);
        memset(p + 40, 0, n - 40);
        if (n > 44 && next(m) % 2)
            p[40 + next(m) % (n - 40)] = (uint8_t)next(m);
        break;
    case 2: /* runs of one letter: each key is the prefix of the next */
        n = next(m) % 200;
        memset(p, 'y', n);
        break;
    default: /* random */
        n = 16;
        for (size_t i = 0; i < n; i++)
            p[i] = (uint8_t)next(m);
    }
    return bytes_of(p, n);
}

static uint64_t seed_of(uint64_t n)
{
    const char *text = getenv("SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : n;
    print_message("SEED=%llu\n", (unsigned long long)seed);
    return seed ? seed : 1;
}

static void behaves_as_sorted_array(void **state)
{
    (void)state;
    for (uint64_t run = 1; run <= 8; run++) {
        struct model m = {.rng = seed_of(run * 0x9e3779b97f4a7c15)};
        uint8_t p[256];
        for (unsigned step = 0; step < 6000; step++) {
            /* Grows in the first half and shrinks in the second. */
            unsigned dice = (unsigned)(next(&m) % 10), grow = step < 3000 ? 6 : 2;
            struct bytes key = hostile(&m, p, (unsigned)(next(&m) % 4));
            if (dice < grow)
                put(&m, key);
            else if (dice < 9 && m.n && next(&m) % 2)
                take(&m, btree_key(&m.items[next(&m) % m.n]->item));
            else if (dice < 9)
                take(&m, key);
            else
                look(&m, key);
            if (step % 500 == 0)
                compare_all(&m);
        }
        compare_all(&m);
        while (m.n) {
            take(&m, btree_key(&m.items[next(&m) % m.n]->item));
            if (m.n % 300 == 0)
                compare_all(&m);
        }
        assert_null(m.tree.root);
        model_free(&m);
    }
}

static void takes_keys_in_order(void **state)
{
    (void)state;
    for (int direction = 0; direction < 2; direction++) {
        struct model m = {.rng = 7};
        for (unsigned i = 0; i < 20000; i++) {
            char text[16];
            int n = snprintf(text, sizeof(text), "key-%08u", direction ? i : 20000 - i);
            put(&m, bytes_of(text, (size_t)n));
        }
        compare_all(&m);
        for (unsigned i = 0; i < 19990; i++)
            take(&m, btree_key(&m.items[direction ? 0 : m.n - 1]->item));
        compare_all(&m);
        model_free(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(behaves_as_sorted_array),
        cmocka_unit_test(takes_keys_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
