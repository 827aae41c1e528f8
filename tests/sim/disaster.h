/* The operator's backup, and the day that it is for (`--scenario restore`).
 *
 * While all goes on he copies the store of one member or another into a file, chunk by chunk, and keeps the newest
 * copy that came to its end. Later all machines are lost at once, and a new cluster of as many is restored from
 * the file. What came after the file's revision is gone, by design: the model is cut back to it, the histories
 * of clients are judged up to here, and anew from there. All that the file is to hold must be on every new
 * member: each revision that can be read, and exactly the leases of the moment of its begin. Then the load goes
 * on, with requests whose first attempts went to the old cluster, and all checks hold again. */
#ifndef SIM_DISASTER_H
#define SIM_DISASTER_H

#include "lib/base/bytes.h"
#include "tests/sim/simlease.h"
#include "tests/sim/world.h"

struct sim;
struct simnode;
struct replica_backup;

struct backup {
    struct buf file;
    int64_t revision; /* 0: there is none */
    bool leases[LEASES_MAX + 1];
};

struct disaster {
    struct sim *sim;
    struct simrng rng;
    struct backup kept, making;
    struct replica_backup *source; /* of `making`; NULL: none is under way */
    uint64_t node, boot;           /* where it is made */
    uint64_t at;                   /* when all is lost */
    uint64_t backups, restores;
};

void disaster_start(struct disaster *d, struct sim *s);
void disaster_drop(struct simnode *n); /* it dies */
void disaster_free(struct disaster *d);

#endif
