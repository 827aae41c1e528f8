#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/memory.h"

void world_init(struct world *w, uint64_t seed)
{
    /* It comes zeroed, as a part of struct sim: its trace is too large to be copied. */
    w->seed = w->hash = seed;
    w->rng = world_rng(w, 0);
}

void world_free(struct world *w)
{
    free(w->heap);
    w->heap = NULL;
}

struct simrng world_rng(const struct world *w, uint64_t concern)
{
    struct simrng r = {w->seed ^ (concern * 0xd1342543de82ef95ull)};
    return (struct simrng){simrng_next(&r)};
}

/* ---- events ------------------------------------------------------------------------------------- */

static bool before(const struct world_event *a, const struct world_event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

void world_after(struct world *w, uint64_t delay, world_fn fn, void *ctx, uint64_t a, uint64_t b)
{
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->heap = xrealloc(w->heap, w->cap * sizeof(*w->heap));
    }
    struct world_event e = {w->now + delay, w->seq++, fn, ctx, a, b};
    size_t i = w->count++;
    for (; i > 0 && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct world_event pop(struct world *w)
{
    struct world_event first = w->heap[0], last = w->heap[--w->count];
    size_t i = 0;
    for (size_t least = 1; least < w->count; least = 2 * i + 1) {
        if (least + 1 < w->count && before(&w->heap[least + 1], &w->heap[least]))
            least++;
        if (!before(&w->heap[least], &last))
            break;
        w->heap[i] = w->heap[least];
        i = least;
    }
    w->heap[i] = last;
    return first;
}

bool world_step(struct world *w, uint64_t until)
{
    if (w->count == 0 || w->heap[0].at > until) {
        w->now = until;
        return false;
    }
    struct world_event e = pop(w);
    w->now = e.at;
    w->events++;
    e.fn(w, e.ctx, e.a, e.b);
    return true;
}

/* ---- trace -------------------------------------------------------------------------------------- */

void world_mix(struct world *w, uint64_t v)
{
    struct simrng r = {w->hash ^ v};
    w->hash = simrng_next(&r);
}

static const struct trace_line *keep(struct world *w, const char *format,
                                     const uint64_t args[TRACE_ARGS])
{
    const struct trace_line *l = trace_add(&w->trace, w->now, format, args);
    if (w->loud)
        story_print_line(&w->trace, l, stderr);
    return l;
}

void world_trace(struct world *w, const char *format, uint64_t a, uint64_t b, uint64_t c,
                 uint64_t d, uint64_t e)
{
    const struct trace_line *l = keep(w, format, (const uint64_t[TRACE_ARGS]){a, b, c, d, e});
    uint64_t h = w->now;
    for (size_t i = 0; i < TRACE_ARGS; i++)
        h = (h ^ l->args[i]) * 1099511628211ull;
    world_mix(w, h ^ (uint64_t)(unsigned char)format[0]);
}

void world_note(struct world *w, const char *format, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                uint64_t e)
{
    keep(w, format, (const uint64_t[TRACE_ARGS]){a, b, c, d, e});
}

void world_story(const struct world *w, const struct about *about)
{
    story_print(&w->trace, about, stderr);
    if (w->print_state)
        w->print_state(w->state_ctx);
}

void world_fail_about(struct world *w, const struct about *about, const char *format, ...)
{
    if (!w->loud)
        world_story(w, about);
    fprintf(stderr, "VIOLATION at %llu.%06llu s: ", (unsigned long long)(w->now / SECOND),
            (unsigned long long)(w->now % SECOND / 1000));
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    fflush(stderr);
    _exit(1);
}
