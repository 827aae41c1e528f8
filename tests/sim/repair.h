/* The operator when something is broken: a member whose disk is lost or damaged is removed, and a new one with an
 * empty disk takes its place, as a learner first (what quorumd does by itself, and thesis 4.2.1 asks for); a
 * cluster that is out of space is compacted, defragmented, and its alarm taken back. */
#ifndef SIM_REPAIR_H
#define SIM_REPAIR_H

#include "tests/sim/world.h"

struct sim;
struct simnode;
struct admin;

/* One step with the leader `at`; false: all is well. */
bool repair_step(struct admin *a, struct simnode *at);
/* A member was removed: it is to be replaced. */
void repair_removed(struct admin *a, uint64_t id);
/* No further member may be harmed, or removed, now: the next majority isn't known, or there is no room
 * for a new member. */
bool repair_is_tight(struct sim *s);
/* Is a majority whole without the member `id`, in the newest membership that a member has applied, and in every
 * later one that is in a log that is whole? Whatever becomes of those, somebody can be elected. */
bool repair_may_lose(struct sim *s, uint64_t id);
/* At the end: every lost member has its successor, and no alarm is on. */
void repair_check_end(struct admin *a);

#endif
