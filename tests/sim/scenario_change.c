/* Membership changes, cut short where it hurts. */
#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

static enum errc propose_removal(struct simnode *by, struct simnode *of)
{
    Raftpb__Member wire = RAFTPB__MEMBER__INIT;
    uint8_t context[64] = {0};
    wire.id = of->id;
    size_t n = 8 + raftpb__member__pack(&wire, context + 8);
    enum errc code =
        raft_propose_conf(by->replica->raft, &(struct raft_conf_change){RAFT_CONF_REMOVE, of->id},
                          bytes_of(context, n));
    replica_wake(by->replica);
    return code;
}

/* n[0] removes n[6], n[1] is asked to remove n[5]. */
void scenario_two_changes(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0: /* the first change reaches s[1] only */
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        scenario_cut_off(c, s[0], s[1]);
        c->term = scenario_raft(n)->term;
        c->index = scenario_last(n) + 1;
        c->leaver = s[6];
        if (propose_removal(n, s[6]) == ERR_OK)
            scenario_step(c, 1);
        return;
    case 1:
        if (scenario_last(s[1]) < c->index || scenario_raft(s[1])->persisted < c->index)
            return;
        scenario_crash(c, s[0], MS);
        scenario_step(c, 2);
        return;
    case 2: /* which leads next, and is asked for another change */
        if (n != s[1] || !scenario_leads(n) || scenario_raft(n)->term <= c->term)
            return;
        if (propose_removal(n, s[5]) != ERR_OK) { /* as it must be */
            c->rounds++;
            c->over = true;
            scenario_again(c);
            return;
        }
        scenario_cut_off(c, s[1], s[2]);
        c->index = scenario_last(n);
        scenario_step(c, 3);
        return;
    case 3: /* s[2] has both, and believes that the first one is decided; the others never see it */
        if (scenario_last(s[2]) < c->index)
            return;
        scenario_crash(c, s[1], MS);
        scenario_cut_off(c, s[2], NULL);
        scenario_step(c, 4);
        return;
    default:
        return;
    }
}

/* n[0] removes n[3]; n[1] and n[2] are two of the three that remain, and of the four that there were. */
void scenario_lost_leader(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0:
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        c->term = scenario_raft(n)->term;
        c->index = scenario_last(n) + 1;
        if (propose_removal(n, s[3]) == ERR_OK)
            scenario_step(c, 1);
        return;
    case 1: /* what it would say of the commit gets nowhere */
        if (n != s[0] || scenario_raft(n)->applied < c->index)
            return;
        scenario_cut_off(c, n, NULL);
        scenario_cut_off(c, s[3], NULL);
        scenario_crash(c, n, 0);
        scenario_crash(c, s[3], 0);
        scenario_step(c, 2);
        return;
    default:
        if ((n == s[1] || n == s[2]) && scenario_leads(n) && scenario_raft(n)->term > c->term &&
            raft_own_term_committed(scenario_raft(n))) {
            c->rounds++;
            c->over = true;
            c->leaver = s[3];
            simnet_heal(&c->sim->net);
            scenario_start_member(s[0]);
        } else if (scenario_passed(c) > SCENARIO_ELECT_MAX) {
            world_fail(&c->sim->world,
                       "two of three members have been up for %llu ms, and none leads",
                       (unsigned long long)(scenario_passed(c) / MS));
        }
    }
}

/* A member that was removed while nobody could tell it runs on, as a machine would that an operator has to
 * switch off. */
void scenario_switch_off_leaver(struct scenario *c)
{
    for (size_t i = 0; i < c->sim->node_count && !c->leaver->gone; i++) {
        const struct simnode *n = c->sim->nodes[i];
        if (n != c->leaver && scenario_leads(n) &&
            !raft_conf_is_voter(&scenario_raft(n)->membership.applied, c->leaver->id))
            simnode_remove(c->leaver);
    }
}
