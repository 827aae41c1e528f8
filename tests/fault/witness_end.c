/* The end, step by step: the abandoned leases end, the last revision is asked for, everybody gets there, old revisions are
 * read here and there, and all is checked. */
#include <inttypes.h>
#include <stdlib.h>

#include "lib/base/memory.h"
#include "tests/fault/witness.h"

#define STEP_MS 100
#define LIMIT_S 90 /* for each step, on a machine with much else to do */
#define SAMPLES 100

enum step { EXPIRING, LAST, READING, SAMPLING, CLOSED };

struct end {
    struct witness *w;
    enum step step;
    uint64_t step_begun_ns;
    bool asking;
    int64_t last;
    size_t samples, sampled; /* index of the event that was asked for */
    uv_timer_t timer;
};

static void go_on(struct end *e, enum step step)
{
    e->step = step;
    e->step_begun_ns = witness_ns();
}

static void close_all(struct end *e)
{
    struct witness *w = e->w;
    go_on(e, CLOSED);
    witness_leases_stop(w);
    for (size_t i = 0; i < WITNESS_WATCHES; i++)
        witness_watch_stop(&w->watches[i]);
    for (size_t i = 0; i < w->member_count; i++) {
        if (w->readers[i].w)
            witness_watch_stop(&w->readers[i]);
        rpc_channel_free(w->channels[i]);
    }
    client_free(w->client);
    uv_close((uv_handle_t *)&e->timer, NULL);
}

/* ---- Expired leases ---------------------------------------------------------------------------- */

static void on_leases(void *ctx, const struct client_result *result)
{
    struct end *e = ctx;
    e->asking = false;
    if (result->code != ERR_OK || e->step == CLOSED)
        return;
    witness_leases_list(e->w, (const void *)result->message);
    if (witness_leases_left(e->w) == 0 && !e->w->putting)
        go_on(e, LAST);
}

static void ask_leases(struct end *e)
{
    Etcdserverpb__LeaseLeasesRequest request = ETCDSERVERPB__LEASE_LEASES_REQUEST__INIT;
    client_unary(e->w->client, "/etcdserverpb.Lease/LeaseLeases", &request.base,
                 &etcdserverpb__lease_leases_response__descriptor, true, WITNESS_CALL_MS, on_leases,
                 e);
}

/* ---- The last revision, and who has seen it ---------------------------------------------------- */

static void on_last(void *ctx, const struct client_result *result)
{
    struct end *e = ctx;
    e->asking = false;
    if (result->code != ERR_OK || e->step == CLOSED)
        return;
    e->last = ((const Etcdserverpb__RangeResponse *)result->message)->header->revision;
    for (size_t i = 0; i < e->w->member_count; i++)
        witness_reader_start(e->w, i);
    go_on(e, READING);
}

static void ask_last(struct end *e)
{
    Etcdserverpb__RangeRequest request = ETCDSERVERPB__RANGE_REQUEST__INIT;
    request.key = witness_text("/witness");
    client_range(e->w->client, &request, WITNESS_CALL_MS, on_last, e);
}

static const struct witness_watch *behind(const struct end *e)
{
    for (size_t i = 0; i < WITNESS_WATCHES; i++) {
        if (e->w->watches[i].next <= e->last)
            return &e->w->watches[i];
    }
    for (size_t i = 0; i < e->w->member_count; i++) {
        if (e->w->readers[i].next <= e->last)
            return &e->w->readers[i];
    }
    return NULL;
}

/* ---- Reads of old revisions -------------------------------------------------------------------- */

static void ask_sample(struct end *e);

static void sampled(struct end *e, const Etcdserverpb__RangeResponse *r)
{
    const struct witness_event *event = &e->w->readers[0].events.all[e->sampled];
    if (r->n_kvs != !event->deletion) {
        witness_wrong(e->w, "%s at revision %" PRId64 " is%s there", event->kv.key, event->kv.mod,
                      r->n_kvs ? "" : " not");
    } else if (r->n_kvs) {
        struct witness_kv kv;
        witness_take_kv(r->kvs[0], &kv);
        if (!witness_kv_equal(&kv, &event->kv))
            witness_wrong(e->w, "%s at revision %" PRId64 " is another one than the event said",
                          event->kv.key, event->kv.mod);
        free(kv.key);
    }
}

static void on_sample(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    (void)sent;
    struct end *e = ctx;
    e->asking = false;
    if (e->step == CLOSED)
        return;
    Etcdserverpb__RangeResponse *r =
        status == 0 ? etcdserverpb__range_response__unpack(NULL, answer.n, answer.p) : NULL;
    if (!r) {
        witness_wrong(e->w, "a read of an old revision failed: %s", text);
        return;
    }
    sampled(e, r);
    etcdserverpb__range_response__free_unpacked(r, NULL);
    if (e->samples < SAMPLES)
        ask_sample(e);
}

static void ask_sample(struct end *e)
{
    struct witness *w = e->w;
    e->asking = true;
    e->sampled = witness_random(w, w->readers[0].events.count);
    const struct witness_kv *kv = &w->readers[0].events.all[e->sampled].kv;
    Etcdserverpb__RangeRequest request = ETCDSERVERPB__RANGE_REQUEST__INIT;
    request.key = witness_text(kv->key);
    request.revision = kv->mod;
    request.serializable = true; /* of that member's own store */
    size_t n = etcdserverpb__range_request__get_packed_size(&request);
    uint8_t *packed = xmalloc(n + 1);
    etcdserverpb__range_request__pack(&request, packed);
    rpc_unary(w->channels[e->samples++ % w->member_count], "/etcdserverpb.KV/Range",
              bytes_of(packed, n), WITNESS_CALL_MS, NULL, 0, on_sample, e);
    free(packed);
}

/* ---- The steps --------------------------------------------------------------------------------- */

static void give_up(struct end *e)
{
    const struct witness_watch *t = e->step == READING ? behind(e) : NULL;
    if (t)
        witness_wrong(e->w, "%s at member %zu has got to %" PRId64 " of %" PRId64, t->name,
                      t->member + 1, t->next, e->last);
    else if (e->step == EXPIRING)
        witness_wrong(e->w, "%zu abandoned leases have not ended", witness_leases_left(e->w));
    else
        witness_wrong(e->w, "the cluster does not answer");
    close_all(e);
}

static void step(uv_timer_t *timer)
{
    struct end *e = timer->data;
    if (witness_ns() - e->step_begun_ns > LIMIT_S * 1000000000ull) {
        give_up(e);
        return;
    }
    if (e->step == READING && !behind(e)) {
        witness_check(e->w, e->last);
        go_on(e, SAMPLING);
    }
    if (e->step == SAMPLING && !e->asking &&
        (e->samples == SAMPLES || e->w->readers[0].events.count == 0)) {
        close_all(e);
        return;
    }
    if (e->asking || e->step == READING)
        return;
    e->asking = true;
    switch (e->step) {
    case EXPIRING:
        ask_leases(e);
        break;
    case LAST:
        ask_last(e);
        break;
    default:
        ask_sample(e);
    }
}

void witness_end(struct witness *w)
{
    static struct end e;
    e.w = w;
    witness_leases_abandon(w);
    go_on(&e, EXPIRING);
    uv_timer_init(&w->loop, &e.timer);
    e.timer.data = &e;
    uv_timer_start(&e.timer, step, 0, STEP_MS);
}
