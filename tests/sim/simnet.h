/* The network between the members: every message is encoded as on the wire, and what arrives is decoded.
 *
 * Links have a direction. They may delay, lose, duplicate, reorder and damage; they may be cut, slow or
 * reset. A batch that was damaged must be recognized as such, and ends the connection as it would with
 * TCP. Snapshots go as streams of chunks, each acknowledged (snapstream.c). */
#ifndef SIM_SIMNET_H
#define SIM_SIMNET_H

#include "daemon/replica/replica.h"
#include "lib/base/list.h"
#include "tests/sim/world.h"

struct sim;
struct simnode;

#define NET_LINKS 32

struct link {
    bool cut;
    uint64_t slow;  /* ns more */
    uint64_t epoch; /* one more for each reset: what was under way is lost */
    uint64_t last;  /* arrival of the last one, for order */
};

/* What a member has sent another one of a snapshot, and of what the other one has said that it has it. */
struct carried {
    uint64_t serial, sent, acked;
    unsigned powers, thrown; /* of the receiver then */
};

struct snapshot_stats {
    uint64_t streams, resumed, whole, bytes, bytes_again;
};

struct simnet {
    struct sim *sim;
    struct simrng rng;
    struct link links[NET_LINKS][NET_LINKS]; /* [from][to], by id */
    struct list streams;
    struct carried carried[NET_LINKS][NET_LINKS];
    struct snapshot_stats stats;
    uint64_t sent, delivered;
};

void simnet_init(struct simnet *net, struct sim *s);
void simnet_free(struct simnet *net);

/* struct replica_transport */
void simnet_send(struct replica_transport *t, const struct raft_message *m);
void simnet_members(struct replica_transport *t, const struct replica_member *members,
                    size_t count);

void simnet_flush(struct simnode *n);    /* sends what a turn has put together */
void simnet_drop_all(struct simnode *n); /* it dies: its streams */
/* It died: the others notice (`loud`), as when a kernel resets the connections, or don't. */
void simnet_reset_all(struct simnode *n, bool loud);

void simnet_reset(struct simnet *net, uint64_t a, uint64_t b); /* one connection, both ways */
void simnet_cut(struct simnet *net, uint64_t from, uint64_t to, bool cut);
void simnet_heal(struct simnet *net);

/* ---- snapstream.c */
void snapstream_begin(struct simnode *from, uint64_t to);
void snapstream_drop(struct simnode *n); /* it dies */
void snapstream_free_all(struct simnet *net);
uint64_t simnet_delay(struct simnet *net, const struct link *l);

#endif
