/* The write-ahead log against a model: a random history of appends, cuts and resets on the simulated disk. After
 * each opening, what is recovered must be the model's state after some operation that was submitted, none
 * that was acknowledged may be missing, and nothing else may be there. For test_wal_recovery.c and
 * test_wal_damage.c. */
#ifndef UNIT_WAL_FIXTURE_H
#define UNIT_WAL_FIXTURE_H

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

static inline uint64_t env_random(struct env *env)
{
    return simrng_next(&CONTAINER_OF(env, struct run, env)->rng);
}

static inline size_t entry_size(uint64_t index, uint64_t term)
{
    struct simrng r = {index * 1000 + term};
    uint64_t dice = simrng_below(&r, 20);
    return (size_t)(dice == 0 ? simrng_below(&r, 9000) : simrng_below(&r, dice < 10 ? 60 : 900));
}

static inline struct raft_entry *make(uint64_t index, uint64_t term)
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

static inline bool same_entry(const struct raft_entry *e, uint64_t index, uint64_t term)
{
    struct raft_entry *want = make(index, term);
    bool same = e->index == index && e->term == term && e->stamp == want->stamp &&
                e->type == want->type && e->size == want->size &&
                memcmp(e->data, want->data, e->size) == 0;
    raft_entry_unref(want);
    return same;
}

/* Carries out the first `entries` entries of op. */
static inline void model_apply(struct model_state *s, const struct model_op *op, uint64_t entries)
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
static inline uint64_t base_max(const struct run *run, const struct model_state *s)
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
static inline bool matches(const struct run *run, const struct model_state *s, uint64_t reset,
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
static inline bool explain(struct run *r, const struct wal_recovered *found,
                           struct model_state *ret_state)
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

static inline void on_done(void *ctx, uint64_t token)
{
    struct run *r = ctx;
    assert_int_equal(r->failures, 0);
    assert_true(token > r->acked && token <= r->op_count); /* in order */
    r->acked = token;
}

static inline void on_failed(void *ctx, const struct error *err)
{
    struct run *r = ctx;
    r->failures++;
    r->failure = err->code;
}

static inline struct wal_config config(struct run *r)
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

static inline void run_init(struct run *r, uint64_t seed)
{
    memset(r, 0, sizeof(*r));
    r->sim = simdisk_new(seed);
    r->rng.state = seed;
    r->env.random = env_random;
    simworker_init(&r->worker);
    assert_int_equal(simdisk_disk(r->sim)->mkdir(simdisk_disk(r->sim), "member", &r->err), ERR_OK);
    assert_int_equal(simdisk_disk(r->sim)->sync_dir(simdisk_disk(r->sim), "/", &r->err), ERR_OK);
}

static inline void run_close(struct run *r)
{
    if (!r->wal)
        return;
    wal_close(r->wal);
    simworker_drain(&r->worker);
    wal_recovered_free(&r->found);
    r->wal = NULL;
    assert_int_equal(simdisk_handles(r->sim), 0);
}

static inline void run_free(struct run *r)
{
    run_close(r);
    simdisk_free(r->sim);
}

static inline enum errc try_open(struct run *r)
{
    struct wal_config c = config(r);
    enum errc rc = wal_open(&c, &r->wal, &r->found, &r->err);
    if (rc)
        assert_int_equal(simdisk_handles(r->sim), 0);
    return rc;
}

/* What was found and what was done, for the one who has to find out. */
static inline void print_failure(const struct run *r)
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
static inline void open_checked(struct run *r)
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

static inline void submit_append(struct run *r)
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

static inline void submit_cut(struct run *r)
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

static inline void submit_reset(struct run *r)
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
static inline void play(struct run *r, size_t steps)
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

static inline void crash(struct run *r)
{
    simdisk_power_off(r->sim);
    run_close(r);
    simdisk_crash(r->sim, &r->rng);
}

/* The token of the last operation that is answered at all: cuts aren't. */
static inline size_t last_answered(const struct run *r)
{
    size_t n = r->op_count;
    while (n > 0 && r->ops[n - 1].kind == WAL_OP_CUT)
        n--;
    return n;
}

#endif
