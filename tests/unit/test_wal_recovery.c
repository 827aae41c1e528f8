/* The write-ahead log on a disk that crashes, fails and rots. A random history of appends, cuts and resets
 * runs against a model; after each crash, what is recovered must be the model's state after some
 * operation that was submitted, none that was acknowledged may be missing, and nothing else may be there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/memory.h"
#include "tests/sim/simdisk.h"
#include "tests/sim/simworker.h"

#define SEGMENT 4096
#define OPS_MAX 64
#define INDEX_MAX 512
#define DIR "member/log"

/* ---- the model */

struct model_state {
    uint64_t base, last;
    uint64_t terms[INDEX_MAX]; /* by index; an entry's content follows from index and term */
    struct raft_hard_state hs;
};

struct model_op {
    enum wal_op_kind kind;
    uint64_t first, count; /* append; or in `first`: cut to, reset to */
    uint64_t term;
    bool has_hs;
    struct raft_hard_state hs;
};

struct run {
    struct simdisk *sim;
    struct simworker worker;
    struct simrng rng; /* of the history */
    struct env env;
    struct wal *wal;
    struct wal_recovered found;
    struct model_state start; /* what the last opening found */
    struct model_state now;
    struct model_op ops[OPS_MAX]; /* submitted since then */
    size_t op_count;
    size_t acked; /* of them, a prefix */
    size_t failures;
    enum errc failure;
    bool full; /* the disk: a cut may have been written before appends that wait */
    struct error err;
};

static uint64_t env_random(struct env *env)
{
    return simrng_next(&CONTAINER_OF(env, struct run, env)->rng);
}

static size_t entry_size(uint64_t index, uint64_t term)
{
    struct simrng r = {index * 1000 + term};
    uint64_t dice = simrng_below(&r, 20);
    return (size_t)(dice == 0 ? simrng_below(&r, 9000) : simrng_below(&r, dice < 10 ? 60 : 900));
}

static struct raft_entry *make(uint64_t index, uint64_t term)
{
    size_t size = entry_size(index, term);
    uint8_t *p = xmalloc(size + 1);
    struct simrng r = {index * 77 + term};
    for (size_t i = 0; i < size; i++)
        p[i] = (uint8_t)simrng_next(&r);
    struct raft_entry *e =
        raft_entry_new(term, index, RAFT_ENTRY_COMMAND, index + term, bytes_of(p, size));
    free(p);
    return e;
}

static bool same_entry(const struct raft_entry *e, uint64_t index, uint64_t term)
{
    struct raft_entry *want = make(index, term);
    bool same = e->index == index && e->term == term && e->stamp == want->stamp &&
                e->type == want->type && e->size == want->size &&
                memcmp(e->data, want->data, e->size) == 0;
    raft_entry_unref(want);
    return same;
}

/* Carries out the first `entries` entries of op. */
static void model_apply(struct model_state *s, const struct model_op *op, uint64_t entries)
{
    if (op->has_hs)
        s->hs = op->hs;
    switch (op->kind) {
    case WAL_OP_APPEND:
        for (uint64_t i = 0; i < entries; i++) {
            s->last = op->first + i;
            s->terms[s->last] = op->term;
        }
        break;
    case WAL_OP_CUT:
        s->base = op->first;
        break;
    case WAL_OP_RESET:
        s->base = s->last = op->first;
        s->terms[s->base] = op->term;
        break;
    }
}

/* On a full disk a later cut may have overtaken appends that wait. */
static uint64_t base_max(const struct run *run, const struct model_state *s)
{
    uint64_t max = s->base;
    for (size_t k = 0; run->full && k < run->op_count; k++) {
        const struct model_op *op = &run->ops[k];
        if (op->kind == WAL_OP_CUT && op->first > max && op->first <= s->last)
            max = op->first;
    }
    return max;
}

/* `reset`: the latest reset's index, behind which recovery must not reach back. */
static bool matches(const struct run *run, const struct model_state *s, uint64_t reset,
                    const struct wal_recovered *r)
{
    if (r->base_index > base_max(run, s) || r->base_index < reset ||
        r->base_index + r->entry_count != s->last)
        return false;
    if (r->base_index > 0 && r->base_term != s->terms[r->base_index])
        return false;
    if (r->hard_state.term != s->hs.term || r->hard_state.vote != s->hs.vote ||
        r->hard_state.commit > s->last || r->hard_state.commit < r->base_index)
        return false;
    for (size_t i = 0; i < r->entry_count; i++) {
        uint64_t index = r->base_index + 1 + i;
        if (!same_entry(r->entries[i], index, s->terms[index]))
            return false;
    }
    return true;
}

/* Finds the state that was recovered among those that may be. */
static bool explain(struct run *r, const struct wal_recovered *found, struct model_state *ret_state)
{
    struct model_state s = r->start;
    uint64_t reset = s.base;
    for (size_t k = 0; k <= r->op_count; k++) {
        const struct model_op *next = k < r->op_count ? &r->ops[k] : NULL;
        for (uint64_t j = 0; k >= r->acked && j <= (next ? next->count : 0); j++) {
            struct model_state t = s;
            if (j > 0)
                model_apply(&t, next, j);
            if (matches(r, &t, reset, found)) {
                *ret_state = t;
                return true;
            }
            t.hs = next && next->has_hs ? next->hs : t.hs; /* it stands before its entries */
            if (matches(r, &t, reset, found)) {
                *ret_state = t;
                return true;
            }
        }
        if (next) {
            model_apply(&s, next, next->count);
            reset = next->kind == WAL_OP_RESET ? next->first : reset;
        }
    }
    return false;
}

/* ---- a run */

static void on_done(void *ctx, uint64_t token)
{
    struct run *r = ctx;
    assert_int_equal(r->failures, 0);
    assert_true(token > r->acked && token <= r->op_count); /* in order */
    r->acked = token;
}

static void on_failed(void *ctx, const struct error *err)
{
    struct run *r = ctx;
    r->failures++;
    r->failure = err->code;
}

static struct wal_config config(struct run *r)
{
    return (struct wal_config){
        .disk = simdisk_disk(r->sim),
        .worker = &r->worker.base,
        .env = &r->env,
        .dir = DIR,
        .cluster_id = 1,
        .member_id = 2,
        .segment_bytes = SEGMENT,
        .failed = on_failed,
        .ctx = r,
    };
}

static void run_init(struct run *r, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->sim = simdisk_new(seed);
    r->rng.state = seed;
    r->env.random = env_random;
    simworker_init(&r->worker);
    assert_int_equal(simdisk_disk(r->sim)->mkdir(simdisk_disk(r->sim), "member", &r->err), ERR_OK);
    assert_int_equal(simdisk_disk(r->sim)->sync_dir(simdisk_disk(r->sim), "/", &r->err), ERR_OK);
}

static void run_close(struct run *r)
{
    if (!r->wal)
        return;
    wal_close(r->wal);
    simworker_drain(&r->worker);
    wal_recovered_free(&r->found);
    r->wal = NULL;
    assert_int_equal(simdisk_handles(r->sim), 0);
}

static void run_free(struct run *r)
{
    run_close(r);
    simdisk_free(r->sim);
}

static enum errc try_open(struct run *r)
{
    struct wal_config c = config(r);
    enum errc rc = wal_open(&c, &r->wal, &r->found, &r->err);
    if (rc)
        assert_int_equal(simdisk_handles(r->sim), 0);
    return rc;
}

/* What was found and what was done, for the one who has to find out. */
static void print_failure(const struct run *r)
{
    const struct wal_recovered *f = &r->found;
    print_error("found base %d/%d, %d entries, term %d, vote %d, commit %d; acknowledged %d of\n",
                (int)f->base_index, (int)f->base_term, (int)f->entry_count, (int)f->hard_state.term,
                (int)f->hard_state.vote, (int)f->hard_state.commit, (int)r->acked);
    print_error("  start at base %d, last %d, term %d, vote %d\n", (int)r->start.base,
                (int)r->start.last, (int)r->start.hs.term, (int)r->start.hs.vote);
    for (size_t i = 0; i < r->op_count; i++)
        print_error("  %d: kind %d, %d entries from %d of term %d; term %d, vote %d, commit %d\n",
                    (int)i + 1, r->ops[i].kind, (int)r->ops[i].count, (int)r->ops[i].first,
                    (int)r->ops[i].term, (int)r->ops[i].hs.term, (int)r->ops[i].hs.vote,
                    (int)r->ops[i].hs.commit);
}

/* Opens, and the model goes on from what was found. */
static void open_checked(struct run *r)
{
    enum errc rc = try_open(r);
    if (rc)
        print_error("%s\n", r->err.message);
    assert_int_equal(rc, ERR_OK);
    struct model_state s;
    if (!explain(r, &r->found, &s))
        print_failure(r);
    assert_true(explain(r, &r->found, &s));
    s.base = r->found.base_index;
    s.hs.commit = r->found.hard_state.commit;
    r->start = r->now = s;
    r->op_count = r->acked = r->failures = 0;
    r->full = false;
}

static void submit_append(struct run *r)
{
    struct model_op op = {.kind = WAL_OP_APPEND};
    struct model_state *s = &r->now;
    if (simrng_chance(&r->rng, 30))
        s->hs.term++;
    uint64_t back = simrng_chance(&r->rng, 20) ? simrng_below(&r->rng, 4) : 0;
    uint64_t safe = s->hs.commit > s->base ? s->hs.commit : s->base;
    op.first = s->last + 1 > safe + back ? s->last + 1 - back : s->last + 1;
    op.count = simrng_below(&r->rng, 5);
    op.term = s->hs.term;
    if (op.first + op.count >= INDEX_MAX)
        op.count = 0;
    op.has_hs = true;
    op.hs = s->hs;
    op.hs.vote = simrng_below(&r->rng, 3);
    op.hs.commit = safe + simrng_below(&r->rng, (op.first - 1 - safe) + 1);
    r->ops[r->op_count++] = op;
    model_apply(&r->now, &op, op.count);
    struct raft_entry *entries[5];
    for (uint64_t i = 0; i < op.count; i++)
        entries[i] = make(op.first + i, op.term);
    wal_append(r->wal, &op.hs, entries, (size_t)op.count, on_done, r, r->op_count);
    for (uint64_t i = 0; i < op.count; i++)
        raft_entry_unref(entries[i]);
}

static void submit_cut(struct run *r)
{
    struct model_state *s = &r->now;
    if (s->hs.commit <= s->base)
        return;
    struct model_op op = {.kind = WAL_OP_CUT};
    op.first = s->base + 1 + simrng_below(&r->rng, s->hs.commit - s->base);
    op.term = s->terms[op.first];
    r->ops[r->op_count++] = op;
    model_apply(s, &op, 0);
    wal_cut(r->wal, op.first, op.term);
}

static void submit_reset(struct run *r)
{
    struct model_op op = {.kind = WAL_OP_RESET};
    op.first = r->now.base + 1 + simrng_below(&r->rng, 20);
    op.term = r->now.hs.term + 1;
    if (op.first + 1 >= INDEX_MAX)
        return;
    r->ops[r->op_count++] = op;
    model_apply(&r->now, &op, 0);
    r->now.hs.commit = op.first;
    wal_reset(r->wal, op.first, op.term, on_done, r, r->op_count);
}

/* A history of `steps`: operations and, in between, the worker at its own pace. */
static void play(struct run *r, size_t steps)
{
    for (size_t i = 0; i < steps && r->op_count < OPS_MAX; i++) {
        uint64_t dice = simrng_below(&r->rng, 100);
        if (dice < 50)
            submit_append(r);
        else if (dice < 60)
            submit_cut(r);
        else if (dice < 62)
            submit_reset(r);
        else if (dice < 66)
            wal_tick(r->wal);
        else if (dice < 80)
            simworker_run(&r->worker);
        else
            simworker_deliver(&r->worker);
    }
}

static void crash(struct run *r)
{
    simdisk_power_off(r->sim);
    run_close(r);
    simdisk_crash(r->sim, &r->rng);
}

/* The token of the last operation that is answered at all: cuts aren't. */
static size_t last_answered(const struct run *r)
{
    size_t n = r->op_count;
    while (n > 0 && r->ops[n - 1].kind == WAL_OP_CUT)
        n--;
    return n;
}

/* ---- tests */

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
        cmocka_unit_test(test_crashes),
        cmocka_unit_test(test_crash_at_every_call),
        cmocka_unit_test(test_fail_at_every_call),
        cmocka_unit_test(test_no_space_at_every_call),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_cuts_keep_a_full_log_going),
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
    return cmocka_run_group_tests_name("wal_recovery", tests, NULL, NULL);
}
