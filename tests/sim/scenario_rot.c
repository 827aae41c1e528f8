/* Damage that random rot seldom hits: to what is read next, and to what a majority hangs on. */
#include "daemon/raft/core.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

#define FOUND_MAX (2 * SECOND) /* then the operator exchanges the disk */
#define ELECT_MAX (4 * SECOND) /* what two members could do in the meantime, they have done */
#define HARMED_ENTRIES 5

/* The leader of a cluster with all its members up, whole, and none on its way in or out; NULL: not now. */
static struct simnode *whole_cluster(const struct scenario *c)
{
    struct sim *s = c->sim;
    struct simnode *leader = sim_leader(s);
    if (!leader || s->admin.leaving || s->admin.learner || s->admin.missing)
        return NULL;
    size_t count, whole = 0;
    const struct replica_member *all = replica_members(leader->replica, &count);
    for (size_t i = 0; i < count; i++) {
        const struct simnode *n = sim_node(s, all[i].id);
        whole += n->replica && !n->damaged && !all[i].learner;
    }
    bool good =
        count == c->size && whole == count && raft_own_term_committed(scenario_raft(leader));
    return good && scenario_passed(c) > SECOND ? leader : NULL;
}

/* n[0] is the leader, n[1] and n[2] the others in a random order. */
static void cast(struct scenario *c, struct simnode *leader)
{
    size_t count, n = 1;
    const struct replica_member *all = replica_members(leader->replica, &count);
    c->n[0] = leader;
    for (size_t i = 0; i < count; i++) {
        if (all[i].id != leader->id)
            c->n[n++] = sim_node(c->sim, all[i].id);
    }
    if (simrng_chance(&c->rng, 50)) {
        struct simnode *swap = c->n[1];
        c->n[1] = c->n[2];
        c->n[2] = swap;
    }
}

/* All of it has been noticed or exchanged, and there is a new member: the next round. */
static void await_repair(struct scenario *c)
{
    if (!whole_cluster(c))
        return;
    c->rounds++;
    scenario_step(c, 0);
}

static void exchange(struct simnode *n)
{
    scenario_start_member(n);
    if (!n->gone)
        simnode_lose(n);
}

/* ---- a row --------------------------------------------------------------------------------------- */

static void rot_a_row(struct scenario *c, struct simnode *n)
{
    int64_t revision = 0;
    if (simrng_chance(&c->rng, 50)) {
        n->no_restart = true;
        simnode_crash(n, simrng_chance(&c->rng, 50));
        rot_value(n, &c->rng);
        scenario_start_member(n);
    } else if (rot_last_changes(n, &c->rng, &revision)) {
        watches_begin_anew(&c->sim->watches, n->id, revision);
    }
    scenario_step(c, n->damaged ? 1 : 0);
}

void scenario_rotten_row(struct scenario *c)
{
    struct simnode *leader = whole_cluster(c);
    if (c->step == 0 && leader) {
        cast(c, leader);
        c->n[0] = c->n[simrng_below(&c->rng, c->size)];
        if (rot_may_harm(c->sim, c->n[0]))
            rot_a_row(c, c->n[0]);
    } else if (c->step == 1 && (c->n[0]->gone || scenario_passed(c) > FOUND_MAX)) {
        exchange(c->n[0]);
        scenario_step(c, 2);
    } else if (c->step == 2) {
        await_repair(c);
    }
}

/* ---- the log ------------------------------------------------------------------------------------- */

/* n[0] and n[1] have committed without n[2]. Now n[1]'s log is harmed, and it meets n[2] alone. */
static void rot_the_log(struct scenario *c)
{
    struct simnode **s = c->n;
    s[1]->no_restart = true;
    simnode_crash(s[1], simrng_chance(&c->rng, 50));
    bool harmed = rot_log_behind(s[1], &c->rng, c->segment, c->offset);
    if (harmed) {
        scenario_cut_off(c, s[0], NULL);
        scenario_cut(c, s[1], s[2], false);
    }
    scenario_start_member(s[1]);
    scenario_step(c, 2);
    if (!harmed)
        scenario_again(c);
}

void scenario_rotten_log(struct scenario *c)
{
    struct simnode **s = c->n, *leader = whole_cluster(c);
    switch (c->step) {
    case 0:
        if (!leader)
            return;
        cast(c, leader);
        scenario_cut_off(c, s[2], NULL);
        c->index = scenario_last(s[2]);
        rot_log_place(s[1], &c->segment, &c->offset);
        scenario_step(c, 1);
        return;
    case 1:
        if (!scenario_leads(s[0]) || !s[1]->replica || !s[2]->replica)
            scenario_again(c);
        else if (scenario_raft(s[1])->persisted > c->index + HARMED_ENTRIES &&
                 scenario_raft(s[0])->commit > c->index + HARMED_ENTRIES &&
                 rot_may_harm(c->sim, s[1]))
            rot_the_log(c);
        return;
    case 2:
        if (scenario_passed(c) < ELECT_MAX)
            return;
        simnet_heal(&c->sim->net);
        exchange(s[1]);
        scenario_step(c, 3);
        return;
    default:
        await_repair(c);
    }
}
