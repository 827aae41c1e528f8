/* A sync that failed leaves its pages clean in the page cache: the process ends, the next one reads them as if
 * they were on the disk, and a sync of its own succeeds without writing them. Whatever the power then takes, the
 * store must open and have what it said to be durable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/store_disk.h"

#define ENTRIES 120

static void play(struct disked *d, uint64_t seed, uint64_t until)
{
    while (d->s.failures == 0 && !simdisk_is_off(d->sim) && mvcc_applied_index(d->s.m) < until) {
        history_apply(&d->s, seed);
        while (simrng_chance(&d->rng, 60) && worker_step(&d->s.worker))
            continue;
        if (simrng_chance(&d->rng, 10))
            mvcc_checkpoint_soon(d->s.m);
    }
}

/* Opens it with a sync that fails or without; a failed start is tried again, as a new process. */
static void open_again(struct disked *d)
{
    struct error err = {0};
    enum errc code = store_try_open(&d->s, &err);
    if (code == ERR_IO && simdisk_has_failed(d->sim)) {
        simdisk_kill_process(d->sim);
        simvfs_crash(d->vfs);
        code = store_try_open(&d->s, &err);
    }
    if (code != ERR_OK)
        fail_msg("%s", err.message);
}

/* The kth sync fails, the process ends; the next one loses its power at its nth call. */
static bool once(uint64_t seed, uint64_t k, const char *expected)
{
    struct disked d;
    begin_disk(&d, seed * 1000 + k);
    d.s.config.reserve_bytes = 0;
    simdisk_fail_at(d.sim, k, SIMDISK_SYNC | SIMDISK_SYNC_DIR, ERR_IO, false);
    open_again(&d);
    play(&d, seed, ENTRIES);
    bool failed = simdisk_has_failed(d.sim);
    d.s.failures = 0;
    process_end(&d);

    simdisk_power_off_at(d.sim, 1 + simrng_below(&d.rng, 80));
    struct error err = {0};
    uint64_t durable = 0;
    if (store_try_open(&d.s, &err) == ERR_OK) {
        durable = mvcc_durable_index(d.s.m);
        play(&d, seed, ENTRIES);
        durable = d.s.durable > durable ? d.s.durable : durable;
        power_loss(&d);
    } else {
        assert_int_equal(err.code, ERR_IO);
        simdisk_crash(d.sim, &d.rng);
        simvfs_crash(d.vfs);
    }
    d.s.failures = 0;
    store_open(&d.s);
    assert_true(mvcc_applied_index(d.s.m) >= durable);
    play(&d, seed, ENTRIES);
    char *got = history_dump(&d.s);
    assert_string_equal(got, expected);
    free(got);
    assert_int_equal(d.s.failures, 0);
    store_crash(&d.s);
    end_disk(&d);
    return failed;
}

static void after_every_failed_sync(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (uint64_t round = 0; round < 3; round++) {
        uint64_t seed = history_seed(round);
        char *expected = history_expected(seed, ENTRIES);
        for (uint64_t k = 1; k < 200 && once(seed, k, expected); k++)
            failed++;
        free(expected);
    }
    assert_true(failed > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_every_failed_sync),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
