/* The members of the cluster, sorted by id: memory of what MVCC_BUCKET_MEMBER holds. */
#ifndef REPLICA_MEMBER_LIST_H
#define REPLICA_MEMBER_LIST_H

#include "daemon/replica/replica.h"

struct member_list {
    struct replica_member members[RAFT_MEMBERS_MAX];
    size_t count;
};

/* The ids of those that were removed, ever: memory of rows of MVCC_BUCKET_META. */
struct removed_members {
    uint64_t *ids;
    size_t count, cap;
};

void member_list_clear(struct member_list *l);
struct replica_member *member_list_find(struct member_list *l, uint64_t id);
/* Adds or replaces; copies. The list must have room (asserted). */
void member_list_set(struct member_list *l, const struct replica_member *m);
void member_list_remove(struct member_list *l, uint64_t id);
void member_list_conf(const struct member_list *l, struct raft_conf *ret_conf);
/* Does another member than `id` have one of the URLs? */
bool member_list_has_url(const struct member_list *l, uint64_t id, char *const *urls, size_t count);

void removed_members_clear(struct removed_members *r);
void removed_members_add(struct removed_members *r, uint64_t id);
bool removed_members_has(const struct removed_members *r, uint64_t id);

/* raftpb.Member with pointers into `m`, and back (strings borrowed from `wire`). */
void member_to_wire(const struct replica_member *m, Raftpb__Member *ret_wire);
void member_from_wire(const Raftpb__Member *wire, struct replica_member *ret_member);

#endif
