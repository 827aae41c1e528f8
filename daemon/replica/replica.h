/* One member of the cluster, without sockets: drives the Raft core, the log, the store and the state
 * machine through the interfaces for time, randomness, disk, workers and transport. The server puts it
 * on a libuv loop and a network (daemon/server, daemon/peer); the simulator puts many into one process.
 *
 * The path of a write: replica_propose() -> raft -> wal_append (in parallel with sending to the others)
 * -> committed and synced here -> apply_entry() -> store, watchers -> `done` with the answer.
 *
 * Loop thread only. Callbacks never run inside replica_propose() and replica_read(): they run from
 * replica_poll(), replica_tick() and worker completions. */
#ifndef REPLICA_REPLICA_H
#define REPLICA_REPLICA_H

#include "daemon/apply/apply.h"
#include "lib/base/env.h"

struct replica;

struct replica_member {
    uint64_t id;
    char *name; /* "" until the member has started once */
    char **peer_urls;
    size_t peer_url_count;
    char **client_urls;
    size_t client_url_count;
    bool learner;
};

/* How messages reach the other members: implemented by daemon/peer and by the simulator. All may lose,
 * delay, duplicate and reorder, but not change what they carry. Only RAFT_MSG_PROPOSE must not be
 * duplicated: a request without a session would be applied twice. */
struct replica_transport {
    void (*send)(struct replica_transport *, const struct raft_message *m); /* copies or packs it */
    /* The membership: called at start and on every change, with all members. */
    void (*members)(struct replica_transport *, const struct replica_member *members, size_t count);
    /* A RAFT_MSG_SNAPSHOT was handed to send(): the transport pulls chunks from replica_snapshot_*() and
     * reports with replica_snapshot_sent(). */
};

struct replica_config {
    const char *data_dir; /* exists; holds member/log and member/store */
    const char *name;
    struct env *env;
    struct disk *disk;
    const char *sqlite_vfs;
    struct worker *log_worker, *store_worker;
    struct replica_transport *transport;

    uint64_t cluster_id, member_id; /* from the initial cluster or 0 with an existing log */
    const struct replica_member *initial_members; /* bootstraps a new data directory; copied */
    size_t initial_member_count;
    /* The cluster runs already and has added this member: a new data directory starts empty and learns
     * everything from the leader; initial_members only tell the transport where the others are. */
    bool join;
    const char *const *client_urls; /* this member's own, published through the log */
    size_t client_url_count;

    uint64_t tick_ms;        /* the heartbeat interval: replica_tick() is called this often; 100 */
    uint32_t election_ticks; /* 10 */
    uint64_t
        snapshot_entries;  /* log entries kept for slow members behind the durable index; 10,000 */
    size_t snapshot_bytes; /* the same by size; 0: 64 MiB */
    size_t txn_ops_max, request_bytes_max;
    uint64_t quota_bytes;
    uint64_t request_timeout_ms;   /* 0: 5 s + 2 election timeouts, as etcd */
    size_t wal_segment_bytes;      /* 0: default */
    size_t append_bytes_max;       /* entries in one message to a member; 0: 1 MiB */
    size_t uncommitted_bytes_max;  /* a leader refuses more, from all members; 0: 64 MiB */
    size_t store_checkpoint_pages; /* 0: mvcc_config's default */
    size_t snapshot_chunk_bytes;   /* likewise */
    uint64_t store_reserve_bytes;  /* likewise; the disk's marks follow from it (space.c) */
    uint64_t lease_checkpoint_ms;  /* between checkpoints of long leases; 0: 5 min, as etcd */
    uint64_t scrub_ms;             /* store and log are read through in this time; 0: never */
    /* Keep the history until a client compacts it. Otherwise the leader compacts the older half of it
     * when the store passes half of its quota. */
    bool keep_history;

    /* The member can't keep its promise any more (disk, corruption): the process must end with this. */
    void (*fatal)(void *ctx, const struct error *err);
    void (*leader_changed)(void *ctx, uint64_t leader, uint64_t term, bool self);
    /* A line for the log: writes are refused from now on, or again accepted, and what can be done. May be NULL. */
    void (*space)(void *ctx, bool shortage, const char *text);
    void (*removed)(void *ctx); /* this member was removed from the cluster */
    /* Something that the operator may want to know, for the log. May be NULL. */
    void (*note)(void *ctx, const char *text);
    /* Work is due on the next turn of the loop: call replica_poll() then. May be called often. */
    void (*wake)(void *ctx);
    void *ctx;
};

#define REPLICA_PROPOSALS_MAX                                                                      \
    5000 /* waiting at this member; more: ERR_TOO_MANY_REQUESTS, as etcd's gap */
#define REPLICA_READS_MAX 100000
#define REPLICA_PROPOSAL_BYTES_MAX (64u * 1024 * 1024) /* of them together, with the same answer */

/* Opens log and store, replays, and starts as a follower. Blocks (worker jobs during opening run through
 * the worker interface only after this returned). Errors as wal_open and mvcc_open; ERR_INVALID for a data
 * directory of another cluster or member, with both ids. *ret_note: a line for the log about a torn tail
 * that was cut, or "". */
enum errc replica_open(const struct replica_config *config, struct replica **ret_replica,
                       char ret_note[512], struct error *err);
/* Fails what waits with ERR_STOPPED, writes out and frees. Both workers must still run, and be stopped
 * afterwards: the log's last job may end later (wal_close()). */
void replica_close(struct replica *r);
void replica_abandon(struct replica *r); /* a crash, for the simulator: frees, writes nothing */

void replica_tick(struct replica *r);
/* Carries out what the core has ready until nothing is left to do now; also a slice of watch work. The
 * driver calls it once a loop turn, after input was read: that batches proposals into one append. Returns
 * true if more work waits (call again on the next turn without sleeping). */
bool replica_poll(struct replica *r);
void replica_receive(struct replica *r, const struct raft_message *m); /* from the transport */
void replica_peer_unreachable(struct replica *r, uint64_t id);
void replica_peer_gone(struct replica *r, uint64_t id); /* connection reset or refused */

/* ---- Requests ----------------------------------------------------------------------------------- */

struct replica_op; /* a waiting request */

/* Proposes; `request->id` is set here, the client session fields are the caller's. `done` exactly once:
 * the result's message is valid until it returns. ERR_TIMEOUT when the outcome is unknown;
 * ERR_TOO_MANY_REQUESTS, of this member or of the leader, only when the request can't take effect any more.
 * The cancelled op's `done` does not run; the proposal may still take effect. */
struct replica_op *replica_propose(struct replica *r, Raftpb__InternalRequest *request,
                                   void (*done)(void *ctx, const struct apply_result *result),
                                   void *ctx);
/* Linearizable point: when `done` is called with ERR_OK the local state reflects everything that had
 * finished before this call (thesis 6.4). */
struct replica_op *replica_read(struct replica *r, void (*done)(void *ctx, enum errc code),
                                void *ctx);
void replica_cancel(struct replica_op *op);

/* Leases: renewal is answered by the leader only, and only while it is sure to be the leader: after a
 * read round that was confirmed within an election timeout (e#15247: a leader that was stopped for a while
 * must not answer for leases that another one has ended). A lease whose remaining time has been
 * checkpointed is answered only when the log has taken the checkpoint back: the next leader would give it
 * no more than the rest. ERR_NOT_LEADER (also at a leader that has not applied an entry of its own term
 * yet, or isn't sure), ERR_LEASE_NOT_FOUND. */
struct replica_op *replica_lease_renew(struct replica *r, int64_t id,
                                       void (*done)(void *ctx, enum errc code, int64_t ttl),
                                       void *ctx);

/* Membership, on the leader (each waits for the commit). ADD_VOTER with the id of a learner promotes it; with
 * REMOVE only the id counts, with UPDATE the id and the peer URLs. ERR_NOT_LEADER, ERR_BUSY (another change
 * is under way, or the leader is new), ERR_TIMEOUT, ERR_TOO_MANY_LEARNERS, ERR_MEMBER_EXISTS, ERR_PEER_URL_EXISTS, ERR_MEMBER_NOT_FOUND,
 * ERR_MEMBER_NOT_LEARNER, ERR_LEARNER_NOT_READY, ERR_UNHEALTHY, ERR_MEMBER_NOT_ENOUGH_STARTED. */
struct replica_op *replica_conf_change(struct replica *r, enum raft_conf_change_type type,
                                       const struct replica_member *member,
                                       void (*done)(void *ctx, enum errc code), void *ctx);
enum errc replica_transfer_leader(struct replica *r, uint64_t to);

/* ---- State -------------------------------------------------------------------------------------- */

struct mvcc *replica_store(struct replica *r);
struct apply *replica_apply(struct replica *r);
struct lessor *replica_lessor(struct replica *r);
struct watch_hub *replica_watch_hub(struct replica *r);
const struct replica_member *replica_members(const struct replica *r, size_t *ret_count);
/* Whether the cluster had this member and removed it: such an id never comes back. */
bool replica_was_removed(const struct replica *r, uint64_t id);
/* A message of this member came within an election timeout; true for this one itself. */
bool replica_hears(const struct replica *r, uint64_t id);
uint64_t replica_id(const struct replica *r);
uint64_t replica_cluster_id(const struct replica *r);
void replica_status(const struct replica *r, struct raft_status *ret_status);
uint64_t replica_log_bytes(const struct replica *r);
/* How long the log's disk has not answered; 0: nothing is under way. It hangs when that is longer than an
 * election timeout: this member can't apply anything, and should be called unhealthy. */
uint64_t replica_log_silent_ms(const struct replica *r);
bool replica_log_hangs(const struct replica *r);

/* ---- Snapshot transfer -------------------------------------------------------------------------- */

/* A snapshot may need several streams: when one breaks, both sides keep what they have for a while, and the next
 * one goes on where the receiver is. The receiver keeps it even over a restart. */
#define REPLICA_SNAPSHOT_KEEP_MS 30000 /* a sender's, without a stream and without a step forward */
#define REPLICA_SNAPSHOT_RETRY_MS 2000 /* after a receiver refused it for now */
#define REPLICA_RECEIVED_KEEP_MS                                                                   \
    60000 /* a receiver's, without a stream: longer than the sender's */

/* What the first message of a stream says. */
struct replica_announcement {
    struct raft_message message; /* with the index that the data really have */
    struct mvcc_snapshot_id
        id;        /* maker 0: of an older version, whose streams can't be gone on with */
    uint64_t size; /* on the disk, about; 0: not known */
};

/* Sender: the transport calls these for a RAFT_MSG_SNAPSHOT given to send(), which comes again for each new stream
 * that is due. The announcement goes first, then, from the place where the receiver says that it is, the chunks. */
struct replica_snapshot;
/* A new one, or the one whose last stream broke. NULL: this member doesn't lead any more. */
struct replica_snapshot *replica_snapshot_open(struct replica *r, uint64_t to,
                                               struct replica_announcement *ret_announcement);
/* ERR_INVALID: the receiver isn't at any place of this snapshot (then it isn't `ok`, and the next one is new). */
enum errc replica_snapshot_go_on(struct replica_snapshot *s, const struct mvcc_snapshot_at *at);
void replica_snapshot_next(struct replica_snapshot *s,
                           void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                           void *ctx);
/* Where the chunk that `done` has just been given ends. */
struct mvcc_snapshot_at replica_snapshot_at(const struct replica_snapshot *s);
void replica_snapshot_acknowledged(struct replica_snapshot *s); /* one more chunk is there */
/* The stream is over, of which s is the transport's no more. All of it is there, or it is given up: */
void replica_snapshot_sent(struct replica_snapshot *s, bool ok);
/* Or it broke (ERR_OK), or the receiver refused it with `code`: it is kept if another stream makes sense. */
void replica_snapshot_broken(struct replica_snapshot *s, enum errc code);

/* Receiver: one snapshot at a time, and one stream of it. ERR_BUSY: another one is verified already, or newer;
 * ERR_EXISTS: this member has all of it already; ERR_INVALID: no snapshot message, or of an old term; ERR_NO_SPACE.
 * Else `begun` tells where the chunks are to begin. A later stream takes over from an earlier one, which is told
 * ERR_CANCELLED for what it waits for or does next. The message is stepped when all chunks are in and verified. */
struct replica_receiver {
    void (*begun)(void *ctx, enum errc code, struct mvcc_snapshot_at at);
    void (*stored)(void *ctx, enum errc code);
    void *ctx;
};
struct replica_chunk {
    struct bytes data;
    uint64_t
        offset; /* ERR_INVALID if it isn't where the receiver is; not looked at if the id's maker is 0 */
    uint32_t
        sum; /* CRC32C of the whole, up to the end of data; ERR_CORRUPT if it isn't that of what is here */
    bool last;
};
/* *ret_stream is what the calls below name this stream by; never 0. */
enum errc replica_receive_snapshot_begin(struct replica *r, const struct replica_announcement *a,
                                         const struct replica_receiver *receiver,
                                         uint64_t *ret_stream);
/* ERR_OK: `stored` will be called, before the next may be given; but not after this stream has left. */
enum errc replica_receive_snapshot_chunk(struct replica *r, uint64_t stream,
                                         const struct replica_chunk *chunk);
/* The stream is over: nothing is called any more. What was stored is kept for the next one. */
void replica_receive_snapshot_leave(struct replica *r, uint64_t stream);

/* ---- Backup ------------------------------------------------------------------------------------- */

/* A consistent copy of this member's store as of now, in the chunks of a snapshot; compaction waits while it is
 * open. NULL: not now (it ends, or installs a snapshot of the leader's). */
struct replica_backup;
struct replica_backup *replica_backup_open(struct replica *r, int64_t *ret_revision);
/* One at a time. ERR_CANCELLED: a snapshot took the store's place; ERR_NO_SPACE: what it is to hold can't be
 * written. Is called with ERR_CLOSED, or not at all, when the replica is closed. */
void replica_backup_next(struct replica_backup *b,
                         void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                         void *ctx);
/* At any time, also after the replica was closed; a chunk under way isn't delivered. */
void replica_backup_close(struct replica_backup *b);

#endif
