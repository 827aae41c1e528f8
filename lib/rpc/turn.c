#include "lib/rpc/turn.h"

#include <assert.h>
#include <stdlib.h>

/* Takes all that is queued now, so that an item that queues itself again waits for the next turn. */
static void run_all(struct list *queue)
{
    struct list now;
    list_init(&now);
    if (list_empty(queue))
        return;
    now = *queue;
    now.next->prev = now.prev->next = &now;
    list_init(queue);
    while (!list_empty(&now)) {
        struct turn_item *item = CONTAINER_OF(now.next, struct turn_item, link);
        list_remove(&item->link);
        item->run(item);
    }
}

static void on_prepare(uv_prepare_t *handle)
{
    struct turn *t = handle->data;
    run_all(&t->work);
    run_all(&t->flushes);
    if (!list_empty(&t->work) || !list_empty(&t->flushes))
        return;
    uv_prepare_stop(&t->prepare);
    uv_idle_stop(&t->idle);
}

static void on_idle(uv_idle_t *handle)
{
    (void)handle; /* its being active is all: the loop does not sleep */
}

void turn_init(struct turn *t, uv_loop_t *loop)
{
    *t = (struct turn){.open_handles = 2};
    uv_prepare_init(loop, &t->prepare);
    uv_idle_init(loop, &t->idle);
    t->prepare.data = t->idle.data = t;
    list_init(&t->work);
    list_init(&t->flushes);
}

void turn_item_init(struct turn_item *item, void (*run)(struct turn_item *item))
{
    list_init(&item->link);
    item->run = run;
}

static void queue(struct turn *t, struct list *queue, struct turn_item *item)
{
    if (!list_empty(&item->link))
        return;
    assert(!t->closed);
    list_append(queue, &item->link);
    uv_prepare_start(&t->prepare, on_prepare);
    uv_idle_start(&t->idle, on_idle);
}

void turn_add_work(struct turn *t, struct turn_item *item)
{
    queue(t, &t->work, item);
}

void turn_add_flush(struct turn *t, struct turn_item *item)
{
    queue(t, &t->flushes, item);
}

void turn_drop(struct turn_item *item)
{
    list_remove(&item->link);
}

static void on_close(uv_handle_t *handle)
{
    struct turn *t = handle->data;
    if (--t->open_handles > 0)
        return;
    free(t->read_buf);
    t->closed(t);
}

void turn_close(struct turn *t, void (*closed)(struct turn *t))
{
    assert(list_empty(&t->work) && list_empty(&t->flushes));
    t->closed = closed;
    uv_close((uv_handle_t *)&t->prepare, on_close);
    uv_close((uv_handle_t *)&t->idle, on_close);
}

uv_buf_t turn_read_buf(struct turn *t)
{
    if (!t->read_buf)
        t->read_buf = xmalloc(TURN_READ_BUF_SIZE);
    return uv_buf_init(t->read_buf, TURN_READ_BUF_SIZE);
}
