/* The simulated world: a virtual clock, the events that are to come, seeded randomness, and a trace.
 *
 * Nothing happens but events, one after another in the order of their times (equal times in the order
 * of their scheduling), so the seed alone decides what a run does. Every trace line goes into a hash:
 * two runs of a seed must end with the same one. The last lines are kept as numbers and become text
 * only when a run fails or is watched: they are its story. One thread; one world a process. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/simrng.h"

#define MS 1000000ull /* the clock counts nanoseconds */
#define SECOND (1000 * MS)

#define WORLD_ARGS 5
#define WORLD_RING 4096 /* trace lines kept */

struct world;

/* An event's function: `ctx`, `a` and `b` as they were scheduled. */
typedef void (*world_fn)(struct world *w, void *ctx, uint64_t a, uint64_t b);

struct world_event {
    uint64_t at, seq;
    world_fn fn;
    void *ctx;
    uint64_t a, b;
};

struct world_line {
    uint64_t at;
    const char *format; /* each argument as %llu, %llx or %lld */
    uint64_t args[WORLD_ARGS];
};

struct world {
    uint64_t seed, now;
    struct world_event *heap; /* a binary heap; heap[0] is next */
    size_t count, cap;
    uint64_t seq, events;
    uint64_t hash;
    struct world_line ring[WORLD_RING];
    uint64_t lines;
    bool loud; /* lines are printed at once */
    struct simrng rng;
};

void world_init(struct world *w, uint64_t seed);
void world_free(struct world *w);

/* A generator of its own for each concern, so that one more draw here changes nothing there. */
struct simrng world_rng(const struct world *w, uint64_t concern);

void world_after(struct world *w, uint64_t delay, world_fn fn, void *ctx, uint64_t a, uint64_t b);

/* Runs the next event; false if it would be later than `until` (the clock is `until` then). */
bool world_step(struct world *w, uint64_t until);

void world_trace(struct world *w, const char *format, uint64_t a, uint64_t b, uint64_t c,
                 uint64_t d, uint64_t e);
#define TRACE0(w, f) world_trace(w, f, 0, 0, 0, 0, 0)
#define TRACE1(w, f, a) world_trace(w, f, (uint64_t)(a), 0, 0, 0, 0)
#define TRACE2(w, f, a, b) world_trace(w, f, (uint64_t)(a), (uint64_t)(b), 0, 0, 0)
#define TRACE3(w, f, a, b, c) world_trace(w, f, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0)
#define TRACE4(w, f, a, b, c, d)                                                                   \
    world_trace(w, f, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0)
#define TRACE5(w, f, a, b, c, d, e)                                                                \
    world_trace(w, f, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e))

/* Something is mixed into the hash without a line. */
void world_mix(struct world *w, uint64_t v);

/* Prints the last `count` trace lines to standard error. */
void world_story(const struct world *w, size_t count);

/* A promise was broken: prints why and the story, and ends the process with code 1. */
_Noreturn void world_fail(struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define STORY_LINES 80

#endif
