#include "tests/sim/steady.h"

#define ATTEMPTS_MAX 100 /* with RETRY_MS: half a minute; an election takes less than ten seconds */
#define RETRY_MS 300
#define TIMEOUT_MS 8000
#define THINK_MS 2500    /* a client's mean pause: three requests a second in all */
#define REQUESTS_EACH 2  /* of a client before it comes back as somebody new */
#define WATCH_MOVE_S 900 /* mean time between two reconnects of a watcher */

static uint64_t below(struct steady *t, uint64_t n)
{
    return simrng_below(&t->rng, n);
}

static uint64_t some_node(struct steady *t)
{
    for (;;) {
        uint64_t id = 1 + below(t, t->sim->node_count);
        if (sim_node(t->sim, id)->replica)
            return id;
    }
}

/* ---- clients ------------------------------------------------------------------------------------ */

static void on_client(struct world *w, void *ctx, uint64_t token, uint64_t again);

static void client_after(struct steady_client *c, uint64_t ms, bool again)
{
    world_after(&c->steady->sim->world, ms * MS, on_client, c, ++c->token, again);
}

/* Most values are small; a few are large, so that rows, log records and messages of many sizes come. */
static size_t draw_size(struct steady *t)
{
    uint64_t dice = below(t, 100);
    if (dice < 70)
        return 20 + below(t, 500);
    return dice < 97 ? 500 + below(t, 7500) : 8000 + below(t, 40000);
}

static void draw(struct steady_client *c)
{
    struct steady *t = c->steady;
    struct simreq *q = &c->request;
    uint64_t dice = below(t, 100);
    *q = (struct simreq){.key = (uint32_t)below(t, STEADY_KEYS), .value = t->next_value += 3};
    q->kind = dice < 70 ? REQ_PUT : dice < 85 ? REQ_GET : dice < 92 ? REQ_NESTED : REQ_DELETE;
    if (dice >= 97)
        q->kind = REQ_RANGE;
    q->key2 = (q->key + 1 + (uint32_t)below(t, 20)) % STEADY_KEYS;
    if (q->kind == REQ_RANGE && q->key2 < q->key)
        q->key2 = STEADY_KEYS;
    if (q->kind == REQ_PUT) {
        q->size = draw_size(t);
        t->bytes_written += q->size;
    }
    if (c->number % 4 != 0 && q->kind != REQ_GET && q->kind != REQ_RANGE) {
        q->client_id = c->client_id;
        q->client_seq = ++c->seq;
    }
}

static void note_latency(struct steady *t, uint64_t ns)
{
    uint64_t at = ns / STEADY_LATENCY_NS;
    t->latencies[at < STEADY_LATENCIES ? at : STEADY_LATENCIES - 1]++;
    t->requests++;
}

static void on_answer(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct steady_client *c = ctx;
    struct steady *t = c->steady;
    if (token != c->token)
        return;
    if (a->code != ERR_OK) {
        t->retries++;
        c->node = some_node(t);
        client_after(c, RETRY_MS, true);
        return;
    }
    note_latency(t, t->sim->world.now - c->asked_at);
    if (++c->requests % REQUESTS_EACH == 0) {
        c->client_id = ++t->next_client;
        c->seq = 0;
        c->node = some_node(t);
    }
    client_after(c, 1 + below(t, 2 * THINK_MS), false);
}

/* A request that wasn't answered in time is asked again: puts without an id may then be applied twice,
 * which matters to nobody here. */
static void on_client(struct world *w, void *ctx, uint64_t token, uint64_t again)
{
    struct steady_client *c = ctx;
    if (token != c->token || (!again && c->steady->sim->load_over))
        return;
    if (!again) {
        draw(c);
        c->asked_at = w->now;
        c->attempts = 0;
    }
    if (++c->attempts > ATTEMPTS_MAX)
        world_fail(w, "client %llu had no success for %llu ms", (unsigned long long)c->number,
                   (unsigned long long)((w->now - c->asked_at) / MS));
    client_after(c, TIMEOUT_MS, true);
    call_send(c->steady->sim, c->node, &c->request, on_answer, c, c->token);
}

/* ---- leases ------------------------------------------------------------------------------------- */

static void on_holder(struct world *w, void *ctx, uint64_t token, uint64_t b);

static void holder_after(struct steady_holder *h, uint64_t ms)
{
    world_after(&h->steady->sim->world, ms * MS, on_holder, h, ++h->token, 0);
}

static void holder_ask(struct steady_holder *h, const struct simreq *q, simcall_done done)
{
    h->asked_at = h->steady->sim->world.now;
    holder_after(h, TIMEOUT_MS / 4);
    call_send(h->steady->sim, h->node, q, done, h, h->token);
}

static void on_granted(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct steady_holder *h = ctx;
    if (token != h->token)
        return;
    if (a->code == ERR_OK || a->code == ERR_LEASE_EXISTS) { /* an earlier attempt went through */
        h->state = HOLDER_KEEPING;
        h->attached_at = 0;
    } else {
        h->node = some_node(h->steady);
    }
    holder_after(h, a->code == ERR_OK ? 1 : RETRY_MS);
}

static void on_attached(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct steady_holder *h = ctx;
    if (token != h->token)
        return;
    if (a->code == ERR_OK)
        h->attached_at = h->steady->sim->world.now;
    else
        h->node = some_node(h->steady);
    holder_after(h, a->code == ERR_OK ? 1 : RETRY_MS);
}

static void on_renewed(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct steady_holder *h = ctx;
    if (token != h->token)
        return;
    if (a->code == ERR_LEASE_NOT_FOUND)
        world_fail(&h->steady->sim->world, "lease %lld is gone although it was kept alive",
                   (long long)h->lease);
    if (a->code == ERR_OK) {
        h->steady->renewed++;
        holder_after(h, (uint64_t)h->ttl * 1000 / 3);
        return;
    }
    h->node = some_node(h->steady); /* until the leader is found */
    holder_after(h, 20 + below(h->steady, 50));
}

static void on_revoked(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct steady_holder *h = ctx;
    if (token != h->token)
        return;
    if (a->code == ERR_OK || a->code == ERR_LEASE_NOT_FOUND)
        h->state = HOLDER_IDLE;
    h->node = some_node(h->steady);
    holder_after(h, RETRY_MS);
}

static void begin_lease(struct steady_holder *h, uint64_t now)
{
    struct steady *t = h->steady;
    h->state = HOLDER_GRANTING;
    h->lease = (int64_t)++t->next_lease;
    h->ttl = 20 + (int64_t)below(t, 40);
    h->keep_until = now + 60 * SECOND + below(t, 600 * SECOND);
    h->node = some_node(t);
}

static void keep_lease(struct steady_holder *h, uint64_t now)
{
    struct steady *t = h->steady;
    if (now >= h->keep_until) {
        if (simrng_chance(&t->rng, 50)) {
            h->state = HOLDER_REVOKING;
            holder_after(h, 1);
        } else {
            h->state = HOLDER_IDLE; /* it will expire */
            holder_after(h, 1000);
        }
    } else if (h->attached_at == 0) {
        struct simreq q = {.kind = REQ_PUT, .key = STEADY_KEYS + h->number, .lease = h->lease};
        q.value = t->next_value += 3;
        holder_ask(h, &q, on_attached);
    } else {
        struct simreq q = {.kind = REQ_KEEPALIVE, .lease = h->lease};
        holder_ask(h, &q, on_renewed);
    }
}

static void on_holder(struct world *w, void *ctx, uint64_t token, uint64_t b)
{
    (void)b;
    struct steady_holder *h = ctx;
    if (token != h->token || h->steady->sim->load_over)
        return;
    if (!sim_node(h->steady->sim, h->node)->replica)
        h->node = some_node(h->steady);
    if (h->state == HOLDER_IDLE)
        begin_lease(h, w->now);
    struct simreq q = {.kind = REQ_GRANT, .lease = h->lease, .ttl = h->ttl};
    if (h->state == HOLDER_GRANTING) {
        holder_ask(h, &q, on_granted);
    } else if (h->state == HOLDER_REVOKING) {
        q.kind = REQ_REVOKE;
        holder_ask(h, &q, on_revoked);
    } else {
        keep_lease(h, w->now);
    }
}

/* ---- watchers ----------------------------------------------------------------------------------- */

static void connect(struct steady_watcher *x);

static void on_resume(struct world *w, void *ctx, uint64_t connection, uint64_t b)
{
    (void)w, (void)b;
    struct steady_watcher *x = ctx;
    if (!x->watcher || x->connection != connection)
        return;
    x->paused = false;
    watch_resume(x->watcher);
    simnode_wake(sim_node(x->steady->sim, x->node));
}

static bool on_events(void *ctx, struct watcher *w, const struct watch_event *events, size_t count,
                      int64_t revision)
{
    (void)w, (void)events;
    struct steady_watcher *x = ctx;
    struct steady *t = x->steady;
    if (revision <= x->seen || x->paused)
        world_fail(&t->sim->world, "watcher %u got revision %lld after %lld (it pauses: %d)",
                   x->number, (long long)revision, (long long)x->seen, x->paused);
    x->seen = revision;
    t->events += count;
    x->paused = x->number % 3 == 0 && simrng_chance(&t->rng, 5);
    if (x->paused)
        world_after(&t->sim->world, SECOND + below(t, 20 * SECOND), on_resume, x, x->connection, 0);
    return !x->paused;
}

static void on_compacted(void *ctx, struct watcher *w, int64_t revision)
{
    (void)w;
    struct steady_watcher *x = ctx;
    if (revision <= x->seen + 1)
        world_fail(&x->steady->sim->world, "watcher %u was told of compaction %lld at %lld",
                   x->number, (long long)revision, (long long)x->seen);
    x->steady->compacted++;
    x->seen = revision - 1;
    x->move_at = 0;
}

static void disconnect(struct steady_watcher *x)
{
    if (x->watcher)
        watch_cancel(x->watcher);
    x->watcher = NULL;
    x->paused = false;
    x->connection++;
}

static void connect(struct steady_watcher *x)
{
    static const struct watch_consumer consumer = {on_events, on_compacted};
    struct steady *t = x->steady;
    struct simnode *n = sim_node(t->sim, x->node = some_node(t));
    static const uint8_t zero[1] = {0};
    char text[MODEL_KEY_BYTES + 1];
    struct watch_spec spec = {.start_revision = x->seen + 1, .prev_kv = x->number % 2 == 0};
    spec.range.key = bytes_of(zero, 1);
    spec.range.end = bytes_of(zero, 1);
    if (x->number % 3 == 1)
        spec.range = (struct mvcc_range){.key = model_key((uint32_t)below(t, STEADY_KEYS), text)};
    x->watcher = watch_start(replica_watch_hub(n->replica), &spec, &consumer, x);
    x->move_at = t->sim->world.now + below(t, 2 * WATCH_MOVE_S * SECOND);
    simnode_wake(n);
}

/* Once a second: reconnects those whose time has come, or whose member is gone. */
static void on_watchers(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct steady *t = ctx;
    world_after(w, SECOND, on_watchers, t, a, b);
    for (size_t i = 0; i < STEADY_WATCHERS; i++) {
        struct steady_watcher *x = &t->watchers[i];
        if (x->watcher && w->now >= x->move_at)
            disconnect(x);
        if (!x->watcher)
            connect(x);
    }
}

void steady_leave(struct steady *t, uint64_t node)
{
    for (size_t i = 0; i < STEADY_WATCHERS; i++) {
        if (t->watchers[i].node == node)
            disconnect(&t->watchers[i]);
    }
}

void steady_load_start(struct steady *t)
{
    for (size_t i = 0; i < STEADY_CLIENTS; i++) {
        struct steady_client *c = &t->clients[i];
        *c = (struct steady_client){.steady = t, .number = i, .client_id = ++t->next_client};
        c->node = some_node(t);
        client_after(c, below(t, 2 * THINK_MS), false);
    }
    for (size_t i = 0; i < STEADY_HOLDERS; i++) {
        struct steady_holder *h = &t->holders[i];
        *h = (struct steady_holder){.steady = t, .number = (uint32_t)i, .node = 1};
        holder_after(h, below(t, 60000));
    }
    for (size_t i = 0; i < STEADY_WATCHERS; i++)
        t->watchers[i] = (struct steady_watcher){.steady = t, .number = (uint32_t)i, .seen = 1};
    on_watchers(&t->sim->world, t, 0, 0);
}
