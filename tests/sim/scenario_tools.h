/* What scenarios are made of: looking at members, cutting links, ending and starting members, steps. */
#ifndef SIM_SCENARIO_TOOLS_H
#define SIM_SCENARIO_TOOLS_H

#include "tests/sim/scenario.h"

struct raft;

/* ---- steps */
void scenario_step(struct scenario *c, unsigned step);
uint64_t scenario_passed(const struct scenario *c); /* ns, since the step began */
void scenario_again(struct scenario *c);            /* all links whole, all members up, step 0 */

/* ---- links and members */
void scenario_cut(struct scenario *c, struct simnode *a, struct simnode *b, bool cut);
void scenario_cut_off(struct scenario *c, struct simnode *n, struct simnode *friend);
/* Not at once: the member is in the middle of something. It stays down until it is started. */
void scenario_crash(struct scenario *c, struct simnode *n, uint64_t after);
void scenario_start_member(struct simnode *n);

/* ---- looking */
const struct raft *scenario_raft(const struct simnode *n); /* NULL: it is down */
bool scenario_leads(const struct simnode *n);
uint64_t scenario_last(const struct simnode *n); /* index of its last entry */
/* It leads, and all members run and have all of its log, which is committed. */
bool scenario_quiet(const struct scenario *c, const struct simnode *n);
/* c->n[0] is `first`, the others come in a random order. */
void scenario_cast(struct scenario *c, struct simnode *first);

#define SCENARIO_ELECT_MAX (8 * SECOND) /* for whole members that reach each other */

/* ---- scenario_change.c, scenario_rot.c, scenario_snapshot.c, scenario_stall.c, scenario_short.c, scenario_tail.c: every 50 ms, and after anything that a member did */
void scenario_two_changes(struct scenario *c, struct simnode *n);
void scenario_lost_leader(struct scenario *c, struct simnode *n);
void scenario_switch_off_leaver(struct scenario *c);
void scenario_rotten_row(struct scenario *c);
void scenario_rotten_log(struct scenario *c);
void scenario_two_snapshots(struct scenario *c, struct simnode *n);
void scenario_lost_tail(struct scenario *c, struct simnode *n);
void scenario_broken_streams(struct scenario *c, struct simnode *n);
void scenario_break_streams(struct scenario *c); /* draws its settings */
void scenario_reset_often(struct scenario *c);
void scenario_stalled_leader(struct scenario *c, struct simnode *n);
void scenario_short_log(struct scenario *c, struct simnode *n);

#endif
