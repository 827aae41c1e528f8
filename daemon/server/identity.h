/* Which member of which cluster a data directory belongs to.
 *
 * DATA/member/identity is written before anything else when a directory is first used, and never changed: the
 * ids, and the members that the cluster (or this member's part of it) began with. A text file under a checksum
 * (state_file.h), one line an item, fields apart by tabs:
 *
 *     quorumd identity 2
 *     cluster  HEX
 *     member   HEX
 *     origin   new|joined
 *     peer     HEX  voter|learner  NAME  URL  URL...
 *
 * DATA/members has the same form and tells the membership as this member last knew it: whom to ask when member/
 * itself is damaged (known.h).
 *
 * Blocking; any thread. */
#ifndef SERVER_IDENTITY_H
#define SERVER_IDENTITY_H

#include "daemon/replica/replica.h"
#include "daemon/server/server.h"
#include "lib/base/bytes.h"
#include "lib/base/disk.h"

struct identity {
    uint64_t cluster_id, member_id;
    bool joined;
    struct replica_member *members; /* owned, all of it */
    size_t member_count;
};

void identity_free(struct identity *id);
void identity_add(struct identity *id, uint64_t member_id, const char *name, bool learner,
                  char *const *peer_urls, size_t count);
const struct replica_member *identity_self(const struct identity *id);

/* The identity of a member that was added to a running cluster, by the cluster's list. */
void identity_from_list(struct identity *ret_identity,
                        const Etcdserverpb__MemberListResponse *response, uint64_t member_id,
                        const char *name);

/* What the settings say of a new cluster: members from initial_cluster, ids computed. ERR_INVALID: the list
 * can't be read, or doesn't have this member with its advertised URLs. */
enum errc identity_compute(const struct server_config *config, struct identity *ret_identity,
                           struct error *err);

/* Appends the file's text. */
void identity_print(struct buf *b, const struct identity *id);
enum errc identity_read(struct disk *disk, const char *path, struct identity *ret_identity,
                        struct error *err);

/* ERR_NOT_FOUND: the directory is new. ERR_CORRUPT: the file can't be read as one. */
enum errc identity_load(struct disk *disk, const char *data_dir, struct identity *ret_identity,
                        struct error *err);
enum errc identity_save(struct disk *disk, const char *data_dir, const struct identity *identity,
                        struct error *err);

/* Makes the directory, and its parents, if it is missing and takes its lock. ERR_INVALID: not a directory, or one of etcd;
 * ERR_BUSY: another process; ERR_IO: not writable. */
enum errc data_dir_lock(struct disk *disk, const char *data_dir, struct disk_file **ret_lock,
                        struct error *err);

#endif
