/* The store on a disk that is full, for a while or until the power goes: nothing is lost, nothing is applied
 * twice, and with space again it is as if nothing had been. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/store_disk.h"

#define ENTRIES 120

static void expect_history(struct disked *d, uint64_t seed, const char *expected)
{
    while (mvcc_applied_index(d->s.m) < ENTRIES)
        history_apply(&d->s, seed);
    char *got = history_dump(&d->s);
    assert_string_equal(got, expected);
    free(got);
}

static void play(struct disked *d, uint64_t seed, uint64_t until)
{
    while (mvcc_applied_index(d->s.m) < until) {
        history_apply(&d->s, seed);
        while (simrng_chance(&d->rng, 60) && worker_step(&d->s.worker))
            continue;
        if (simrng_chance(&d->rng, 5))
            mvcc_defragment(d->s.m, NULL, NULL);
        if (simrng_chance(&d->rng, 5))
            mvcc_checkpoint_soon(d->s.m);
        if (simrng_chance(&d->rng, 10))
            mvcc_space_retry(d->s.m, 0);
    }
}

static void have_space(struct disked *d)
{
    simdisk_fail_at(d->sim, 0, 0, ERR_OK, false);
    simdisk_set_capacity(d->sim, 0);
    for (int i = 0; i < 3; i++) {
        worker_drain(&d->s.worker);
        mvcc_space_retry(d->s.m, UINT64_MAX);
    }
    worker_drain(&d->s.worker);
    assert_false(mvcc_lacks_space(d->s.m));
}

/* The kth write finds no space, and all after it, until the fault ends: with the process going on, or with a
 * power loss in between. Returns whether there was a kth write. */
static bool full_from(uint64_t seed, uint64_t k, bool crash, const char *expected)
{
    struct disked d;
    begin_disk(&d, seed * 1000 + k);
    store_open(&d.s);
    simdisk_fail_at(d.sim, k, SIMDISK_WRITE | SIMDISK_ALLOCATE, ERR_NO_SPACE, true);
    play(&d, seed, ENTRIES / 2 + simrng_below(&d.rng, ENTRIES / 2));
    bool failed = simdisk_has_failed(d.sim);
    if (crash) {
        power_loss(&d);
        store_open(&d.s);
    } else {
        have_space(&d);
    }
    expect_history(&d, seed, expected);
    assert_int_equal(d.s.failures, 0);
    worker_drain(&d.s.worker);
    power_loss(&d); /* what it says is durable is */
    store_open(&d.s);
    assert_true(mvcc_applied_index(d.s.m) >= d.s.durable);
    expect_history(&d, seed, expected);
    store_crash(&d.s);
    end_disk(&d);
    return failed;
}

static void every_write_finds_no_space(void **state)
{
    (void)state;
    uint64_t seed = history_seed(5), k = 1, failed = 0;
    char *expected = history_expected(seed, ENTRIES);
    for (; k < 1000; k++) {
        bool goes_on = full_from(seed, k, false, expected);
        bool again = full_from(seed, k, true, expected);
        if (!goes_on && !again)
            break;
        failed++;
    }
    assert_true(failed > 50);
    free(expected);
}

/* A disk that has room for this much more and no more. */
static void tight_disks(void **state)
{
    (void)state;
    uint64_t seed = history_seed(6), waited = 0;
    char *expected = history_expected(seed, ENTRIES);
    for (uint64_t room = 0; room < 120; room += 3) {
        struct disked d;
        begin_disk(&d, seed * 1000 + room);
        d.s.config.reserve_bytes = room % 4 * 4096;
        store_open(&d.s);
        simdisk_set_capacity(d.sim, simdisk_used(d.sim) + room * 512);
        play(&d, seed, ENTRIES);
        worker_drain(&d.s.worker);
        waited += mvcc_waits_for_space(d.s.m);
        if (room % 2)
            power_loss(&d);
        else
            store_close(&d.s);
        store_open(&d.s); /* with no more space than before */
        play(&d, seed, ENTRIES);
        worker_drain(&d.s.worker);
        have_space(&d);
        expect_history(&d, seed, expected);
        assert_int_equal(d.s.failures, 0);
        store_crash(&d.s);
        end_disk(&d);
    }
    assert_true(waited > 10);
    free(expected);
}

static const char *long_key(int i, char p[256])
{
    snprintf(p, 256, "key-%d-%0200d", i, 0);
    return p;
}

/* On a full disk deletes and a compaction have the reserve's space; it comes back when there is room. */
static void the_reserve_is_for_deletes(void **state)
{
    (void)state;
    struct disked d;
    char key[256];
    begin_disk(&d, 1);
    store_open(&d.s);
    for (int i = 0; i < 100; i++) {
        put(&d.s, long_key(i, key), "a value");
        worker_drain(&d.s.worker);
    }
    assert_false(mvcc_lacks_space(d.s.m));
    simdisk_set_capacity(d.sim, simdisk_used(d.sim));
    for (int i = 0; i < 100; i++) {
        assert_int_equal(del(&d.s, long_key(i, key), NULL), 1);
        worker_drain(&d.s.worker);
    }
    assert_true(mvcc_lacks_space(d.s.m)); /* it is used */
    assert_false(mvcc_waits_for_space(d.s.m));
    assert_int_equal(compact(&d.s, mvcc_revision(d.s.m)), ERR_OK);
    worker_drain(&d.s.worker);
    assert_int_equal(mvcc_backlog_bytes(d.s.m), 0);
    have_space(&d);
    assert_int_equal(d.s.failures, 0);
    store_crash(&d.s);
    end_disk(&d);
}

/* A snapshot that has no room is refused, its file is gone, and the store goes on. */
static void no_space_for_a_snapshot(void **state);

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_write_finds_no_space),
        cmocka_unit_test(tight_disks),
        cmocka_unit_test(the_reserve_is_for_deletes),
        cmocka_unit_test(no_space_for_a_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* ---- Snapshots ----------------------------------------------------------------------------------- */

struct stream {
    struct buf data;
    enum errc code;
    bool last, answered;
};

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct stream *t = ctx;
    t->code = code;
    t->last = last;
    buf_append(&t->data, chunk.p, chunk.n);
}

static void on_taken(void *ctx, enum errc code)
{
    struct stream *t = ctx;
    t->code = code;
    t->answered = true;
}

static void on_whole(void *ctx, enum errc code, uint64_t index, uint64_t term)
{
    (void)index, (void)term;
    on_taken(ctx, code);
}

/* Takes the snapshot as far as it goes; ERR_OK: installed. */
static enum errc receive(struct disked *d, struct bytes data)
{
    struct stream t = {0};
    struct mvcc_restore *r = mvcc_restore_begin(d->s.m, NULL);
    for (size_t at = 0; at < data.n && t.code == ERR_OK; at += 4096) {
        size_t n = data.n - at < 4096 ? data.n - at : 4096;
        mvcc_restore_chunk(r, bytes_of(data.p + at, n), on_taken, &t);
        worker_drain(&d->s.worker);
    }
    if (t.code == ERR_OK) {
        mvcc_restore_finish(r, NULL, on_whole, &t);
        worker_drain(&d->s.worker);
    }
    if (t.code != ERR_OK) {
        mvcc_restore_abort(r);
        worker_drain(&d->s.worker);
        return t.code;
    }
    t.answered = false;
    mvcc_restore_install(r, on_taken, &t);
    worker_drain(&d->s.worker);
    assert_true(t.answered);
    return t.code;
}

static struct bytes snapshot_of(uint64_t seed, struct stream *t)
{
    struct disked from;
    begin_disk(&from, 77);
    store_open(&from.s);
    play(&from, seed, ENTRIES);
    worker_drain(&from.s.worker);
    uint64_t index, term;
    struct mvcc_snapshot *snapshot = mvcc_snapshot_begin(from.s.m, &index, &term);
    while (!t->last && t->code == ERR_OK) {
        mvcc_snapshot_next(snapshot, on_chunk, t);
        worker_drain(&from.s.worker);
    }
    mvcc_snapshot_end(snapshot);
    assert_int_equal(t->code, ERR_OK);
    store_crash(&from.s);
    end_disk(&from);
    return buf_bytes(&t->data);
}

static void no_space_for_a_snapshot(void **state)
{
    (void)state;
    uint64_t seed = history_seed(7), k = 1;
    char *expected = history_expected(seed, ENTRIES);
    struct stream t = {0};
    struct bytes data = snapshot_of(seed, &t);
    enum errc code = ERR_NO_SPACE;
    for (; k < 1000; k++) {
        struct disked d;
        begin_disk(&d, k);
        store_open(&d.s);
        play(&d, seed, 20);
        worker_drain(&d.s.worker);
        uint64_t used = simdisk_used(d.sim);
        simdisk_fail_at(d.sim, k, SIMDISK_WRITE, ERR_NO_SPACE, true);
        code = receive(&d, data);
        bool failed = simdisk_has_failed(d.sim);
        simdisk_fail_at(d.sim, 0, 0, ERR_OK, false);
        assert_int_equal(d.s.failures, 0);
        if (code == ERR_OK)
            assert_int_equal(mvcc_applied_index(d.s.m), ENTRIES);
        else
            assert_int_equal(code, ERR_NO_SPACE);
        if (code != ERR_OK)
            assert_true(simdisk_used(d.sim) <= used + 1024); /* a marker's name may be left */
        have_space(&d);
        expect_history(&d, seed, expected);
        store_crash(&d.s);
        end_disk(&d);
        if (!failed)
            break;
    }
    assert_int_equal(code, ERR_OK);
    assert_true(k > 20);
    buf_free(&t.data);
    free(expected);
}
