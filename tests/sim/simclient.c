#include "tests/sim/simclient.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/note.h"
#include "tests/sim/sim.h"

#define TIMEOUT_MS 2500
#define ATTEMPTS_MAX 6
#define LINEAR_STEPS_MAX 400000

static void next(struct world *w, void *ctx, uint64_t a, uint64_t b);
static void attempt(struct simclient *c);

uint64_t clients_new_value(struct clients *c)
{
    c->next_value += 3;
    return c->next_value;
}

uint64_t clients_pick_node(struct clients *c)
{
    struct sim *s = c->sim;
    for (int tries = 0; tries < 8; tries++) {
        const struct simnode *n = s->nodes[simrng_below(&c->rng, s->node_count)];
        if (!n->gone && (n->replica || simrng_chance(&c->rng, 10)))
            return n->id;
    }
    return 1 + simrng_below(&c->rng, s->node_count);
}

/* ---- the history -------------------------------------------------------------------------------- */

static bool is_for_linear(const struct simreq *q)
{
    return q->key < CLIENT_LINEAR_KEYS && !q->serializable && q->revision == 0 &&
           (q->kind == REQ_PUT || q->kind == REQ_DELETE || q->kind == REQ_CAS ||
            q->kind == REQ_GET);
}

static void record(struct simclient *c, const struct simanswer *a)
{
    struct clients *all = &c->sim->clients;
    const struct simreq *q = &c->request;
    if (!is_for_linear(q) || (!a && q->kind == REQ_GET))
        return;
    if (all->op_count == all->op_cap) {
        all->op_cap = all->op_cap ? 2 * all->op_cap : 1024;
        all->ops = xrealloc(all->ops, all->op_cap * sizeof(*all->ops));
    }
    struct access *x = xcalloc(1, sizeof(*x));
    *x = (struct access){q->kind, q->key, q->value, q->expected, a != NULL, false};
    if (a) {
        x->held = a->succeeded;
        x->writes = q->kind == REQ_PUT || (q->kind == REQ_CAS && a->succeeded) || a->deleted > 0;
        x->revision = a->revision;
    }
    if (a && (q->kind == REQ_GET || q->kind == REQ_CAS))
        c->last_read[q->key] = a->count ? a->kvs[0].value : 0;
    if (q->kind == REQ_GET)
        x->value = a->count ? a->kvs[0].value : 0;
    if (q->kind == REQ_DELETE)
        x->value = 0;
    uint64_t returned = a ? c->sim->world.now : LINEAR_PENDING;
    all->ops[all->op_count++] = (struct linear_op){c->called, returned, x, 0};
}

static uint64_t value_at_start; /* of the key that is judged */

static void model_start(void *state)
{
    memcpy(state, &value_at_start, sizeof(value_at_start));
}

static bool model_step(void *state, const struct linear_op *op)
{
    const struct access *x = op->op;
    uint64_t value;
    memcpy(&value, state, sizeof(value));
    if (x->kind == REQ_GET)
        return value == x->value;
    if (x->kind == REQ_CAS) {
        bool holds = value != 0 && value == x->expected;
        if (x->known && holds != x->held)
            return false;
        if (!holds)
            return true;
    }
    memcpy(state, &x->value, sizeof(x->value));
    return true;
}

/* What is read at a revision comes after what made it. */
static uint64_t hint_at(int64_t revision, bool writes)
{
    return 2 * (uint64_t)revision + !writes;
}

/* The revision that an unanswered request made, as far as the model can tell; 0: probably none. A value says whose
 * it is; a deletion is taken for the first one since the call that nobody got an answer to. */
static int64_t revision_made(struct clients *c, const struct linear_op *op, bool *used)
{
    const struct model *m = &c->sim->model;
    const struct access *x = op->op;
    const struct model_history *h = &m->keys[x->key];
    for (size_t i = 0; i < h->count; i++) {
        const struct modelkv *kv = &m->kvs[h->at[i]];
        bool is_it = kv->tombstone ? x->kind == REQ_DELETE && !used[i] &&
                                         m->seen_at[kv->mod_revision] >= op->called
                                   : x->kind != REQ_DELETE && kv->value == x->value;
        if (is_it) {
            used[i] = true;
            return kv->mod_revision;
        }
    }
    return 0;
}

/* The order to try first is that of the revisions. */
static void add_hints(struct clients *c, uint32_t key, struct linear_op *ops, size_t count)
{
    const struct model *m = &c->sim->model;
    const struct model_history *h = &m->keys[key];
    bool *used = xcalloc(h->count + 1, sizeof(*used)); /* changes that are some operation's */
    for (size_t i = 0; i < count; i++) {
        const struct access *x = ops[i].op;
        if (x->known)
            ops[i].hint = hint_at(x->revision, x->writes);
        for (size_t k = 0; x->known && x->writes && k < h->count; k++)
            used[k] |= m->kvs[h->at[k]].mod_revision == x->revision;
    }
    for (size_t i = 0; i < count; i++) {
        const struct access *x = ops[i].op;
        int64_t revision = x->known ? 0 : revision_made(c, &ops[i], used);
        if (!x->known)
            ops[i].hint = revision ? hint_at(revision, true) : LINEAR_LAST;
    }
    free(used);
}

uint64_t clients_check_histories(struct clients *c)
{
    const struct linear_model m = {sizeof(uint64_t), model_start, model_step};
    struct linear_op *ops = xmalloc((c->op_count + 1) * sizeof(*ops));
    uint64_t undecided = 0;
    for (uint32_t key = 0; key < CLIENT_LINEAR_KEYS; key++) {
        size_t count = 0, stuck = 0;
        for (size_t i = 0; i < c->op_count; i++) {
            if (((const struct access *)c->ops[i].op)->key == key)
                ops[count++] = c->ops[i];
        }
        add_hints(c, key, ops, count);
        value_at_start = c->epoch_values[key];
        enum linear_verdict v = linear_check(&m, ops, count, LINEAR_STEPS_MAX, &stuck);
        if (v == LINEAR_NO)
            world_fail_about(&c->sim->world, ABOUT(ABOUT_KEY(key)),
                             "the history of k%03u is not linearizable (operation %zu)", key,
                             stuck);
        undecided += v == LINEAR_GAVE_UP;
    }
    free(ops);
    c->undecided += undecided;
    return c->undecided;
}

static void forget_history(struct clients *c)
{
    for (size_t i = 0; i < c->op_count; i++)
        free((void *)c->ops[i].op);
    c->op_count = 0;
}

void clients_end_epoch(struct clients *c, int64_t revision)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->all[i].busy)
            record(&c->all[i], NULL);
    clients_check_histories(c);
    forget_history(c);
    c->epoch = revision;
    c->floor = c->floor > revision ? revision : c->floor;
}

/* ---- what is asked ------------------------------------------------------------------------------ */

static int64_t some_revision(struct clients *c)
{
    int64_t last = c->floor > 1 ? c->floor : 1;
    int64_t back = (int64_t)simrng_below(&c->rng, (uint64_t)(last < 60 ? last : 60));
    return last - back > 0 ? last - back : 1;
}

static void draw_range(struct clients *c, struct simreq *q)
{
    q->key = (uint32_t)simrng_below(&c->rng, CLIENT_KEYS);
    q->key2 = q->key + 1 + (uint32_t)simrng_below(&c->rng, 6);
    /* Deletions of ranges stay away from the keys of the history. */
    if (q->kind == REQ_DELETE_RANGE && q->key < CLIENT_LINEAR_KEYS) {
        q->key += CLIENT_LINEAR_KEYS;
        q->key2 += CLIENT_LINEAR_KEYS;
    }
}

static void draw_pair(struct clients *c, struct simreq *q)
{
    uint32_t span = CLIENT_KEYS - CLIENT_LINEAR_KEYS;
    q->key = CLIENT_LINEAR_KEYS + (uint32_t)simrng_below(&c->rng, span);
    q->key2 = CLIENT_LINEAR_KEYS +
              (q->key - CLIENT_LINEAR_KEYS + 1 + (uint32_t)simrng_below(&c->rng, span - 1)) % span;
}

static enum simreq_kind draw_kind(struct clients *c)
{
    static const struct {
        enum simreq_kind kind;
        unsigned weight;
    } table[] = {
        {REQ_PUT, 33},  {REQ_GET, 30},   {REQ_CAS, 14},    {REQ_DELETE, 6},
        {REQ_RANGE, 8}, {REQ_NESTED, 6}, {REQ_OLD_TXN, 2}, {REQ_DELETE_RANGE, 1},
    };
    if (simrng_chance(&c->rng, c->sim->faults.compact_percent))
        return REQ_COMPACT;
    uint64_t draw = simrng_below(&c->rng, 100);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        if (draw < table[i].weight)
            return table[i].kind;
        draw -= table[i].weight;
    }
    return REQ_PUT;
}

static void draw(struct simclient *c)
{
    struct clients *all = &c->sim->clients;
    struct simreq *q = &c->request;
    *q = (struct simreq){.kind = draw_kind(all), .value = clients_new_value(all)};
    q->key = (uint32_t)simrng_below(&all->rng, simrng_chance(&all->rng, 60) ? CLIENT_LINEAR_KEYS
                                                                            : CLIENT_KEYS);
    if (q->kind == REQ_PUT &&
        q->key >= CLIENT_LINEAR_KEYS) /* those are compared with as they are */
        q->size = c->sim->faults.value_bytes;
    if (q->kind == REQ_GET || q->kind == REQ_RANGE) {
        q->serializable = simrng_chance(&all->rng, 20);
        q->revision = simrng_chance(&all->rng, 15) ? some_revision(all) : 0;
    }
    if (q->kind == REQ_RANGE || q->kind == REQ_DELETE_RANGE)
        draw_range(all, q);
    if (q->kind == REQ_NESTED || q->kind == REQ_OLD_TXN)
        draw_pair(all, q);
    if (q->kind == REQ_OLD_TXN)
        q->revision = some_revision(all);
    if (q->kind == REQ_CAS) {
        q->key %= CLIENT_LINEAR_KEYS;
        q->expected = c->last_read[q->key];
    }
    if (q->kind == REQ_COMPACT)
        q->revision = all->floor > 20 ? all->floor - (int64_t)simrng_below(&all->rng, 15) : 1;
    if (c->session && q->kind != REQ_GET && q->kind != REQ_RANGE) {
        q->client_id = c->client_id;
        q->client_seq = ++c->seq;
    }
}

/* ---- the life of a request ---------------------------------------------------------------------- */

static void rest(struct simclient *c, uint64_t ms)
{
    world_after(&c->sim->world, ms * MS + simrng_below(&c->sim->clients.rng, MS), next, c, 0, 0);
}

static void finish(struct simclient *c)
{
    struct clients *all = &c->sim->clients;
    const struct faults *f = &c->sim->faults;
    c->busy = false;
    c->token++;
    if (simrng_below(&all->rng, 1000) < 3 && !c->sim->calm) {
        c->client_id = ++all->next_id; /* goes away and comes back as somebody new */
        c->seq = 0;
        rest(c, simrng_below(&all->rng, 4000));
        return;
    }
    rest(c, 1 + simrng_below(&all->rng, 2 * f->think_ms));
}

static void give_up(struct simclient *c)
{
    c->sim->clients.unknown++;
    TRACE3(&c->sim->world, "%c gives up its request %v (it may have taken effect: %y)", c->number,
           c->request.value, c->maybe);
    if (c->maybe)
        record(c, NULL);
    finish(c);
}

static void try_again(struct simclient *c)
{
    const struct simreq *q = &c->request;
    bool read = q->kind == REQ_GET || q->kind == REQ_RANGE;
    c->node = clients_pick_node(&c->sim->clients);
    if (c->attempts >= ATTEMPTS_MAX || (c->maybe && !read && !q->client_id)) {
        give_up(c);
        return;
    }
    attempt(c);
}

/* "Too many requests" promises that the write has not taken place and won't. It is the whole request's outcome,
 * unless an earlier attempt may have succeeded. */
static bool is_refusal(const struct simclient *c, const struct simanswer *a)
{
    enum simreq_kind kind = c->request.kind;
    return a->code == ERR_TOO_MANY_REQUESTS && !c->maybe && kind != REQ_GET && kind != REQ_RANGE;
}

static void take_refusal(struct simclient *c)
{
    struct sim *s = c->sim;
    for (uint64_t i = 0; i < 3 && !s->steady; i++) /* as many as a request may write */
        model_refuse(&s->model, c->request.value + i);
    s->clients.refused++;
    finish(c);
}

static void on_answer(void *ctx, uint64_t token, const struct simanswer *a)
{
    struct simclient *c = ctx;
    if (!c->busy || token != c->token)
        return;
    struct sim *s = c->sim;
    TRACE5(&s->world, ">%c is answered by %m: request %v %e, at revision %r", c->number, c->node,
           c->request.value, a->code, a->revision);
    if (is_refusal(c, a)) {
        take_refusal(c);
        return;
    }
    if (!answer_is_outcome(a->code)) {
        c->maybe |= !a->refused;
        c->token++;
        try_again(c);
        return;
    }
    if (a->code == ERR_OK) {
        answer_check(s, &c->request, a, c->floor);
        if (!c->request.serializable && a->revision > s->clients.floor)
            s->clients.floor = a->revision;
        /* What the backup has of it is where the history begins. */
        if (!c->across || a->revision > s->clients.epoch)
            record(c, a);
        c->succeeded++;
        c->calm_succeeded += s->calm;
    } else if (c->maybe && !c->request.client_id) {
        record(c, NULL);
    }
    finish(c);
}

static void on_timeout(struct world *w, void *ctx, uint64_t token, uint64_t b)
{
    (void)b;
    struct simclient *c = ctx;
    if (!c->busy || token != c->token)
        return;
    TRACE2(w, "%c gets no answer to its request %v in time", c->number, c->request.value);
    c->maybe = true;
    c->token++;
    try_again(c);
}

static void attempt(struct simclient *c)
{
    c->attempts++;
    note_request(c->sim, c->number, c->node, &c->request, c->floor);
    world_after(&c->sim->world, TIMEOUT_MS * MS, on_timeout, c, c->token, 0);
    call_send(c->sim, c->node, &c->request, on_answer, c, c->token);
}

static void next(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)a, (void)b;
    struct simclient *c = ctx;
    struct clients *all = &c->sim->clients;
    if (c->sim->load_over)
        return;
    draw(c);
    if (simrng_chance(&all->rng, 20))
        c->node = clients_pick_node(all);
    c->busy = true;
    c->maybe = c->across = false;
    c->attempts = 0;
    c->called = w->now;
    c->floor = all->floor;
    all->asked++;
    attempt(c);
}

void clients_begin_epoch(struct clients *c)
{
    struct model *m = &c->sim->model;
    for (uint32_t key = 0; key < CLIENT_LINEAR_KEYS; key++) {
        const struct modelkv *kv = model_at(m, key, m->last);
        c->epoch_values[key] = kv ? kv->value : 0;
    }
    for (size_t i = 0; i < c->count; i++) {
        struct simclient *one = &c->all[i];
        if (!one->busy)
            continue;
        one->across = one->maybe = true;
        one->floor = one->floor > c->epoch ? c->epoch : one->floor;
        one->token++; /* an answer of the old cluster is for nobody */
        try_again(one);
    }
}

void clients_start(struct clients *c, struct sim *s)
{
    c->sim = s;
    c->rng = world_rng(&s->world, 2);
    c->net_rng = world_rng(&s->world, 3);
    c->count = s->faults.client_count;
    c->floor = 1;
    for (size_t i = 0; i < c->count; i++) {
        c->all[i] = (struct simclient){.sim = s,
                                       .number = i + 1,
                                       .session = i % 2 == 0,
                                       .client_id = ++c->next_id,
                                       .node = 1 + i % s->initial_count};
        rest(&c->all[i], simrng_below(&c->rng, 200));
    }
}

void clients_free(struct clients *c)
{
    forget_history(c);
    free(c->ops);
}
