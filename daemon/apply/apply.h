/* The replicated state machine: what a committed log entry does to store, leases and members.
 *
 * Deterministic: the outcome depends on the entries alone, so every member answers the same. Requests
 * arrive as raftpb.InternalRequest; the answer is the etcd response message, or an error code that is just
 * as replicated. Loop thread only. */
#ifndef APPLY_APPLY_H
#define APPLY_APPLY_H

#include "daemon/lease/lease.h"
#include "daemon/raft/raft.h"
#include "daemon/store/mvcc.h"
#include "daemon/watch/watch.h"
#include "lib/base/memory.h"
#include "proto/raft.pb-c.h"
#include "proto/rpc.pb-c.h"

#define APPLY_TXN_OPS_MAX_DEFAULT 128
#define APPLY_REQUEST_BYTES_MAX_DEFAULT (1536u * 1024) /* etcd's 1.5 MiB */
#define APPLY_SESSIONS_MAX                                                                         \
    4096 /* request-id sessions remembered; the least recently used goes first */

struct apply_config {
    struct mvcc *store;
    struct lessor *lessor;
    struct watch_hub *hub;
    uint64_t cluster_id, member_id;
    uint64_t (*now_ms)(
        void *ctx); /* for lease deadlines, which are not part of the replicated state */
    void *now_ctx;
    uint64_t
        quota_bytes; /* 0: etcd's 2 GiB; checked when a request is proposed, not when applied */
    /* A member published its name and client URLs; called between mvcc_begin() and mvcc_end(). The
     * membership is the replica's. May be NULL. */
    void (*member_attributes)(void *ctx, const Raftpb__MemberAttributes *attributes);
    void *member_ctx;
};

struct apply; /* sessions and alarms */

/* Responses remembered for a session's retry are at most this long; a retry of a request with a longer
 * one learns only that it was applied (ERR_RESOURCE_EXHAUSTED). */
#define APPLY_SESSION_RESPONSE_MAX (64u * 1024)

/* One request's answer. `message` is the unpacked response of the request's own type (header filled with
 * revision; the api adds cluster id, member id and term), in the arena of the caller of the apply. */
struct apply_result {
    enum errc code;
    const ProtobufCMessage *message; /* NULL on failure */
    uint64_t request_id;             /* of the InternalRequest; 0: it had none */
};

struct apply *apply_new(const struct apply_config *config);
void apply_free(struct apply *a);

/* Reads buckets (leases, sessions, alarms, members) after the store was opened or replaced. */
enum errc apply_load(struct apply *a, struct error *err);

/* Applies one COMMAND or NOOP entry, begin and end included, and tells the watchers. `result` (may be NULL when no local client waits) gets the answer,
 * with memory from `arena`. A retry (same client_id, same client_seq) gets the first outcome again; an
 * older client_seq is ERR_INVALID: a session has one request under way at a time. An entry that can't be decoded is
 * ERR_UNIMPLEMENTED: the process must end. It is no damage of this member's (the log has a checksum): every member
 * finds the same, and none may give its data up for it. */
enum errc apply_entry(struct apply *a, const struct raft_entry *e, struct arena *arena,
                      struct apply_result *ret_result, struct error *err);

/* ---- Requests before they are proposed: etcd's checks, with etcd's texts ------------------------ */
enum errc apply_check_range(const Etcdserverpb__RangeRequest *r);
enum errc apply_check_put(const Etcdserverpb__PutRequest *r);
enum errc apply_check_delete_range(const Etcdserverpb__DeleteRangeRequest *r);
/* Also bounds all operations of all levels together (APPLY_TXN_NESTED_FACTOR times ops_max). */
#define APPLY_TXN_NESTED_FACTOR 16
enum errc apply_check_txn(const Etcdserverpb__TxnRequest *r, size_t ops_max);
/* A packed TxnRequest, before it is unpacked (which recurses): ERR_TOO_MANY_OPS if transactions are nested
 * deeper than `depth_max`, ERR_INVALID if it isn't a message. */
enum errc apply_check_txn_depth(struct bytes packed, size_t depth_max);
/* Does the request make the store larger, as etcd counts it for its quota? 0: no. */
uint64_t apply_cost(const Raftpb__InternalRequest *r);
bool apply_txn_is_read_only(const Etcdserverpb__TxnRequest *r);

/* Serves a Range, or a read-only Txn, from the local state (no linearizability by itself). */
enum errc apply_range(struct apply *a, const Etcdserverpb__RangeRequest *r, struct arena *arena,
                      Etcdserverpb__RangeResponse **ret_response, struct error *err);
enum errc apply_read_txn(struct apply *a, const Etcdserverpb__TxnRequest *r, struct arena *arena,
                         Etcdserverpb__TxnResponse **ret_response, struct error *err);

/* Why a member's NOSPACE alarm is on. Each cause is taken back by whoever may: the disk's by the member itself,
 * when it has space again; an operator's disarming takes back all. */
enum alarm_cause { ALARM_CAUSE_QUOTA = 1, ALARM_CAUSE_DISK = 2 };

/* Alarms that are active (NOSPACE, CORRUPT), for admission checks and Status. */
bool apply_alarm_nospace(const struct apply *a);
/* For this member: it must not answer requests. The others are right (docs/decisions.md). */
bool apply_alarm_corrupt(const struct apply *a);
unsigned apply_alarm_causes(const struct apply *a,
                            uint64_t member_id); /* of NOSPACE; 0: it is off */
void apply_each_alarm(const struct apply *a,
                      void (*each)(void *ctx, uint64_t member_id, int alarm, unsigned causes),
                      void *ctx);
/* A member left the cluster, and its disk with it: within the entry that removes it. */
void apply_member_removed(struct apply *a, uint64_t member_id);

#endif
