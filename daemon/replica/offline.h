/* What making a member's data without running it takes: rescue.c and restore.c. Blocking. */
#ifndef REPLICA_OFFLINE_H
#define REPLICA_OFFLINE_H

#include "daemon/replica/replica.h"
#include "daemon/store/import.h"

/* A member's row of MVCC_BUCKET_MEMBER, with the peer URLs only: it publishes the rest when it has started. */
struct offline_member {
    uint8_t key[8];
    uint8_t *packed; /* owned */
    size_t n;
};
void offline_member_pack(struct offline_member *row, const struct replica_member *m);

struct offline_log {
    struct disk *disk;
    const char *data_dir;
    uint64_t cluster_id, member_id;
    uint64_t base, base_term; /* the store is as of this entry */
    uint64_t term;            /* of the member */
    struct raft_entry *const *entries;
    size_t entry_count; /* behind the base; all committed */
    size_t segment_bytes;
    struct env *env; /* as wal_config's */
};
/* A new log in data_dir/member/log. */
enum errc offline_write_log(const struct offline_log *l, struct error *err);

#endif
