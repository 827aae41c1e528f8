/* What the parts of the client share: the connection that is in use, and how they hear of its changes.
 *
 * client.c keeps one current connection. Losing it, or a verdict of a part that it is no good
 * (client_conn_bad), retires it: unary calls under way on it may still end there, streams move at once.
 * Callbacks of the user run only from a part's own timer or from a callback of the rpc layer, never while
 * a list of parts is walked: a user's callback may stop any of them. */
#ifndef CLIENT_INTERNAL_H
#define CLIENT_INTERNAL_H

#include "lib/base/list.h"
#include "lib/client/client.h"
#include "lib/rpc/rpc.h"

/* Named writes under way at a time. Each takes one of the server's sessions, of which a cluster remembers
 * APPLY_SESSIONS_MAX (4,096); a write that finds none free goes without a name. */
#define CLIENT_SESSIONS_MAX 64

enum server_kind {
    KIND_UNKNOWN, /* not answered yet */
    KIND_QUORUMD,
    KIND_ETCD,
};

struct conn {
    struct client *client;
    struct rpc_channel *channel;
    struct list link; /* in client->retired */
    bool up;
    bool good; /* gave an answer that only a working cluster gives */
    enum server_kind kind;
    /* The server's progress answers may overtake events (etcd before 3.4.25 and 3.5.8, etcd#15220). */
    bool progress_overtakes;
    size_t calls;             /* unary calls under way on it */
    struct rpc_stream *probe; /* asking what the server is */
    uint64_t probe_at;        /* when to ask again; 0: no need */
};

struct session {
    uint64_t id, seq;
    bool busy;
};

struct client {
    uv_loop_t *loop;
    struct env *env;
    char *endpoints[CLIENT_ENDPOINTS_MAX];
    size_t endpoint_count;
    size_t current; /* the endpoint in use or tried next */
    uint64_t timeout_ms;
    bool request_ids;
    void (*state)(void *ctx, bool up, const char *text);
    void *ctx;

    uv_timer_t timer; /* the next of: connect, free what is retired, ask again what the server is */
    struct conn *conn; /* connecting or up; NULL: none */
    struct list retired;
    uint64_t connect_at;
    unsigned failures; /* endpoints that failed since the last good answer */
    bool told_up, told_down;
    bool leaderless;  /* the last failure was an answer, not a lost connection */
    char reason[256]; /* of the last failure */

    struct list calls, streams, watches, leases;
    size_t call_count;
    struct session sessions[CLIENT_SESSIONS_MAX];
    bool quorumd;
    bool closing;
};

/* ---- client.c */

/* The connection, if it is up; else NULL, and one is made: the parts hear of it by their *_conn_changed. */
struct conn *client_ready(struct client *c);
/* An answer came that only a working cluster gives. */
void client_conn_good(struct conn *conn);
/* The endpoint does not do its work (no leader, no answer): the next one is taken. Nothing happens when
 * the connection is retired already, or when there is no other endpoint. */
void client_conn_bad(struct conn *conn, const char *reason);
/* The error says of the member that gave it that another one may do better. */
bool client_endpoint_failed(enum errc code);
/* A unary call is over. */
void client_conn_release(struct conn *conn);
/* client.c's timer runs at `at` (uv_now's clock) or before. */
void client_step_at(struct client *c, uint64_t at);
/* A wait before try number `n` (1 ...): doubles from base_ms up to max_ms, the upper half of it random, so
 * that clients that lost the same server do not come back in step. */
uint64_t client_backoff_ms(struct client *c, unsigned n, uint64_t base_ms, uint64_t max_ms);
/* Tells all parts that the connection or what is known of it has changed. */
void client_tell_parts(struct client *c);

/* ---- detect.c: finds out conn->kind; tells the parts when it is known */

void detect_start(struct conn *conn);
void detect_stop(struct conn *conn);

/* ---- call.c, stream.c, watch.c, lease.c: called when client_ready() may have changed */

void call_conn_changed(struct client_call *call);
struct client_call *call_of_link(struct list *link);
void call_close(struct client_call *call); /* ends it with ERR_CLOSED */

void stream_conn_changed(struct client_stream *s);
struct client_stream *stream_of_link(struct list *link);
void watch_conn_changed(struct client_watch *w);
struct client_watch *watch_of_link(struct list *link);
void lease_conn_changed(struct client_lease *l);
struct client_lease *lease_of_link(struct list *link);

#endif
