/* Clients that watch: from now or from an old revision, over reconnects to other members, compactions and
 * their own slowness. What etcd promises of a watch is checked of every delivery against the model: it has
 * exactly the changes of the revisions that it covers (reliable, unique, ordered), whole revisions only
 * (atomic), goes on where it ended (resumable), with the right states before (prev_kv), and a progress
 * answer never runs ahead of events (bookmarkable). */
#ifndef SIM_SIMWATCH_H
#define SIM_SIMWATCH_H

#include "lib/base/list.h"
#include "tests/sim/model.h"

#define WATCHES_MAX 4

struct sim;
struct simnode;
struct watcher;

struct simwatch {
    struct sim *sim;
    size_t number;
    /* The client's side. */
    uint32_t first, end; /* keys */
    bool prev_kv, no_put, no_delete;
    int64_t next; /* the first revision not seen; 0: none asked for yet, the stream says */
    uint64_t node, connection;
    uint64_t wanted; /* the member to go to next, 0: any */
    /* The member's side. */
    struct list link;
    struct watcher *watcher; /* NULL: not connected */
    uint64_t boot, last_arrival;
    bool paused;
};

struct watches {
    struct sim *sim;
    struct simrng rng;
    struct simwatch all[WATCHES_MAX];
    size_t count;
    uint64_t events, progress;
};

void watches_start(struct watches *w, struct sim *s);
void watches_drop_all(struct simnode *n);  /* its process died */
void watches_check_end(struct watches *w); /* all have seen everything */
/* A client begins a watch on all keys at an old revision, at that member. */
void watches_begin_anew(struct watches *w, uint64_t node, int64_t revision);
/* The history behind `revision` is gone: clients go on from there. */
void watches_end_epoch(struct watches *w, int64_t revision);
void watches_close(struct watches *w);

#endif
