#include "tests/sim/repair.h"

#include "daemon/raft/conf.h"
#include "tests/sim/sim.h"

typedef unsigned long long ull;

/* Members that may still be lost when no further one is added for other reasons. */
#define SPARE_MEMBERS 6

bool repair_is_tight(struct sim *s)
{
    const struct simnode *leaving = sim_node(s, s->admin.leaving);
    return (leaving && !leaving->lost) || s->node_count + SPARE_MEMBERS > SIM_MEMBERS_MAX;
}

static bool has_majority_without(struct sim *s, const struct raft_conf *c, uint64_t id)
{
    size_t whole = 0;
    for (size_t i = 0; i < c->voter_count; i++) {
        const struct simnode *n = sim_node(s, c->voters[i]);
        whole += n && n->id != id && !n->gone && !n->damaged;
    }
    return whole > c->voter_count / 2 || !raft_conf_is_voter(c, id);
}

/* The newest membership that is in effect, and every later one that may come to be: it is in a log. */
bool repair_may_lose(struct sim *s, uint64_t id)
{
    const struct simnode *newest = NULL;
    for (size_t i = 0; i < s->node_count; i++) {
        const struct simnode *n = s->nodes[i];
        if (!n->gone && (!newest || n->conf_applied_index > newest->conf_applied_index))
            newest = n;
    }
    if (!newest || !has_majority_without(s, &newest->conf_applied, id))
        return false;
    for (size_t i = 0; i < s->node_count; i++) {
        const struct simnode *n = s->nodes[i];
        if (!n->gone && !n->damaged && n->conf_newest_index > newest->conf_applied_index &&
            !has_majority_without(s, &n->conf_newest, id))
            return false;
    }
    return true;
}

/* ---- lost members ------------------------------------------------------------------------------- */

void repair_removed(struct admin *a, uint64_t id)
{
    struct simnode *n = sim_node(a->sim, id);
    if (!n->lost || n->replaced)
        return;
    n->replaced = true;
    a->missing += n->was_voter;
}

static bool replace_lost(struct admin *a, const struct simnode *at)
{
    struct sim *s = a->sim;
    for (size_t i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[i];
        const struct replica_member *m = n->lost ? admin_member(at, n->id) : NULL;
        if (!m)
            continue;
        if (a->learner == n->id) {
            a->learner = 0;
            a->missing++;
        }
        n->was_voter = !m->learner;
        a->leaving = n->id;
        return true;
    }
    if (a->missing == 0 || a->learner || s->node_count == SIM_MEMBERS_MAX)
        return false;
    a->missing--;
    admin_add(a);
    return true;
}

/* ---- no space ----------------------------------------------------------------------------------- */

static void on_answer(void *ctx, uint64_t token, const struct simanswer *answer)
{
    struct admin *a = ctx;
    TRACE2(&a->sim->world, "step %u against the lack of space is answered: %e", token,
           answer->code);
}

static void ask(struct admin *a, struct simnode *at, const struct simreq *q)
{
    call_send(a->sim, at->id, q, on_answer, a, a->space_step);
}

static void on_alarm(void *ctx, uint64_t member, int alarm, unsigned causes)
{
    (void)alarm, (void)causes;
    *(uint64_t *)ctx = member;
}

static bool make_space(struct admin *a, struct simnode *at)
{
    struct sim *s = a->sim;
    if (!apply_alarm_nospace(replica_apply(at->replica))) {
        a->space_step = 0;
        return false;
    }
    uint64_t member = 0;
    apply_each_alarm(replica_apply(at->replica), on_alarm, &member);
    TRACE2(&s->world, "=the cluster is out of space, says %m: step %u against it", member,
           a->space_step);
    switch (a->space_step++ % 4) {
    case 0:
        a->alarms++;
        ask(a, at,
            &(struct simreq){.kind = REQ_COMPACT,
                             .revision = mvcc_revision(replica_store(at->replica))});
        break;
    case 1:
        for (size_t i = 0; i < s->node_count; i++) {
            struct simnode *n = s->nodes[i];
            if (!n->replica || s->world.now < n->paused_until)
                continue;
            mvcc_defragment(replica_store(n->replica), NULL, NULL);
            simnode_settle(n);
        }
        break;
    case 2:
        break; /* it takes a moment */
    default:
        ask(a, at, &(struct simreq){.kind = REQ_DISARM, .lease = (int64_t)member});
        break;
    }
    return true;
}

bool repair_step(struct admin *a, struct simnode *at)
{
    bool busy = make_space(a, at);
    return replace_lost(a, at) || busy;
}

void repair_check_end(struct admin *a)
{
    struct sim *s = a->sim;
    for (size_t i = 0; i < s->node_count; i++) {
        const struct simnode *n = s->nodes[i];
        if (!n->replica)
            continue;
        if (apply_alarm_nospace(replica_apply(n->replica)))
            world_fail_about(&s->world, ABOUT(.member = n->id),
                             "at the end the cluster is out of space on member %llu", (ull)n->id);
        for (size_t k = 0; k < s->node_count; k++) {
            if (s->nodes[k]->lost && admin_member(n, s->nodes[k]->id))
                world_fail_about(&s->world, ABOUT(.member = s->nodes[k]->id, .other = n->id),
                                 "at the end the lost member %llu is still in the cluster",
                                 (ull)s->nodes[k]->id);
        }
    }
    if (a->missing || a->learner)
        world_fail(&s->world, "at the end %llu lost members have no successor",
                   (ull)(a->missing + (a->learner != 0)));
}
