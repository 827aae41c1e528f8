/* gRPC over HTTP/2 (nghttp2) on a libuv loop: server and client, unary and streaming both ways.
 *
 * Follows "gRPC over HTTP2" (grpc/grpc doc/PROTOCOL-HTTP2.md): content-type application/grpc[+proto],
 * 5-byte message prefix, `grpc-timeout`, `grpc-status` and percent-encoded `grpc-message` in trailers,
 * trailers-only answers. Compression is not offered; a compressed message is answered UNIMPLEMENTED.
 *
 * Addresses are URLs: `http://HOST:PORT` (IPv4, [IPv6] or a name) and `unix:PATH` (a socket file).
 *
 * Flow control: a sender's queue is bounded (RPC_SEND_QUEUE_MAX bytes a call): *_send() takes any one
 * message, and *_writable() says whether the peer keeps up; producers that see false wait for the
 * `writable` callback (one that goes on all the same has its call cut when it is 64 times over). A
 * receiver that is behind stops reading (*_pause/_resume): the HTTP/2 windows fill and the peer stops.
 * A message over the limit is refused with RESOURCE_EXHAUSTED by its length prefix,
 * before any of it is buffered.
 *
 * All of what one loop iteration produces for a connection goes out in one write.
 *
 * Threading: everything on the loop thread. Ownership: a call handle is valid from its first callback
 * until its `closed` callback returns; the handler's own state hangs on `user`. Messages and headers
 * given to callbacks are borrowed until the callback returns; what is given to *_send() is copied.
 *
 * The process's SIGPIPE is ignored from the first connection on, unless it has a handler. */
#ifndef RPC_RPC_H
#define RPC_RPC_H

#include <uv.h>

#include "lib/base/bytes.h"
#include "lib/base/error.h"

#define RPC_SEND_QUEUE_MAX (1024 * 1024)
#define RPC_MESSAGE_MAX_DEFAULT (2 * 1024 * 1024)
#define RPC_STATUS_TEXT_MAX 1024

struct rpc_header { /* metadata: names in lower case; `-bin` values are given decoded */
    struct bytes name;
    struct bytes value;
};

/* ---- Server ------------------------------------------------------------------------------------ */

struct rpc_server;
struct rpc_call; /* one call as the server sees it */

/* A method's handler. Callbacks that are NULL do nothing. For each call: `started` once (the request's
 * headers are there), `message` for each request message, `half_closed` when the client sends no more,
 * `closed` exactly once, last, however the call ended: after rpc_call_finish() was flushed, a
 * cancellation (RST_STREAM), a passed deadline (answered DEADLINE_EXCEEDED by this layer), or the loss of
 * the connection. A unary handler does its work in `message` and calls rpc_call_reply(). */
struct rpc_method {
    const char *path;    /* "/etcdserverpb.KV/Range" */
    bool client_streams; /* false: more than one request message is INTERNAL, none at all too */
    void (*started)(struct rpc_call *call, void *service);
    void (*message)(struct rpc_call *call, void *service, struct bytes message);
    void (*half_closed)(struct rpc_call *call, void *service);
    void (*writable)(struct rpc_call *call, void *service);
    void (*closed)(struct rpc_call *call, void *service);
};

struct rpc_server_config {
    size_t message_max;       /* of a request, bytes; 0: the default */
    uint32_t streams_max;     /* concurrent calls on one connection; 0: 100,000 as etcd allows */
    uint32_t connections_max; /* 0: 10,000; more are closed at once */
    /* Non-gRPC requests on the same port (health, metrics): NULL answers 404/415. HTTP/1.1 requests get
     * one plain answer saying that this is a gRPC port, garbage gets the connection closed. */
    void (*log)(void *ctx, const char *text); /* a connection's protocol error, one line */
    void *log_ctx;
};

struct rpc_server *rpc_server_new(uv_loop_t *loop, const struct rpc_server_config *config);

/* Adds methods; `methods` must outlive the server, `service` is handed to every callback. A path
 * without a handler is answered UNIMPLEMENTED ("unknown service X" / "unknown method Y for service X"). A
 * path that is added again has the new handler for calls from then on; those under way keep theirs. */
void rpc_server_add(struct rpc_server *s, const struct rpc_method *methods, size_t count,
                    void *service);

/* Listens; may be called for several URLs. Port 0 picks one: ret_url (may be NULL, else at least 256
 * bytes) gets what was bound. ERR_INVALID: bad URL; ERR_BUSY: address in use, named in err; ERR_IO. */
enum errc rpc_server_listen(struct rpc_server *s, const char *url, char *ret_url,
                            struct error *err);

/* Graceful: stops listening, GOAWAY to all, waits for running calls up to grace_ms, then cuts them.
 * `stopped` runs on the loop when everything is closed; then the server is free. */
void rpc_server_stop(struct rpc_server *s, uint64_t grace_ms, void (*stopped)(void *ctx),
                     void *ctx);

void rpc_call_set_user(struct rpc_call *call, void *user);
void *rpc_call_user(const struct rpc_call *call);
/* "127.0.0.1:4711", "unix:", for log lines. */
const char *rpc_call_peer(const struct rpc_call *call);
/* A request header, or BYTES_EMPTY with p == NULL if it isn't there. */
struct bytes rpc_call_header(const struct rpc_call *call, const char *name);
/* On uv_now()'s clock; UINT64_MAX: none. */
uint64_t rpc_call_deadline_ms(const struct rpc_call *call);

void rpc_call_send(struct rpc_call *call, struct bytes message);
bool rpc_call_writable(const struct rpc_call *call);
size_t rpc_call_queued(const struct rpc_call *call); /* bytes not yet handed to the connection */
/* No more `message` callbacks; windows close. Resume delivers what was held back from the loop, later. */
void rpc_call_pause(struct rpc_call *call);
void rpc_call_resume(struct rpc_call *call);

/* Ends the call: what was sent goes out, then trailers with the status (0: OK). Exactly once. */
void rpc_call_finish(struct rpc_call *call, int grpc_status, const char *text);
/* The same with the code's status and text; and: send, then finish with OK. */
void rpc_call_fail(struct rpc_call *call, enum errc code);
void rpc_call_reply(struct rpc_call *call, struct bytes message);

/* ---- Client ------------------------------------------------------------------------------------ */

/* A channel is one connection to one address. It connects on the first call or rpc_channel_connect(),
 * and after a loss again only on the next call: back-off and failover are the caller's (lib/client). */
struct rpc_channel;
struct rpc_stream; /* one call as the client sees it */

struct rpc_channel_config {
    size_t message_max;          /* of an answer; 0: unlimited but for INT32_MAX */
    uint64_t connect_timeout_ms; /* 0: 5,000 */
    /* PING after this long without a byte while calls are open (etcd takes pings without calls for an
     * attack); unanswered as long again: lost; 0: off. */
    uint64_t keepalive_ms;
    /* The connection came up or went down, with the reason (ERR_OK: up). `refused` tells a reset or
     * refused connection (the process is gone) from a time-out. */
    void (*state)(void *ctx, struct rpc_channel *ch, bool up, bool refused, const char *reason);
    void *ctx;
};

/* Never fails: a bad URL or unreachable address fails the calls. */
struct rpc_channel *rpc_channel_new(uv_loop_t *loop, const char *url,
                                    const struct rpc_channel_config *config);
void rpc_channel_connect(struct rpc_channel *ch);
bool rpc_channel_is_up(const struct rpc_channel *ch);
const char *rpc_channel_url(const struct rpc_channel *ch);
/* Ends all calls (`closed` with UNAVAILABLE), closes and frees; callbacks run before it returns and must
 * not open calls on it any more. */
void rpc_channel_free(struct rpc_channel *ch);

struct rpc_stream_handler {
    void (*message)(struct rpc_stream *st, void *ctx, struct bytes message);
    void (*writable)(struct rpc_stream *st, void *ctx);
    /* Exactly once, last; the handle dies with it. `text` is decoded. Losses of the connection are
     * UNAVAILABLE (14), a passed deadline is DEADLINE_EXCEEDED (4). `sent` is false if the request
     * certainly never reached the server (connection refused, REFUSED_STREAM, GOAWAY before it): safe
     * to repeat anything. */
    void (*closed)(struct rpc_stream *st, void *ctx, int grpc_status, const char *text, bool sent);
};

/* Opens a call. `deadline_ms` from now, 0: none (sent as grpc-timeout, enforced here too). `handler`
 * must outlive the call. Headers are copied. Callbacks never run inside this function. */
struct rpc_stream *rpc_stream_open(struct rpc_channel *ch, const char *path, uint64_t deadline_ms,
                                   const struct rpc_header *headers, size_t header_count,
                                   const struct rpc_stream_handler *handler, void *ctx);
void rpc_stream_send(struct rpc_stream *st, struct bytes message);
bool rpc_stream_writable(const struct rpc_stream *st);
void rpc_stream_half_close(struct rpc_stream *st);
void rpc_stream_pause(struct rpc_stream *st);
void rpc_stream_resume(struct rpc_stream *st);
/* RST_STREAM(CANCEL); `closed` does not run any more. */
void rpc_stream_cancel(struct rpc_stream *st);

/* One request, one answer: `done` exactly once with status 0 and the answer, or a status and its text;
 * `sent` as in `closed`. The handle is for rpc_stream_cancel() only. */
struct rpc_stream *rpc_unary(struct rpc_channel *ch, const char *path, struct bytes request,
                             uint64_t deadline_ms, const struct rpc_header *headers,
                             size_t header_count,
                             void (*done)(void *ctx, int grpc_status, const char *text,
                                          struct bytes answer, bool sent),
                             void *ctx);

#endif
