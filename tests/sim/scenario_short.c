/* A log that gets shorter. */
#include "daemon/raft/core.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

#define LONELY_ENTRIES 4

/* n[0] has entries that nobody else has, and dies with the first of those on its disk that replace them: what
 * is behind them must not come back (baidu/braft#119). */
void scenario_short_log(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0:
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        scenario_cut_off(c, n, NULL);
        c->index = scenario_last(n);
        c->term = scenario_raft(n)->term;
        scenario_step(c, 1);
        return;
    case 1: /* another one leads, and has committed what is to come in their place */
        if (!scenario_leads(n) || n == s[0] || !raft_own_term_committed(scenario_raft(n)))
            return;
        if (!s[0]->replica || scenario_raft(s[0])->persisted < c->index + LONELY_ENTRIES) {
            scenario_again(c);
            return;
        }
        c->offset = scenario_last(s[0]);
        simnet_heal(&c->sim->net);
        scenario_step(c, 2);
        return;
    case 2:
        if (n != s[0] || scenario_last(n) >= c->offset ||
            raft_log_term_at(&scenario_raft(n)->log, scenario_raft(n)->persisted) <= c->term)
            return;
        scenario_crash(c, n, 0);
        scenario_step(c, 3);
        return;
    default:
        if (s[0]->replica)
            return;
        c->rounds++;
        scenario_again(c);
    }
}
