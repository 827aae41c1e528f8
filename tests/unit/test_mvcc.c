/* What a store answers, taken from etcd 3.4.23's behaviour. Each test runs its history with all of it
 * still in memory, with all of it in SQLite only, and after a reopening. */
#include "tests/unit/store_fixture.h"

enum phase { IN_MEMORY, IN_SQLITE, REOPENED, PHASES };

static void settle(struct store *s, enum phase phase)
{
    if (phase == IN_MEMORY)
        return;
    worker_drain(&s->worker);
    assert_int_equal(mvcc_backlog_bytes(s->m), 0);
    if (phase == REOPENED) {
        store_close(s);
        store_open(s);
    }
}

#define FOR_EACH_PHASE(s_, phase_)                                                                 \
    for (enum phase phase_ = IN_MEMORY;                                                            \
         phase_ < PHASES && (store_make(s_), (s_)->config.cache_bytes_max = 1, store_open(s_), 1); \
         phase_++, store_close(s_), store_remove(s_))

static void begins_empty_at_revision_1(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        settle(&s, phase);
        assert_int_equal(mvcc_revision(s.m), 1);
        assert_int_equal(mvcc_compact_revision(s.m), -1);
        assert_int_equal(mvcc_applied_index(s.m), 0);
        assert_look(&s, "", "", 0, "");
        assert_look(&s, "a", NULL, 2, "future");
        assert_look(&s, "a", NULL, 1, "");
    }
}

static void keeps_generations(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        put(&s, "a", "1");                       /* 2 */
        put(&s, "b", "2");                       /* 3 */
        put_lease(&s, "a", "3", 7);              /* 4 */
        assert_int_equal(del(&s, "a", NULL), 1); /* 5 */
        assert_int_equal(del(&s, "a", NULL), 0); /* changes nothing: no revision */
        put(&s, "a", "again");                   /* 6 */
        settle(&s, phase);
        assert_int_equal(mvcc_revision(s.m), 6);
        assert_int_equal(mvcc_applied_index(s.m), 6);
        assert_look(&s, "a", NULL, 1, "");
        assert_look(&s, "a", NULL, 2, "a=1 c2 m2 v1");
        assert_look(&s, "a", NULL, 3, "a=1 c2 m2 v1");
        assert_look(&s, "a", NULL, 4, "a=3 c2 m4 v2 l7");
        assert_look(&s, "a", NULL, 5, "");
        assert_look(&s, "a", NULL, 6, "a=again c6 m6 v1");
        assert_look(&s, "a", NULL, 0, "a=again c6 m6 v1");
        assert_look(&s, "a", NULL, 7, "future");
        assert_look(&s, "", "", 4, "a=3 c2 m4 v2 l7, b=2 c3 m3 v1");
        assert_look(&s, "", "", 5, "b=2 c3 m3 v1");
    }
}

static void a_transaction_is_one_revision(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        put(&s, "b", "0"); /* 2 */
        const struct mvcc_change *changes;
        size_t n;
        struct mvcc_kv *prev;
        struct mvcc_range both = range_of("b", "d");
        int64_t deleted;
        begin(&s);
        assert_int_equal(mvcc_put(s.m, bytes_str("b"), bytes_str("1"), 0, &prev), ERR_OK);
        assert_int_equal(prev->mod_revision, 2);
        mvcc_kv_unref(prev);
        assert_int_equal(mvcc_put(s.m, bytes_str("c"), bytes_str("2"), 0, &prev), ERR_OK);
        assert_null(prev);
        assert_look(&s, "", "", 0, "b=1 c2 m3 v2, c=2 c3 m3 v1"); /* its own writes */
        assert_look(&s, "", "", 2, "b=0 c2 m2 v1");
        assert_look(&s, "", "", 3, "b=1 c2 m3 v2, c=2 c3 m3 v1");
        assert_int_equal(mvcc_revision(s.m), 2);
        assert_int_equal(mvcc_delete(s.m, &both, &deleted, NULL), ERR_OK);
        assert_int_equal(deleted, 2);
        assert_look(&s, "", "", 0, "");
        assert_int_equal(mvcc_put(s.m, bytes_str("c"), bytes_str("3"), 0, NULL), ERR_OK);
        mvcc_end(s.m, &changes, &n);
        assert_int_equal(n, 5);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(changes[i].kv->mod_revision, 3);
            assert_int_equal(changes[i].kv->sub, i);
            assert_int_equal(changes[i].kv->stamp, 1002);
        }
        assert_true(bytes_equal(changes[0].prev->value, bytes_str("0")));
        assert_null(changes[1].prev);
        assert_true(changes[2].kv->tombstone);
        assert_true(bytes_equal(changes[2].prev->value, bytes_str("1")));
        assert_null(changes[4].prev);
        settle(&s, phase);
        assert_look(&s, "", "", 0, "c=3 c3 m3 v1");
        assert_look(&s, "", "", 2, "b=0 c2 m2 v1");
    }
}

/* The value before a change is read when it is asked for only. */
static void changes_know_what_was_before(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        put_lease(&s, "a", "1", 7);
        put(&s, "b", "");
        settle(&s, phase);
        const struct mvcc_change *changes;
        size_t n;
        struct mvcc_range all = range_of("", "");
        begin(&s);
        assert_int_equal(mvcc_delete(s.m, &all, NULL, NULL), ERR_OK);
        mvcc_end(s.m, &changes, &n);
        assert_int_equal(n, 2);
        assert_int_equal(changes[0].prev->lease, 7);
        assert_int_equal(changes[0].prev->mod_revision, 2);
        for (int i = 0; i < 2; i++) {
            struct mvcc_kv *prev = mvcc_change_prev(s.m, &changes[0]);
            assert_true(bytes_equal(prev->value, bytes_str("1")));
            assert_ptr_equal(prev, changes[0].prev);
        }
        assert_int_equal(mvcc_change_prev(s.m, &changes[1])->value.n, 0);
        settle(&s, phase);
        put(&s, "c", "3");
    }
}

static void ranges_have_ends_limits_and_totals(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        for (int i = 0; i < 300; i++) {
            char key[16];
            snprintf(key, sizeof(key), "k%03d", i);
            put(&s, key, "v");
        }
        assert_int_equal(del(&s, "k100", "k200"), 100);
        settle(&s, phase);
        struct mvcc_query q = {.range = range_of("k050", "k250"), .limit = 3};
        struct mvcc_result r;
        assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
        assert_int_equal(r.count, 3);
        assert_int_equal(r.total, 100);
        mvcc_result_free(&r);
        q.revision = 301; /* before the deletion */
        assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
        assert_int_equal(r.count, 3);
        assert_int_equal(r.total, 200);
        mvcc_result_free(&r);
        q.no_total = true;
        assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
        assert_int_equal(r.count, 3);
        assert_true(r.total > 3);
        mvcc_result_free(&r);
        q = (struct mvcc_query){.range = range_of("k", ""), .count_only = true};
        assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
        assert_int_equal(r.count, 0);
        assert_int_equal(r.total, 200);
        q.revision = 51;
        assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
        assert_int_equal(r.total, 50);
        q = (struct mvcc_query){.range = range_of("z", "a"), .count_only = true};
        assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
        assert_int_equal(r.total, 0);
        q = (struct mvcc_query){.range = range_of("k001", NULL), .keys_only = true};
        for (q.revision = 0; q.revision < 301; q.revision += 300) {
            assert_int_equal(mvcc_range(s.m, &q, &r, NULL), ERR_OK);
            char *text = result_text(&r);
            assert_string_equal(text, "k001= c3 m3 v1");
            assert_int_equal(r.kvs[0]->stamp, 1002);
            free(text);
            mvcc_result_free(&r);
        }
    }
}

static void gets_single_keys(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        put_lease(&s, "a", "value", 9);
        put(&s, "gone", "x");
        del(&s, "gone", NULL);
        settle(&s, phase);
        assert_null(mvcc_get(s.m, bytes_str("gone"), true));
        assert_null(mvcc_get(s.m, bytes_str("none"), true));
        struct mvcc_kv *kv = mvcc_get(s.m, bytes_str("a"), true);
        assert_true(bytes_equal(kv->value, bytes_str("value")));
        assert_int_equal(kv->lease, 9);
        mvcc_kv_unref(kv);
        kv = mvcc_get(s.m, bytes_str("a"), false);
        assert_int_equal(kv->version, 1);
        assert_int_equal(kv->lease, 9);
        mvcc_kv_unref(kv);
    }
}

static void takes_any_bytes(void **state)
{
    (void)state;
    struct store s;
    FOR_EACH_PHASE(&s, phase)
    {
        uint8_t key[700], value[100000];
        for (size_t i = 0; i < sizeof(key); i++)
            key[i] = (uint8_t)i;
        for (size_t i = 0; i < sizeof(value); i++)
            value[i] = (uint8_t)(i * 7);
        begin(&s);
        mvcc_put(s.m, bytes_of(key, 700), bytes_of(value, sizeof(value)), 0, NULL);
        mvcc_put(s.m, bytes_of(key, 1), BYTES_EMPTY, -1, NULL);
        end(&s);
        settle(&s, phase);
        struct mvcc_kv *kv = mvcc_get(s.m, bytes_of(key, 700), true);
        assert_true(bytes_equal(kv->value, bytes_of(value, sizeof(value))));
        assert_true(bytes_equal(kv->key, bytes_of(key, 700)));
        mvcc_kv_unref(kv);
        kv = mvcc_get(s.m, bytes_of(key, 1), true);
        assert_int_equal(kv->value.n, 0);
        assert_int_equal(kv->lease, -1);
        mvcc_kv_unref(kv);
    }
}

struct rows {
    struct buf text;
};

static void each_row(void *ctx, struct bytes key, struct bytes value)
{
    struct rows *r = ctx;
    buf_printf(&r->text, "%.*s=%.*s;", (int)key.n, (const char *)key.p, (int)value.n,
               (const char *)value.p);
}

static void each_lease(void *ctx, struct bytes key, int64_t lease)
{
    struct rows *r = ctx;
    buf_printf(&r->text, "%.*s:%lld;", (int)key.n, (const char *)key.p, (long long)lease);
}

static void buckets_stand_with_the_applied_index(void **state)
{
    (void)state;
    struct store s;
    store_make(&s);
    store_open(&s);
    begin(&s);
    mvcc_bucket_put(s.m, MVCC_BUCKET_LEASE, bytes_str("l1"), bytes_str("x"));
    mvcc_bucket_put(s.m, MVCC_BUCKET_LEASE, bytes_str("l2"), bytes_str("y"));
    mvcc_bucket_put(s.m, MVCC_BUCKET_AUTH, bytes_str("l1"), bytes_str("z"));
    end(&s);
    begin(&s);
    mvcc_bucket_put(s.m, MVCC_BUCKET_LEASE, bytes_str("l1"), BYTES_EMPTY);
    mvcc_bucket_put(s.m, MVCC_BUCKET_LEASE, bytes_str("l3"), bytes_of("", 0));
    mvcc_bucket_put(s.m, MVCC_BUCKET_LEASE, bytes_str("l2"), bytes_str("yy"));
    mvcc_bucket_put(s.m, MVCC_BUCKET_META, bytes_str("none"), BYTES_EMPTY);
    end(&s);
    put_lease(&s, "k1", "v", 5);
    put_lease(&s, "k2", "v", 6);
    put(&s, "k2", "v");
    store_close(&s);
    store_open(&s);
    assert_int_equal(mvcc_applied_index(s.m), 5);
    assert_int_equal(mvcc_applied_term(s.m), 1);
    assert_int_equal(mvcc_last_stamp(s.m), 1005);
    assert_int_equal(mvcc_revision(s.m), 4);
    struct rows rows = {0};
    for (int b = 0; b < MVCC_BUCKET_COUNT; b++)
        assert_int_equal(mvcc_bucket_each(s.m, (enum mvcc_bucket)b, each_row, &rows, NULL), ERR_OK);
    mvcc_each_leased(s.m, each_lease, &rows);
    buf_append(&rows.text, "", 1);
    assert_string_equal((char *)rows.text.p, "l2=yy;l3=;l1=z;k1:5;");
    buf_free(&rows.text);
    store_close(&s);
    store_remove(&s);
}

static void knows_ranges(void **state)
{
    (void)state;
    struct mvcc_range one = range_of("b", NULL), from = range_of("b", ""),
                      some = range_of("b", "d");
    assert_true(mvcc_range_has(&one, bytes_str("b")));
    assert_false(mvcc_range_has(&one, bytes_str("ba")));
    assert_true(mvcc_range_has(&from, bytes_str("zz")));
    assert_false(mvcc_range_has(&from, bytes_str("a")));
    assert_true(mvcc_range_has(&some, bytes_str("cz")));
    assert_false(mvcc_range_has(&some, bytes_str("d")));
}

static void one_process_has_it(void **state)
{
    (void)state;
    struct store s, other;
    store_make(&s);
    store_open(&s);
    other = (struct store){0};
    memcpy(other.dir, s.dir, sizeof(s.dir));
    struct error err = {0};
    assert_int_equal(store_try_open(&other, &err), ERR_BUSY);
    assert_non_null(strstr(err.message, "store.lock"));
    store_close(&s);
    store_open(&other);
    store_close(&other);
    store_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_empty_at_revision_1),
        cmocka_unit_test(keeps_generations),
        cmocka_unit_test(a_transaction_is_one_revision),
        cmocka_unit_test(changes_know_what_was_before),
        cmocka_unit_test(ranges_have_ends_limits_and_totals),
        cmocka_unit_test(gets_single_keys),
        cmocka_unit_test(takes_any_bytes),
        cmocka_unit_test(buckets_stand_with_the_applied_index),
        cmocka_unit_test(knows_ranges),
        cmocka_unit_test(one_process_has_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
