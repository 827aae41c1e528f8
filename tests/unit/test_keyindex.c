/* The key index: states at revisions, generations, compaction as etcd's key_index.go has it. */
#include <assert.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "daemon/store/keyindex.h"

static struct key_entry *add(struct keyindex *x, const char *key, int64_t main, int32_t sub,
                             bool tombstone)
{
    struct key_facts facts = {.create_revision = main, .version = 1, .stamp = (uint64_t)main};
    return keyindex_add(x, bytes_str(key), rev_id(main, sub), tombstone, &facts);
}

/* The main revision of the key's state as of `main`; 0: none. */
static int64_t at(const struct keyindex *x, const char *key, int64_t main)
{
    uint64_t id;
    const struct key_entry *e = keyindex_find(x, bytes_str(key));
    return e && key_entry_at(e, main, &id) ? rev_main(id) : 0;
}

/* etcd's example in key_index.go: "foo" put at 1 (here 2), 2, tombstone 3, put 4, tombstone 5. */
static void make_foo(struct keyindex *x)
{
    add(x, "foo", 2, 0, false);
    add(x, "foo", 4, 0, false);
    add(x, "foo", 6, 0, true);
    add(x, "foo", 8, 0, false);
    add(x, "foo", 8, 1, false);
    add(x, "foo", 10, 0, true);
    add(x, "foo", 12, 1, true); /* as after a put and a delete in one transaction */
    add(x, "foo", 14, 0, false);
}

static void packs_revisions(void **state)
{
    (void)state;
    uint64_t id = rev_id(REV_MAIN_MAX, REV_SUB_MAX);
    assert_int_equal(rev_main(id), REV_MAIN_MAX);
    assert_int_equal(rev_sub(id), REV_SUB_MAX);
    assert_true(id <= INT64_MAX);
    assert_true(rev_id(5, REV_SUB_MAX) < rev_id(6, 0));
}

static void finds_states(void **state)
{
    (void)state;
    struct keyindex x = {0};
    make_foo(&x);
    static const int64_t expected[] = {0, 0, 2, 2, 4, 4, 0, 0, 8, 8, 0, 0, 0, 0, 14, 14};
    for (int64_t main = 0; main < 16; main++)
        assert_int_equal(at(&x, "foo", main), expected[main]);
    assert_int_equal(at(&x, "fo", 10), 0);
    struct key_entry *e = keyindex_find(&x, bytes_str("foo"));
    uint64_t id;
    assert_true(key_entry_at(e, 8, &id));
    assert_int_equal(rev_sub(id), 1);
    keyindex_free(&x);
}

static void compaction(struct keyindex *x, int64_t at_, struct rev_list *removed)
{
    struct buf from = {0};
    assert_false(keyindex_compact(x, at_, 1000, 1000, &from, removed));
    buf_free(&from);
}

/* The states that stay readable are the same before and after; what goes is what can't be seen. */
static void compacts_to_every_revision(void **state)
{
    (void)state;
    static const size_t gone[] = {0, 0, 0, 0, 1, 1, 2, 3, 4, 4, 5, 6, 6, 7, 7, 7};
    for (int64_t c = 1; c < 16; c++) {
        struct keyindex x = {0}, whole = {0};
        struct rev_list removed = {0};
        make_foo(&x);
        make_foo(&whole);
        compaction(&x, c, &removed);
        assert_int_equal(removed.n, gone[c]);
        assert_int_equal(x.revisions, 8 - gone[c]);
        for (int64_t main = c; main < 16; main++)
            assert_int_equal(at(&x, "foo", main), at(&whole, "foo", main));
        keyindex_free(&x);
        keyindex_free(&whole);
        rev_list_free(&removed);
    }
}

static void forgets_dead_keys(void **state)
{
    (void)state;
    struct keyindex x = {0};
    struct rev_list removed = {0};
    add(&x, "a", 2, 0, false);
    add(&x, "b", 3, 0, false);
    add(&x, "a", 4, 0, true);
    compaction(&x, 4, &removed);
    assert_int_equal(removed.n,
                     1); /* the tombstone is the compaction revision's: a watch wants it */
    assert_non_null(keyindex_find(&x, bytes_str("a")));
    compaction(&x, 5, &removed);
    assert_int_equal(removed.n, 2);
    assert_null(keyindex_find(&x, bytes_str("a")));
    assert_int_equal(x.tree.count, 1);
    assert_int_equal(x.revisions, 1);
    keyindex_free(&x);
    rev_list_free(&removed);
}

static void keeps_what_hashes_count(void **state)
{
    (void)state;
    struct keyindex x = {0};
    make_foo(&x);
    add(&x, "other", 15, 0, false);
    static const int64_t expected[] = {0, 0, 2, 2, 4, 4, 0, 0, 8, 8, 0, 0, 0, 0, 14, 14};
    for (int64_t main = 0; main < 16; main++) {
        struct buf from = {0};
        struct rev_list kept = {0};
        uint64_t live = 0;
        assert_false(keyindex_keep(&x, main, 100, 1000, &from, &kept, &live));
        assert_int_equal(kept.n, (expected[main] != 0) + (main >= 15));
        assert_int_equal(live, kept.n);
        if (expected[main])
            assert_int_equal(rev_main(kept.ids[0]), expected[main]);
        rev_list_free(&kept);
        buf_free(&from);
    }
    keyindex_free(&x);
}

/* Slices of any size remove the same as one walk, although dead keys leave the tree on the way. */
static void slices_see_every_key(void **state)
{
    (void)state;
    for (size_t keys_max = 1; keys_max < 2000; keys_max = keys_max * 3 + 1) {
        struct keyindex x = {0};
        struct rev_list all = {0};
        char key[16];
        for (int i = 0; i < 3000; i++) {
            snprintf(key, sizeof(key), "key%05d", i * 7919 % 3000);
            add(&x, key, 2 + i, 0, false);
        }
        for (int i = 0; i < 3000; i++) {
            snprintf(key, sizeof(key), "key%05d", i);
            if (i % 5)
                add(&x, key, 4000 + i, 0, i % 5 != 1);
        }
        assert_int_equal(keyindex_count(&x, bytes_str("key"), bytes_str("kez")), 1200);
        struct buf from = {0};
        bool more = true;
        for (int guard = 0; more; guard++) {
            assert_true(guard < 10000);
            struct rev_list removed = {0};
            more = keyindex_compact(&x, 10000, keys_max, 100, &from, &removed);
            assert_true(removed.n < 102);
            for (size_t i = 0; i < removed.n; i++)
                rev_list_add(&all, removed.ids[i]);
            rev_list_free(&removed);
        }
        assert_int_equal(all.n, 600 + 1800 * 2);
        assert_int_equal(x.tree.count, 1200);
        assert_int_equal(x.revisions, 1200);
        assert_int_equal(keyindex_count(&x, bytes_str("key"), bytes_of("", 1)), 1200);
        btree_check(&x.tree);
        buf_free(&from);
        rev_list_free(&all);
        keyindex_free(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packs_revisions),
        cmocka_unit_test(finds_states),
        cmocka_unit_test(compacts_to_every_revision),
        cmocka_unit_test(forgets_dead_keys),
        cmocka_unit_test(keeps_what_hashes_count),
        cmocka_unit_test(slices_see_every_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
