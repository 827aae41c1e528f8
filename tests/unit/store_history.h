/* A made-up log: what entry n does is a function of n and a seed, so that it can be replayed. */
#ifndef TESTS_UNIT_STORE_HISTORY_H
#define TESTS_UNIT_STORE_HISTORY_H

#include "tests/unit/store_fixture.h"

static inline uint64_t history_random(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    *rng ^= *rng << 17;
    return *rng;
}

static inline struct bytes history_key(uint64_t *rng, char *p)
{
    int n = snprintf(p, 32, "key-%llu", (unsigned long long)(history_random(rng) % 60));
    return bytes_of(p, (size_t)n);
}

/* Applies the entry behind the last one. */
__attribute__((unused)) static void history_apply(struct store *s, uint64_t seed)
{
    uint64_t index = mvcc_applied_index(s->m) + 1;
    uint64_t rng = (seed + index) * UINT64_C(0x9e3779b97f4a7c15) | 1;
    char key[32], other[32], value[600];
    memset(value, 'a' + (int)(index % 26), sizeof(value));
    for (int i = 0; i < 5; i++)
        history_random(&rng);
    s->index = index - 1;
    begin(s);
    uint64_t dice = history_random(&rng) % 20;
    if (dice < 12) {
        for (uint64_t i = dice < 3 ? 3 : 1; i > 0; i--) {
            size_t n = history_random(&rng) % (dice == 5 ? 600 : 20);
            assert_int_equal(mvcc_put(s->m, history_key(&rng, key), bytes_of(value, n),
                                      (int64_t)(history_random(&rng) % 3), NULL),
                             ERR_OK);
        }
    } else if (dice < 15) {
        struct mvcc_range r = {.key = history_key(&rng, key)};
        if (dice == 14)
            r.end = history_key(&rng, other);
        assert_int_equal(mvcc_delete(s->m, &r, NULL, NULL), ERR_OK);
    } else if (dice < 17) {
        bool remove = history_random(&rng) % 3 == 0;
        struct bytes k = history_key(&rng, key);
        mvcc_bucket_put(s->m, (enum mvcc_bucket)(history_random(&rng) % MVCC_BUCKET_COUNT), k,
                        remove ? BYTES_EMPTY : bytes_of(value, 10));
    } else if (dice == 17 && mvcc_revision(s->m) > 50) {
        mvcc_compact(s->m, mvcc_revision(s->m) - (int64_t)(history_random(&rng) % 50));
    } /* else: it changes nothing */
    end(s);
}

__attribute__((unused)) static void dump_row(void *ctx, struct bytes key, struct bytes value)
{
    buf_printf(ctx, " %.*s=%.*s", (int)key.n, (const char *)key.p, (int)value.n,
               (const char *)value.p);
}

/* store_dump and the buckets; everything is committed then. */
__attribute__((unused)) static char *history_dump(struct store *s)
{
    worker_drain(&s->worker);
    char *keys = store_dump(s);
    struct buf b = {0};
    buf_printf(&b, "%s", keys);
    free(keys);
    for (unsigned i = 0; i < MVCC_BUCKET_COUNT; i++) {
        buf_printf(&b, "bucket %u:", i);
        assert_int_equal(mvcc_bucket_each(s->m, (enum mvcc_bucket)i, dump_row, &b, NULL), ERR_OK);
        buf_printf(&b, "\n");
    }
    buf_append(&b, "", 1);
    return (char *)b.p;
}

/* The dump of a store that took the entries up to `index` without any accident. */
__attribute__((unused)) static char *history_expected(uint64_t seed, uint64_t index)
{
    struct store s;
    store_make(&s);
    store_open(&s);
    while (mvcc_applied_index(s.m) < index)
        history_apply(&s, seed);
    char *dump = history_dump(&s);
    store_close(&s);
    store_remove(&s);
    return dump;
}

/* The seed of a run: SEED=n from the environment, or the given one. It is printed. */
__attribute__((unused)) static uint64_t history_seed(uint64_t n)
{
    const char *text = getenv("SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : n;
    print_message("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

#endif
