/* Two leaders' snapshots for one member, and one whose streams break. */
#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

/* The first one's chunk is so long on its way: less than a stall (snapstream.c), more than an election. */
#define ON_ITS_WAY (2700 * MS)
#define POSTED (100 * MS)
#define CAUGHT_UP (40 * SECOND) /* a member that needs a snapshot, by streams that break */

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
        if (n != s[2] || !n->replica || !n->replica->in.stream)
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

/* ---- streams that break -------------------------------------------------------------------------- */

void scenario_break_streams(struct scenario *c)
{
    struct faults *f = &c->sim->faults;
    f->snapshot_entries = f->checkpoint_pages = 20;
    f->segment_bytes = 16 * 1024;
    f->value_bytes = 3000;
    f->quota_bytes = 0;
    f->snapshot_chunk = 4096 + simrng_below(&c->rng, 12288);
    f->stream_chunks_max = 1 + (uint32_t)simrng_below(&c->rng, 6);
}

/* n[1] is away until it needs a snapshot, and once more in the middle of it. */
void scenario_broken_streams(struct scenario *c, struct simnode *n)
{
    struct simnode *lags = c->n[1];
    switch (c->step) {
    case 0:
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        c->index = scenario_last(n);
        scenario_crash(c, c->n[1], MS);
        scenario_step(c, 1);
        return;
    case 1: /* the log goes on without it */
        if (!scenario_leads(n) || lags->replica || scenario_raft(n)->log.base_index <= c->index)
            return;
        c->term = 1 + simrng_below(&c->rng, 400000); /* where it is ended again: bytes */
        scenario_start_member(lags);
        scenario_step(c, 2);
        return;
    case 2:
        if (n != lags || n->replica->in.at.offset < c->term)
            break;
        scenario_crash(c, n, simrng_below(&c->rng, 20 * MS));
        scenario_step(c, 3);
        return;
    case 3:
        if (lags->replica)
            return;
        scenario_start_member(lags);
        scenario_step(c, 4);
        return;
    default:
        break;
    }
    if (lags->replica && scenario_quiet(c, n)) {
        c->rounds++;
        scenario_step(c, 0);
    } else if (scenario_passed(c) > CAUGHT_UP) {
        world_fail_about(&c->sim->world, ABOUT(.member = lags->id),
                         "member %llu has been up for %llu ms, and has no snapshot yet",
                         (unsigned long long)lags->id,
                         (unsigned long long)(scenario_passed(c) / MS));
    }
}

void scenario_reset_often(struct scenario *c)
{
    if (c->step >= 2 && simrng_chance(&c->rng, 5))
        simnet_reset(&c->sim->net, c->n[0]->id, c->n[1]->id);
}
