/* Work that waits for the end of the loop's turn.
 *
 * Callbacks to the user must not run inside the user's own calls, and all that one turn produces for a
 * connection goes out in one write. So both are put off to libuv's prepare phase, just before the loop
 * would sleep: first the work (which may produce more to send), then the flushes. What is queued while
 * they run is for the next turn, and an idle handle keeps the loop from sleeping before it.
 *
 * One turn belongs to each server and each channel. It also lends the buffer that its connections read
 * into: libuv asks for it and fills it in one go, so that one is enough for all of them. */
#ifndef RPC_TURN_H
#define RPC_TURN_H

#include <uv.h>

#include "lib/base/list.h"

struct turn_item {
    struct list link;
    void (*run)(struct turn_item *item);
};

#define TURN_READ_BUF_SIZE (64 * 1024)

struct turn {
    uv_prepare_t prepare;
    uv_idle_t idle;
    struct list work, flushes;
    char *read_buf;
    int open_handles;
    void (*closed)(struct turn *t);
};

void turn_init(struct turn *t, uv_loop_t *loop);
void turn_item_init(struct turn_item *item, void (*run)(struct turn_item *item));
/* Queue an item; queued twice it runs once. The item may free itself or others in run(). */
void turn_add_work(struct turn *t, struct turn_item *item);
void turn_add_flush(struct turn *t, struct turn_item *item);
void turn_drop(struct turn_item *item);
/* No item may be queued any more; `closed` runs from the loop, then the turn's memory is free. */
void turn_close(struct turn *t, void (*closed)(struct turn *t));
uv_buf_t turn_read_buf(struct turn *t);

#endif
