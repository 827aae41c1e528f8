/* A disk that lies about its syncs, and a leader that knows better. */
#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

#define LOG_FOLDER "data/member/log/" /* what a broken store looks like is known: rot.h */
#define NOTICE_MAX (6 * SECOND)       /* it is down for a while first */

static struct simnode *pick_follower(struct scenario *c, const struct simnode *leader)
{
    struct sim *s = c->sim;
    for (size_t from = simrng_below(&c->rng, s->node_count), i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[(from + i) % s->node_count];
        if (n != leader && n->replica && raft_conf_is_voter(&scenario_raft(leader)->conf, n->id))
            return n;
    }
    return NULL;
}

static void on_power_failure(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct simnode *n = ctx;
    if (!n->replica)
        return;
    n->sim->scenario.index = scenario_raft(n)->persisted; /* more than a moment ago, maybe */
    simnode_crash(n, true);
}

static void begin(struct scenario *c, struct simnode *leader)
{
    if (!scenario_quiet(c, leader) || scenario_raft(leader)->conf.voter_count != c->size)
        return;
    struct simnode *victim = pick_follower(c, leader);
    if (!victim || !rot_may_harm(c->sim, victim))
        return;
    c->n[0] = leader;
    c->n[1] = victim;
    c->index = scenario_last(leader) + 1 + simrng_below(&c->rng, 4);
    victim->damaged = true;
    simdisk_lie(victim->disk, LOG_FOLDER);
    scenario_step(c, 1);
}

/* n[0] leads, n[1] is the one whose disk lies; `index` is what it has acknowledged. */
void scenario_lost_tail(struct scenario *c, struct simnode *n)
{
    struct simnode *victim = c->n[1];
    switch (c->step) {
    case 0:
        begin(c, n);
        return;
    case 1:
        if (n != c->n[0] || !scenario_leads(n) ||
            raft_peer(n->replica->raft, victim->id)->match < c->index)
            return;
        c->index = raft_peer(n->replica->raft, victim->id)->match;
        c->boot = victim->boot;
        world_after(&c->sim->world, MS / 10, on_power_failure, victim, 0, 0);
        scenario_step(c, 2);
        return;
    default:
        if (victim->lost) {
            c->rounds++;
            scenario_step(c, 0);
        } else if (n == victim && victim->boot > c->boot && scenario_last(n) >= c->index) {
            n->damaged = false; /* nothing was lost, that time */
            scenario_step(c, 0);
        } else if (scenario_passed(c) > NOTICE_MAX) {
            world_fail(&c->sim->world,
                       "member %llu has lost entry %llu, which it acknowledged, for %llu ms, and "
                       "goes on",
                       (unsigned long long)victim->id, (unsigned long long)c->index,
                       (unsigned long long)(scenario_passed(c) / MS));
        }
    }
}
