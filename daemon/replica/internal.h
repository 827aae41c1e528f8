/* What the files of the replica share. replica.h has the picture. */
#ifndef REPLICA_INTERNAL_H
#define REPLICA_INTERNAL_H

#include "daemon/log/wal.h"
#include "daemon/replica/member_list.h"
#include "daemon/replica/replica.h"
#include "lib/base/list.h"

#define OP_BUCKETS 8192 /* a power of two above REPLICA_PROPOSALS_MAX */
/* The core's limits. A member that is one round trip behind gets 16 MiB a round trip; one append of
 * 1 MiB passes in about 10 ms at 1 Gbit/s and so doesn't hold up a heartbeat. */
#define INFLIGHT_MESSAGES_MAX 256
#define INFLIGHT_BYTES_MAX (16u * 1024 * 1024)
#define MESSAGE_BYTES_MAX (1024u * 1024)
#define UNCOMMITTED_BYTES_MAX (64u * 1024 * 1024)
/* What one replica_poll() applies at most: about a millisecond of small puts. */
#define APPLY_ENTRIES_A_POLL 256
#define APPLY_BYTES_A_POLL (2u * 1024 * 1024)
#define READIES_A_POLL 16
/* Applied but not yet in SQLite: applying waits beyond this, twice what refuses proposals. */
#define APPLY_BACKLOG_MAX (2u * (uint64_t)MVCC_BACKLOG_MAX)
#define SNAPSHOT_BYTES_DEFAULT (64u * 1024 * 1024)

enum op_kind { OP_PROPOSAL, OP_READ, OP_CONF, OP_RENEWAL };

struct replica_op {
    struct replica *replica;
    enum op_kind kind;
    bool internal;           /* the replica's own: not counted against the limits */
    bool has_session;        /* sending it twice applies it once */
    struct list link;        /* in one of the replica's lists, by where the request is */
    struct list timer;       /* in replica->timers */
    struct replica_op *next; /* hash bucket, of proposals and membership changes */
    uint64_t id;
    uint64_t started_ms, deadline_ms;
    uint8_t *data; /* a proposal, packed: kept until it is known to be in the log for good */
    size_t size;
    uint64_t sent_term, sent_index; /* index 0: forwarded to the leader of that term */
    uint16_t
        sendings; /* of a proposal, so far (a tick apart at least): a refusal names the last one */
    bool away;    /* the last one was forwarded, and nothing has been heard of it */
    bool astray;  /* an earlier one was given up, and may still get into the log */
    uint64_t read_index;
    int64_t lease, ttl; /* of a renewal */
    enum errc outcome;  /* once in `finished` */
    void (*done_result)(void *ctx, const struct apply_result *result);
    void (*done_code)(void *ctx, enum errc code);
    void (*done_renewal)(void *ctx, enum errc code, int64_t ttl);
    void *ctx;
};

/* An append under way, with the messages that wait for its sync. */
struct persist {
    struct list link;
    uint64_t token, begun_ms;
    struct raft_message *messages;
    size_t count;
};

struct replica_snapshot {
    struct replica *replica;
    struct list link;
    struct mvcc_snapshot *source;
    uint64_t to;
    struct replica_announcement announcement;
    bool streaming; /* a transport has it */
    bool resent;    /* it isn't the first stream */
    bool reading;   /* the store reads a chunk, maybe for a stream that is gone */
    uint64_t
        broken_ms;     /* since then nothing has arrived; 0: no stream broke since the last chunk */
    uint64_t retry_ms; /* the next stream comes not before */
    void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last); /* of the next chunk */
    void *ctx;
};

/* A leader's view of its disk beside the others' (disk.c): one append at a time is measured. */
#define DISK_SAMPLES 6
struct disk_watch {
    uint64_t term;         /* of this leader; 0: it leads nothing */
    uint64_t token, index; /* the append that is measured; token 0: none */
    uint64_t begun_ms, next_ms, own_ms;
    bool own_done;
    uint64_t peer_ms[RAFT_MEMBERS_MAX]; /* as in status.peers; UINT64_MAX: has it not yet */
    size_t count;                       /* measured so far */
    uint64_t at[DISK_SAMPLES], own[DISK_SAMPLES], others[DISK_SAMPLES];
    uint64_t hold_off_until_ms;
};

/* When another member was last heard of. */
struct heard {
    uint64_t id, at_ms;
};

/* A member that has been sent a snapshot: the log's part that it needs next is kept until it has caught up. */
struct catching_up {
    uint64_t id, index;   /* it has this */
    uint64_t progress_ms; /* since then */
};

/* A snapshot on its way in. */
struct incoming {
    struct mvcc_restore *restore; /* NULL: none */
    struct replica_announcement announcement;
    struct mvcc_snapshot_at at; /* given to the store */
    bool last, verified, installing;
    bool busy;   /* the store works for it */
    bool doomed; /* given up as soon as the store is done */

    /* The stream that feeds it, or that waits until a former snapshot is out of the way. */
    uint64_t stream; /* 0: none */
    struct replica_receiver receiver;
    bool beginning, storing;            /* the receiver waits to be told of it */
    struct replica_announcement wanted; /* while it is beginning */
    uint64_t left_ms;                   /* the last stream ended */
    uint64_t streams;                   /* so far, to name them */
};

struct replica {
    struct replica_config config;
    char *name;
    struct member_list initial;
    char **client_urls; /* own copies of the configured ones */

    struct wal *wal;
    struct mvcc *store;
    struct lessor *lessor;
    struct watch_hub *hub;
    struct apply *apply;
    struct raft *raft;
    struct member_list members;
    struct removed_members removed;
    uint64_t cluster_id, member_id;

    bool failed, closing, removed_told;
    bool close_later;          /* replica_close() came while a snapshot was being installed */
    struct raft_status status; /* as of the last replica_refresh() */
    uint64_t leader_told, term_told;
    bool lead_told;
    uint64_t leader_since_ms; /* when the present leader became known */
    uint64_t
        lead_confirmed_ms; /* begin of the last read round that confirmed this leader; 0: none */

    /* Requests. */
    struct replica_op *buckets[OP_BUCKETS];
    struct list unsent, sent;                            /* proposals */
    struct list refused;                                 /* to be sent again, but not at once */
    struct list reads_waiting, reads_round, reads_ready; /* not asked, asked, confirmed */
    struct list finished;                                /* outcome known, `done` not called */
    struct list timers;                                  /* all of them, by deadline */
    size_t proposal_count, proposal_bytes, read_count;
    uint64_t next_id, read_context, round_begun_ms;

    /* The path of entries. */
    struct list persists;
    struct raft_entry **queue; /* committed, to be applied: a ring */
    size_t queue_cap, queue_head, queue_count;
    uint64_t settled_term; /* of the last applied entry */

    struct disk_watch disk;
    struct heard heard[RAFT_MEMBERS_MAX];
    size_t heard_count;

    struct list snapshots; /* going out */
    struct catching_up catching_up[RAFT_MEMBERS_MAX];
    size_t catching_up_count;
    struct incoming in;

    /* Duties (duties.c). */
    uint64_t ticks;
    struct replica_op *publish, *alarm;
    struct {
        bool low;         /* requests that add data are refused here, whoever has the alarm */
        uint64_t free;    /* at the last look */
        const char *told; /* what was said to be lacking */
    } space;
    bool compacting; /* by quota: proposed, or its rows are going */
};

/* ---- replica.c ---- */
void replica_close_now(struct replica *r);                     /* after close_later */
void replica_fail(struct replica *r, const struct error *err); /* the member ends */
void replica_refresh(struct replica *r);                       /* `status` */
uint64_t replica_now_ms(const struct replica *r);
void replica_wake(struct replica *r);
void replica_note(struct replica *r, const char *text);
static inline bool replica_leads(const struct replica *r)
{
    return r->status.role == RAFT_LEADER;
}

/* ---- recover.c ---- */
enum errc replica_recover(struct replica *r, char ret_note[512], struct error *err);

/* ---- requests.c ---- */
struct replica_op *request_new(struct replica *r, enum op_kind kind, void *ctx);
struct replica_op *request_find(struct replica *r, uint64_t id);
void request_register(struct replica_op *op); /* under its id */
void request_unregister(struct replica_op *op);
void request_finish(struct replica_op *op,
                    enum errc outcome); /* `done` is called from replica_poll() */
void request_free(struct replica_op *op);
/* Frees it and calls `done` with a result now. */
void request_complete(struct replica_op *op, const struct apply_result *result);
void requests_deliver_finished(struct replica *r);
void requests_time_out(struct replica *r);
void requests_stop(struct replica *r); /* all end with ERR_STOPPED, at once */

/* ---- propose.c ---- */
uint64_t propose_next_id(struct replica *r);
void propose_pending(struct replica *r); /* hands waiting proposals to the core */
void propose_refused(struct replica *r, const struct raft_refusal *refusal);
void propose_refused_again(struct replica *r); /* a moment later, or there is another leader */
/* The log has reached `term`: proposals of earlier terms that have not been applied are lost, or may be. */
void propose_settle(struct replica *r, uint64_t term);
void propose_settle_unseen(struct replica *r); /* a snapshot was installed */
/* One of the replica's own; no limits but the core's. */
struct replica_op *propose_internal(struct replica *r, Raftpb__InternalRequest *request,
                                    void (*done)(void *ctx, const struct apply_result *result));
/* The same without waiting, on the leader only: it is never forwarded. ERR_NOT_LEADER, and as
 * raft_propose(). `request` has its id then. */
enum errc propose_as_leader(struct replica *r, Raftpb__InternalRequest *request,
                            uint64_t *ret_index);

/* ---- read.c ---- */
void read_enqueue(struct replica_op *op);
void read_begin_round(struct replica *r);
void read_confirmed(struct replica *r, const struct raft_read_state *state);
void read_complete(struct replica *r); /* those whose index is applied */

/* ---- members.c ---- */
enum errc members_load(struct replica *r, struct error *err);
void members_tell(struct replica *r);
/* The first entry of a cluster's log: its members (a NOOP with a raftpb.ConfState). */
struct raft_entry *members_bootstrap_entry(const struct member_list *initial);
bool members_is_bootstrap(const struct raft_entry *e);
enum errc members_apply_bootstrap(struct replica *r, const struct raft_entry *e, struct error *err);
enum errc members_apply_conf(struct replica *r, const struct raft_entry *e, struct error *err);
void members_apply_attributes(void *ctx, const Raftpb__MemberAttributes *attributes);

/* ---- drive.c ---- */
void drive_applied_jumped(struct replica *r, uint64_t index); /* a snapshot took their place */
void drive_free(struct replica *r);

/* ---- renew.c ---- */
void renewal_confirmed(struct replica_op *op);  /* its read round is; it is in no list */
void renewal_taken_back(struct replica_op *op); /* the checkpoint is, in the applied state */

/* ---- leader.c ---- */
/* It has applied an entry of its own term: everything that former leaders granted and revoked is known. */
bool leader_knows_all_leases(const struct replica *r);
uint64_t leader_election_ms(const struct replica *r);
void leader_watch(struct replica *r); /* tells of changes, promotes and demotes the lessor */
void leader_duties(struct replica *r);
void leader_hears(struct replica *r, uint64_t id);
/* Heard of within an election timeout (or this member itself). */
bool leader_finds_active(const struct replica *r, uint64_t id);

/* ---- disk.c ---- */
void disk_appended(struct replica *r, uint64_t token, uint64_t index);
void disk_synced(struct replica *r, uint64_t token);
void disk_watch(struct replica *r); /* with a fresh status */

/* ---- duties.c ---- */
void duties_tick(struct replica *r);
void duties_cut_log(struct replica *r);
uint64_t duties_quota(const struct replica *r);

/* ---- space.c ---- */
void space_tick(struct replica *r);
void space_quota_reached(struct replica *r);
void space_tell(struct replica *r, bool shortage, const char *text);

/* ---- snapshot_out.c ---- */
/* What members need of the log that are sent a snapshot, or have just been sent one: nothing behind this index may
 * be cut. `to`: where it would be cut otherwise; who is past it has caught up. UINT64_MAX: nobody. */
uint64_t snapshot_lowest(struct replica *r, uint64_t to);
void snapshot_out_tick(struct replica *r);
void snapshot_out_end(struct replica *r);

/* ---- snapshot_in.c ---- */
void snapshot_install(struct replica *r, const struct raft_ready *ready);
void snapshot_drop_refused(struct replica *r); /* the core didn't take the verified one */
void snapshot_in_tick(struct replica *r);
/* Throws away what isn't verified yet, and ends its stream with `code`; false: there was nothing. */
bool snapshot_in_drop(struct replica *r, enum errc code, const char *why);

/* ---- space.c ---- */
uint64_t space_low_mark(const struct replica *r);

#endif
