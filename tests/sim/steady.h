/* Hours of steady operation: nothing may grow.
 *
 * Three members with a fixed quota and histories that are trimmed by it; clients that write values of
 * mixed sizes to a fixed set of keys, with request ids, and become new clients again and again; leases
 * that are kept alive, end and expire; watchers that are slow, single-key, or change members. Now and
 * then leadership is handed over, a member is restarted in order, or is away for so long that it needs a
 * snapshot. No other faults: every request succeeds.
 *
 * Memory, log, store and files of every member, numbers of leases and sessions, latency and the work per
 * simulated second are sampled. After a time to warm up (the quota must have been reached, and the table
 * of sessions be full), the last quarter's figures must be those of the first, within a small factor.
 *
 * steady.c has the run, the figures and the judgement, steady_load.c the load. One thread. */
#ifndef SIM_STEADY_H
#define SIM_STEADY_H

#include "tests/sim/sim.h"

#define STEADY_CLIENTS 8
#define STEADY_HOLDERS 24
#define STEADY_WATCHERS 9
#define STEADY_KEYS 400 /* the clients'; each holder has one more behind them */
#define STEADY_QUOTA (12u * 1024 * 1024)
#define STEADY_LATENCIES 4096 /* places of 0.25 ms */
#define STEADY_LATENCY_NS (MS / 4)

struct steady;

struct steady_client {
    struct steady *steady;
    uint64_t number, client_id, seq, requests;
    uint64_t node, token, asked_at;
    unsigned attempts;
    struct simreq request;
};

struct steady_holder {
    struct steady *steady;
    uint32_t number;
    int64_t lease, ttl; /* 0: none */
    uint64_t node, token, asked_at, keep_until, attached_at;
    enum { HOLDER_IDLE, HOLDER_GRANTING, HOLDER_KEEPING, HOLDER_REVOKING } state;
};

struct steady_watcher {
    struct steady *steady;
    struct watcher *watcher; /* NULL: not connected */
    uint32_t number;
    uint64_t node, connection, move_at;
    int64_t seen; /* all up to here */
    bool paused;
};

struct steady {
    struct sim *sim;
    struct simrng rng;
    struct steady_client clients[STEADY_CLIENTS];
    struct steady_holder holders[STEADY_HOLDERS];
    struct steady_watcher watchers[STEADY_WATCHERS];
    uint64_t next_value, next_client, next_lease;
    uint64_t bytes_written;
    uint64_t compacted; /* watchers that came too late */
    /* Of the window: */
    uint64_t latencies[STEADY_LATENCIES];
    uint64_t requests, events, renewed, retries;
};

void steady_load_start(struct steady *t);
/* The member is about to stop: its watchers go on elsewhere. */
void steady_leave(struct steady *t, uint64_t node);

/* Runs it and prints the table. ERANGE: something grew; EINVAL: below 3 hours there is not enough after the
 * warm-up. Ends the process if a request fails. */
int steady_run(uint64_t seed, uint64_t hours, struct world **ret_world);

#endif
