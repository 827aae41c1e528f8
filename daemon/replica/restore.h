/* A snapshot's file becomes the data of one member of a new cluster.
 *
 * Keys with all their revisions, leases and clients' sessions (a write that was named and is in the file isn't
 * done twice) are taken over; membership, removed ids and alarms are those of a new cluster. All members that
 * are restored from one file begin at the same log entry, with the same state: none has to send anything.
 *
 * Blocking, without workers and loop; for a process that does nothing else, and the simulator. A crash leaves a
 * directory that only the caller can tell from a complete one. */
#ifndef REPLICA_RESTORE_H
#define REPLICA_RESTORE_H

#include "daemon/replica/replica.h"
#include "daemon/store/import.h"

struct restore_config {
    struct disk *disk;
    const char *sqlite_vfs; /* NULL: SQLite's default */
    const char *file;
    const char *data_dir; /* data_dir/member exists and is empty */
    uint64_t cluster_id, member_id;
    const struct replica_member *members; /* of the new cluster, with this one */
    size_t member_count;
    size_t wal_segment_bytes; /* 0: default */
    struct env *env;          /* for the log's nonce; NULL: the system's */
};

/* import_check() is the caller's to call first: then nothing is begun with a file that is no good. Errors as
 * import_run() and wal_open(). */
enum errc replica_restore(const struct restore_config *config, struct error *err);

#endif
