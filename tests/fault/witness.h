/* Watches a cluster and holds leases in it while faults happen, and checks afterwards what was promised.
 *
 *     witness URL[,URL...] [SEED]        until standard input ends
 *
 * Watches (witness_watch.c) are raw streams, without the client library, which would hide a repeated event. Each
 * moves on to another member every few seconds, and at once when its stream ends, and resumes behind the last
 * revision seen; one stays away for a while each time, and must catch up. A writer puts a key every few milliseconds
 * and remembers at which revision each put was acknowledged. Leases (witness_lease.c): some are kept alive from the
 * beginning to the end, others are granted all the time, renewed a few times and abandoned; each has a key.
 *
 * At the end each member is asked for the whole history from revision 1 on, and checked (witness_check.c) is:
 *   - all members tell the same history, in which no revision is missing, the events' create_revision, version and
 *     prev_kv follow from those before, and stamps never go back;
 *   - each watch has seen exactly the events of its range from its first revision on: in order, none twice, none missing;
 *   - each acknowledged put of the writer stands at its revision; reads of old revisions answer what the history says;
 *   - no lease ended before its time to live had passed since the last answered renewal, a long one that was kept never;
 *     each abandoned one has ended, and its key with it.
 * Nobody may compact meanwhile, and keys outside of "/..." are not looked at. Prints
 *     events=N moves=N puts=N renewals=N expired=N lapsed=N stamp_ahead_s=N wrong=N
 * (lapsed: short leases that could not be kept alive in time, which is no fault; stamp_ahead_s: how far the newest
 * stamp is ahead of the clock here) and what is wrong, a line each. Exit code 0: nothing; 1: something; 2: usage. */
#ifndef FAULT_WITNESS_H
#define FAULT_WITNESS_H

#include <uv.h>

#include "lib/base/bytes.h"
#include "lib/client/client.h"
#include "lib/rpc/rpc.h"
#include "proto/rpc.pb-c.h"

#define WITNESS_WATCHES 5
#define WITNESS_LEASES_MAX 2048
#define WITNESS_LEASE_PREFIX "/witness/lease/"
#define WITNESS_PUT_PREFIX "/witness/put/"
#define WITNESS_CALL_MS 3000

/* A key-value pair as an event told it; the value by its checksum. */
struct witness_kv {
    char *key; /* owned by the event */
    uint32_t value;
    int64_t create, mod, version, lease;
    uint64_t stamp;
};

struct witness_event {
    bool deletion, has_prev;
    struct witness_kv kv, prev;
};

struct witness_events {
    struct witness_event *all;
    size_t count, cap;
};

/* One watch, or, in the end, the reading of a member's history. */
struct witness_watch {
    struct witness *w;
    const char *name, *key, *end; /* as in a WatchCreateRequest; "" as the end: one key */
    bool prev_kv, often_away;
    bool stays; /* at its first member */
    size_t member;
    int64_t first; /* the first revision that it must tell of; 0: the first stream will say */
    int64_t next;  /* the first revision not seen */
    struct witness_events events;
    struct rpc_stream *stream;
    bool created;     /* the stream's watch is confirmed */
    uv_timer_t timer; /* the next look: move on, open again, ask for progress */
    uint64_t move_at;
};

struct witness_lease {
    struct witness *w;
    size_t number;
    int64_t id, ttl_s;
    bool kept; /* renewed until the end; else abandoned after so many renewals */
    unsigned renewals_left;
    bool granted, attached; /* known to be; attached: its key was put */
    bool abandoned;         /* not renewed any more */
    bool listed;            /* by the last answer to LeaseLeases */
    size_t member;          /* where it is renewed */
    uint64_t asked_ns;      /* when the grant or renewal that is under way was sent */
    uint64_t renewed_ns;    /* when the last one that was answered was sent */
    uint64_t ended_ns;      /* when a watch told of its key's deletion; 0: not */
    struct rpc_stream *stream;
    uv_timer_t timer;
};

/* A put of the writer that was acknowledged. */
struct witness_put {
    int64_t number, revision;
};

struct witness {
    uv_loop_t loop;
    uv_pipe_t input;
    struct client *client;
    struct rpc_channel *channels[CLIENT_ENDPOINTS_MAX];
    size_t member_count;
    uint64_t random;
    bool ending; /* the input has ended: nothing new is begun */
    size_t wrong;
    uint64_t moves, renewals, lapsed;
    uint64_t newest_stamp;

    struct witness_put *puts;
    size_t put_count, put_cap;
    int64_t put_number;
    bool putting; /* until the last put is answered, after the end of the input */
    uv_timer_t put_timer;

    struct witness_watch watches[WITNESS_WATCHES], readers[CLIENT_ENDPOINTS_MAX];
    struct witness_lease *leases[WITNESS_LEASES_MAX];
    size_t lease_count;
    uv_timer_t grant_timer;
};

uint64_t witness_ns(void);
uint64_t witness_random(struct witness *w, uint64_t below);
/* Says what is wrong and counts it. */
void witness_wrong(struct witness *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Opens a stream at a member and sends its first message. */
struct rpc_stream *witness_stream(struct witness *w, size_t member, const char *path,
                                  uint64_t deadline_ms, const ProtobufCMessage *message,
                                  const struct rpc_stream_handler *handler, void *ctx);
void witness_send(struct rpc_stream *st, const ProtobufCMessage *message);
ProtobufCBinaryData witness_text(const char *text);

/* ---- witness_watch.c */

void witness_watches_start(struct witness *w);
/* A reader of `member`'s whole history. */
void witness_reader_start(struct witness *w, size_t member);
void witness_take_kv(const Mvccpb__KeyValue *from, struct witness_kv *ret); /* key: to be freed */
void witness_watch_stop(struct witness_watch *t);
void witness_watch_free(struct witness_watch *t);

/* ---- witness_lease.c */

void witness_leases_start(struct witness *w);
/* A watch has told of the deletion of a lease's key. */
void witness_lease_ended(struct witness *w, const char *key);
/* After the end of the input: no more are granted or renewed but those that are kept. */
void witness_leases_abandon(struct witness *w);
/* Marks those that the cluster still has. */
void witness_leases_list(struct witness *w, const Etcdserverpb__LeaseLeasesResponse *r);
/* The number of abandoned leases that have not ended as far as is known. */
size_t witness_leases_left(const struct witness *w);
size_t witness_leases_expired(const struct witness *w);
void witness_leases_stop(struct witness *w);

/* ---- witness_write.c */

void witness_writer_start(struct witness *w); /* ends by itself, see `putting` */

/* ---- witness_end.c */

/* The input has ended: waits for all to end, reads, checks, and closes all handles. */
void witness_end(struct witness *w);

/* ---- witness_check.c */

bool witness_kv_equal(const struct witness_kv *a, const struct witness_kv *b);
/* Everything up to revision `last`, that all watches and readers have seen. */
void witness_check(struct witness *w, int64_t last);

#endif
