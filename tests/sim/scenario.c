#include "tests/sim/scenario.h"

#include <string.h>

#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "tests/sim/sim.h"

#define ONE_IN 10 /* seeds */
#define STEP_MAX (10 * SECOND)
#define HANG (10 * SECOND)
/* Detection takes an election timeout and a little; then a transfer, or an election. */
#define HUNG_MAX (4 * SECOND)
#define ELECT_MAX (8 * SECOND)

static const char *const names[SCENARIO_KINDS] = {"none", "hung-disk", "figure-8", "two-changes",
                                                  "prevote"};
static const size_t sizes[SCENARIO_KINDS] = {0, 3, 5, 7, 3};

enum scenario_kind scenario_named(const char *name)
{
    size_t i = 0;
    while (i < SCENARIO_KINDS && strcmp(names[i], name) != 0)
        i++;
    return (enum scenario_kind)i;
}

void scenario_draw(struct scenario *c, struct sim *s, enum scenario_kind wanted)
{
    struct faults *f = &s->faults;
    c->sim = s;
    c->rng = world_rng(&s->world, 9);
    c->kind = wanted;
    if (wanted == SCENARIO_NONE && s->world.seed % ONE_IN == ONE_IN - 3)
        c->kind = 1 + s->world.seed / ONE_IN % (SCENARIO_KINDS - 1);
    if (c->kind == SCENARIO_NONE)
        return;
    memset(f->on, 0, sizeof(f->on));
    f->delay_max = 2 * MS;
    f->loss_percent = f->duplicate_percent = f->reorder_percent = f->late_percent = 0;
    f->damage_permille = f->answer_loss_permille = f->drift_permille = 0;
    f->crash_in_start_percent = f->chase_percent = f->administration = 0;
    f->snapshot_entries = 10000;
    f->append_bytes_max = c->kind == SCENARIO_FIGURE_8 ? 1 : 0; /* entry by entry */
    s->initial_count = sizes[c->kind];
}

/* ---- tools -------------------------------------------------------------------------------------- */

static void next(struct scenario *c, unsigned step)
{
    TRACE2(&c->sim->world, "scenario: step %llu (round %llu)", step, c->rounds);
    c->step = step;
    c->since = c->sim->world.now;
}

static uint64_t passed(const struct scenario *c)
{
    return c->sim->world.now - c->since;
}

static void link_both(struct scenario *c, struct simnode *a, struct simnode *b, bool cut)
{
    simnet_cut(&c->sim->net, a->id, b->id, cut);
    simnet_cut(&c->sim->net, b->id, a->id, cut);
}

static void cut_from_all_but(struct scenario *c, struct simnode *n, struct simnode *friend)
{
    for (size_t i = 0; i < c->sim->node_count; i++) {
        if (c->sim->nodes[i] != n && c->sim->nodes[i] != friend)
            link_both(c, n, c->sim->nodes[i], true);
    }
}

static void on_crash(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct simnode *n = ctx;
    if (n->replica && n->no_restart)
        simnode_crash(n, false);
}

/* Not at once: the member is in the middle of something. */
static void crash(struct scenario *c, struct simnode *n, uint64_t after)
{
    n->no_restart = true;
    world_after(&c->sim->world, after, on_crash, n, 0, 0);
}

static void start(struct simnode *n)
{
    n->no_restart = false;
    if (!n->replica && !n->gone)
        simnode_start(n);
}

static void back_to_normal(struct scenario *c)
{
    simnet_heal(&c->sim->net);
    for (size_t i = 0; i < c->sim->node_count; i++)
        start(c->sim->nodes[i]);
    next(c, 0);
}

void scenario_stop(struct scenario *c)
{
    if (c->kind == SCENARIO_NONE)
        return;
    c->over = true;
    TRACE1(&c->sim->world, "scenario: over after %llu rounds", c->rounds);
    for (size_t i = 0; i < c->sim->node_count; i++)
        c->sim->nodes[i]->no_restart = false;
}

static const struct raft *raft_of(const struct simnode *n)
{
    return n->replica ? n->replica->raft : NULL;
}

static bool leads(const struct simnode *n)
{
    return n->replica && raft_of(n)->role == RAFT_LEADER;
}

static uint64_t last(const struct simnode *n)
{
    return n->replica ? raft_log_last(&raft_of(n)->log) : 0;
}

/* It leads, and all members run and have all of its log, which is committed. */
static bool quiet(const struct scenario *c, const struct simnode *n)
{
    if (!leads(n) || c->sim->world.now - c->since < SECOND)
        return false;
    const struct raft *r = raft_of(n);
    if (r->commit != last(n) || !raft_own_term_committed(r) || r->peer_count != sizes[c->kind])
        return false;
    for (size_t i = 0; i < r->peer_count; i++) {
        if (r->peers[i].match != last(n) || !sim_node(c->sim, r->peers[i].id)->replica)
            return false;
    }
    return true;
}

/* n[0] is the one, the others come in a random order. */
static void cast(struct scenario *c, struct simnode *first)
{
    size_t count = 0;
    c->n[count++] = first;
    for (size_t i = 0; i < sizes[c->kind]; i++) {
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

/* ---- a leader's disk hangs ---------------------------------------------------------------------- */

static void hung_disk(struct scenario *c, struct simnode *n)
{
    struct world *w = &c->sim->world;
    switch (c->step) {
    case 0:
        if (!quiet(c, n))
            return;
        c->n[0] = n;
        c->term = raft_of(n)->term;
        n->hung_until = w->now + HANG;
        TRACE1(w, "n%llu: the disk hangs", n->id);
        next(c, 1);
        return;
    case 1:
        if (n != c->n[0] && leads(n) && raft_of(n)->term > c->term &&
            raft_own_term_committed(raft_of(n)))
            next(c, 2);
        else if (passed(c) > HUNG_MAX)
            world_fail(w, "the disk of member %llu hangs for %llu ms, and no other one leads",
                       (unsigned long long)c->n[0]->id, (unsigned long long)(passed(c) / MS));
        return;
    default:
        if (c->n[0]->hung_until > w->now)
            return;
        c->rounds++;
        next(c, 0);
    }
}

/* ---- Figure 8 ----------------------------------------------------------------------------------- */

/* n[0]..n[4] are S1, S2, S5, S3, S4 of the figure. */
static void figure_8_begin(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0: /* (a) S1's next entry reaches S2 only */
        if (!quiet(c, n))
            return;
        cast(c, n);
        cut_from_all_but(c, s[0], s[1]);
        c->index = last(n) + 1;
        next(c, 1);
        return;
    case 1: /* (b) S1 is gone, S2 doesn't count: another one is elected, whose entry reaches nobody */
        if (!leads(s[0]) || last(s[1]) < c->index || raft_of(s[1])->persisted < c->index)
            return;
        c->term = raft_of(s[0])->term;
        crash(c, s[0], MS);
        cut_from_all_but(c, s[1], NULL);
        next(c, 2);
        return;
    default:
        if (n == s[0] || n == s[1] || !leads(n) || raft_of(n)->term <= c->term)
            return;
        for (size_t i = 3; i < 5; i++) { /* S5 is whoever it is */
            if (s[i] == n) {
                s[i] = s[2];
                s[2] = n;
            }
        }
        cut_from_all_but(c, n, NULL);
        next(c, 3);
    }
}

static void figure_8_end(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 3: /* (c) S5 is gone with its entry on disk, S1 and S2 are back */
        if (n != s[2] || raft_of(n)->persisted < c->index)
            return;
        c->term = raft_of(n)->term;
        crash(c, s[2], MS);
        start(s[0]);
        for (size_t i = 0; i < 5; i++)
            link_both(c, s[1], s[i], i == 2);
        for (size_t i = 1; i < 5; i++)
            link_both(c, s[0], s[i], i == 2);
        next(c, 4);
        return;
    case 4: /* one of them leads again, and reaches S3, but not S4 */
        if (!leads(n) || raft_of(n)->term <= c->term || (n != s[0] && n != s[1]))
            return;
        link_both(c, n, s[4], true);
        if (n == s[1]) {
            s[1] = s[0];
            s[0] = n;
        }
        next(c, 5);
        return;
    case 5: /* (d) S3 has the old entry, which is on a majority now; the new one never gets there */
        if (n != s[0] || !leads(n) ||
            raft_peer(raft_of(n) ? n->replica->raft : NULL, s[3]->id)->match < c->index)
            return;
        cut_from_all_but(c, s[0], NULL);
        cut_from_all_but(c, s[1], NULL);
        crash(c, s[0], 10 * MS);
        start(s[2]);
        link_both(c, s[2], s[3], false);
        link_both(c, s[2], s[4], false);
        next(c, 6);
        return;
    case 6: /* S5 is elected by S3 and S4, and overwrites it */
        if (n != s[2] || !leads(n) || raft_of(n)->commit < c->index ||
            !raft_own_term_committed(raft_of(n)))
            return;
        c->rounds++;
        next(c, 7);
        return;
    default:
        return;
    }
}

/* ---- two membership changes --------------------------------------------------------------------- */

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

static void two_changes(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0: /* the first change reaches s[1] only */
        if (!quiet(c, n))
            return;
        cast(c, n);
        cut_from_all_but(c, s[0], s[1]);
        c->term = raft_of(n)->term;
        c->index = last(n) + 1;
        if (propose_removal(n, s[6]) == ERR_OK)
            next(c, 1);
        return;
    case 1:
        if (last(s[1]) < c->index || raft_of(s[1])->persisted < c->index)
            return;
        crash(c, s[0], MS);
        next(c, 2);
        return;
    case 2: /* which leads next, and is asked for another change */
        if (n != s[1] || !leads(n) || raft_of(n)->term <= c->term)
            return;
        if (propose_removal(n, s[5]) != ERR_OK) { /* as it must be */
            c->rounds++;
            c->over = true;
            back_to_normal(c);
            return;
        }
        cut_from_all_but(c, s[1], s[2]);
        c->index = last(n);
        next(c, 3);
        return;
    case 3: /* s[2] has both, and believes that the first one is decided; the others never see it */
        if (last(s[2]) < c->index)
            return;
        crash(c, s[1], MS);
        cut_from_all_but(c, s[2], NULL);
        next(c, 4);
        return;
    default:
        return;
    }
}

/* ---- pre-vote ----------------------------------------------------------------------------------- */

static void prevote(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0: /* s[0] has an entry that nobody else has */
        if (!quiet(c, n))
            return;
        cast(c, n);
        cut_from_all_but(c, s[0], NULL);
        c->index = last(n) + 1;
        c->term = raft_of(n)->term;
        next(c, 1);
        return;
    case 1:
        if (n != s[0] || !leads(n) || raft_of(n)->persisted < c->index)
            return;
        crash(c, s[0], MS);
        next(c, 2);
        return;
    case 2: /* the others' terms grow, but no candidate gets its vote */
        if (n == s[0] || !n->replica || !s[1]->replica || !s[2]->replica)
            return;
        simnet_cut(&c->sim->net, n == s[1] ? s[2]->id : s[1]->id, n->id,
                   raft_of(n)->role == RAFT_CANDIDATE);
        if (raft_of(s[2])->term < c->term + 2 || raft_of(s[2])->role == RAFT_CANDIDATE)
            return;
        crash(c, s[1], MS);
        next(c, 3);
        return;
    case 3: /* two remain, and are a majority */
        if (s[1]->replica)
            return;
        simnet_heal(&c->sim->net);
        next(c, 4);
        start(s[0]);
        return;
    default:
        if (n != s[1] && leads(n) && raft_own_term_committed(raft_of(n))) {
            c->rounds++;
            back_to_normal(c);
        } else if (passed(c) > ELECT_MAX) {
            world_fail(&c->sim->world,
                       "two of three members have been up for %llu ms, and none leads",
                       (unsigned long long)(passed(c) / MS));
        }
    }
}

/* ---- the run ------------------------------------------------------------------------------------ */

void scenario_look(struct simnode *n)
{
    struct scenario *c = &n->sim->scenario;
    if (c->kind == SCENARIO_NONE || c->over || !n->replica)
        return;
    if (c->kind == SCENARIO_HUNG_DISK)
        hung_disk(c, n);
    else if (c->kind == SCENARIO_FIGURE_8 && c->step < 3)
        figure_8_begin(c, n);
    else if (c->kind == SCENARIO_FIGURE_8)
        figure_8_end(c, n);
    else if (c->kind == SCENARIO_TWO_CHANGES)
        two_changes(c, n);
    else
        prevote(c, n);
}

/* A member that was removed while nobody could tell it runs on, as a machine would that an operator has to
 * switch off. */
static void switch_off_removed(struct scenario *c)
{
    struct simnode *gone = c->n[6];
    for (size_t i = 0; i < c->sim->node_count && gone && gone->replica; i++) {
        const struct simnode *n = c->sim->nodes[i];
        if (n != gone && leads(n) && !raft_conf_is_voter(&raft_of(n)->conf, gone->id))
            simnode_remove(gone);
    }
}

/* What went another way than it should have begins anew. */
static void on_time(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct scenario *c = ctx;
    if (c->kind == SCENARIO_TWO_CHANGES)
        switch_off_removed(c);
    bool done = c->kind == SCENARIO_FIGURE_8 && c->step == 7 && passed(c) > 100 * MS;
    if (!c->over && c->step != 0 &&
        (done || (passed(c) > STEP_MAX && c->kind != SCENARIO_HUNG_DISK)))
        back_to_normal(c);
    world_after(w, 50 * MS, on_time, c, a, b);
}

void scenario_start(struct scenario *c)
{
    if (c->kind == SCENARIO_NONE)
        return;
    next(c, 0);
    world_after(&c->sim->world, 50 * MS, on_time, c, 0, 0);
}
