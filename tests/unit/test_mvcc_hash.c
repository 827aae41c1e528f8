/* HashKV against an etcd 3.4.23: the numbers were read from `etcdctl endpoint hashkv` after the very
 * same history on a fresh single member. */
#include "tests/unit/store_fixture.h"

static void expect(struct store *s, int64_t revision, uint32_t hash, int64_t compacted)
{
    struct hash_answer a = hash_of(s, revision);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(a.hash, hash);
    assert_int_equal(a.compacted, compacted);
    assert_int_equal(a.revision, revision ? revision : mvcc_revision(s->m));
}

/* put x, put y, delete b as one transaction */
static void txn(struct store *s)
{
    struct mvcc_range b = range_of("b", NULL);
    begin(s);
    mvcc_put(s->m, bytes_str("x"), bytes_str("1"), 0, NULL);
    mvcc_put(s->m, bytes_str("y"), bytes_str("2"), 0, NULL);
    mvcc_delete(s->m, &b, NULL, NULL);
    end(s);
}

static void equals_etcd(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    expect(&s, 0, 1084519789, -1);
    put(&s, "a", "1");
    expect(&s, 0, 2587454935, -1);
    put(&s, "b", "2");
    put(&s, "a", "3");
    expect(&s, 0, 2069675932, -1);
    del(&s, "a", NULL);
    expect(&s, 0, 1346927904, -1);
    put(&s, "a", "again");
    expect(&s, 0, 2041962890, -1);
    txn(&s);
    expect(&s, 0, 1359992390, -1);
    expect(&s, 4, 2069675932, -1);
    assert_int_equal(compact(&s, 5), ERR_OK);
    expect(&s, 0, 1202300899, 5);
    expect(&s, 6, 1415188333, 5);
    assert_int_equal(hash_of(&s, 5).code, ERR_COMPACTED);
    assert_int_equal(hash_of(&s, 8).code, ERR_FUTURE_REV);
    put(&s, "x", "");
    expect(&s, 0, 2126058511, 5);
    assert_int_equal(del(&s, "", ""), 3);
    expect(&s, 0, 3778642770, 5); /* no key lives: what the compaction kept counts again */
    assert_int_equal(compact(&s, 9), ERR_OK);
    expect(&s, 0, 1084519789, 9);
    put(&s, "k", "v");
    assert_int_equal(compact(&s, 10), ERR_OK);
    del(&s, "k", NULL);
    expect(&s, 0, 540049960, 10);
    store_close(&s);
    store_open(&s);
    expect(&s, 0, 540049960, 10);
    assert_int_equal(compact(&s, 11), ERR_OK);
    expect(&s, 0, 1084519789, 11);
    store_close(&s);
    store_remove(&s);
}

/* A compaction asked for between a hash's request and its end must not change it. */
static void compaction_waits_for_hashes_before_it(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    for (int i = 0; i < 5000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%d", i % 3000);
        put(&s, key, "v");
    }
    assert_int_equal(compact(&s, 1000), ERR_OK);
    uint32_t expected = hash_of(&s, 4000).hash;
    struct hash_answer a = {0};
    assert_int_equal(compact(&s, 2000), ERR_OK);
    mvcc_hash_kv(s.m, 4000, on_hash, &a);
    assert_int_equal(compact(&s, 5000), ERR_OK);
    put(&s, "k1", "v2");
    worker_drain(&s.worker);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(a.compacted, 2000);
    assert_int_equal(a.revision, 4000);
    assert_int_equal(a.hash,
                     expected); /* below 1000 nothing was overwritten between 1000 and 2000 */
    store_close(&s);
    store_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_etcd),
        cmocka_unit_test(compaction_waits_for_hashes_before_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
