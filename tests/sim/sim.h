/* One run of the simulator: the cluster, its network and disks, the clients, the faults, the checks.
 *
 *     world.h     clock, events, trace              model.h   what the cluster may contain, by revision
 *     simnet.h    messages between members          check.h   what Raft promises, entry by entry
 *     simnode.h   one member and its machine        simclient.h, simlease.h, simwatch.h   the load
 *     faults.h    what goes wrong                   admin.h   what an operator does
 *     scenario.h  what is made to go wrong      without.h the kinds of it, by name
 *     disaster.h  all is lost, and restored from a backup
 *     trace.h     what happened                 story.h, note.h   what a failure tells of it
 *     rot.h       disks that lie                    repair.h  what he does about it
 *     hashes.h    members' histories compared
 *
 * A run has two phases. In the first one faults happen: nothing false may be answered (safety). Then
 * they stop, and the cluster must become available and equal within a bounded time (liveness). */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "tests/sim/admin.h"
#include "tests/sim/check.h"
#include "tests/sim/disaster.h"
#include "tests/sim/faults.h"
#include "tests/sim/hashes.h"
#include "tests/sim/model.h"
#include "tests/sim/repair.h"
#include "tests/sim/rot.h"
#include "tests/sim/scenario.h"
#include "tests/sim/simclient.h"
#include "tests/sim/simlease.h"
#include "tests/sim/simnet.h"
#include "tests/sim/simnode.h"
#include "tests/sim/simwatch.h"
#include "tests/sim/without.h"
#include "tests/sim/world.h"

#define SIM_CLUSTER_ID 0x51b5
#define SIM_MEMBERS_MAX 24 /* in the life of a cluster; their ids are 1, 2, ... */

struct sim {
    struct world world;
    struct faults faults;
    struct scenario scenario;
    struct simnet net;
    struct model model;
    struct check check;
    struct clients clients;
    struct leases leases;
    struct watches watches;
    struct admin admin;
    struct hashes hashes;
    struct disaster disaster;
    struct simnode *nodes[SIM_MEMBERS_MAX]; /* nodes[id - 1] */
    /* The first members are nodes[initial_first] and on: a cluster that was restored has others. */
    size_t node_count, initial_count, initial_first;
    uint64_t cluster_id;
    bool calm;      /* the liveness phase */
    bool load_over; /* clients begin nothing new */
    /* A run of steady.h: no model, and no list of what was seen, since both would grow with time. */
    bool steady;
};

static inline struct simnode *sim_node(struct sim *s, uint64_t id)
{
    return id > 0 && id <= s->node_count ? s->nodes[id - 1] : NULL;
}

/* The first member that says so; NULL: none. */
struct simnode *sim_leader(struct sim *s);

struct sim_options {
    uint64_t seed, seconds;      /* simulated, of both phases together */
    size_t nodes, clients;       /* 0: the seed draws it */
    enum scenario_kind scenario; /* NONE: the seed draws it */
    uint64_t without;            /* without.h: what is switched off after the draw */
    bool loud;
    /* For tests of the simulator: something that goes wrong in a way that no fault does. NULL: nothing. */
    void (*begun)(struct sim *s);
};

/* What a seed has drawn, with what the options say. */
struct sim_drawn {
    size_t nodes, clients;
    uint64_t kinds; /* of fault, without.h */
    enum scenario_kind scenario;
};
void sim_draw(const struct sim_options *options, struct sim_drawn *ret_drawn);

struct sim_result {
    uint64_t hash, events, requests, refused, revisions;
    uint64_t undecided; /* keys whose history was too long to decide */
    struct snapshot_stats snapshots;
};

/* Ends the process if a promise is broken. *ret_world: for the story of a crash, as long as it runs. */
void sim_run(const struct sim_options *options, struct sim_result *ret_result,
             struct world **ret_world);

#endif
