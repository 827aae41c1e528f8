/* The simulated world: a virtual clock, the events that are to come, seeded randomness, and a trace.
 *
 * Nothing happens but events, one after another in the order of their times (equal times in the order
 * of their scheduling), so the seed alone decides what a run does. Every trace line goes into a hash:
 * two runs of a seed must end with the same one. One thread; one world a process. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/simrng.h"
#include "tests/sim/story.h"

#define MS 1000000ull /* the clock counts nanoseconds */
#define SECOND (1000 * MS)

struct world;

/* An event's function: `ctx`, `a` and `b` as they were scheduled. */
typedef void (*world_fn)(struct world *w, void *ctx, uint64_t a, uint64_t b);

struct world_event {
    uint64_t at, seq;
    world_fn fn;
    void *ctx;
    uint64_t a, b;
};

struct world {
    uint64_t seed, now;
    struct world_event *heap; /* a binary heap; heap[0] is next */
    size_t count, cap;
    uint64_t seq, events;
    uint64_t hash;
    struct trace trace;
    bool loud; /* lines are printed at once */
    /* Prints what is wrong at the moment, for a story's end. NULL: nothing. */
    void (*print_state)(void *ctx);
    void *state_ctx;
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

/* A line for the story (trace.h) that is not in the hash. */
void world_note(struct world *w, const char *format, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                uint64_t e);
#define NOTE1(w, f, a) world_note(w, f, (uint64_t)(a), 0, 0, 0, 0)
#define NOTE2(w, f, a, b) world_note(w, f, (uint64_t)(a), (uint64_t)(b), 0, 0, 0)
#define NOTE3(w, f, a, b, c) world_note(w, f, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), 0, 0)
#define NOTE4(w, f, a, b, c, d)                                                                    \
    world_note(w, f, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), 0)
#define NOTE5(w, f, a, b, c, d, e)                                                                 \
    world_note(w, f, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e))

/* Prints the story to standard error: what concerns `about` (NULL: the last lines), and what is wrong now. */
void world_story(const struct world *w, const struct about *about);

/* A promise was broken: prints the story and why, and ends the process with code 1. */
_Noreturn void world_fail_about(struct world *w, const struct about *about, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define world_fail(w, ...) world_fail_about(w, NULL, __VA_ARGS__)

#endif
