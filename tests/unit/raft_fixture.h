/* A cluster of Raft members in one process, for tests: a network that is a queue, disks that sync when
 * told, a state machine that remembers what every index was committed as.
 *
 * Whatever a test does, the fixture checks the properties of the paper's Figure 3 (election safety,
 * log matching, leader completeness, state machine safety) and fails the test with the reason.
 *
 * Members have ids from 1 on. After each event of a member its readies are carried out: messages go
 * into the queue, appends to the disk's queue (and are synced at once unless `manual_sync`). Everything
 * worth telling is written to `out` as lines, for the scenario files. */
#ifndef TESTS_RAFT_FIXTURE_H
#define TESTS_RAFT_FIXTURE_H

#include "daemon/raft/log.h"
#include "daemon/raft/raft.h"

#define FIXTURE_MEMBERS_MAX 8
#define FIXTURE_ELECTION_TICKS 10
#define FIXTURE_HEARTBEAT_TICKS 2

/* An append that the disk has not synced. */
struct fixture_append {
    uint64_t token;
    bool has_hard_state;
    struct raft_hard_state hard_state;
    struct raft_entry **entries;
    size_t entry_count;
    struct raft_message *messages; /* to send after it */
    size_t message_count;
};

struct fixture_proposal {
    char *text;
    bool refused;
};

struct fixture_member {
    uint64_t id;
    struct raft *raft; /* NULL: down, or not started */
    struct fixture *f;
    /* The disk. */
    struct raft_hard_state hard_state;
    struct raft_log log;
    struct fixture_append *appends;
    size_t append_count;
    bool manual_sync;
    bool disk_forgot; /* fixture_forget() */
    /* The store. */
    uint64_t applied, applied_term;
    struct raft_conf conf;
    struct raft_read_state last_read;
    size_t reads_done;
    struct raft_refusal last_refusal;
    size_t refusal_count;
    uint64_t random;
    uint64_t term_seen; /* never goes back while it is up */
};

struct fixture {
    struct fixture_member members[FIXTURE_MEMBERS_MAX + 1]; /* by id */
    struct raft_message *queue;
    size_t queue_count, queue_cap;
    bool cut[FIXTURE_MEMBERS_MAX + 1][FIXTURE_MEMBERS_MAX + 1];
    struct raft_config config;
    uint64_t seed; /* 0: random numbers are the member's id, so timeouts are 10 + id ticks */
    /* What has been applied, by index, and the membership after it. */
    struct raft_entry **committed;
    struct raft_conf *committed_conf;
    uint64_t *committed_term; /* of the first member that applied it: not before it was committed */
    size_t committed_count, committed_cap;
    /* Proposals by their context: the text, and whether it was refused. With `check_refused` such a text
     * must never be applied; that is for tests whose texts differ, and that deliver a proposal once. */
    struct fixture_proposal *proposals;
    size_t proposal_count;
    bool check_refused;
    uint64_t *leaders; /* by term */
    size_t leaders_cap;
    struct buf out; /* what happened, a line each: cleared by whoever reads it */
    bool show_messages, show_trace;
};

/* Voters 1..voters, learners behind them, all started with empty logs. */
void fixture_init(struct fixture *f, size_t voters, size_t learners, uint64_t seed);
void fixture_free(struct fixture *f);

/* Starts all anew with the first membership counted as entry 1 of term 1, which no log has: a member that
 * joins later gets it with a snapshot. */
void fixture_rebase(struct fixture *f);

/* Gives a member that is down this log and term; voters 1..n keep as they are. */
void fixture_set_log(struct fixture *f, uint64_t id, uint64_t term, const uint64_t *terms,
                     size_t n);
void fixture_start(struct fixture *f, uint64_t id);
/* Ends a member. Of the appends not synced, the first `kept` have reached the disk nevertheless. */
void fixture_crash(struct fixture *f, uint64_t id, size_t kept);

/* The disk of a member that is down loses all behind `index`, of log and store, synced or not. */
void fixture_forget(struct fixture *f, uint64_t id, uint64_t index);

struct raft *fixture_raft(struct fixture *f, uint64_t id); /* must be up */
struct raft_status fixture_status(struct fixture *f, uint64_t id);
bool fixture_up(const struct fixture *f, uint64_t id);

void fixture_ready(struct fixture *f, uint64_t id); /* after a direct call of the core */
void fixture_sync(struct fixture *f, uint64_t id);  /* all appends of its disk */
void fixture_sync_one(struct fixture *f, uint64_t id);
void fixture_tick(struct fixture *f, uint64_t id, size_t n);
void fixture_tick_all(struct fixture *f, size_t n); /* delivers after each */
void fixture_deliver_at(struct fixture *f, size_t pos, bool duplicate);
void fixture_drop_at(struct fixture *f, size_t pos);
void fixture_deliver(struct fixture *f); /* until nothing is under way */
void fixture_cut(struct fixture *f, uint64_t a, uint64_t b, bool cut); /* both directions */
void fixture_isolate(struct fixture *f, uint64_t id, bool cut);

void fixture_elect(struct fixture *f, uint64_t id); /* campaigns, delivers, must win */
enum errc fixture_propose(struct fixture *f, uint64_t id, const char *text); /* no delivery */
enum errc fixture_conf(struct fixture *f, uint64_t id, enum raft_conf_change_type type,
                       uint64_t member);
/* Steps a message from `from` into `to` and carries out the readies. */
enum errc fixture_step(struct fixture *f, uint64_t to, struct raft_message m);
void fixture_compact(struct fixture *f, uint64_t id, uint64_t index); /* log and disk */

/* The queued message of a type (to a member, or to any: 0), NULL if there is none. */
const struct raft_message *fixture_find(const struct fixture *f, enum raft_message_type type,
                                        uint64_t to);
void fixture_clear(struct fixture *f);      /* drops all messages under way */
uint64_t fixture_leader(struct fixture *f); /* of the highest term, 0: none */
const char *fixture_message_name(enum raft_message_type type);
const char *fixture_role_name(enum raft_role role);
void fixture_format(struct buf *b, const struct raft_message *m);
/* The terms in a member's log, "1 1 4", from its first entry on. */
void fixture_log_text(struct fixture *f, uint64_t id, char *text, size_t cap);
void fixture_check_logs(struct fixture *f); /* log matching, over all pairs */

/* Between the fixture's own files. */
struct raft_message fixture_copy_message(const struct raft_message *m);
void fixture_free_message(struct raft_message *m);
void fixture_enqueue(struct fixture *f, const struct raft_message *m);
void fixture_check_member(struct fixture *f, struct fixture_member *m);
void fixture_record_committed(struct fixture *f, const struct fixture_member *m,
                              struct raft_entry *e);
uint64_t fixture_record_proposal(struct fixture *f, const char *text); /* its context */
void fixture_record_refusal(struct fixture *f, struct fixture_member *m,
                            const struct raft_refusal *refusal);

#endif
