/* What the watch and its sync points share. A watch owns one stream; sync.c asks progress questions on it
 * and is told of every answer. */
#ifndef CLIENT_WATCH_INTERNAL_H
#define CLIENT_WATCH_INTERNAL_H

#include "lib/client/internal.h"

struct waiter; /* a caller of client_watch_sync() */

enum sync_phase {
    SYNC_IDLE,     /* no round under way */
    SYNC_READ,     /* etcd: asking for the revision that must be reached */
    SYNC_PROGRESS, /* waiting for the stream to reach it */
};

struct sync {
    struct list round; /* waiters of the round under way */
    struct list next;  /* of the next one: they came after it had begun */
    size_t waiters;
    enum sync_phase phase;
    int64_t target;      /* etcd: the revision to be reached */
    unsigned run;        /* answers since the last event, where they can overtake events */
    uint64_t ask_at;     /* when to ask again, or to begin a round again (0: not waiting to) */
    uint64_t give_up_at; /* when the round is no longer believed in */
    struct client_call *read;
    enum errc failure; /* what every waiter gets from now on: the watch is over */
    uv_timer_t timer;
};

/* A message of which some events are not delivered yet. */
struct held {
    Etcdserverpb__WatchResponse *response;
    size_t left;
};

struct client_watch {
    struct list link; /* in client->watches */
    struct client *client;
    struct buf key, end;
    bool prev_kv;
    const struct client_watch_handler *handler;
    void *ctx;

    int64_t seen; /* all events up to it were delivered; -1: starts with the next change */
    bool over;    /* compacted: no stream any more */
    bool stopped; /* its memory goes when its timers are closed */
    unsigned open_handles;

    struct conn *conn; /* of the stream */
    struct rpc_stream *stream;
    bool up;                /* the server has confirmed the watch */
    int64_t watch_id;       /* the server's */
    uint64_t history_until; /* answers that may overtake events are not believed before */
    unsigned failures;      /* streams in a row that did not come up */
    uint64_t open_at;       /* not before */
    bool told_down;
    char lost[256]; /* why, if the user is still to be told: "" if not */
    uv_timer_t timer;

    struct held *held; /* pieces of a revision that isn't complete */
    size_t held_count, held_cap;
    const Mvccpb__Event **events; /* of the held pieces, in order */
    size_t event_count, event_cap;

    struct sync sync;
};

/* ---- watch.c */
/* Sends a progress question. */
void watch_ask_progress(struct client_watch *w, bool linearizable);
/* The stream is no good: another endpoint, or with one only a new stream. */
void watch_give_up_stream(struct client_watch *w, const char *reason);
void watch_handle_closed(uv_handle_t *handle); /* uv_close() callback; handle->data is the watch */

/* ---- sync.c */
void sync_init(struct client_watch *w);
void sync_stream_up(struct client_watch *w); /* or the server's kind became known */
void sync_stream_lost(struct client_watch *w);
void sync_events(
    struct client_watch *w); /* w->seen has moved by events, or by their own progress answer */
void sync_progress(struct client_watch *w, int64_t revision); /* an answer to a progress question */
/* Gives all waiters `code`, now and from now on. */
void sync_fail(struct client_watch *w, enum errc code);
void sync_close(struct client_watch *w);

#endif
