/* The load: clients that put, get, delete, swap, and that check every answer.
 *
 * Each has one request under way. Some have a session: a request whose outcome is unknown is asked again,
 * at another member, under the same name. They give up after a while, and come back. Every answer is
 * compared with the model as of the revision that it states, and no answer may be older than what was known
 * anywhere when its request began: that is linearizability, given the order of the revisions. Besides,
 * the history of the first keys goes to the checker of linear.h, which knows nothing of revisions. */
#ifndef SIM_SIMCLIENT_H
#define SIM_SIMCLIENT_H

#include "tests/sim/linear.h"
#include "tests/sim/simcall.h"

#define CLIENTS_MAX 8
#define CLIENT_LINEAR_KEYS 4 /* only touched by requests on one key */
#define CLIENT_KEYS 20

struct access { /* of one key, for linear.h */
    enum simreq_kind kind;
    uint32_t key;
    uint64_t value, expected; /* written or read, 0: no key; CAS: compared with */
    bool known, held;
    bool writes;      /* known: it made its revision */
    int64_t revision; /* known: as of which it was answered */
};

struct simclient {
    struct sim *sim;
    size_t number;
    bool session;
    uint64_t client_id, seq;
    uint64_t node; /* preferred */
    bool busy;
    uint64_t token; /* of the attempt under way */
    unsigned attempts;
    bool maybe; /* an earlier attempt may have taken effect */
    struct simreq request;
    uint64_t called;
    int64_t floor; /* the answer must be at this revision or later */
    bool across;   /* the request began before a restore, and may be in the backup */
    uint64_t last_read[CLIENT_LINEAR_KEYS];
    uint64_t succeeded, calm_succeeded;
};

struct clients {
    struct sim *sim;
    struct simrng rng, net_rng;
    struct simclient all[CLIENTS_MAX];
    size_t count;
    uint64_t next_value, next_id;
    int64_t floor; /* the newest revision that any client has been told of */
    struct linear_op *ops;
    size_t op_count, op_cap;
    uint64_t asked, unknown, refused;
    int64_t epoch;                             /* the revision of the last restore, 0: none */
    uint64_t epoch_values[CLIENT_LINEAR_KEYS]; /* what was there then */
    uint64_t undecided;
};

/* All is lost, and a backup of `revision` takes its place: the histories so far are judged; then (when the model
 * is cut) those from now on begin with what the backup holds. Requests under way are asked again. */
void clients_end_epoch(struct clients *c, int64_t revision);
void clients_begin_epoch(struct clients *c);

void clients_start(struct clients *c, struct sim *s);
void clients_free(struct clients *c);
uint64_t clients_new_value(struct clients *c); /* three may be used: v, v + 1, v + 2 */
/* A member to ask: mostly one that is there. */
uint64_t clients_pick_node(struct clients *c);
/* Ends the process if a key's history isn't linearizable; how many were not decided. */
uint64_t clients_check_histories(struct clients *c);

/* ---- answer.c: is the answer right? */
bool answer_is_outcome(
    enum errc code); /* of the state machine, or a refusal before anything happened */
void answer_check(struct sim *s, const struct simreq *q, const struct simanswer *a, int64_t floor);

#endif
