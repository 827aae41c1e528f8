/* The server's inside: what its files share. */
#ifndef RPC_SERVER_H
#define RPC_SERVER_H

#include "lib/rpc/metadata.h"
#include "lib/rpc/rpc.h"
#include "lib/rpc/transfer.h"
#include "lib/rpc/url.h"

#define SERVER_STREAMS_MAX_DEFAULT 100000 /* "as etcd allows" */
#define SERVER_CONNECTIONS_MAX_DEFAULT 10000
/* A client that connects says its preface at once; what does not is no client. */
#define SERVER_PREFACE_MS 10000
/* Streams that end by a reset, ours or theirs, cost work and no window. So many at once are what a
 * client with that many calls does when it gives up; a flood is refilled far faster. */
#define SERVER_RESETS_BURST 10000
#define SERVER_RESETS_PER_SECOND 1000

struct method_slot {
    const struct rpc_method *method;
    void *service;
};

struct rpc_server {
    uv_loop_t *loop;
    struct rpc_server_config config;
    struct turn turn;
    struct deadlines deadlines;
    nghttp2_session_callbacks *callbacks;
    struct method_slot *slots; /* a hash table by path, at most half full, a power of two */
    size_t slot_count, method_count;
    struct list listeners;
    struct list conns;
    size_t conn_count;
    unsigned handles; /* listeners, connections, turn and timer that libuv still knows */
    bool stopping, closing;
    struct deadline grace;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
};

struct server_conn {
    struct conn c; /* first */
    struct rpc_server *server;
    struct list link;
    struct list calls;
    struct deadline preface;
    size_t preface_seen; /* bytes of the client's magic */
    double resets_left;  /* token bucket of SERVER_RESETS_BURST */
    uint64_t resets_ms;  /* when it was last refilled */
};

struct rpc_call {
    struct transfer t; /* first */
    struct rpc_server *server;
    struct list link; /* in the connection's calls */
    const struct rpc_method *method;
    void *service, *user;
    struct metadata metadata;
    struct deadline deadline;
    size_t header_bytes;
    const char *malformed; /* what is wrong with the headers, or NULL */
    bool started;          /* the handler knows it */
    bool headers_sent;     /* submitted, that is */
    bool finished;
    bool ended; /* `closed` has run */
    bool got_message;
    int status;
    char *text;
};

/* server.c */
const struct method_slot *server_find(const struct rpc_server *s, struct bytes path);
void server_log(struct rpc_server *s, const struct server_conn *sc, const char *text);
void server_handle_closed(struct rpc_server *s);

/* server_listen.c */
void server_stop_listening(struct rpc_server *s);

/* server_conn.c */
nghttp2_session_callbacks *server_conn_callbacks(void);
struct server_conn *server_conn_new(struct rpc_server *s, bool is_unix);
void server_conn_start(struct server_conn *sc);
void server_conn_goaway(struct server_conn *sc);

/* server_call.c */
struct rpc_call *call_new(struct server_conn *sc, int32_t stream_id);
void call_add_header(struct rpc_call *call, struct bytes name, struct bytes value);
void call_start(struct rpc_call *call); /* its headers are complete */
void call_end(struct rpc_call *call);   /* its stream is gone */

#endif
