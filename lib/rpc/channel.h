/* The client's inside: what its files share. */
#ifndef RPC_CHANNEL_H
#define RPC_CHANNEL_H

#include "lib/rpc/rpc.h"
#include "lib/rpc/transfer.h"
#include "lib/rpc/url.h"

#define CHANNEL_CONNECT_TIMEOUT_MS 5000
/* Calls that wait for the connection: more than a burst of callers, far less than memory. */
#define CHANNEL_WAITING_MAX 1024
/* Connections that only finish their calls after a GOAWAY; the oldest is cut when one more comes. */
#define CHANNEL_DRAINING_MAX 8
/* Stream ids end at 2^31: a connection is given up a little earlier. */
#define CHANNEL_STREAM_ID_MAX (INT32_MAX - 1024)

struct channel_conn;
struct rpc_channel {
    uv_loop_t *loop;
    char *url;
    struct rpc_url address;
    struct error bad_url; /* ERR_OK if it is a good one */
    char authority[300];
    struct rpc_channel_config config;
    struct turn turn;
    struct deadlines deadlines;
    nghttp2_session_callbacks *callbacks;
    struct list conns;            /* the current one, draining ones, and those that close */
    struct channel_conn *current; /* the one for new calls: connecting or up */
    size_t draining_count;
    bool up;             /* the server's SETTINGS have come on `current` */
    struct list streams; /* whose handle lives, wherever they are */
    size_t waiting_count;
    /* Connecting. */
    bool connecting;
    struct turn_item connect;
    struct deadline connect_deadline;
    bool resolving; /* `resolve` is libuv's */
    uv_getaddrinfo_t resolve;
    struct addrinfo *addresses, *next_address;
    /* The end. */
    bool freed, closing;
    unsigned handles;
};

struct channel_conn {
    struct conn c; /* first */
    struct rpc_channel *ch;
    struct list link;
    struct list streams; /* that the session knows, cancelled ones too: rpc_stream.conn_link */
    bool draining;
    uv_connect_t connect;
    struct deadline keepalive;
    bool pinged; /* and nothing had come since when it was last looked at */
    uint64_t pinged_ms;
};

struct rpc_stream {
    struct transfer t; /* first */
    struct rpc_channel *ch;
    struct list link;      /* in the channel's streams while the handle lives */
    struct list conn_link; /* in the connection's streams */
    const struct rpc_stream_handler *handler;
    void *ctx;
    char *path;
    struct buf headers; /* packed as in metadata.h, values as on the wire */
    size_t header_count;
    uint64_t timeout_ms;
    struct deadline deadline;
    bool waiting; /* for the connection */
    bool sent;    /* its HEADERS went out */
    bool done;    /* the handle is dead */
    /* The answer. */
    bool answered; /* the first headers are complete */
    int http_status;
    bool is_grpc; /* by its content-type */
    int status;   /* -1: none has come */
    char *text;
    /* rpc_unary() is a stream with a handler of its own. */
    void (*unary_done)(void *ctx, int grpc_status, const char *text, struct bytes answer,
                       bool sent);
    struct buf answer;
    size_t answer_count;
};

/* channel.c */
void channel_handle_closed(struct rpc_channel *ch);
void channel_tell(struct rpc_channel *ch, bool up, bool refused, const char *reason);
/* Fails all calls that wait for a connection. */
void channel_fail_waiting(struct rpc_channel *ch, const char *reason);

/* channel_connect.c */
void channel_connect_init(struct rpc_channel *ch);
void channel_connect_soon(struct rpc_channel *ch); /* unless it is up or on its way */
void channel_connect_abort(struct rpc_channel *ch);
void channel_connect_failed(struct rpc_channel *ch, bool refused, const char *reason);
/* An attempt at one address failed: the next one, or the end of it. */
void channel_connect_next(struct rpc_channel *ch, bool refused, const char *reason);
void channel_connect_done(struct rpc_channel *ch); /* the server's SETTINGS have come */

/* channel_conn.c */
nghttp2_session_callbacks *channel_conn_callbacks(void);
struct channel_conn *channel_conn_new(struct rpc_channel *ch);
void channel_conn_start(struct channel_conn *cc);
/* No new calls on it; it ends with its last one. */
void channel_conn_drain(struct channel_conn *cc);

/* client_stream.c */
void stream_submit(struct rpc_stream *st, struct channel_conn *cc);
void stream_done(struct rpc_stream *st, int grpc_status, const char *text, bool sent);
void stream_closed(struct rpc_stream *st, uint32_t http2_error); /* by the session */
void stream_lost(struct rpc_stream *st, const char *reason);     /* the connection is */
void stream_add_header(struct rpc_stream *st, struct bytes name, struct bytes value);
void stream_headers_done(struct rpc_stream *st);

#endif
