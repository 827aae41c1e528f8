/* The write-ahead log on a disk that rots: what is damaged is refused, never taken for something else. */
#include "tests/unit/wal_fixture.h"

/* A copy of the log's files, to damage one byte after the other. */
struct image {
    char *names[32];
    struct buf data[32];
    size_t count;
    struct simdisk *sim;
};

static void take_file(void *ctx, const char *name)
{
    struct image *image = ctx;
    uint64_t seq;
    if (!wal_segment_parse(name, &seq))
        return;
    image->names[image->count] = xasprintf("%s/%s", DIR, name);
    assert_int_equal(
        simdisk_contents(image->sim, image->names[image->count], &image->data[image->count]),
        ERR_OK);
    image->count++;
}

static void take_image(struct run *r, struct image *image)
{
    *image = (struct image){.sim = r->sim};
    struct disk *disk = simdisk_disk(r->sim);
    assert_int_equal(disk->list(disk, DIR, take_file, image, NULL), ERR_OK);
}

static void put_image(struct run *r, const struct image *image)
{
    struct disk *disk = simdisk_disk(r->sim);
    assert_int_equal(disk->mkdir(disk, DIR, NULL), ERR_OK);
    for (size_t i = 0; i < image->count; i++) {
        struct disk_file *f;
        assert_int_equal(disk->open(disk, image->names[i], DISK_WRITE | DISK_CREATE, &f, NULL),
                         ERR_OK);
        assert_int_equal(disk->write(disk, f, 0, image->data[i].p, image->data[i].n, NULL), ERR_OK);
        assert_int_equal(disk->sync(disk, f, NULL), ERR_OK);
        disk->close(disk, f);
    }
    assert_int_equal(disk->sync_dir(disk, DIR, NULL), ERR_OK);
    assert_int_equal(disk->sync_dir(disk, "member", NULL), ERR_OK);
}

static void free_image(struct image *image)
{
    for (size_t i = 0; i < image->count; i++) {
        free(image->names[i]);
        buf_free(&image->data[i]);
    }
}

struct verdicts {
    size_t whole, corrupt, short_by_last;
};

/* Opens the damaged copy: it is whole, or refused with its place and the way out, or, if the log was not
 * closed, it may lack the last operation. */
static void judge(struct run *copy, const struct run *original, bool closed, struct verdicts *v)
{
    enum errc rc = try_open(copy);
    if (rc) {
        assert_int_equal(rc, ERR_CORRUPT);
        assert_non_null(strstr(copy->err.message, DIR "/"));
        assert_non_null(strstr(copy->err.message, " at "));
        assert_non_null(strstr(copy->err.message, "join again"));
        v->corrupt++;
        return;
    }
    copy->start = original->start;
    memcpy(copy->ops, original->ops, sizeof(copy->ops));
    copy->op_count = copy->acked = original->op_count;
    struct model_state s;
    if (explain(copy, &copy->found, &s)) {
        v->whole++;
        return;
    }
    assert_false(closed);
    copy->acked--;
    assert_true(explain(copy, &copy->found, &s));
    v->short_by_last++;
}

/* What ends the history before the damage. */
enum ending { BUSY, IDLE, CLOSED };

static void damage_every_byte(enum ending ending, struct verdicts *v)
{
    struct run r;
    run_init(&r, 11);
    open_checked(&r);
    for (int i = 0; i < 25; i++) {
        submit_append(&r);
        simworker_drain(&r.worker);
    }
    if (ending == CLOSED)
        run_close(&r);
    for (int i = 0; ending == IDLE && i < 5; i++) {
        wal_tick(r.wal);
        simworker_drain(&r.worker);
    }
    struct image image;
    take_image(&r, &image);
    assert_true(image.count >= 2);
    for (size_t file = 0; file < image.count; file++)
        for (size_t at = 0; at < image.data[file].n; at += at % 512 < 96 ? 1 : 13) {
            struct run copy;
            run_init(&copy, 1);
            image.data[file].p[at] ^= (uint8_t)(1u << at % 8);
            put_image(&copy, &image);
            image.data[file].p[at] ^= (uint8_t)(1u << at % 8);
            judge(&copy, &r, ending != BUSY, v);
            run_free(&copy);
        }
    free_image(&image);
    run_free(&r);
}

static void test_damage_at_every_byte(void **state)
{
    (void)state;
    struct verdicts v = {0};
    damage_every_byte(CLOSED, &v);
    assert_true(v.corrupt > 200 && v.whole > 100);
    assert_int_equal(v.short_by_last, 0);
    struct verdicts u = {0};
    damage_every_byte(IDLE, &u);
    assert_true(u.corrupt > 200 && u.whole > 100);
    assert_int_equal(u.short_by_last, 0);
    struct verdicts w = {0};
    damage_every_byte(BUSY, &w);
    assert_true(w.corrupt > 200 && w.whole > 100);
    assert_true(w.short_by_last > 0); /* the documented limit: the last batch of a busy log */
}

static void count_write(void *ctx, enum simdisk_op op, const char *path)
{
    (void)path;
    *(size_t *)ctx += op == SIMDISK_WRITE;
}

/* One watermark for what was appended, none while nothing follows, none beside a busy log; and what is
 * appended behind it is as good as ever. */
static void test_watermark(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct run r;
        size_t writes = 0;
        run_init(&r, seed);
        open_checked(&r);
        simdisk_set_hook(r.sim, count_write, &writes);
        wal_tick(r.wal);
        wal_tick(r.wal);
        simworker_drain(&r.worker);
        assert_int_equal(writes, 0); /* nothing to vouch for */
        for (int round = 0; round < 8; round++) {
            submit_append(&r);
            simworker_drain(&r.worker);
            size_t before = writes;
            wal_tick(r.wal); /* it may have been appended just now */
            assert_false(simworker_can_run(&r.worker));
            wal_tick(r.wal);
            simworker_drain(&r.worker);
            assert_true(writes <= before + 1);
            before = writes;
            for (int i = 0; i < 10; i++) {
                wal_tick(r.wal);
                simworker_drain(&r.worker);
            }
            assert_int_equal(writes, before);
        }
        assert_true(writes > 8);
        simdisk_set_hook(r.sim, NULL, NULL);
        crash(&r);
        open_checked(&r);
        run_free(&r);
    }
}

/* Sectors of zeros or of anything, bits, and files cut short, in a log at rest. */
static void test_damage_at_random(void **state)
{
    (void)state;
    struct verdicts v = {0};
    struct run r;
    run_init(&r, 13);
    open_checked(&r);
    for (int i = 0; i < 40; i++) {
        submit_append(&r);
        simworker_drain(&r.worker);
    }
    for (int i = 0; i < 5; i++) {
        wal_tick(r.wal);
        simworker_drain(&r.worker);
    }
    struct image image;
    take_image(&r, &image);
    struct simrng rng = {99};
    for (int round = 0; round < 600; round++) {
        struct buf *b = &image.data[simrng_below(&rng, image.count)], good = {0};
        buf_append(&good, b->p, b->n);
        size_t at = (size_t)simrng_below(&rng, b->n), sector = at - at % 512;
        if (round % 4 == 0)
            b->p[at] ^= (uint8_t)(1u << simrng_below(&rng, 8));
        else if (round % 4 == 1)
            memset(b->p + sector, 0, 512);
        else if (round % 4 == 2)
            for (size_t i = 0; i < 512; i++)
                b->p[sector + i] = (uint8_t)simrng_next(&rng);
        else
            b->n = round % 8 == 3 ? sector : at;
        struct run copy;
        run_init(&copy, 1);
        put_image(&copy, &image);
        judge(&copy, &r, true, &v);
        run_free(&copy);
        buf_free(b);
        *b = good;
    }
    assert_true(v.corrupt > 200 && v.whole > 50);
    assert_int_equal(v.short_by_last, 0);
    free_image(&image);
    run_free(&r);
}

static void scrub_pass(struct run *r, uint64_t *now_ms)
{
    uint64_t passes = wal_scrub_passes(r->wal);
    for (int i = 0; wal_scrub_passes(r->wal) == passes && r->failures == 0; i++) {
        assert_true(i < 10000);
        wal_scrub_tick(r->wal, *now_ms += 1000, 1);
        simworker_drain(&r->worker);
    }
}

/* The scrub is quiet beside appends, cuts, resets and crashes. */
static void test_scrub_is_quiet(void **state)
{
    (void)state;
    uint64_t now_ms = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct run r;
        run_init(&r, seed);
        open_checked(&r);
        for (int round = 0; round < 6; round++) {
            for (int i = 0; i < 12; i++) {
                play(&r, 5);
                wal_scrub_tick(r.wal, now_ms += 1000, 1);
            }
            simworker_drain(&r.worker);
            scrub_pass(&r, &now_ms);
            if (r.failures)
                fail_msg("seed %d: %s", (int)seed, r.err.message);
            if (round % 2)
                crash(&r);
            else
                run_close(&r);
            open_checked(&r);
        }
        run_free(&r);
    }
}

/* A flipped bit in what is synced is found in one pass, while the log is open. */
static void test_scrub_finds_damage(void **state)
{
    (void)state;
    size_t found = 0, harmless = 0;
    uint64_t now_ms = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct run r;
        run_init(&r, 31);
        open_checked(&r);
        for (int i = 0; i < 40; i++) {
            submit_append(&r);
            simworker_drain(&r.worker);
        }
        scrub_pass(&r, &now_ms);
        assert_int_equal(r.failures, 0);
        struct image image;
        take_image(&r, &image);
        struct simrng rng = {seed};
        size_t file = (size_t)simrng_below(&rng, image.count);
        uint64_t at = simrng_below(&rng, image.data[file].n);
        assert_int_equal(simdisk_flip(r.sim, image.names[file], at, (unsigned)seed % 8), ERR_OK);
        free_image(&image);
        scrub_pass(&r, &now_ms);
        found += r.failures;
        harmless += r.failures == 0;
        if (r.failures)
            assert_int_equal(r.failure, ERR_CORRUPT);
        run_close(&r);
        enum errc rc = try_open(&r);
        if (harmless + found > 0 && r.failures == 0)
            assert_int_equal(rc, ERR_OK); /* padding, or behind the end */
        run_free(&r);
    }
    assert_true(found > 100 && harmless > 5);
}

/* A segment that vanished is noticed, unless all in it had been cut. */
static void test_missing_segment(void **state)
{
    (void)state;
    struct run r;
    run_init(&r, 12);
    open_checked(&r);
    for (int i = 0; i < 40; i++) {
        submit_append(&r);
        simworker_drain(&r.worker);
    }
    struct image image;
    take_image(&r, &image);
    assert_true(image.count >= 3);
    for (size_t file = 0; file + 1 < image.count; file++) {
        struct run copy;
        run_init(&copy, 1);
        put_image(&copy, &image);
        struct disk *disk = simdisk_disk(copy.sim);
        assert_int_equal(disk->unlink(disk, image.names[file], NULL), ERR_OK);
        assert_int_equal(try_open(&copy), ERR_CORRUPT);
        assert_non_null(strstr(copy.err.message, "missing"));
        run_free(&copy);
    }
    free_image(&image);
    run_free(&r);
}

/* A write that lands elsewhere is a lost write and damage at once; once the log has been closed, both are
 * found, or the damage hit nothing that counts. */
static void test_misdirected_write(void **state)
{
    (void)state;
    size_t corrupt = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct run r;
        run_init(&r, seed);
        open_checked(&r);
        simdisk_misdirect_at(r.sim, 2 + seed % 15);
        for (int i = 0; i < 30; i++) {
            submit_append(&r);
            simworker_drain(&r.worker);
        }
        size_t op_count = r.op_count;
        run_close(&r);
        if (try_open(&r) == ERR_OK) {
            struct model_state s;
            assert_int_equal(r.op_count, op_count);
            assert_true(explain(&r, &r.found, &s));
        } else {
            assert_string_not_equal(r.err.message, "");
            corrupt++;
        }
        run_free(&r);
    }
    assert_true(corrupt > 30);
}

static void count_recycled(void *ctx, enum simdisk_op op, const char *path)
{
    uint64_t seq;
    const char *name = strrchr(path, '/');
    if (op == SIMDISK_RENAME && name && wal_segment_parse(name + 1, &seq))
        ++*(size_t *)ctx;
}

/* Recycled segments are full of old records with good checksums: none is taken for a new one. */
static void test_recycled(void **state)
{
    (void)state;
    size_t recycled = 0;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct run r;
        run_init(&r, seed);
        simdisk_set_hook(r.sim, count_recycled, &recycled);
        open_checked(&r);
        for (int round = 0; round < 10; round++) {
            for (int i = 0; i < 10; i++) {
                for (int n = 0; n < 3;
                     n++) /* written in one go: the spare is taken before the cut */
                    submit_append(&r);
                submit_cut(&r);
                if (i < 9 || round % 2)
                    simworker_drain(&r.worker);
            }
            crash(&r);
            open_checked(&r);
        }
        run_free(&r);
    }
    assert_true(recycled > 100);
}

/* A value that imitates batch headers, each just where it lands, can't be taken for one: it can't know the
 * segment's nonce. (Else a torn write of it would pass for damage.) */
static void test_imitation(void **state)
{
    (void)state;
    size_t first_value_byte = 512 + WAL_BATCH_HEADER + WAL_RECORD_HEADER + WAL_ENTRY_FIXED;
    uint8_t value[2048] = {0};
    for (size_t at = 1024; at + WAL_BATCH_HEADER <= first_value_byte + sizeof(value); at += 512) {
        struct wal_batch b = {.seq = 1, .offset = at, .number = 1, .synced = 4000};
        wal_batch_encode(&b, value + at - first_value_byte);
    }
    size_t lost = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct run r;
        run_init(&r, seed);
        assert_int_equal(try_open(&r), ERR_OK);
        struct raft_entry *e =
            raft_entry_new(1, 1, RAFT_ENTRY_COMMAND, 1, bytes_of(value, sizeof(value)));
        simdisk_power_off_at(r.sim, 2); /* written, not synced */
        wal_append(r.wal, NULL, &e, 1, NULL, NULL, 0);
        raft_entry_unref(e);
        simworker_drain(&r.worker);
        crash(&r);
        assert_int_equal(try_open(&r), ERR_OK);
        lost += r.found.entry_count == 0;
        run_free(&r);
    }
    assert_true(lost > 10);
}

/* A torn tail is reported with its place; the next opening finds none. */
static void test_torn_tail_is_reported(void **state)
{
    (void)state;
    bool reported = false;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct run r;
        run_init(&r, seed);
        open_checked(&r);
        for (int i = 0; i < 3; i++) {
            submit_append(&r);
            simworker_drain(&r.worker);
        }
        simdisk_power_off_at(r.sim, 2); /* written, not synced */
        submit_append(&r);
        simworker_drain(&r.worker);
        crash(&r);
        open_checked(&r);
        if (r.found.cut_bytes > 0) {
            reported = true;
            assert_true(r.found.cut_bytes % 512 == 0);
            assert_non_null(strstr(r.found.cut_where, ".wal at "));
        }
        crash(&r);
        open_checked(&r);
        assert_int_equal(r.found.cut_bytes, 0);
        run_free(&r);
    }
    assert_true(reported);
}

/* Whatever stands in the files: an error or a log, never a crash. */
static void test_garbage(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct run r;
        run_init(&r, 21);
        open_checked(&r);
        for (int i = 0; i < 6; i++) {
            submit_append(&r);
            simworker_drain(&r.worker);
        }
        run_close(&r);
        struct image image;
        take_image(&r, &image);
        struct simrng rng = {seed};
        for (int i = 0; i < 4; i++) {
            struct buf *b = &image.data[simrng_below(&rng, image.count)];
            size_t at = (size_t)simrng_below(&rng, b->n);
            size_t n = (size_t)simrng_below(&rng, b->n - at);
            size_t from = (size_t)simrng_below(&rng, b->n - n);
            memmove(b->p + at, b->p + from, n);
            if (simrng_chance(&rng, 10))
                b->n = at;
        }
        struct run copy;
        run_init(&copy, seed);
        put_image(&copy, &image);
        (void)try_open(&copy);
        run_free(&copy);
        free_image(&image);
        run_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage_at_every_byte),
        cmocka_unit_test(test_watermark),
        cmocka_unit_test(test_damage_at_random),
        cmocka_unit_test(test_scrub_is_quiet),
        cmocka_unit_test(test_scrub_finds_damage),
        cmocka_unit_test(test_missing_segment),
        cmocka_unit_test(test_misdirected_write),
        cmocka_unit_test(test_recycled),
        cmocka_unit_test(test_imitation),
        cmocka_unit_test(test_torn_tail_is_reported),
        cmocka_unit_test(test_garbage),
    };
    return cmocka_run_group_tests_name("wal_damage", tests, NULL, NULL);
}
