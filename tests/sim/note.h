/* What the simulator writes down for the story of a failure (trace.h) beside what goes into the trace's hash: entries, disk
 * operations, messages in words; and at its end, what is wrong at the moment. */
#ifndef SIM_NOTE_H
#define SIM_NOTE_H

#include "daemon/raft/raft.h"
#include "tests/sim/simdisk.h"

struct sim;
struct simnode;
struct simreq;

/* An entry that nobody has seen before, in this member's log: whose request it is. */
void note_entry(struct simnode *n, const struct raft_entry *e);
/* The member applies an entry before all others. */
void note_applied(struct simnode *n, const struct raft_entry *e);
/* The member has got this from a peer. Goes into the hash. */
void note_message(struct simnode *n, const struct raft_message *m);
/* Entries [first, last] are lost on the way; why: with %i %j %m %m for the entries, the sender and the receiver. */
void note_lost(struct sim *s, const char *why, uint64_t from, uint64_t to, uint64_t first,
               uint64_t last);
/* A client asks. Goes into the hash. */
void note_request(struct sim *s, size_t client, uint64_t node, const struct simreq *q,
                  int64_t floor);
/* The holder of a lease asks. */
void note_lease_request(struct sim *s, uint64_t node, const struct simreq *q);

/* simdisk_set_hook(): ctx is the simnode. */
void note_disk(void *ctx, enum simdisk_op op, const char *path);

/* Prints to standard error what is broken, cut, slow or down now. ctx: struct sim. */
void note_state(void *ctx);

#endif
