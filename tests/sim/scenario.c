#include "tests/sim/scenario.h"

#include <string.h>

#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "tests/sim/scenario_tools.h"
#include "tests/sim/sim.h"

#define ONE_IN 10 /* seeds */
#define STEP_MAX (10 * SECOND)
#define HANG (10 * SECOND)
/* Detection takes an election timeout and a little; then a transfer, or an election. */
#define HUNG_MAX (4 * SECOND)

static const char *const names[SCENARIO_KINDS] = {
    "none",           "hung-disk",  "figure-8",      "two-changes", "prevote",
    "rotten-row",     "rotten-log", "two-snapshots", "lost-tail",   "broken-streams",
    "stalled-leader", "restore",    "short-log",     "lost-leader",
};
static const size_t sizes[SCENARIO_KINDS] = {0, 3, 5, 7, 3, 3, 3, 3, 3, 3, 3, 0, 3, 4};

enum scenario_kind scenario_named(const char *name)
{
    size_t i = 0;
    while (i < SCENARIO_KINDS && strcmp(names[i], name) != 0)
        i++;
    return (enum scenario_kind)i;
}

const char *scenario_name(enum scenario_kind kind)
{
    return names[kind];
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
    if (c->kind == SCENARIO_RESTORE) { /* beside all faults but those that cost single disks */
        f->on[FAULT_ROT] = f->on[FAULT_MISDIRECT] = f->on[FAULT_WIPE] = false;
        f->repairs = f->quota_bytes != 0;
        return;
    }
    memset(f->on, 0, sizeof(f->on));
    f->delay_max = 2 * MS;
    f->loss_percent = f->duplicate_percent = f->reorder_percent = f->late_percent = 0;
    f->damage_permille = f->answer_loss_permille = f->drift_permille = 0;
    f->crash_in_start_percent = f->chase_percent = f->administration = 0;
    f->snapshot_entries = 10000;
    f->append_bytes_max =
        c->kind == SCENARIO_FIGURE_8 || c->kind == SCENARIO_SHORT_LOG ? 1 : 0; /* entry by entry */
    f->repairs |= c->kind == SCENARIO_ROTTEN_ROW || c->kind == SCENARIO_ROTTEN_LOG ||
                  c->kind == SCENARIO_LOST_TAIL;
    if (c->kind == SCENARIO_ROTTEN_ROW)
        f->checkpoint_pages = 10; /* rows are in the file, not in its WAL */
    if (c->kind ==
        SCENARIO_SHORT_LOG) { /* many entries in the second that a leader without followers has */
        f->client_count = CLIENTS_MAX;
        f->think_ms = 20;
    }
    if (c->kind == SCENARIO_TWO_SNAPSHOTS)
        f->snapshot_entries = 10;
    if (c->kind == SCENARIO_BROKEN_STREAMS)
        scenario_break_streams(c);
    s->initial_count = c->size = sizes[c->kind];
}

/* ---- a leader's disk hangs ---------------------------------------------------------------------- */

static void hung_disk(struct scenario *c, struct simnode *n)
{
    struct world *w = &c->sim->world;
    switch (c->step) {
    case 0:
        if (!scenario_quiet(c, n))
            return;
        c->n[0] = n;
        c->term = scenario_raft(n)->term;
        n->hung_until = w->now + HANG;
        TRACE1(w, "!%m: its disk hangs", n->id);
        scenario_step(c, 1);
        return;
    case 1:
        if (n != c->n[0] && scenario_leads(n) && scenario_raft(n)->term > c->term &&
            raft_own_term_committed(scenario_raft(n)))
            scenario_step(c, 2);
        else if (scenario_passed(c) > HUNG_MAX)
            world_fail_about(w, ABOUT(.member = c->n[0]->id),
                             "the disk of member %llu hangs for %llu ms, and no other one leads",
                             (unsigned long long)c->n[0]->id,
                             (unsigned long long)(scenario_passed(c) / MS));
        return;
    default:
        if (c->n[0]->hung_until > w->now)
            return;
        c->rounds++;
        scenario_step(c, 0);
    }
}

/* ---- Figure 8 ----------------------------------------------------------------------------------- */

/* n[0]..n[4] are S1, S2, S5, S3, S4 of the figure. */
static void figure_8_begin(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 0: /* (a) S1's next entry reaches S2 only */
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        scenario_cut_off(c, s[0], s[1]);
        c->index = scenario_last(n) + 1;
        scenario_step(c, 1);
        return;
    case 1: /* (b) S1 is gone, S2 doesn't count: another one is elected, whose entry reaches nobody */
        if (!scenario_leads(s[0]) || scenario_last(s[1]) < c->index ||
            scenario_raft(s[1])->persisted < c->index)
            return;
        c->term = scenario_raft(s[0])->term;
        scenario_crash(c, s[0], MS);
        scenario_cut_off(c, s[1], NULL);
        scenario_step(c, 2);
        return;
    default:
        if (n == s[0] || n == s[1] || !scenario_leads(n) || scenario_raft(n)->term <= c->term)
            return;
        for (size_t i = 3; i < 5; i++) { /* S5 is whoever it is */
            if (s[i] == n) {
                s[i] = s[2];
                s[2] = n;
            }
        }
        scenario_cut_off(c, n, NULL);
        scenario_step(c, 3);
    }
}

static void figure_8_end(struct scenario *c, struct simnode *n)
{
    struct simnode **s = c->n;
    switch (c->step) {
    case 3: /* (c) S5 is gone with its entry on disk, S1 and S2 are back */
        if (n != s[2] || scenario_raft(n)->persisted < c->index)
            return;
        c->term = scenario_raft(n)->term;
        scenario_crash(c, s[2], MS);
        scenario_start_member(s[0]);
        for (size_t i = 0; i < 5; i++)
            scenario_cut(c, s[1], s[i], i == 2);
        for (size_t i = 1; i < 5; i++)
            scenario_cut(c, s[0], s[i], i == 2);
        scenario_step(c, 4);
        return;
    case 4: /* one of them leads again, and reaches S3, but not S4 */
        if (!scenario_leads(n) || scenario_raft(n)->term <= c->term || (n != s[0] && n != s[1]))
            return;
        scenario_cut(c, n, s[4], true);
        if (n == s[1]) {
            s[1] = s[0];
            s[0] = n;
        }
        scenario_step(c, 5);
        return;
    case 5: /* (d) S3 has the old entry, which is on a majority now; the new one never gets there */
        if (n != s[0] || !scenario_leads(n) ||
            raft_peer(scenario_raft(n) ? n->replica->raft : NULL, s[3]->id)->match < c->index)
            return;
        scenario_cut_off(c, s[0], NULL);
        scenario_cut_off(c, s[1], NULL);
        scenario_crash(c, s[0], 10 * MS);
        scenario_start_member(s[2]);
        scenario_cut(c, s[2], s[3], false);
        scenario_cut(c, s[2], s[4], false);
        scenario_step(c, 6);
        return;
    case 6: /* S5 is elected by S3 and S4, and overwrites it */
        if (n != s[2] || !scenario_leads(n) || scenario_raft(n)->commit < c->index ||
            !raft_own_term_committed(scenario_raft(n)))
            return;
        c->rounds++;
        scenario_step(c, 7);
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
        if (!scenario_quiet(c, n))
            return;
        scenario_cast(c, n);
        scenario_cut_off(c, s[0], NULL);
        c->index = scenario_last(n) + 1;
        c->term = scenario_raft(n)->term;
        scenario_step(c, 1);
        return;
    case 1:
        if (n != s[0] || !scenario_leads(n) || scenario_raft(n)->persisted < c->index)
            return;
        scenario_crash(c, s[0], MS);
        scenario_step(c, 2);
        return;
    case 2: /* the others' terms grow, but no candidate gets its vote */
        if (n == s[0] || !n->replica || !s[1]->replica || !s[2]->replica)
            return;
        simnet_cut(&c->sim->net, n == s[1] ? s[2]->id : s[1]->id, n->id,
                   scenario_raft(n)->role == RAFT_CANDIDATE);
        if (scenario_raft(s[2])->term < c->term + 2 || scenario_raft(s[2])->role == RAFT_CANDIDATE)
            return;
        scenario_crash(c, s[1], MS);
        scenario_step(c, 3);
        return;
    case 3: /* two remain, and are a majority */
        if (s[1]->replica)
            return;
        simnet_heal(&c->sim->net);
        scenario_step(c, 4);
        scenario_start_member(s[0]);
        return;
    default:
        if (n != s[1] && scenario_leads(n) && raft_own_term_committed(scenario_raft(n))) {
            c->rounds++;
            scenario_again(c);
        } else if (scenario_passed(c) > SCENARIO_ELECT_MAX) {
            world_fail(&c->sim->world,
                       "two of three members have been up for %llu ms, and none leads",
                       (unsigned long long)(scenario_passed(c) / MS));
        }
    }
}

/* ---- the run ------------------------------------------------------------------------------------ */

void scenario_look(struct simnode *n)
{
    struct scenario *c = &n->sim->scenario;
    if (c->kind == SCENARIO_NONE || c->over || !n->replica)
        return;
    switch (c->kind) {
    case SCENARIO_HUNG_DISK:
        hung_disk(c, n);
        break;
    case SCENARIO_FIGURE_8:
        if (c->step < 3)
            figure_8_begin(c, n);
        else
            figure_8_end(c, n);
        break;
    case SCENARIO_TWO_CHANGES:
        scenario_two_changes(c, n);
        break;
    case SCENARIO_LOST_LEADER:
        scenario_lost_leader(c, n);
        break;
    case SCENARIO_PREVOTE:
        prevote(c, n);
        break;
    case SCENARIO_TWO_SNAPSHOTS:
        scenario_two_snapshots(c, n);
        break;
    case SCENARIO_SHORT_LOG:
        scenario_short_log(c, n);
        break;
    case SCENARIO_STALLED_LEADER:
        scenario_stalled_leader(c, n);
        break;
    case SCENARIO_LOST_TAIL:
        scenario_lost_tail(c, n);
        break;
    case SCENARIO_BROKEN_STREAMS:
        scenario_broken_streams(c, n);
        break;
    default: /* on_time() */
        break;
    }
}

/* It says itself when something takes too long. */
static bool judges_time(enum scenario_kind kind)
{
    return kind == SCENARIO_HUNG_DISK || kind == SCENARIO_LOST_TAIL ||
           kind == SCENARIO_BROKEN_STREAMS || kind == SCENARIO_LOST_LEADER;
}

/* What went another way than it should have begins anew. */
static void on_time(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct scenario *c = ctx;
    if (c->leaver)
        scenario_switch_off_leaver(c);
    if (c->kind == SCENARIO_ROTTEN_ROW && !c->over)
        scenario_rotten_row(c);
    if (c->kind == SCENARIO_ROTTEN_LOG && !c->over)
        scenario_rotten_log(c);
    if (c->kind == SCENARIO_BROKEN_STREAMS && !c->over)
        scenario_reset_often(c);
    bool done = c->kind == SCENARIO_FIGURE_8 && c->step == 7 && scenario_passed(c) > 100 * MS;
    if (!c->over && c->step != 0 &&
        (done || (scenario_passed(c) > STEP_MAX && !judges_time(c->kind))))
        scenario_again(c);
    world_after(w, 50 * MS, on_time, c, a, b);
}

void scenario_stop(struct scenario *c)
{
    if (c->kind == SCENARIO_NONE || c->kind == SCENARIO_RESTORE)
        return;
    c->over = true;
    TRACE1(&c->sim->world, "=the scenario is over after %u rounds", c->rounds);
    for (size_t i = 0; i < c->sim->node_count; i++)
        c->sim->nodes[i]->no_restart = false;
}

void scenario_start(struct scenario *c)
{
    if (c->kind == SCENARIO_NONE || c->kind == SCENARIO_RESTORE)
        return;
    scenario_step(c, 0);
    world_after(&c->sim->world, 50 * MS, on_time, c, 0, 0);
}
