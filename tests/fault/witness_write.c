/* The writer: numbered keys, each put once, with what the answer said of its revision. */
#include <inttypes.h>
#include <stdio.h>

#include "lib/base/memory.h"
#include "tests/fault/witness.h"

#define PAUSE_MS 10

static void put_next(uv_timer_t *timer);

static void on_put(void *ctx, const struct client_result *result)
{
    struct witness *w = ctx;
    if (result->code == ERR_OK) {
        const Etcdserverpb__PutResponse *r = (const void *)result->message;
        if (w->put_count == w->put_cap) {
            w->put_cap = w->put_cap ? 2 * w->put_cap : 1024;
            w->puts = xrealloc(w->puts, w->put_cap * sizeof(w->puts[0]));
        }
        w->puts[w->put_count++] = (struct witness_put){w->put_number, r->header->revision};
    }
    if (w->ending)
        uv_close((uv_handle_t *)&w->put_timer, NULL);
    else
        uv_timer_start(&w->put_timer, put_next, PAUSE_MS, 0);
    w->putting = !w->ending;
}

static void put_next(uv_timer_t *timer)
{
    struct witness *w = timer->data;
    char key[64], value[32];
    snprintf(key, sizeof(key), WITNESS_PUT_PREFIX "%" PRId64, ++w->put_number);
    snprintf(value, sizeof(value), "%" PRId64, w->put_number);
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = witness_text(key);
    put.value = witness_text(value);
    client_put(w->client, &put, WITNESS_CALL_MS, on_put, w);
}

void witness_writer_start(struct witness *w)
{
    w->putting = true;
    uv_timer_init(&w->loop, &w->put_timer);
    w->put_timer.data = w;
    uv_timer_start(&w->put_timer, put_next, 0, 0);
}
