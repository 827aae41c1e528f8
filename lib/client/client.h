/* An etcd v3 client on lib/rpc: several endpoints with failover, bounded retry with back-off, a watch that
 * survives reconnects, lease keep-alive.
 *
 * One connection at a time to one endpoint of the list; when it is lost or answers "no leader" the next one
 * is tried. What is repeated by itself: requests that only read; requests that certainly never reached a
 * server; and requests that carry a request id (quorumd remembers their outcome: exactly once). A write
 * whose fate is unknown on a server without request ids is given back with its error. Each call has a
 * deadline over all of its tries: it always ends.
 *
 * A named write carries the header `quorumfs-request-id: SESSION/SEQ` (16 hex digits, a decimal number).
 * A session has one write under way at a time and its numbers only grow, so the server remembers one
 * outcome for each; the client uses several sessions. Whether the server is a quorumd, it is asked with
 * /quorumfs.Info/Version (empty request, any answer) when a connection comes up.
 *
 * Threading: the loop thread. Callbacks never run inside the call that asks. Messages in callbacks are
 * borrowed until they return. */
#ifndef CLIENT_CLIENT_H
#define CLIENT_CLIENT_H

#include <uv.h>

#include "lib/base/bytes.h"
#include "lib/base/env.h"
#include "lib/base/error.h"
#include "proto/rpc.pb-c.h"

#define CLIENT_PORT_DEFAULT 2379
#define CLIENT_ENDPOINTS_MAX 16
#define CLIENT_CALLS_MAX 10000 /* under way at a time; more fail with ERR_TOO_MANY_REQUESTS */

struct client;
struct client_call;

struct client_config {
    const char *const *endpoints; /* http://HOST:PORT or unix:PATH; copied */
    size_t endpoint_count;
    uint64_t timeout_ms; /* default for calls; 0: 5,000 */
    struct env *env;     /* NULL: the system's */
    bool
        request_ids; /* name writes with `quorumfs-request-id` (quorumd only; etcd ignores it: then a
                          * write of unknown fate is not repeated, see client_is_quorumd) */
    /* The connection came up (with the endpoint's URL) or all endpoints failed (with the reason). */
    void (*state)(void *ctx, bool up, const char *text);
    void *ctx;
};

/* ERR_INVALID: no endpoint, or a URL that can't be read (named in err). Doesn't connect yet. */
enum errc client_new(uv_loop_t *loop, const struct client_config *config,
                     struct client **ret_client, struct error *err);
/* Ends all calls and sync points (ERR_CLOSED, from inside), watches (without callback) and keep-alives;
 * frees, with the loop's next turn. May be called from a callback. Watches and leases are gone with it. */
void client_free(struct client *c);

/* Whether the server is a quorumd (or the last one was, while there is no connection); false until one
 * answered. It decides whether extensions (linearizable progress, stamps, request ids) can be used. */
bool client_is_quorumd(const struct client *c);

struct client_result {
    enum errc code;
    const char *text;                /* server's or our own words for an error */
    bool unknown;                    /* a write that may or may not have taken effect */
    const ProtobufCMessage *message; /* the response on ERR_OK, of the request's type */
};
typedef void (*client_done)(void *ctx, const struct client_result *result);

/* KV. timeout_ms 0: the default. Requests are packed before the call returns. */
struct client_call *client_range(struct client *c, const Etcdserverpb__RangeRequest *r,
                                 uint64_t timeout_ms, client_done done, void *ctx);
struct client_call *client_put(struct client *c, const Etcdserverpb__PutRequest *r,
                               uint64_t timeout_ms, client_done done, void *ctx);
struct client_call *client_delete(struct client *c, const Etcdserverpb__DeleteRangeRequest *r,
                                  uint64_t timeout_ms, client_done done, void *ctx);
struct client_call *client_txn(struct client *c, const Etcdserverpb__TxnRequest *r,
                               uint64_t timeout_ms, client_done done, void *ctx);
/* Any unary method by path ("/etcdserverpb.Maintenance/Status"); `response` is its descriptor;
 * read_only: may be repeated. */
struct client_call *client_unary(struct client *c, const char *path,
                                 const ProtobufCMessage *request,
                                 const ProtobufCMessageDescriptor *response, bool read_only,
                                 uint64_t timeout_ms, client_done done, void *ctx);
/* `done` doesn't run any more. A handle is valid until its `done` runs. */
void client_cancel(struct client_call *call);

/* A unary request with many answers, as Maintenance.Snapshot. It is sent when there is a connection and never
 * repeated; it ends with ERR_DEADLINE when there is no connection for the default time of calls, or nothing came on it
 * for idle_ms (0: the same). Messages are
 * packed; `done` runs once, without a message, after the last one. */
struct client_stream;
struct client_stream *client_stream_start(struct client *c, const char *path,
                                          const ProtobufCMessage *request, uint64_t idle_ms,
                                          void (*message)(void *ctx, struct bytes message),
                                          client_done done, void *ctx);
/* `done` doesn't run any more; from any callback but `done`. client_free() stops what is left. */
void client_stream_stop(struct client_stream *s);

/* ---- Watch --------------------------------------------------------------------------------------- */

struct client_watch;

struct client_watch_spec {
    struct bytes key, end; /* as in a WatchCreateRequest; copied */
    int64_t start_revision;
    bool prev_kv;
};

struct client_watch_handler {
    /* Events in order, whole main revisions; never repeated or skipped across reconnects. Also called with
     * no events for a progress answer. revision: everything up to it has been seen. */
    void (*events)(void *ctx, const Mvccpb__Event *const *events, size_t count, int64_t revision);
    /* History that was not seen is compacted: the caller reads the current state at some revision R and
     * starts a new watch from R + 1. The watch is over; free it with client_watch_stop(). */
    void (*compacted)(void *ctx, int64_t compact_revision);
    /* The stream is up (caught up as far as the server's header revision) or lost (it will be resumed). */
    void (*state)(void *ctx, bool up, const char *text);
};

struct client_watch *client_watch_start(struct client *c, const struct client_watch_spec *spec,
                                        const struct client_watch_handler *handler, void *ctx);
/* Frees; callers of client_watch_sync() that still wait get ERR_CLOSED from inside. May be called from any
 * callback. */
void client_watch_stop(struct client_watch *w);

/* A sync point: `done(ERR_OK, revision)` is called when the watch has delivered every event that was
 * committed, anywhere, before this call (a linearizable point). On quorumd it is one round trip on the watch
 * stream (WatchProgressRequest.linearizable); on etcd a linearizable Range for the revision and then a
 * progress request until it is reached. All callers that wait share rounds: one under way, one next; a
 * caller never joins a round begun before its call. ERR_DEADLINE after timeout_ms (0: the default),
 * ERR_COMPACTED when the watch is over. An etcd before 3.4.25 or 3.5.8 may let answers overtake events
 * (etcd-io/etcd#15220): there it takes longer, see sync.c. */
void client_watch_sync(struct client_watch *w, uint64_t timeout_ms,
                       void (*done)(void *ctx, enum errc code, int64_t revision), void *ctx);

/* ---- Lease --------------------------------------------------------------------------------------- */

struct client_lease;

/* Grants a lease of ttl_s and keeps it alive (every third of the TTL). `granted(ERR_OK, id)` once; `lost`
 * when it could not be kept alive for its TTL or the server no longer has it. */
struct client_lease *client_lease_start(struct client *c, int64_t ttl_s,
                                        void (*granted)(void *ctx, enum errc code, int64_t id),
                                        void (*lost)(void *ctx), void *ctx);
/* Stops keeping it alive; revoke: also tells the server, without waiting. Frees. */
void client_lease_stop(struct client_lease *l, bool revoke);

#endif
