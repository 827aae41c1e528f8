/* One member and its machine: clock, disk, two workers, SQLite on the disk, and the replica itself.
 *
 * It lives through start, crash and restart many times. A crash may come at any call of its disk: the
 * power goes off there (all that isn't synced is at stake), or only the process dies. What belongs to
 * one life of the process (calls, watchers, streams) names its `boot`. */
#ifndef SIM_SIMNODE_H
#define SIM_SIMNODE_H

#include "daemon/replica/replica.h"
#include "lib/base/list.h"
#include "tests/sim/simdisk.h"
#include "tests/sim/simvfs.h"
#include "tests/sim/simworker.h"
#include "tests/sim/world.h"

#define NODE_TICK_MS 100
#define NODE_RESERVE_BYTES (64u * 1024)
#define NODE_ELECTION_TICKS 10
#define NODE_LINKS_MAX 32

struct sim;

struct simnode {
    struct sim *sim;
    uint64_t id;
    char name[16];

    struct env env;
    struct simrng env_rng;         /* what the replica draws */
    struct simrng rng;             /* what happens to it */
    uint64_t clock_at, clock_mono; /* the monotonic clock was clock_mono at clock_at */
    int64_t clock_ppm;             /* it is so much fast */
    int64_t wall_skew;             /* ns */

    struct simdisk *disk;
    struct simvfs *vfs;
    struct simworker log, store;
    bool log_due, store_due, turn_due;
    uint64_t slow_until; /* the disk is slow till then */
    uint64_t hung_until; /* and does nothing at all till then */

    struct replica_transport transport;
    struct buf outbox[NODE_LINKS_MAX]; /* a batch for each member, to be flushed after the turn */
    struct {
        uint64_t first, last;
    } outbox_entries[NODE_LINKS_MAX]; /* in the batch, 0: none */
    struct replica *replica;          /* NULL: down */
    uint64_t boot;                    /* lives so far */
    uint64_t paused_until;
    bool join;                         /* was added to a running cluster */
    bool fatal, removed, leaves, gone; /* leaves: removed, and about to end */
    bool no_restart;                   /* until somebody starts it */
    bool damaged;                      /* its disk was harmed: it may refuse to go on (rot.h) */
    bool astray;                       /* because a write is to go astray */
    uint64_t harmed_in;                /* this life, if it was */
    bool refuses;                      /* it has found the damage */
    bool lost;                /* its disk is gone: a new member takes its place (repair.h) */
    bool was_voter, replaced; /* repair.h */
    uint64_t rest_ns;         /* it stays down so long after its next crash, 0: as drawn */
    uint64_t die_at;          /* at so many calls of what its replica says, 0: not */
    bool disk_failed;         /* an error that was ordered has struck, and is noted */
    bool killed;              /* that came: the process is gone, the power stays */
    char fatal_text[512];
    uint64_t fatal_code;

    struct list calls, watchers; /* of this life: simcall.h, simwatch.h */
    unsigned powers;             /* so often its machine lost power */
    unsigned thrown;             /* so often it threw away what it had of a snapshot */

    /* check.h */
    /* The memberships that it has applied and that is the newest in its log; those of before while it is down. */
    struct raft_conf conf_applied, conf_newest;
    uint64_t conf_applied_index, conf_newest_index;
    struct watcher *observer;
    uint64_t applied_checked;
    uint64_t *terms_seen; /* by index, as of the last look at the log */
    size_t terms_cap;
    uint64_t last_checked, last_term_checked;
    int64_t revision_seen;
    uint64_t term_seen, persisted_seen;
};

struct simnode *simnode_new(struct sim *s, uint64_t id, bool join);
void simnode_free(struct simnode *n);

bool simnode_start(struct simnode *n); /* false: it did not come up, and will try again */
/* Ends this life. `power`: what isn't synced may be lost; else the page cache survives. */
void simnode_crash(struct simnode *n, bool power);
/* Ends this life in order, as SIGTERM does; its watchers have been cancelled. It is started by the caller. */
void simnode_stop(struct simnode *n);
void simnode_remove(struct simnode *n); /* for good */
void simnode_lose(struct simnode *n);   /* its disk is gone, it never comes back */
void simnode_pause(struct simnode *n, uint64_t ns);
void simnode_set_rate(struct simnode *n, int64_t ppm); /* of its monotonic clock */
uint64_t simnode_mono(const struct simnode *n);

/* Schedules something on the member: `fn` runs only if it still is in the same life then, and not before
 * a pause is over. It must end with simnode_settle(). */
void simnode_after(struct simnode *n, uint64_t delay, world_fn fn, uint64_t a);
/* First line of every such function; false: not now, return. */
bool simnode_awake(struct simnode *n, world_fn fn, uint64_t a, uint64_t boot);
void simnode_wake(struct simnode *n); /* its loop turns soon */
/* After anything was done with the replica: workers, messages, checks, or its end. */
void simnode_settle(struct simnode *n);

#endif
