/* Two leaders' snapshots for one member. */
#include "daemon/raft/core.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

/* The first one's chunk is so long on its way: less than a stall (snapstream.c), more than an election. */
#define ON_ITS_WAY (2700 * MS)
#define POSTED (100 * MS)

static bool needs_snapshot(const struct simnode *leader, const struct simnode *n)
{
    return scenario_raft(leader)->log.base_index > scenario_last(n);
}

/* n[0] leads, n[1] will, n[2] needs a snapshot. */
static void second(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    struct simnet *net = &c->sim->net;
    switch (c->step) {
    case 2: /* the first snapshot has been announced, and its first chunk is asked for */
        if (n != s[2] || !n->receiving)
            return;
        net->links[s[0]->id][s[2]->id].slow = ON_ITS_WAY;
        scenario_step(c, 3);
        return;
    case 3: /* the chunk is on its way: nobody hears of the leader any more */
        if (scenario_passed(c) < POSTED)
            return;
        scenario_cut_off(c, s[0], NULL);
        scenario_cut(c, s[1], s[2], false);
        scenario_step(c, 4);
        return;
    default: /* n[1] leads, and n[2] has its snapshot in the end */
        if (scenario_leads(s[1]) && scenario_passed(c) > ON_ITS_WAY && s[2]->replica &&
            scenario_raft(s[2])->commit >= c->index) {
            c->rounds++;
            scenario_again(c);
        }
    }
}

void scenario_two_snapshots(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    if (c->step > 1) {
        second(c, n);
        return;
    }
    if (c->step == 0) {
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        scenario_cut_off(c, s[2], NULL);
        scenario_step(c, 1);
    } else if (n == s[0] && scenario_leads(n) && s[1]->replica && s[2]->replica &&
               needs_snapshot(s[0], s[2]) && needs_snapshot(s[1], s[2])) {
        c->index = scenario_last(s[0]);
        scenario_cut(c, s[0], s[2], false);
        scenario_step(c, 2);
    }
}
