/* Saving what can be read of a member's damaged data into the data of a new cluster of one.
 *
 * Where the log can still be read from the first entry on, the new member replays all of it, and nothing
 * is lost whatever happened to the store. Else the rows of the store that are sound are taken over with
 * their revisions, and the log's entries behind them as far as they follow. Entries that changed the
 * membership become empty ones.
 *
 * Blocking, without workers and loop; for a process that does nothing else. */
#ifndef REPLICA_RESCUE_H
#define REPLICA_RESCUE_H

#include "daemon/replica/replica.h"
#include "lib/base/bytes.h"

struct rescue_config {
    struct disk *disk;
    const char *from, *to; /* data directories; from/member is only read, to/member exists */
    uint64_t cluster_id;
    const struct replica_member *member; /* the new cluster's only one */
};

/* *ret_report gets a line for each thing that was lost or found, *ret_lost whether anything was lost. */
enum errc replica_rescue(const struct rescue_config *config, struct buf *report, bool *ret_lost,
                         struct error *err);

#endif
