#include "tests/sim/world.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/base/memory.h"

void world_init(struct world *w, uint64_t seed)
{
    *w = (struct world){.seed = seed, .hash = seed};
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

static void swap(struct world_event *a, struct world_event *b)
{
    struct world_event t = *a;
    *a = *b;
    *b = t;
}

void world_after(struct world *w, uint64_t delay, world_fn fn, void *ctx, uint64_t a, uint64_t b)
{
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->heap = xrealloc(w->heap, w->cap * sizeof(*w->heap));
    }
    size_t i = w->count++;
    w->heap[i] = (struct world_event){w->now + delay, w->seq++, fn, ctx, a, b};
    for (; i > 0 && before(&w->heap[i], &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        swap(&w->heap[i], &w->heap[(i - 1) / 2]);
}

static struct world_event pop(struct world *w)
{
    struct world_event first = w->heap[0];
    w->heap[0] = w->heap[--w->count];
    for (size_t i = 0;;) {
        size_t least = i, left = 2 * i + 1;
        for (size_t k = left; k < left + 2 && k < w->count; k++) {
            if (before(&w->heap[k], &w->heap[least]))
                least = k;
        }
        if (least == i)
            return first;
        swap(&w->heap[i], &w->heap[least]);
        i = least;
    }
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

static void print_line(const struct world_line *l)
{
    char text[512];
    const uint64_t *a = l->args;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"
    snprintf(text, sizeof(text), l->format, (unsigned long long)a[0], (unsigned long long)a[1],
             (unsigned long long)a[2], (unsigned long long)a[3], (unsigned long long)a[4]);
#pragma GCC diagnostic pop
    fprintf(stderr, "%3llu.%06llu %s\n", (unsigned long long)(l->at / SECOND),
            (unsigned long long)(l->at % SECOND / 1000), text);
}

void world_trace(struct world *w, const char *format, uint64_t a, uint64_t b, uint64_t c,
                 uint64_t d, uint64_t e)
{
    struct world_line *l = &w->ring[w->lines++ % WORLD_RING];
    *l = (struct world_line){w->now, format, {a, b, c, d, e}};
    uint64_t h = w->now;
    for (size_t i = 0; i < WORLD_ARGS; i++)
        h = (h ^ l->args[i]) * 1099511628211ull;
    world_mix(w, h ^ (uint64_t)(unsigned char)format[0]);
    if (w->loud)
        print_line(l);
}

void world_story(const struct world *w, size_t count)
{
    uint64_t have = w->lines < WORLD_RING ? w->lines : WORLD_RING;
    for (uint64_t i = have < count ? have : count; i > 0; i--)
        print_line(&w->ring[(w->lines - i) % WORLD_RING]);
}

void world_fail(struct world *w, const char *format, ...)
{
    if (!w->loud)
        world_story(w, STORY_LINES);
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
