/* Clients with leases: they grant one, attach a key, keep it alive for a while, and then revoke it or
 * disappear. A lease that is kept alive never ends by itself, an abandoned one does. */
#ifndef SIM_SIMLEASE_H
#define SIM_SIMLEASE_H

#include "tests/sim/simcall.h"

#define LEASE_HOLDERS_MAX 4
#define LEASES_MAX 512
#define LEASE_KEY_FIRST 40 /* a key for each holder */

struct lease {
    int64_t id, ttl;
    uint64_t
        sure_until; /* no expiry may be applied before: from a grant or a renewal that succeeded */
    uint64_t abandoned_at; /* 0: kept, or nobody knows */
    bool granted, revoking, gone;
    bool lasting; /* a long one: without renewals only checkpoints bring it to its end */
};

struct holder {
    struct sim *sim;
    size_t number;
    struct lease *lease;
    uint64_t keep_until, token, asked_at, node;
    bool has_key;
    bool unanswered; /* the last request */
    bool sleeper;    /* renews nothing */
    bool
        patient; /* has lasting leases, and renews them: what has been checkpointed is taken back */
};

struct leases {
    struct sim *sim;
    struct simrng rng;
    struct lease all[LEASES_MAX];
    size_t count;
    struct holder holders[LEASE_HOLDERS_MAX];
    size_t holder_count;
    uint64_t renewed, expired;
};

void leases_start(struct leases *l, struct sim *s);
/* A revoke was applied, for the first time anywhere. */
void leases_revoked(struct leases *l, int64_t id, uint64_t request_id);
/* The cluster is that of a backup again: those that `there` says, by id, are there, and nobody renews them. */
void leases_end_epoch(struct leases *l, const bool *there);
void leases_check_end(struct leases *l); /* abandoned ones are gone */

#endif
