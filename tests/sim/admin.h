/* The operator: adds members as learners, promotes and removes them, hands leadership over. One thing at
 * a time, and again until it works, as somebody with quorumctl would. */
#ifndef SIM_ADMIN_H
#define SIM_ADMIN_H

#include "tests/sim/world.h"

struct replica_member;
struct sim;
struct simnode;

struct admin {
    struct sim *sim;
    struct simrng rng, space_rng;
    uint64_t learner; /* a member that is to be promoted, 0: none */
    uint64_t leaving; /* a member that is to be removed, 0: none */
    uint64_t asked_at, node, boot;
    bool waiting;
    uint64_t missing; /* lost voters that were removed and have no successor yet */
    uint64_t space_step, alarms;
    uint64_t added, promoted, removed, transfers;
};

void admin_start(struct admin *a, struct sim *s);
void admin_add(struct admin *a); /* begins to add a member */
/* As `at` knows the membership; NULL: not in it. */
const struct replica_member *admin_member(const struct simnode *at, uint64_t id);

#endif
