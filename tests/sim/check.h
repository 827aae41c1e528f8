/* What Raft promises, checked on every member after everything that it does (paper, Figure 3):
 *
 *   Election Safety       at most one leader in a term
 *   Log Matching          two entries of the same index and term are the same, with the same before
 *   Leader Completeness   a leader has every entry that was committed in an earlier term
 *   State Machine Safety  all apply the same entry at an index (a hash of each), with the same result
 *
 * and beside it: terms and revisions never go back, and every revision is the model's. */
#ifndef SIM_CHECK_H
#define SIM_CHECK_H

#include "tests/sim/world.h"

struct simnode;
struct sim;

struct applied_entry {
    uint64_t term, hash;
    uint64_t
        in_term; /* of the member that applied it first: it was committed in this term at latest */
    struct raft_conf
        *conf; /* of the first whose membership was as of this entry; NULL: nobody's was */
};

struct known_entry { /* an entry seen in some log */
    uint64_t index, term, hash, before_term;
};

struct reign {                   /* of a leader, in the order of their begins */
    uint64_t id, term, from, to; /* to: when it was last seen leading */
    uint64_t ready;              /* when it had committed an entry of its term; till then as `to` */
    bool is_ready;
    uint64_t commit, committed_at; /* its commit index, and when it was last seen to grow */
};

struct
    stall { /* of a leader: it did nothing (paused), or committed nothing (its disk hung, it was idle) */
    uint64_t term, from, to;
    bool asleep;
};

struct check {
    struct reign *reigns;
    size_t reign_count, reign_cap;
    struct stall *stalls;
    size_t stall_count, stall_cap;
    uint64_t *leaders; /* by term: id of the one leader, 0: none yet */
    size_t leaders_cap;
    struct applied_entry *applied; /* by index */
    size_t applied_cap;
    uint64_t applied_last;
    struct known_entry *known; /* an open hash table */
    size_t known_count, known_cap;
};

void check_init(struct check *c);
void check_free(struct check *c);

void check_started(struct simnode *n); /* it has been opened */
void check_stopped(struct simnode *n); /* it is about to go */
void check_node(struct simnode *n);    /* it has done something */
void check_snapshot_installed(struct simnode *n);
/* A member was restored from a backup: it has all that the model has, at every revision, and these leases. */
void check_restored(struct simnode *n, const bool *leases);
void check_equal(struct sim *s); /* at the end: all members hold the same */

#endif
