/* Makes a failing seed smaller: less time, fewer kinds of fault, fewer members and clients, as long as the same promise
 * is still broken. Greedy and bounded: at most REDUCE_TRIES_MAX runs. What is left need not be the smallest of all, but
 * no single kind of fault can be left out of it (unless the tries were used up). */
#ifndef SIM_REDUCE_H
#define SIM_REDUCE_H

#include "tests/sim/runner.h"

#define REDUCE_TRIES_MAX 60

/* Runs the seed with these options. */
typedef void (*reduce_try)(void *ctx, const struct sim_options *o, struct verdict *ret_verdict);

struct reduction {
    struct sim_options options; /* the smallest that still fails the same way */
    struct verdict verdict;     /* its own */
    size_t tries;
    bool smaller; /* than what failed */
};

/* `failed` are the options that failed with `verdict`, `drawn` is what its seed has drawn. */
void reduce(const struct sim_options *failed, const struct verdict *verdict,
            const struct sim_drawn *drawn, reduce_try try, void *ctx, struct reduction *ret);

#endif
