#include "lib/rpc/deadline.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

#define HEAP_CAP_MIN 64

static void place(struct deadlines *ds, size_t i, struct deadline *d)
{
    ds->heap[i] = d;
    d->place = i;
}

static void sift_up(struct deadlines *ds, size_t i, struct deadline *d)
{
    for (; i > 1 && ds->heap[i / 2]->at > d->at; i /= 2)
        place(ds, i, ds->heap[i / 2]);
    place(ds, i, d);
}

static void sift_down(struct deadlines *ds, size_t i, struct deadline *d)
{
    for (;;) {
        size_t child = 2 * i;
        if (child > ds->n)
            break;
        if (child < ds->n && ds->heap[child + 1]->at < ds->heap[child]->at)
            child++;
        if (ds->heap[child]->at >= d->at)
            break;
        place(ds, i, ds->heap[child]);
        i = child;
    }
    place(ds, i, d);
}

static void take_out(struct deadlines *ds, struct deadline *d)
{
    size_t i = d->place;
    struct deadline *last = ds->heap[ds->n--];
    d->place = 0;
    if (last == d)
        return;
    if (i > 1 && ds->heap[i / 2]->at > last->at)
        sift_up(ds, i, last);
    else
        sift_down(ds, i, last);
}

static void on_timer(uv_timer_t *timer);

/* The timer may fire early (its deadline was cleared since): that costs one look, while re-arming it
 * for every call that ends in time would cost two operations on libuv's heap a call. */
static void arm(struct deadlines *ds)
{
    if (ds->n == 0) {
        uv_timer_stop(&ds->timer);
        ds->armed = UINT64_MAX;
    } else if (ds->heap[1]->at < ds->armed) {
        uint64_t now = uv_now(ds->timer.loop), at = ds->heap[1]->at;
        ds->armed = at;
        uv_timer_start(&ds->timer, on_timer, at > now ? at - now : 0, 0);
    }
}

static void on_timer(uv_timer_t *timer)
{
    struct deadlines *ds = timer->data;
    uint64_t now = uv_now(timer->loop);
    ds->armed = UINT64_MAX;
    while (ds->n && ds->heap[1]->at <= now) {
        struct deadline *d = ds->heap[1];
        take_out(ds, d);
        d->passed(d);
    }
    if (!ds->closed)
        arm(ds);
}

void deadlines_init(struct deadlines *ds, uv_loop_t *loop)
{
    *ds = (struct deadlines){.armed = UINT64_MAX};
    uv_timer_init(loop, &ds->timer);
    ds->timer.data = ds;
}

void deadline_init(struct deadline *d, void (*passed)(struct deadline *d))
{
    *d = (struct deadline){.passed = passed};
}

void deadline_set(struct deadlines *ds, struct deadline *d, uint64_t at)
{
    assert(!ds->closed);
    if (d->place)
        take_out(ds, d);
    if (ds->n + 1 >= ds->cap) {
        ds->cap = ds->cap ? ds->cap * 2 : HEAP_CAP_MIN;
        ds->heap = xrealloc(ds->heap, ds->cap * sizeof *ds->heap);
    }
    d->at = at;
    sift_up(ds, ++ds->n, d);
    arm(ds);
}

void deadline_clear(struct deadlines *ds, struct deadline *d)
{
    if (!d->place)
        return;
    take_out(ds, d);
    arm(ds);
}

static void on_close(uv_handle_t *handle)
{
    struct deadlines *ds = handle->data;
    free(ds->heap);
    ds->closed(ds);
}

void deadlines_close(struct deadlines *ds, void (*closed)(struct deadlines *ds))
{
    assert(ds->n == 0);
    ds->closed = closed;
    uv_close((uv_handle_t *)&ds->timer, on_close);
}
