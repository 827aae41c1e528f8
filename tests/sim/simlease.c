#include "tests/sim/simlease.h"

#include "tests/sim/note.h"
#include "tests/sim/sim.h"

#define CALL_TIMEOUT_MS 2000
#define LATE_TTL_MAX                                                                               \
    6 /* what ends later than this could change the last revision at the very end */
/* An abandoned lease may live this much longer in quiet times: a change of leader starts it anew. */
#define EXPIRY_SLACK (4 * SECOND)
#define REIGN_SLACK (3 * SECOND)
/* A renewal may reach a paused member, and take effect so much later. */
#define LATE_RENEWAL (10 * SECOND)

static void step(struct world *w, void *ctx, uint64_t token, uint64_t b);

static void step_after(struct holder *h, uint64_t ms)
{
    world_after(&h->sim->world, ms * MS, step, h, ++h->token, 0);
}

static struct lease *find(struct leases *l, int64_t id)
{
    return id > 0 && (size_t)id <= l->count ? &l->all[id - 1] : NULL;
}

/* Clocks run at different rates: what the leader calls a second may be a little less. */
static uint64_t surely(const struct sim *s, int64_t ttl)
{
    return (uint64_t)ttl * SECOND / 1000 * (1000 - s->faults.drift_permille);
}

void leases_revoked(struct leases *l, int64_t id, uint64_t request_id)
{
    struct lease *lease = find(l, id);
    struct world *w = &l->sim->world;
    (void)request_id;
    if (!lease || lease->gone)
        return;
    lease->gone = true;
    l->expired += !lease->revoking;
    TRACE2(w, "=lease %l ends (its client revoked it: %y)", id, lease->revoking);
    if (!lease->revoking && w->now < lease->sure_until)
        world_fail_about(w, ABOUT(.lease = (uint64_t)id),
                         "lease %lld expired although it was kept alive until %llu ms later",
                         (long long)id, (unsigned long long)((lease->sure_until - w->now) / MS));
}

static void extend(struct lease *lease, uint64_t until)
{
    if (until > lease->sure_until)
        lease->sure_until = until;
}

static void on_late_put(void *ctx, uint64_t token, const struct simanswer *a)
{
    (void)ctx, (void)token,
        (void)a; /* refused, or the lease was still there: the model judges it */
}

/* A client that doesn't know yet that its lease has ended goes on as if it held its lock (e#11456). */
static void put_late(struct world *w, void *ctx, uint64_t id, uint64_t b)
{
    (void)w, (void)b;
    struct holder *h = ctx;
    struct simreq q = {.kind = REQ_PUT, .lease = (int64_t)id};
    q.key = LEASE_KEY_FIRST + (uint32_t)h->number;
    q.value = clients_new_value(&h->sim->clients);
    if (!h->sim->load_over)
        call_send(h->sim, clients_pick_node(&h->sim->clients), &q, on_late_put, h, 0);
}

static void abandon(struct holder *h)
{
    struct leases *l = &h->sim->leases;
    if (h->lease && h->lease->ttl <= LATE_TTL_MAX && simrng_chance(&l->rng, 30))
        world_after(&h->sim->world, simrng_below(&l->rng, 2 * (uint64_t)h->lease->ttl * SECOND),
                    put_late, h, (uint64_t)h->lease->id, 0);
    if (h->lease && !h->lease->abandoned_at)
        h->lease->abandoned_at = h->sim->world.now + (h->patient ? LATE_RENEWAL : 0);
    h->lease = NULL;
    step_after(h, (h->sleeper ? 3000 : 0) + simrng_below(&h->sim->leases.rng, 2000));
}

static void on_granted(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct holder *h = ctx;
    if (!h->lease || token != h->token)
        return;
    h->unanswered = false;
    NOTE3(&h->sim->world, "%m answers the grant of lease %l: %e", h->node, h->lease->id, a->code);
    if (a->code != ERR_OK) {
        abandon(h);
        return;
    }
    h->lease->granted = true;
    if (h->sleeper) {
        extend(h->lease, h->asked_at + surely(h->sim, h->lease->ttl));
        abandon(h);
        return;
    }
    extend(h->lease, h->asked_at + surely(h->sim, h->lease->ttl));
    step_after(h, 1);
}

static void on_put(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct holder *h = ctx;
    if (!h->lease || token != h->token)
        return;
    h->unanswered = false;
    h->has_key = a->code == ERR_OK;
    if (a->code == ERR_LEASE_NOT_FOUND)
        abandon(h);
    else
        step_after(h, 1);
}

static void on_renewed(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct holder *h = ctx;
    if (!h->lease || token != h->token)
        return;
    h->unanswered = false;
    NOTE4(&h->sim->world, "%m answers the renewal of lease %l: %e, %u s", h->node, h->lease->id,
          a->code, a->ttl);
    if (a->code == ERR_OK && a->ttl > 0) {
        h->sim->leases.renewed++;
        if (h->lease->gone)
            world_fail_about(&h->sim->world,
                             ABOUT(.lease = (uint64_t)h->lease->id, .member = h->node),
                             "lease %lld was renewed after its end", (long long)h->lease->id);
        extend(h->lease, h->asked_at + surely(h->sim, a->ttl));
        step_after(h, (uint64_t)a->ttl * 1000 / 3);
    } else if (a->code == ERR_LEASE_NOT_FOUND) {
        abandon(h);
    } else {
        h->node = clients_pick_node(&h->sim->clients); /* until the leader is found */
        step_after(h, 30 + simrng_below(&h->sim->leases.rng, 50));
    }
}

static void on_revoked(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct holder *h = ctx;
    (void)a;
    if (!h->lease || token != h->token)
        return;
    h->unanswered = false;
    abandon(h);
}

static void ask(struct holder *h, const struct simreq *q, simcall_done done)
{
    if (h->unanswered) /* the last one: it asks another member */
        h->node = clients_pick_node(&h->sim->clients);
    h->unanswered = true;
    step_after(h, CALL_TIMEOUT_MS); /* unless the answer comes before */
    h->asked_at = h->sim->world.now;
    note_lease_request(h->sim, h->node, q);
    call_send(h->sim, h->node, q, done, h, h->token);
}

static void grant(struct holder *h)
{
    struct leases *l = &h->sim->leases;
    if (l->count == LEASES_MAX || h->sim->calm)
        return;
    struct lease *lease = &l->all[l->count++];
    *lease = (struct lease){.id = (int64_t)l->count, .ttl = 2 + (int64_t)simrng_below(&l->rng, 4)};
    lease->lasting = h->sleeper || h->patient;
    if (lease->lasting)
        lease->ttl = 12 + (int64_t)simrng_below(&l->rng, 15);
    h->lease = lease;
    h->has_key = h->patient; /* needs none; its end, at whatever time, makes no revision */
    h->keep_until = h->sim->world.now + simrng_below(&l->rng, (h->patient ? 40 : 12) * SECOND);
    h->node = clients_pick_node(&h->sim->clients);
    ask(h, &(struct simreq){.kind = REQ_GRANT, .lease = lease->id, .ttl = lease->ttl}, on_granted);
}

static void step(struct world *w, void *ctx, uint64_t token, uint64_t b)
{
    (void)b;
    struct holder *h = ctx;
    struct leases *l = &h->sim->leases;
    if (token != h->token)
        return;
    if (!h->lease) {
        grant(h);
        return;
    }
    struct lease *lease = h->lease;
    if (!lease->granted) {
        abandon(h); /* no answer: it may have been granted */
    } else if (w->now >= h->keep_until || h->sim->calm) {
        if (simrng_chance(&l->rng, 70)) {
            abandon(h);
            return;
        }
        lease->revoking = true;
        ask(h, &(struct simreq){.kind = REQ_REVOKE, .lease = lease->id}, on_revoked);
    } else if (!h->has_key) {
        ask(h,
            &(struct simreq){.kind = REQ_PUT,
                             .key = LEASE_KEY_FIRST + (uint32_t)h->number,
                             .value = clients_new_value(&h->sim->clients),
                             .lease = lease->id},
            on_put);
    } else {
        ask(h, &(struct simreq){.kind = REQ_KEEPALIVE, .lease = lease->id}, on_renewed);
    }
}

static bool lease_is_over(void *ctx, int64_t id)
{
    const struct lease *lease = find(ctx, id);
    return lease && lease->gone;
}

void leases_start(struct leases *l, struct sim *s)
{
    s->model.lease_is_over = lease_is_over;
    s->model.ctx = l;
    l->sim = s;
    l->rng = world_rng(&s->world, 4);
    l->holder_count = 3 + simrng_below(&l->rng, LEASE_HOLDERS_MAX - 2);
    for (size_t i = 0; i < l->holder_count; i++) {
        l->holders[i] = (struct holder){.sim = s,
                                        .number = i,
                                        .patient = i == l->holder_count - 2,
                                        .sleeper = i == l->holder_count - 1};
        step_after(&l->holders[i], 500 + simrng_below(&l->rng, 2000));
    }
}

/* What [from, to] of a reign was not lost in stalls of a kind. (Those without a commit include those asleep.) */
static uint64_t without_stalls(const struct check *c, uint64_t term, uint64_t from, uint64_t to,
                               bool asleep)
{
    uint64_t rest = to - from;
    for (size_t i = 0; i < c->stall_count; i++) {
        const struct stall *t = &c->stalls[i];
        uint64_t begin = t->from > from ? t->from : from, end = t->to < to ? t->to : to;
        if (t->term == term && t->asleep == asleep && end > begin)
            rest -= end - begin;
    }
    return rest;
}

/* How much of its time a lease that nobody renews has certainly spent: all of the present leader's reign,
 * and of the earlier ones what their checkpoints have saved, for which they had to commit. The slack is for what
 * a leader does before it knows the leases, after it has lost its quorum, and for rounding up to seconds. */
static uint64_t surely_spent(const struct leases *l, const struct lease *lease)
{
    const struct check *c = &l->sim->check;
    uint64_t spent = 0, interval = l->sim->faults.lease_checkpoint_ms * MS;
    for (size_t i = 0; i < c->reign_count; i++) {
        const struct reign *r = &c->reigns[i];
        uint64_t from = r->ready > lease->abandoned_at ? r->ready : lease->abandoned_at, to = r->to;
        bool last = true;
        for (size_t k = 0; k < c->reign_count; k++) {
            if (c->reigns[k].term > r->term) {
                last = false;
                to = c->reigns[k].from < to ? c->reigns[k].from : to;
            }
        }
        if (!last && r->committed_at < to)
            to = r->committed_at;
        uint64_t length = to > from ? without_stalls(c, r->term, from, to, last) : 0;
        if (length < REIGN_SLACK)
            continue;
        length -= REIGN_SLACK;
        uint64_t saved = length / interval * interval;
        if (last)
            spent += length;
        else if (saved > SECOND)
            spent += saved - SECOND;
    }
    return spent;
}

struct left {
    struct leases *leases;
    uint64_t node;
};

static void check_left(void *ctx, int64_t id)
{
    struct left *left = ctx;
    struct leases *l = left->leases;
    const struct lease *lease = find(l, id);
    uint64_t now = l->sim->world.now;
    if (!lease)
        world_fail_about(&l->sim->world, ABOUT(.lease = (uint64_t)id, .member = left->node),
                         "a lease that nobody granted: %lld", (long long)id);
    if (lease->gone)
        world_fail_about(&l->sim->world, ABOUT(.lease = (uint64_t)id, .member = left->node),
                         "member %llu has lease %lld, which was revoked",
                         (unsigned long long)left->node, (long long)id);
    if (lease->lasting && lease->granted &&
        surely_spent(l, lease) > (uint64_t)lease->ttl * SECOND + 2 * SECOND)
        world_fail_about(&l->sim->world, ABOUT(.lease = (uint64_t)id, .member = left->node),
                         "lease %lld (%lld s) has lived for %llu s of leadership", (long long)id,
                         (long long)lease->ttl,
                         (unsigned long long)(surely_spent(l, lease) / SECOND));
    if (!lease->lasting && lease->abandoned_at &&
        now > lease->abandoned_at + (uint64_t)lease->ttl * SECOND + EXPIRY_SLACK)
        world_fail_about(&l->sim->world, ABOUT(.lease = (uint64_t)id, .member = left->node),
                         "lease %lld (%lld s) was abandoned %llu ms ago and is there",
                         (long long)id, (long long)lease->ttl,
                         (unsigned long long)((now - lease->abandoned_at) / MS));
}

/* No key outlives its lease. */
static void check_keys(struct leases *l, struct simnode *n)
{
    struct model *m = &l->sim->model;
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        const struct modelkv *kv = model_at(m, key, m->last);
        if (kv && kv->lease && !lessor_exists(replica_lessor(n->replica), kv->lease))
            world_fail_about(&l->sim->world,
                             ABOUT(.lease = (uint64_t)kv->lease, .member = n->id, ABOUT_KEY(key)),
                             "k%03u has lease %lld, which member %llu doesn't have", key,
                             (long long)kv->lease, (unsigned long long)n->id);
    }
}

void leases_end_epoch(struct leases *l, const bool *there)
{
    for (size_t i = 0; i < l->count; i++) {
        struct lease *lease = &l->all[i];
        lease->gone = !there[lease->id];
        lease->revoking = false;
        lease->sure_until = 0;
        lease->abandoned_at = l->sim->world.now;
    }
    for (size_t i = 0; i < l->holder_count; i++) {
        l->holders[i].lease = NULL;
        step_after(&l->holders[i], 500 + simrng_below(&l->rng, 2000));
    }
}

void leases_check_end(struct leases *l)
{
    for (size_t i = 0; i < l->sim->node_count; i++) {
        struct simnode *n = l->sim->nodes[i];
        if (n->replica)
            check_keys(l, n);
        if (n->replica)
            lessor_each(replica_lessor(n->replica), check_left, &(struct left){l, n->id});
    }
}
