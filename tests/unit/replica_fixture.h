/* A cluster of replicas in one process: simulated time, workers driven by the test, messages over queues
 * that can be cut. Disks are the real one, in a temporary folder. A crash keeps what was written. */
#ifndef TESTS_REPLICA_FIXTURE_H
#define TESTS_REPLICA_FIXTURE_H

#include <string.h>

#include "daemon/replica/replica.h"
#include "lib/base/list.h"
#include "tests/unit/temp_store.h"

#define NODES_MAX 5
#define TICK_MS 100
#define ELECTION_TICKS 10
#define TURNS_MAX 20000 /* of a wait: two thousand simulated seconds */
#define TURNS_A_TICK 20

struct parcel {
    struct list link;
    struct raft_message m;
};

struct transfer { /* one stream of a snapshot */
    struct replica_snapshot *source;
    struct node *from, *to;
    struct replica_announcement announcement;
    uint64_t stream;
    bool begun, waiting, last;
    uint64_t offset;
    size_t chunks;
    uint8_t *chunk;
};

struct node {
    struct replica_transport transport; /* first */
    size_t number;
    uint64_t id;
    char *dir;
    struct replica *replica; /* NULL: down */
    struct simworker log, store;
    struct list inbox;
    bool cut, joins; /* cut: no message in or out */
    bool log_hangs;
    size_t log_every; /* turns from one job of the log's disk to the next; 0: none in between */
    bool removed, fatal;
    uint64_t leader;
    char disk_note[256];     /* the last of its notes about disks */
    char snapshot_note[320]; /* the same about snapshots */
    size_t leader_changes, snapshots_in;
    struct transfer transfer; /* to another node */
};

struct cluster {
    char dir[64];
    struct node nodes[NODES_MAX];
    size_t count; /* that exist */
    struct replica_member initial[NODES_MAX];
    size_t initial_count;
    uint64_t now_ms, seed, turn;
    uint64_t snapshot_entries, quota_bytes, lease_checkpoint_ms, request_timeout_ms;
    size_t uncommitted_bytes_max;
    size_t snapshot_chunk;    /* bytes; 0: the default */
    size_t stream_chunks_max; /* a stream breaks after so many; 0: never */
    size_t streams;           /* of snapshots, so far */
    uint64_t bytes_carried;   /* by them */
};
extern struct cluster cl;

extern char *peer_urls[NODES_MAX][1]; /* of its members, in the order of their ids */

/* ---- life */
struct node *node_of(uint64_t id); /* NULL: there is none */
/* Its folder is made; it isn't started. */
struct node *node_add(uint64_t id, bool joins);
enum errc node_try_start(struct node *n, struct error *err);
void node_start(struct node *n); /* must come up */
void node_crash(struct node *n); /* what was written stays */
void cluster_open(size_t count); /* `count` members with the ids 101 and on, running */
void cluster_close(void);

/* A test's set-up and end. */
int open_one(void **state);
int open_three(void **state);
int close_all(void **state);

/* ---- time */
void turn(void);
void turns(size_t count);

#define WAIT(condition)                                                                            \
    do {                                                                                           \
        size_t waited_ = 0;                                                                        \
        while (!(condition)) {                                                                     \
            turn();                                                                                \
            if (++waited_ > TURNS_MAX)                                                             \
                fail_msg("never happened: %s", #condition);                                        \
        }                                                                                          \
    } while (0)

/* ---- looking */
struct node *leader_node(void); /* NULL: nobody leads */
struct node *wait_leader(void);
struct node *follower_node(void); /* one that runs and can be reached */
uint64_t applied(const struct node *n);
bool all_even(void); /* all that run have applied the same */
void assert_all_equal(void);
/* The value of a key in the node's own state, until the next call; NULL: none. */
const char *local_value(struct node *n, const char *key);

/* ---- requests */
struct answer {
    bool done;
    enum errc code;
    int64_t revision; /* of a put, a grant or a transaction */
    int64_t lease;
    size_t calls;
};

void on_code(void *ctx, enum errc code); /* ctx: struct answer */
void on_answer(void *ctx, const struct apply_result *result);
struct replica_op *propose_put(struct node *n, const char *key, const char *value, int64_t lease,
                               struct answer *a);
int64_t must_put(struct node *n, const char *key, const char *value); /* its revision */
int64_t grant(struct node *n, int64_t ttl);                           /* the lease's id */
enum errc read_point(struct node *n);

/* ---- replica_fixture_network.c, for replica_fixture.c */
void network_send(struct replica_transport *transport, const struct raft_message *m);
void parcel_free(struct parcel *p);
void transfer_step(struct transfer *t);
void transfer_break(struct transfer *t, enum errc code);

#endif
