/* Scenarios: what random faults hit too seldom is done on purpose, again and again.
 *
 * One seed in ten runs one of them instead of the faults of faults.h (`--scenario NAME`: every seed). A scenario
 * looks at each member after anything that it did, before its messages leave, and cuts links, ends and starts
 * members in the moment that counts. Clients, leases and watches go on as ever, and so do all checks. */
#ifndef SIM_SCENARIO_H
#define SIM_SCENARIO_H

#include "tests/sim/world.h"

struct sim;
struct simnode;

enum scenario_kind {
    SCENARIO_NONE,
    /* The leader's disk doesn't answer for ten seconds: another one must lead, and commit, long before
     * (e#13527, e#22214, hashicorp/raft#503). */
    SCENARIO_HUNG_DISK,
    /* Paper, Figure 8: an entry of an earlier term is on a majority and is overwritten nevertheless. */
    SCENARIO_FIGURE_8,
    /* A new leader has an undecided membership change in its log and is asked for another one (Ongaro's
     * note of 2015). Once only: it removes a member. */
    SCENARIO_TWO_CHANGES,
    /* Of two members that are a majority, one has the longer log and the other one the higher term
     * (e#8243, e#8501, databendlabs/openraft#1796): one must win. */
    SCENARIO_PREVOTE,
    /* A committed row of one member's store is harmed at rest, and then read; or is gone from a store that runs,
     * as a lost write takes it, and a watch reads the history there. */
    SCENARIO_ROTTEN_ROW,
    /* A committed entry is on two of three members, and in the middle of the log that one of them wakes up with
     * there is damage: with the third one, which never had the entry, it must not make a majority (eBay/NuRaft#185,
     * Jepsen's NATS 2.12.1). */
    SCENARIO_ROTTEN_LOG,
    /* While a deposed leader's snapshot is still on its way, its successor sends one too (e#18055). */
    SCENARIO_TWO_SNAPSHOTS,
    /* A disk says that it has synced, and loses it with the power. While the leader that has the member's word
     * for it leads on, the member must find out, and give itself up. */
    SCENARIO_LOST_TAIL,
    /* A member needs a snapshot of many chunks, while each stream lives for a few of them only, links are reset
     * all the time, and the member itself is ended in the middle of it. */
    SCENARIO_BROKEN_STREAMS,
    /* A leader stands still, wakes up, and takes leases for ended that were kept alive elsewhere (e#15247). */
    SCENARIO_STALLED_LEADER,
    /* All disks are lost under load and faults, and a new cluster is restored from a backup: disaster.h. */
    SCENARIO_RESTORE,
    /* A member dies while a longer log of it is replaced by a shorter one (baidu/braft#119). */
    SCENARIO_SHORT_LOG,
    /* A member is removed and switched off as soon as the leader has applied that; but nobody else knows, and the
     * leader is gone too: a majority of the new membership is left. Once only, as two-changes. */
    SCENARIO_LOST_LEADER,
    SCENARIO_KINDS,
};

enum scenario_kind scenario_named(const char *name); /* SCENARIO_KINDS: there is none */
const char *scenario_name(enum scenario_kind kind);

struct scenario {
    struct sim *sim;
    enum scenario_kind kind;
    struct simrng rng;
    unsigned step;
    uint64_t since;           /* the step began */
    struct simnode *n[7];     /* the parts, by the scenario's own numbers */
    uint64_t index, term;     /* what it is about */
    uint64_t segment, offset; /* of a log */
    uint64_t boot;            /* of the member that it is about */
    size_t size;              /* members */
    struct simnode *crash[2]; /* to be ended in a moment */
    struct simnode *leaver;   /* being removed: switched off when a leader is without it */
    uint64_t rounds;          /* gone through to the end */
    bool over;
};

void scenario_draw(struct scenario *c, struct sim *s, enum scenario_kind wanted);
void scenario_start(struct scenario *c);
void scenario_look(struct simnode *n);
void scenario_stop(struct scenario *c); /* nothing is cut or kept down by it any more */

#endif
