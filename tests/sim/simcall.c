#include "tests/sim/simcall.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/sim.h"

struct simcall {
    struct list link; /* in the member's calls while it works on it */
    struct sim *sim;
    uint64_t node, boot;
    struct simreq request;
    struct simanswer answer;
    simcall_done done;
    void *ctx;
    uint64_t token;
};

static uint64_t delay(struct sim *s)
{
    struct simrng *r = &s->clients.net_rng;
    uint64_t d = 100000 + simrng_below(r, 2 * MS);
    return !s->calm && simrng_chance(r, 2) ? d + simrng_below(r, 300 * MS) : d;
}

static void call_free(struct simcall *c)
{
    free(c->answer.kvs);
    free(c);
}

/* ---- the answer --------------------------------------------------------------------------------- */

static void on_answer(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct simcall *c = ctx;
    c->done(c->ctx, c->token, &c->answer);
    call_free(c);
}

static void send_answer(struct simcall *c, enum errc code)
{
    c->answer.code = code;
    list_remove(&c->link);
    if (!c->sim->calm &&
        simrng_below(&c->sim->clients.net_rng, 1000) < c->sim->faults.answer_loss_permille) {
        call_free(c);
        return;
    }
    world_after(&c->sim->world, delay(c->sim), on_answer, c, 0, 0);
}

void calls_drop_all(struct simnode *n)
{
    while (!list_empty(&n->calls)) {
        struct simcall *c = CONTAINER_OF(n->calls.next, struct simcall, link);
        if (simrng_chance(&n->sim->clients.net_rng, 50)) {
            send_answer(c, ERR_UNAVAILABLE); /* the connection broke */
        } else {
            list_remove(&c->link);
            call_free(c);
        }
    }
}

/* ---- on the member ------------------------------------------------------------------------------ */

static void on_applied(void *ctx, const struct apply_result *result)
{
    struct simcall *c = ctx;
    if (result->code == ERR_OK)
        call_take(&c->sim->model, &c->request, result->message, &c->answer);
    send_answer(c, result->code);
}

static void serve_range(struct simcall *c, struct simnode *n)
{
    struct call_message *m = call_message_new(&c->request);
    struct arena arena = {0};
    struct error err = {0};
    Etcdserverpb__RangeResponse *response = NULL;
    enum errc code =
        apply_range(replica_apply(n->replica), call_message_range(m), &arena, &response, &err);
    if (code == ERR_OK)
        call_take(&c->sim->model, &c->request, response, &c->answer);
    else if (code == ERR_CORRUPT)
        rot_found(n, "the store, reading");
    arena_free(&arena);
    call_message_free(m);
    send_answer(c, code);
}

static void on_read(void *ctx, enum errc code)
{
    struct simcall *c = ctx;
    struct simnode *n = sim_node(c->sim, c->node);
    if (code != ERR_OK)
        send_answer(c, code);
    else
        serve_range(c, n);
}

static void on_renewed(void *ctx, enum errc code, int64_t ttl)
{
    struct simcall *c = ctx;
    c->answer.ttl = ttl;
    send_answer(c, code);
}

static void begin(struct simcall *c, struct simnode *n)
{
    const struct simreq *q = &c->request;
    switch (q->kind) {
    case REQ_GET:
    case REQ_RANGE:
        if (q->serializable) {
            serve_range(c, n);
            return;
        }
        replica_read(n->replica, on_read, c);
        return;
    case REQ_KEEPALIVE:
        replica_lease_renew(n->replica, q->lease, on_renewed, c);
        return;
    default:
        break;
    }
    struct call_message *m = call_message_new(q);
    replica_propose(n->replica, call_message_internal(m), on_applied, c);
    call_message_free(m);
}

static void on_request(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct simcall *c = ctx;
    struct simnode *n = sim_node(c->sim, c->node);
    if (!n || !n->replica) {
        c->answer.refused = true;
        send_answer(c, ERR_UNAVAILABLE);
        return;
    }
    if (w->now < n->paused_until) {
        world_after(w, n->paused_until - w->now, on_request, c, a, b);
        return;
    }
    c->boot = n->boot;
    list_append(&n->calls, &c->link);
    begin(c, n);
    simnode_settle(n);
}

void call_send(struct sim *s, uint64_t node, const struct simreq *request, simcall_done done,
               void *ctx, uint64_t token)
{
    struct simcall *c = xcalloc(1, sizeof(*c));
    c->sim = s;
    c->node = node;
    c->request = *request;
    c->done = done;
    c->ctx = ctx;
    c->token = token;
    list_init(&c->link);
    world_after(&s->world, delay(s), on_request, c, 0, 0);
}
