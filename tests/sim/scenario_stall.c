/* A leader that stands still, as a process that was stopped or a machine that was moved. */
#include "daemon/raft/core.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

#define STALL_MIN (4 * SECOND) /* leases last for 2 to 5 s */
#define STALL_RANGE (5 * SECOND)
#define AWAKE SECOND

void scenario_stalled_leader(struct scenario *c, struct simnode *n)
{
    if (c->step == 0) {
        if (!scenario_quiet(c, n))
            return;
        c->n[0] = n;
        c->term = scenario_raft(n)->term;
        c->index = c->sim->world.now + STALL_MIN + simrng_below(&c->rng, STALL_RANGE);
        scenario_step(c, 1);
        simnode_pause(n, c->index - c->sim->world.now);
        return;
    }
    if (c->sim->world.now < c->index + AWAKE)
        return;
    const struct simnode *leader = sim_leader(c->sim);
    if (!leader || scenario_raft(leader)->term <= c->term)
        world_fail(&c->sim->world, "nobody leads in the place of a leader that stood still");
    c->rounds++;
    scenario_step(c, 0);
}
