/* Membership configurations as values, and the mathematics of quorums.
 *
 * A quorum is a majority of the voters. Any two quorums of one configuration have a member in common,
 * and so do any two of configurations that differ by one voter: the reason why changes go one at a
 * time (thesis, section 4.1). */
#ifndef RAFT_CONF_H
#define RAFT_CONF_H

#include "daemon/raft/raft.h"

/* Sorted, no duplicates, no id 0, counts in bounds, voters and learners disjoint. */
bool raft_conf_valid(const struct raft_conf *c);

bool raft_conf_is_voter(const struct raft_conf *c, uint64_t id);
bool raft_conf_is_learner(const struct raft_conf *c, uint64_t id);
bool raft_conf_is_only_voter(const struct raft_conf *c, uint64_t id);

size_t raft_conf_quorum(const struct raft_conf *c);

/* The configuration after `change`. A change that makes no sense here (the last voter removed, no room,
 * a voter made a learner) changes nothing and returns false: every member decides that alike, since it
 * depends on the configuration alone. */
bool raft_conf_change_apply(struct raft_conf *c, const struct raft_conf_change *change);

/* The greatest value that a quorum of voters has reached, from each voter's (in any order); 0 without
 * voters. It serves for match indexes and for read rounds. */
uint64_t raft_conf_quorum_value(uint64_t *values, size_t count);

#endif
