#include "tests/sim/scenario_tools.h"

#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "tests/sim/sim.h"

void scenario_step(struct scenario *c, unsigned step)
{
    TRACE2(&c->sim->world, "=scenario: step %u (round %u)", step, c->rounds);
    c->step = step;
    c->since = c->sim->world.now;
}

uint64_t scenario_passed(const struct scenario *c)
{
    return c->sim->world.now - c->since;
}

void scenario_cut(struct scenario *c, struct simnode *a, struct simnode *b, bool cut)
{
    simnet_cut(&c->sim->net, a->id, b->id, cut);
    simnet_cut(&c->sim->net, b->id, a->id, cut);
}

void scenario_cut_off(struct scenario *c, struct simnode *n, struct simnode *friend)
{
    for (size_t i = 0; i < c->sim->node_count; i++) {
        if (c->sim->nodes[i] != n && c->sim->nodes[i] != friend)
            scenario_cut(c, n, c->sim->nodes[i], true);
    }
}

static void on_crash(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct simnode *n = ctx;
    if (n->replica && n->no_restart)
        simnode_crash(n, false);
}

void scenario_crash(struct scenario *c, struct simnode *n, uint64_t after)
{
    n->no_restart = true;
    world_after(&c->sim->world, after, on_crash, n, 0, 0);
}

void scenario_start_member(struct simnode *n)
{
    n->no_restart = false;
    if (!n->replica && !n->gone)
        simnode_start(n);
}

void scenario_again(struct scenario *c)
{
    simnet_heal(&c->sim->net);
    for (size_t i = 0; i < c->sim->node_count; i++)
        scenario_start_member(c->sim->nodes[i]);
    scenario_step(c, 0);
}

const struct raft *scenario_raft(const struct simnode *n)
{
    return n->replica ? n->replica->raft : NULL;
}

bool scenario_leads(const struct simnode *n)
{
    return n->replica && scenario_raft(n)->role == RAFT_LEADER;
}

uint64_t scenario_last(const struct simnode *n)
{
    return n->replica ? raft_log_last(&scenario_raft(n)->log) : 0;
}

bool scenario_quiet(const struct scenario *c, const struct simnode *n)
{
    if (!scenario_leads(n) || c->sim->world.now - c->since < SECOND)
        return false;
    const struct raft *r = scenario_raft(n);
    if (r->commit != scenario_last(n) || !raft_own_term_committed(r) || r->peer_count != c->size)
        return false;
    for (size_t i = 0; i < r->peer_count; i++) {
        if (r->peers[i].match != scenario_last(n) || !sim_node(c->sim, r->peers[i].id)->replica)
            return false;
    }
    return true;
}

void scenario_cast(struct scenario *c, struct simnode *first)
{
    size_t count = 0;
    c->n[count++] = first;
    for (size_t i = 0; i < c->size; i++) {
        if (c->sim->nodes[i] != first)
            c->n[count++] = c->sim->nodes[i];
    }
    for (size_t i = 1; i < count; i++) {
        size_t k = 1 + simrng_below(&c->rng, count - 1);
        struct simnode *swap = c->n[i];
        c->n[i] = c->n[k];
        c->n[k] = swap;
    }
}
