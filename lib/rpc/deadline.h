/* Many deadlines on one timer: a binary heap, so that a call with a time-out costs no libuv handle of
 * its own (whose closing would outlive the call). Times are milliseconds on uv_now()'s clock. */
#ifndef RPC_DEADLINE_H
#define RPC_DEADLINE_H

#include <uv.h>

struct deadline {
    uint64_t at;
    size_t place;                       /* in the heap, from 1; 0: not set */
    void (*passed)(struct deadline *d); /* it is not set any more; may set it or free it */
};

struct deadlines {
    uv_timer_t timer;
    struct deadline **heap; /* heap[1..n], none of them earlier than its parent */
    size_t n, cap;
    uint64_t armed; /* when the timer fires: never later than heap[1]; UINT64_MAX: it does not */
    void (*closed)(struct deadlines *ds);
};

void deadlines_init(struct deadlines *ds, uv_loop_t *loop);
void deadline_init(struct deadline *d, void (*passed)(struct deadline *d));
void deadline_set(struct deadlines *ds, struct deadline *d, uint64_t at); /* or moves it */
void deadline_clear(struct deadlines *ds, struct deadline *d);            /* set or not */
/* All must be cleared; `closed` runs from the loop. */
void deadlines_close(struct deadlines *ds, void (*closed)(struct deadlines *ds));

#endif
