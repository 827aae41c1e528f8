#include "tests/sim/admin.h"

#include <stdio.h>

#include "tests/sim/sim.h"

#define STEP_MS 400

static struct simnode *leader(struct sim *s)
{
    struct simnode *best = NULL;
    uint64_t term = 0;
    for (size_t i = 0; i < s->node_count; i++) {
        struct raft_status status;
        if (!s->nodes[i]->replica)
            continue;
        replica_status(s->nodes[i]->replica, &status);
        if (status.role == RAFT_LEADER && status.term > term) {
            best = s->nodes[i];
            term = status.term;
        }
    }
    return best;
}

static void on_changed(void *ctx, enum errc code)
{
    struct admin *a = ctx;
    TRACE1(&a->sim->world, "=the membership change is answered: %e", code);
    a->waiting = false;
}

static void change(struct admin *a, struct simnode *at, enum raft_conf_change_type type,
                   uint64_t id)
{
    char url[48], *urls[1] = {url};
    snprintf(url, sizeof(url), "http://n%llu:2380", (unsigned long long)id);
    struct replica_member m = {.id = id, .name = "", .peer_urls = urls, .peer_url_count = 1};
    TRACE3(&a->sim->world, "=%m is asked for a membership change (kind %u) of %m", at->id, type,
           id);
    a->waiting = true;
    a->asked_at = a->sim->world.now;
    a->node = at->id;
    a->boot = at->boot;
    replica_conf_change(at->replica, type, &m, on_changed, a);
    simnode_settle(at);
}

const struct replica_member *admin_member(const struct simnode *at, uint64_t id)
{
    size_t count;
    const struct replica_member *all = replica_members(at->replica, &count);
    for (size_t i = 0; i < count; i++) {
        if (all[i].id == id)
            return &all[i];
    }
    return NULL;
}

static size_t voters(const struct simnode *at)
{
    size_t count, n = 0;
    const struct replica_member *all = replica_members(at->replica, &count);
    for (size_t i = 0; i < count; i++)
        n += !all[i].learner;
    return n;
}

void admin_add(struct admin *a)
{
    struct sim *s = a->sim;
    a->learner = s->node_count + 1;
    s->nodes[s->node_count++] = simnode_new(s, a->learner, true);
    s->nodes[s->node_count - 1]->no_restart = true;
}

/* The machine of a member that is being added starts once the cluster knows of it. */
static void add(struct admin *a, struct simnode *at)
{
    struct sim *s = a->sim;
    if (!a->learner)
        admin_add(a);
    const struct replica_member *m = admin_member(at, a->learner);
    struct simnode *n = sim_node(s, a->learner);
    if (!m) {
        change(a, at, RAFT_CONF_ADD_LEARNER, a->learner);
    } else if (n->no_restart) {
        n->no_restart = false;
        a->added++;
        simnode_start(n);
    } else if (m->learner) {
        change(a, at, RAFT_CONF_ADD_VOTER, a->learner);
    } else {
        a->promoted++;
        a->learner = 0;
    }
}

static void take_away(struct admin *a, struct simnode *at)
{
    struct sim *s = a->sim;
    struct simnode *n = sim_node(s, a->leaving);
    if (admin_member(at, a->leaving)) {
        /* Meanwhile it may have become one of those that the others can't do without. */
        if (n->lost || repair_may_lose(s, n->id))
            change(a, at, RAFT_CONF_REMOVE, a->leaving);
        else
            a->leaving = 0;
        return;
    }
    if (!n->gone && !repair_may_lose(s, n->id))
        return; /* others have yet to learn of it */
    a->removed++;
    repair_removed(a, a->leaving);
    a->leaving = 0;
    if (!n->gone) /* it may never learn of it: its machine is switched off */
        simnode_remove(n);
}

static void decide(struct admin *a, struct simnode *at)
{
    struct sim *s = a->sim;
    if (s->calm || !simrng_chance(&a->rng, s->faults.administration))
        return;
    uint64_t draw = simrng_below(&a->rng, 100);
    if (draw < 35 && !repair_is_tight(s) && voters(at) < 7) {
        add(a, at);
    } else if (draw < 65 && voters(at) > 2) {
        uint64_t id = 1 + simrng_below(&a->rng, s->node_count);
        a->leaving = admin_member(at, id) && repair_may_lose(s, id) ? id : 0;
    } else {
        a->transfers++;
        TRACE1(&s->world, "=%m is asked to hand over leadership", at->id);
        replica_transfer_leader(at->replica, 0);
        simnode_settle(at);
    }
}

static void on_step(struct world *w, void *ctx, uint64_t x, uint64_t y)
{
    (void)x, (void)y;
    struct admin *a = ctx;
    struct simnode *at = leader(a->sim);
    uint64_t step = (a->sim->calm ? STEP_MS / 4 : STEP_MS) * MS;
    world_after(w, step + simrng_below(&a->rng, step), on_step, a, 0, 0);
    const struct simnode *asked = sim_node(a->sim, a->node);
    if (a->waiting && asked && asked->boot == a->boot && asked->replica)
        return;
    a->waiting = false;
    if (!at || w->now < at->paused_until)
        return;
    bool repairs = !a->leaving && repair_step(a, at);
    if (a->leaving)
        take_away(a, at);
    else if (a->learner)
        add(a, at);
    else if (!repairs)
        decide(a, at);
}

/* Space is given back while all goes on: rows are written again, in the middle of everything. */
static void on_defragment(struct world *w, void *ctx, uint64_t x, uint64_t y)
{
    struct admin *a = ctx;
    struct sim *s = a->sim;
    if (s->calm)
        return;
    world_after(w, SECOND + simrng_below(&a->space_rng, 4 * SECOND), on_defragment, a, x, y);
    struct simnode *n = s->nodes[simrng_below(&a->space_rng, s->node_count)];
    if (!n->replica || w->now < n->paused_until)
        return;
    TRACE1(w, "%m is told to defragment", n->id);
    mvcc_defragment(replica_store(n->replica), NULL, NULL);
    simnode_settle(n);
}

void admin_start(struct admin *a, struct sim *s)
{
    a->sim = s;
    a->space_rng = world_rng(&s->world, 9);
    if (simrng_chance(&a->space_rng, 40) && s->faults.defragments)
        world_after(&s->world, 2 * SECOND, on_defragment, a, 0, 0);
    a->rng = world_rng(&s->world, 7);
    if (s->faults.administration || s->faults.repairs)
        world_after(&s->world, 2 * SECOND, on_step, a, 0, 0);
}
