/* The write-ahead log on a disk that crashes, fails and is full. */
#include "tests/unit/wal_fixture.h"

/* Crash after crash in one history, each at a random call, sometimes during recovery too. */
static void test_crashes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct run r;
        run_init(&r, seed);
        open_checked(&r);
        for (int round = 0; round < 12; round++) {
            simdisk_power_off_at(r.sim, 1 + simrng_below(&r.rng, 60));
            play(&r, 60);
            crash(&r);
            if (simrng_chance(&r.rng, 40)) {
                simdisk_power_off_at(r.sim, 1 + simrng_below(&r.rng, 25));
                (void)try_open(&r);
                crash(&r);
            }
            open_checked(&r);
        }
        run_free(&r);
    }
}

/* The power goes at every single call of a history. */
static void test_crash_at_every_call(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        bool came_to_pass = true;
        for (uint64_t n = 1; came_to_pass; n++) {
            struct run r;
            run_init(&r, seed);
            simdisk_power_off_at(r.sim, n);
            if (try_open(&r) == ERR_OK) {
                play(&r, 90);
                simworker_drain(&r.worker);
            }
            came_to_pass = simdisk_is_off(r.sim);
            crash(&r);
            open_checked(&r);
            /* What was recovered is durable: it survives a crash at once. */
            struct model_state first = r.now;
            crash(&r);
            open_checked(&r);
            assert_int_equal(r.now.last, first.last);
            assert_int_equal(r.now.hs.term, first.hs.term);
            run_free(&r);
        }
    }
}

/* Every single call fails; then the process ends, and later the power, too. */
static void fail_at_every_call(enum errc code, unsigned ops)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        bool came_to_pass = true;
        for (uint64_t n = 1; came_to_pass; n++) {
            struct run r;
            run_init(&r, seed);
            simdisk_fail_at(r.sim, n, ops, code, false);
            enum errc rc = try_open(&r);
            if (rc == ERR_OK) {
                r.full = code == ERR_NO_SPACE;
                play(&r, 90);
                simworker_drain(&r.worker);
                came_to_pass = simdisk_has_failed(r.sim);
                assert_true(r.failures <= 1);
                /* Only the lack of space for another segment is no reason to stop. */
                assert_true(!came_to_pass || r.failures == 1 || code == ERR_NO_SPACE);
                assert_true(r.failures == 0 || (ops & ~(SIMDISK_OPEN | SIMDISK_ALLOCATE)));
                if (wal_lacks_space(r.wal) && n % 2) {
                    wal_space_retry(r.wal);
                    simworker_drain(&r.worker);
                    assert_false(wal_lacks_space(r.wal));
                    assert_int_equal(r.acked, last_answered(&r));
                }
                if (r.failures > 0)
                    assert_int_equal(r.failure, code);
            } else {
                assert_int_equal(rc, code);
            }
            size_t before = r.acked;
            run_close(&r);
            assert_int_equal(r.acked, before);
            simdisk_kill_process(r.sim);
            open_checked(&r);
            struct model_state first = r.now;
            crash(&r);
            open_checked(&r);
            assert_int_equal(r.now.last, first.last);
            assert_int_equal(r.now.hs.term, first.hs.term);
            run_free(&r);
        }
    }
}

static void test_fail_at_every_call(void **state)
{
    (void)state;
    fail_at_every_call(ERR_IO, SIMDISK_ALL);
}

static void test_no_space_at_every_call(void **state)
{
    (void)state;
    fail_at_every_call(ERR_NO_SPACE, SIMDISK_OPEN | SIMDISK_ALLOCATE | SIMDISK_WRITE);
    fail_at_every_call(ERR_NO_SPACE, SIMDISK_OPEN | SIMDISK_ALLOCATE);
}

/* On a full disk the log writes what it has room for, and what it has not waits: after a crash as if it had
 * never been submitted, with space again as if nothing had been. */
static void full_disk(uint64_t seed, uint64_t sectors, bool cuts, bool crashes)
{
    struct run r;
    run_init(&r, seed);
    open_checked(&r);
    wal_space_retry(r.wal);
    simworker_drain(&r.worker); /* the spare is there */
    simdisk_set_capacity(r.sim, simdisk_used(r.sim) + sectors * 512);
    r.full = true;
    for (int i = 0; i < 60 && r.op_count + 1 < OPS_MAX; i++) {
        submit_append(&r);
        if (cuts && simrng_chance(&r.rng, 30))
            submit_cut(&r);
        if (simrng_chance(&r.rng, 30))
            wal_space_retry(r.wal);
        simworker_drain(&r.worker);
    }
    assert_int_equal(r.failures, 0);
    assert_true(r.acked > 0);
    if (!cuts)
        assert_true(wal_waits_for_space(r.wal) && r.acked < r.op_count);
    if (!crashes) {
        simdisk_set_capacity(r.sim, 0);
        wal_space_retry(r.wal);
        simworker_drain(&r.worker);
        assert_false(wal_lacks_space(r.wal));
        assert_int_equal(r.acked, last_answered(&r));
    }
    crash(&r);
    open_checked(&r);
    run_free(&r);
}

static void test_full_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        for (uint64_t sectors = 0; sectors < 60; sectors += 7) {
            full_disk(seed, sectors, false, false);
            full_disk(seed, sectors, false, true);
            full_disk(seed, sectors, true, false);
            full_disk(seed, sectors, true, true);
        }
    }
}

/* Cuts keep a log going that gets no space at all: what they free is the next segment. Without the sector that
 * each segment keeps for them, the first full segment would be the end. */
static void test_cuts_keep_a_full_log_going(void **state)
{
    (void)state;
    struct run r;
    run_init(&r, 1);
    open_checked(&r);
    wal_space_retry(r.wal);
    simworker_drain(&r.worker); /* the spare is there */
    uint64_t index = 0, retries = 0;
    simdisk_set_capacity(r.sim, simdisk_used(r.sim));
    for (int i = 0; i < 2000; i++) {
        struct raft_entry *e = raft_entry_new(1, ++index, RAFT_ENTRY_COMMAND, 1, bytes_of("x", 1));
        wal_append(r.wal, NULL, &e, 1, NULL, NULL, 0);
        raft_entry_unref(e);
        simworker_drain(&r.worker);
        if (!wal_waits_for_space(r.wal))
            continue;
        retries++;
        wal_cut(r.wal, index - 1, 1);
        wal_space_retry(r.wal);
        simworker_drain(&r.worker);
        assert_false(wal_waits_for_space(r.wal));
    }
    assert_int_equal(r.failures, 0);
    assert_true(retries > 100);
    assert_true(wal_bytes(r.wal) <= 2 * SEGMENT);
    run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crashes),
        cmocka_unit_test(test_crash_at_every_call),
        cmocka_unit_test(test_fail_at_every_call),
        cmocka_unit_test(test_no_space_at_every_call),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_cuts_keep_a_full_log_going),
    };
    return cmocka_run_group_tests_name("wal_recovery", tests, NULL, NULL);
}
