/* The Raft core: a deterministic state machine without I/O, clock, threads or randomness of its own.
 *
 * It follows "In Search of an Understandable Consensus Algorithm (Extended Version)" (Ongaro and
 * Ousterhout; its Figure 2 is "the figure" below), Ongaro's thesis for pre-vote (9.6), leader transfer
 * (3.10), membership changes (4) and ReadIndex (6.4), and, for asynchronous storage, the way of
 * etcd-io/raft.
 *
 * Life cycle: raft_new() from what the log and the store hold; then events go in (raft_tick,
 * raft_step, raft_propose, raft_read_index, ...), and after any of them, whenever raft_has_ready(),
 * the driver takes one `struct raft_ready` with raft_ready() and carries it out:
 *
 *   1. `snapshot`, if set, is installed in store and log, then raft_snapshot_installed().
 *   2. `hard_state` and `entries` are appended to the log (one append, in the order of the readies).
 *   3. `messages` are sent at once, in parallel with 2.
 *   4. `messages_after_sync` are sent when 2 is synced (they promise what 2 makes durable): votes,
 *      answers to appends. There are none without a `persist_token`: those that have to wait for an
 *      earlier append come among the `messages` once it is confirmed.
 *   5. when 2 is synced, raft_persisted() is called with the ready's `persist_token`. A ready with
 *      nothing for 2 (no commit index is worth a sync of its own) has token 0.
 *   6. `committed` entries are applied in order; then raft_applied() says how far.
 *   7. `read_states`: reads whose index has been confirmed; `refusals`: proposals that nobody took.
 *
 * Several appends may be under way at once; syncs complete in order. The leader counts its own log only
 * up to what raft_persisted() confirmed, and an entry is handed out as committed only when it is in this
 * member's synced log as well: nothing is applied or acknowledged before it is on this disk.
 *
 * Ownership: the core owns everything that a ready points to until the next call of raft_ready() or
 * raft_free(), except entries: a `struct raft_entry` is reference-counted, whoever keeps one takes a
 * reference. One thread.
 *
 * A member whose log doesn't sync for longer than an election timeout does not stand for election, and
 * hands leadership over if another voter's log went on meanwhile.
 *
 * A member whose log ends before what it has acknowledged in the present term (its disk lost synced data, or
 * was set back) can't be trusted with a vote, an acknowledgement or a confirmation any more: it may have
 * forgotten others as well. From the moment that it learns of it, by a heartbeat, it says nothing at all;
 * `status.forgotten` tells, and the driver has to end it and have it replaced.
 *
 * The core keeps the log's tail in memory, from the last raft_compact() on. */
#ifndef RAFT_RAFT_H
#define RAFT_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/bytes.h"
#include "lib/base/error.h"

#define RAFT_MEMBERS_MAX 16 /* voters and learners; more than 7 voters only makes commits slower */

enum raft_entry_type {
    RAFT_ENTRY_COMMAND = 0, /* for the state machine */
    RAFT_ENTRY_NOOP = 1,    /* a new leader's first entry (paper, section 8) */
    RAFT_ENTRY_CONF =
        2, /* a membership change: struct raft_conf_change, then `data` for the driver */
};

/* One log entry, immutable once made, reference-counted; the data follow the struct in the same
 * allocation. Not atomic: references are taken and dropped on the loop thread only (a writer on another
 * thread borrows while the loop thread holds a reference). */
struct raft_entry {
    uint64_t term;
    uint64_t index;
    uint64_t
        stamp; /* leader's wall clock in ns when it was proposed; never less than its predecessor's */
    enum raft_entry_type type;
    uint32_t refs;
    size_t size; /* of data, bytes */
    uint8_t data[];
};

struct raft_entry *raft_entry_new(uint64_t term, uint64_t index, enum raft_entry_type type,
                                  uint64_t stamp, struct bytes data); /* with one reference */
struct raft_entry *raft_entry_ref(struct raft_entry *e);
void raft_entry_unref(struct raft_entry *e);

/* The figure's "persistent state on all servers", without the log. `commit` is only a hint that saves
 * work after a restart; it need not be synced for its own sake. */
struct raft_hard_state {
    uint64_t term;
    uint64_t vote; /* member voted for in `term`, 0: none */
    uint64_t commit;
};

/* A membership configuration. Voters and learners are disjoint, sorted by id. */
struct raft_conf {
    uint64_t voters[RAFT_MEMBERS_MAX];
    size_t voter_count;
    uint64_t learners[RAFT_MEMBERS_MAX];
    size_t learner_count;
};

enum raft_conf_change_type {
    RAFT_CONF_ADD_VOTER = 0, /* also promotes a learner */
    RAFT_CONF_ADD_LEARNER = 1,
    RAFT_CONF_REMOVE = 2,
    RAFT_CONF_UPDATE = 3, /* changes nothing for Raft (new peer URLs) */
};

struct raft_conf_change {
    enum raft_conf_change_type type;
    uint64_t id;
};

/* A CONF entry's data: 16 bytes (type, id; little-endian), then the driver's own bytes. */
#define RAFT_CONF_CHANGE_BYTES 16
void raft_conf_change_encode(const struct raft_conf_change *c, uint8_t p[RAFT_CONF_CHANGE_BYTES]);
enum errc raft_conf_change_decode(struct bytes data, struct raft_conf_change *ret_change,
                                  struct bytes *ret_context);

enum raft_message_type {
    RAFT_MSG_APPEND = 1,   /* AppendEntries */
    RAFT_MSG_APPEND_REPLY, /* index: match, or with reject: reject_hint/hint_term */
    RAFT_MSG_VOTE,         /* RequestVote; force: by leader transfer, ignores the leader's lease */
    RAFT_MSG_VOTE_REPLY, /* all four about votes: commit/hint_term, what the sender knows committed */
    RAFT_MSG_PREVOTE,
    RAFT_MSG_PREVOTE_REPLY,
    RAFT_MSG_HEARTBEAT, /* context: the read round that an answer confirms, 0: none; index: up to where
                         * the receiver has said in this term that its log is the leader's */
    RAFT_MSG_HEARTBEAT_REPLY,
    RAFT_MSG_SNAPSHOT,         /* snapshot_index/term/conf: the driver streams the data beside it */
    RAFT_MSG_PROPOSE,          /* follower to leader: one entry with type and data only; context,
                                * origin: what a refusal names, and whom it goes to */
    RAFT_MSG_READ_INDEX,       /* follower to leader: context */
    RAFT_MSG_READ_INDEX_REPLY, /* index: safe to read at, context; reject: no leader here */
    RAFT_MSG_TIMEOUT_NOW,      /* leader transfer: campaign at once */
    RAFT_MSG_TRANSFER_LEADER, /* follower asks its leader to hand over to `context`, 0: to `from` */
    RAFT_MSG_PROPOSE_REFUSED, /* to the proposer: the PROPOSE with this context was not taken */
    RAFT_MSG_TYPE_MAX = RAFT_MSG_PROPOSE_REFUSED,
};

/* Why a proposal that came from another member was not taken. It is not in the log of who refused it,
 * and won't be: no member keeps a proposal that it doesn't append at once. */
enum raft_refusal_reason {
    RAFT_REFUSED_TOO_MANY = 1, /* uncommitted_bytes_max */
    RAFT_REFUSED_NO_LEADER,    /* it doesn't lead, and knows nobody to pass it on to */
    RAFT_REFUSED_TRANSFER,     /* it is handing leadership over */
    RAFT_REFUSED_MAX = RAFT_REFUSED_TRANSFER,
};

struct raft_message {
    enum raft_message_type type;
    uint64_t from, to;
    uint64_t term;     /* 0 for PROPOSE, PROPOSE_REFUSED and READ_INDEX from a follower */
    uint64_t log_term; /* APPEND: prevLogTerm; votes: lastLogTerm */
    uint64_t index;    /* APPEND: prevLogIndex; votes: lastLogIndex; replies: see the types */
    uint64_t commit;
    struct raft_entry **entries;
    size_t entry_count;
    bool reject;
    bool force;
    uint64_t
        reject_hint; /* a follower's guess where the logs may agree (thesis 5.3, fast back-up) */
    uint64_t hint_term;
    uint64_t context; /* read round; PROPOSE: its proposer's name for it, 0: wants no refusal */
    uint64_t origin;  /* PROPOSE that was passed on: who proposed it, 0: `from` */
    enum raft_refusal_reason reason;
    uint64_t snapshot_index, snapshot_term;
    struct raft_conf snapshot_conf;
};

struct raft_read_state {
    uint64_t context; /* what raft_read_index() was given */
    uint64_t index;   /* reading a state applied up to here is linearizable */
    bool failed;      /* no leader confirmed it (leader lost or term changed): try again */
};

/* A forwarded proposal that was refused. */
struct raft_refusal {
    uint64_t context; /* what raft_propose() was given */
    enum raft_refusal_reason reason;
};

struct raft_ready {
    bool has_hard_state;
    struct raft_hard_state hard_state;
    struct raft_entry *
        *entries; /* to append; they replace any of the log from entries[0]->index on */
    size_t entry_count;
    uint64_t persist_token; /* for raft_persisted(); 0: nothing to persist */
    bool has_snapshot;      /* a snapshot to install, whose data the driver has received */
    uint64_t snapshot_index, snapshot_term;
    struct raft_conf snapshot_conf;
    struct raft_message *messages;
    size_t message_count;
    struct raft_message *messages_after_sync;
    size_t message_after_sync_count;
    struct raft_entry **committed;
    size_t committed_count;
    struct raft_read_state *read_states;
    size_t read_state_count;
    struct raft_refusal *refusals;
    size_t refusal_count;
};

enum raft_role { RAFT_FOLLOWER, RAFT_PRECANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

struct raft_config {
    uint64_t id; /* this member, not 0 */
    uint32_t
        election_ticks; /* election timeout at least, in ticks; the core adds up to as much again */
    uint32_t heartbeat_ticks;
    uint32_t inflight_messages_max; /* appends under way to one member */
    size_t inflight_bytes_max;
    size_t message_bytes_max;      /* entries in one append, by bytes (one entry may exceed it) */
    size_t uncommitted_bytes_max;  /* proposals not yet committed; more: ERR_TOO_MANY_REQUESTS */
    size_t committed_batch_max;    /* entries in one ready's `committed` */
    uint64_t (*random)(void *ctx); /* for election timeouts */
    void *random_ctx;
    /* NULL or a callback for state changes worth a log line or a metric; text is borrowed. */
    void (*trace)(void *ctx, const char *text);
    void *trace_ctx;
};

/* What a member starts from. All entries up to `applied` are in the store; entries hold the log in
 * memory from entries[0]->index on, without gaps (they may reach back behind `applied`, for members
 * that lag). base_index/base_term: the entry before entries[0] (0/0 for a new log).
 *
 * A member that joins a cluster starts from nothing, with an empty conf, and must get the whole
 * membership from the others. So the first members of a new cluster either have it in their logs (the
 * same CONF entries of term 1 on each, hard_state.term 1 and commit at the last of them, applied 0 and
 * an empty conf), or they count it as entry 1, which no log has (base_index, base_term, applied,
 * applied_term, hard_state.term and commit all 1, conf the membership): who joins then gets a
 * snapshot. Or entry 1 is the driver's, which tells them by raft_apply_conf() when it applies it. Changes
 * in the log count only once some membership is applied. */
struct raft_start {
    struct raft_hard_state hard_state;
    struct raft_conf conf; /* as of `applied` */
    uint64_t applied, applied_term;
    uint64_t base_index, base_term;
    struct raft_entry **entries; /* references are taken */
    size_t entry_count;
};

struct raft;

/* ERR_INVALID for a configuration that makes no sense, ERR_CORRUPT if the start state contradicts
 * itself (a commit beyond the log, a gap, terms that go back), with the reason in err. */
enum errc raft_new(const struct raft_config *config, const struct raft_start *start,
                   struct raft **ret_raft, struct error *err);
void raft_free(struct raft *r);

/* One tick of the driver's clock. Elections, heartbeats and check-quorum (thesis 6.2) count ticks. */
void raft_tick(struct raft *r);

/* The leader's clock for the stamps of entries proposed from now on. May go backwards: stamps don't. */
void raft_set_time(struct raft *r, uint64_t wall_ns);

/* A message of another member. Messages from unknown or removed members, of old terms, duplicated or
 * reordered are harmless. Entries are referenced, not copied. ERR_INVALID: malformed (ignored). */
enum errc raft_step(struct raft *r, const struct raft_message *m);

/* Proposes a command. On a follower it is forwarded to the leader (it may get lost: the caller has a
 * timeout). ERR_NO_LEADER, ERR_TOO_MANY_REQUESTS (uncommitted_bytes_max), ERR_UNAVAILABLE during a
 * leader transfer. On the leader *ret_index is the entry's index, 0 when it was forwarded.
 *
 * `context` names this call, if it is forwarded, in the refusal that may come back (0: none is wanted). It
 * must be another one each time, also for the same data: a refusal says nothing of an earlier copy. */
enum errc raft_propose(struct raft *r, struct bytes data, uint64_t context, uint64_t *ret_index);

/* Proposes a membership change (leader only, else ERR_NOT_LEADER). One at a time, and only after an
 * entry of the leader's own term has committed (Ongaro's 2015 correction): else ERR_BUSY. */
enum errc raft_propose_conf(struct raft *r, const struct raft_conf_change *c, struct bytes context);

/* A configuration counts from when its entry is in the log (thesis 4.1), so the driver checks a change before
 * it proposes it; there is no refusing one later. The driver calls this for each CONF entry of `committed`
 * as it applies it, and for each of the first members in an entry of its own (see struct raft_start):
 * *ret_conf is the membership as of that entry, which goes with the state machine into snapshots. */
void raft_apply_conf(struct raft *r, uint64_t index, const struct raft_conf_change *c,
                     struct raft_conf *ret_conf);

/* Asks for a read index; the answer is a read_state with this context (not 0, unique). Confirmed by a
 * heartbeat round begun after this call, answered only once an entry of the own term is committed
 * (thesis 6.4). ERR_NO_LEADER if none is known, ERR_TOO_MANY_REQUESTS, ERR_INVALID for context 0. On a
 * follower a read that isn't answered within an election timeout fails: its message may be lost. */
enum errc raft_read_index(struct raft *r, uint64_t context);

/* The driver's news. */
void raft_persisted(struct raft *r, uint64_t persist_token);
void raft_applied(struct raft *r, uint64_t index);
void raft_snapshot_installed(struct raft *r, uint64_t index, uint64_t term,
                             const struct raft_conf *conf);
void raft_report_unreachable(struct raft *r, uint64_t id); /* a message may be lost: probe */
/* A snapshot to `id` was delivered whole (it will answer) or not. */
void raft_report_snapshot(struct raft *r, uint64_t id, bool ok);
/* The connection to or from `id` was reset or refused: if it is our leader, campaign at once. */
void raft_report_peer_gone(struct raft *r, uint64_t id);

/* Hands leadership to `to` (0: the most up-to-date voter); on a follower asks the leader to.
 * ERR_NO_LEADER, ERR_BAD_LEADER_TRANSFEREE. The transfer is given up after an election timeout. */
enum errc raft_transfer_leader(struct raft *r, uint64_t to);

/* Campaigns at once, with pre-vote. ERR_INVALID: not a voter; ERR_BUSY: a snapshot isn't in effect yet, or
 * the log's disk hangs or has forgotten entries. */
enum errc raft_campaign(struct raft *r);

bool raft_has_ready(const struct raft *r);
void raft_ready(struct raft *r, struct raft_ready *ret_ready);

/* Drops entries up to and including `index` from memory (at most up to what is applied). Members that
 * need older ones get a RAFT_MSG_SNAPSHOT. */
void raft_compact(struct raft *r, uint64_t index);

struct raft_peer_status {
    uint64_t id;
    bool learner;
    bool recent_active; /* heard from since the last check-quorum round */
    uint64_t match, next;
    int state; /* 0 probe, 1 replicate, 2 snapshot */
};

struct raft_status {
    uint64_t id, term, vote, leader; /* leader 0: unknown */
    enum raft_role role;
    uint64_t commit, applied, first_index, last_index, persisted;
    uint64_t
        forgotten; /* it acknowledged its log up to here and doesn't have it; 0: nothing is known */
    uint64_t last_stamp;
    size_t memory_bytes; /* of the entries in memory */
    uint64_t transferee;
    struct raft_conf conf;                           /* the newest in the log, which counts */
    struct raft_peer_status peers[RAFT_MEMBERS_MAX]; /* on the leader */
    size_t peer_count;
};
void raft_status(const struct raft *r, struct raft_status *ret_status);

/* Term of an entry still in memory (or the base), 0 if it isn't. */
uint64_t raft_term_at(const struct raft *r, uint64_t index);

#endif
