#include "tests/sim/reduce.h"

#include <string.h>

#include "lib/base/memory.h"

#define QUIET_SECONDS 18 /* at the end of each run: CALM_MIN in sim.c */

struct work {
    struct reduction *best;
    reduce_try try;
    void *ctx;
};

/* Keeps `o` if it fails as the whole did. */
static bool try_one(struct work *w, const struct sim_options *o)
{
    struct verdict v;
    if (w->best->tries == REDUCE_TRIES_MAX)
        return false;
    w->best->tries++;
    w->try(w->ctx, o, &v);
    if (v.good || strcmp(v.promise, w->best->verdict.promise) != 0)
        return false;
    w->best->smaller = true;
    w->best->options = *o;
    w->best->verdict = v;
    return true;
}

static bool try_seconds(struct work *w, uint64_t seconds)
{
    struct sim_options o = w->best->options;
    if (seconds == 0 || seconds >= o.seconds)
        return false;
    o.seconds = seconds;
    return try_one(w, &o);
}

/* A run that is broken while faults happen only needs to last until then, and the quiet phase. If it is broken
 * later, the time of the faults is halved as long as that helps. */
static void less_time(struct work *w)
{
    try_seconds(w, w->best->verdict.at_seconds + QUIET_SECONDS);
    for (;;) {
        uint64_t seconds = w->best->options.seconds;
        if (seconds <= QUIET_SECONDS + 1 ||
            !try_seconds(w, QUIET_SECONDS + (seconds - QUIET_SECONDS) / 2))
            return;
    }
}

/* Tries to leave out `size` of the kinds at a time; true if something was left out. */
static bool without_groups(struct work *w, uint64_t kinds, size_t size)
{
    bool any = false;
    uint64_t group = 0;
    size_t n = 0;
    for (size_t i = 0; i < 64; i++) {
        uint64_t bit = 1ull << i;
        if (kinds & bit && !(w->best->options.without & bit)) {
            group |= bit;
            n++;
        }
        if (n == 0 || (n < size && i < 63))
            continue;
        struct sim_options o = w->best->options;
        o.without |= group;
        any |= try_one(w, &o);
        group = 0;
        n = 0;
    }
    return any;
}

static void fewer_faults(struct work *w, uint64_t kinds)
{
    size_t count = (size_t)__builtin_popcountll(kinds & ~w->best->options.without);
    for (size_t size = count; size > 1; size = (size + 1) / 2) {
        without_groups(w, kinds, size);
        if (size == 2)
            break;
    }
    while (without_groups(w, kinds, 1)) /* what one needed another one may not */
        ;
}

static void fewer_members(struct work *w, const struct sim_drawn *drawn)
{
    static const size_t sizes[] = {1, 3, 5};
    if (drawn->scenario != SCENARIO_NONE) /* it has its own number */
        return;
    for (size_t i = 0; i < ARRAY_LEN(sizes) && sizes[i] < drawn->nodes; i++) {
        struct sim_options o = w->best->options;
        o.nodes = sizes[i];
        if (try_one(w, &o))
            return;
    }
}

static void fewer_clients(struct work *w, const struct sim_drawn *drawn)
{
    for (size_t n = 1; n < drawn->clients; n *= 2) {
        struct sim_options o = w->best->options;
        o.clients = n;
        if (try_one(w, &o))
            return;
    }
}

void reduce(const struct sim_options *failed, const struct verdict *verdict,
            const struct sim_drawn *drawn, reduce_try try, void *ctx, struct reduction *ret)
{
    *ret = (struct reduction){.options = *failed, .verdict = *verdict};
    struct work w = {ret, try, ctx};
    if (verdict->good || verdict->hung) /* each try would take as long */
        return;
    less_time(&w);
    fewer_members(&w, drawn);
    fewer_clients(&w, drawn);
    fewer_faults(&w, drawn->kinds);
    less_time(&w);
}
