/* What the files of the Raft core share: the member's state, and the functions that one file offers
 * to the others. Nobody outside this folder includes it.
 *
 * The flow: an event comes in (step.c, tick.c, the public functions), changes the state and notes what
 * is due. raft_ready() first turns what is due into messages (raft_replication_flush, raft_read_flush):
 * all that came in between two readies shares one append to each member and one read round. */
#ifndef RAFT_CORE_H
#define RAFT_CORE_H

#include "daemon/raft/conf.h"
#include "daemon/raft/log.h"
#include "daemon/raft/progress.h"
#include "daemon/raft/raft.h"

/* Reads that wait for a round, own and forwarded ones; far more than a round trip's worth. */
#define READS_WAITING_MAX 65536
/* Read rounds under way at once; a read beyond waits for the oldest and shares the next one. More than
 * one keeps a read from waiting for a whole round before its own, few bound the messages. */
#define READ_ROUNDS_MAX 4
/* Entries in one message: bounds what a malformed one can make us look at. */
#define MESSAGE_ENTRIES_MAX 65536
/* Indexes and terms beyond are malformed; leaves room to add without overflow. */
#define INDEX_MAX (UINT64_MAX / 4)
/* How long, in election timeouts, a member that saw its leader's connection break campaigns with short
 * pauses: until the others have noticed as well, or their timeouts have passed. */
#define HASTY_ELECTION_TIMEOUTS 2

struct raft_outbox {
    struct raft_message *items;
    size_t count, cap;
};

/* One append to the log that the driver was given and has not confirmed. */
struct raft_persist {
    uint64_t token;
    uint64_t since; /* in ticks */
    uint64_t
        last; /* what it makes durable; lowered when entries are replaced before it is confirmed */
    struct raft_hard_state hard_state;
};

/* A read on the leader. */
struct raft_read {
    uint64_t from;    /* 0: this member */
    uint64_t context; /* the asker's */
    uint64_t round;   /* 0: in none yet */
    uint64_t index;   /* the commit index when the round began */
};

/* A read on a follower, at its leader. */
struct raft_read_away {
    uint64_t context;
    uint64_t wire; /* the context under which it was forwarded, 0: not sent yet */
    uint32_t age;  /* ticks */
};

struct raft_reads {
    struct raft_read *items; /* in the order of rounds, those in none last */
    size_t count, cap;
    size_t unassigned; /* in no round yet */
    uint64_t round;    /* latest begun */
    uint64_t confirmed;
    struct raft_read_away *away;
    size_t away_count, away_cap;
    bool away_due; /* some are not sent yet */
    uint64_t
        away_nonce; /* next wire context: from a random start, so that answers to an earlier life
                          * of this member match nothing */
    struct raft_read_state *states;
    size_t state_count, state_cap;
};

struct raft_refusals {
    struct raft_refusal *items;
    size_t count, cap;
};

struct raft_snapshot_pending {
    bool waiting; /* stepped, not yet installed */
    bool handed;  /* given to the driver */
    uint64_t from, index, term;
    struct raft_conf conf;
};

/* Which configurations there are beside the one that counts, `conf` of struct raft. */
struct raft_membership {
    struct raft_conf applied; /* as of applied_index */
    uint64_t applied_index;
    uint64_t newest_index;   /* of the newest change in the log, 0: all are applied */
    struct raft_conf before; /* what counted before that one */
};

struct raft_vote {
    uint64_t id;
    bool granted;
};

struct raft {
    struct raft_config config;
    uint64_t id;

    /* The figure's state. `term` and `vote` are durable once a persist token says so. */
    uint64_t term, vote;
    uint64_t leader; /* 0: unknown */
    enum raft_role role;
    struct raft_conf conf; /* the newest in the log */
    struct raft_membership membership;
    struct raft_log log;

    /* base_index <= applied <= handed <= min(commit, persisted); emitted <= last;
     * persisted <= emitted. */
    uint64_t commit, applied, handed, emitted, persisted;
    uint64_t last_stamp, time;

    /* Persistence: appends under way, oldest first, and the hard state at three stages. */
    struct raft_persist *persists;
    size_t persist_count, persist_cap;
    uint64_t token; /* last one given out */
    struct raft_hard_state hard_state_emitted, hard_state_synced;

    uint64_t forgotten; /* see raft_status; not 0: it is silent */
    uint64_t ticks;     /* so far */
    /* Elections, in ticks. */
    uint32_t election_elapsed, election_timeout, heartbeat_elapsed;
    uint32_t hasty_ticks; /* left of the time in which pauses between campaigns are short */
    struct raft_vote votes[RAFT_MEMBERS_MAX];
    size_t vote_count;

    /* Leader only. */
    struct raft_progress peers[RAFT_MEMBERS_MAX]; /* every member, this one as well, and who leaves
                                                   * until that is applied */
    size_t peer_count;
    bool replication_due;
    uint64_t transferee;
    uint32_t transfer_elapsed;
    uint64_t conf_index_pending; /* no membership change before this index is applied */
    size_t uncommitted_bytes;
    bool disk_transfer; /* it hands over because its disk hangs */

    struct raft_reads reads;
    struct raft_refusals refusals; /* of own proposals */
    struct raft_snapshot_pending snapshot;

    struct raft_outbox now, after_sync; /* what the next readies send */
    /* What the last ready points to. */
    struct {
        struct raft_outbox now, after_sync;
        struct raft_entry **entries, **committed;
        size_t entry_count, committed_count;
        struct raft_read_state *states;
        struct raft_refusal *refusals;
    } out;
};

/* raft.c */
void raft_trace(struct raft *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Raises the commit index (never above the last entry) and settles what hangs on it. */
void raft_commit_to(struct raft *r, uint64_t index);
/* Drops the log's entries from `index` on, and with them what is said to be persisted of it. */
void raft_truncate(struct raft *r, uint64_t index);
bool raft_own_term_committed(const struct raft *r);

/* ready.c */
void raft_ready_release(struct raft *r); /* what the last ready points to */

/* outbox.c */
/* Queues a message; fills in `from`, and `term` where it is 0 and the type has one. Its entries become
 * the core's. Answers that promise durability wait for it. */
void raft_send(struct raft *r, struct raft_message m);
void raft_outbox_move(struct raft_outbox *to, struct raft_outbox *from);
void raft_outbox_free(struct raft_outbox *o);

/* election.c */
void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader);
void raft_set_leader(struct raft *r, uint64_t leader);
bool raft_in_lease(const struct raft *r);
enum raft_campaign_kind { CAMPAIGN_PREVOTE, CAMPAIGN_VOTE, CAMPAIGN_TRANSFER };
/* Starts a campaign unless something forbids it: ERR_INVALID (not a voter), ERR_BUSY (a snapshot is
 * not yet in effect, a disk that hangs or has forgotten). */
enum errc raft_start_campaign(struct raft *r, enum raft_campaign_kind kind);
void raft_recv_vote(struct raft *r, const struct raft_message *m);
void raft_recv_vote_reply(struct raft *r, const struct raft_message *m);
void raft_learn_commit(struct raft *r, const struct raft_message *m);
void raft_own_vote_persisted(struct raft *r);
void raft_draw_timeout(struct raft *r);

/* leader.c */
void raft_become_leader(struct raft *r);
void raft_leader_rebuild_peers(struct raft *r);
void raft_leader_clear(struct raft *r); /* frees what only a leader has */
struct raft_progress *raft_peer(struct raft *r, uint64_t id);
/* Appends an entry of the own term; the data are copied. */
struct raft_entry *raft_leader_append(struct raft *r, enum raft_entry_type type, struct bytes data);
bool raft_leader_maybe_commit(struct raft *r);
void raft_leader_heartbeat(struct raft *r);
void raft_leader_check_quorum(struct raft *r);

/* membership.c */
/* The log has grown by this entry. */
void raft_membership_appended(struct raft *r, const struct raft_entry *e);
/* The log has become another one. */
void raft_membership_reread(struct raft *r);
void raft_membership_set(struct raft *r, const struct raft_conf *conf, uint64_t applied_index);
/* The newest change may not be committed. */
bool raft_membership_undecided(const struct raft *r);
/* A voter, or one until a change is committed. */
bool raft_may_lead(const struct raft *r);

/* disk.c */
/* The own log's oldest append has been under way for longer than an election timeout. */
bool raft_disk_hangs(const struct raft *r);
void raft_leader_watch_disk(struct raft *r);

/* replication.c */
void raft_replication_flush(struct raft *r);
enum errc raft_recv_append_reply(struct raft *r, const struct raft_message *m);
void raft_recv_heartbeat_reply(struct raft *r, const struct raft_message *m);

/* follower.c */
enum errc raft_recv_append(struct raft *r, const struct raft_message *m);
void raft_recv_heartbeat(struct raft *r, const struct raft_message *m);
void raft_recv_snapshot(struct raft *r, const struct raft_message *m);

/* propose.c */
void raft_recv_propose(struct raft *r, const struct raft_message *m);
void raft_recv_propose_refused(struct raft *r, const struct raft_message *m);

/* read.c */
bool raft_reads_due(const struct raft *r);
void raft_read_flush(struct raft *r);
void raft_reads_confirm(struct raft *r);
void raft_reads_fail(struct raft *r); /* all that wait, own ones and those of followers */
void raft_reads_tick(struct raft *r);
void raft_reads_free(struct raft *r);
void raft_recv_read_index(struct raft *r, const struct raft_message *m);
void raft_recv_read_index_reply(struct raft *r, const struct raft_message *m);

/* transfer.c */
void raft_transfer_continue(struct raft *r); /* the transferee may have caught up */
void raft_transfer_tick(struct raft *r);
enum errc raft_leader_transfer(struct raft *r, uint64_t to);
void raft_recv_transfer(struct raft *r, const struct raft_message *m);
void raft_recv_timeout_now(struct raft *r, const struct raft_message *m);
/* The voter with the longest log, other than this one and heard from lately; 0: none. */
uint64_t raft_transfer_best(struct raft *r);

/* check.c */
/* Some messages mean the same in every term. */
bool raft_message_has_term(enum raft_message_type type);
/* Whether a message can have come from a correct member. */
bool raft_message_valid(const struct raft *r, const struct raft_message *m);

#endif
