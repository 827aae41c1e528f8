/* What the services share: unary calls, response headers, streams that end with the leader. */
#ifndef API_CALL_H
#define API_CALL_H

#include "daemon/api/api.h"
#include "lib/base/list.h"

struct api_port { /* `service` of every handler */
    struct api *api;
    bool peer; /* the peer port: answer as the leader or not at all */
};

struct api {
    struct api_config config;
    struct api_port client, peer;
    struct list streams;  /* struct api_stream */
    struct list waiting;  /* struct watch_stream with progress requests to answer */
    struct list slicing;  /* struct range_job that are not done */
    struct list snapping; /* struct snapshot_stream that have something to send */
    size_t snapshot_count;
    struct buf scratch;          /* for packed answers */
    uint64_t tick_at_ms;         /* when api_tick() has work again */
    uint64_t no_leader_since_ms; /* 0: there is one */
    bool stopping;
};

/* ---- Unary calls: one request, one answer ---------------------------------------------------------- */

struct unary;
struct unary_later { /* what a callback that can't be cancelled holds on to */
    struct unary *u; /* NULL: the call is over */
};

struct unary {
    struct api *api;
    struct api_port *port;
    struct rpc_call *call;
    const char *path; /* for forwarding */
    struct arena arena;
    ProtobufCMessage *request; /* in the arena */
    struct replica_op *op;
    struct peer_forward *forward;
    struct unary_later *later;
    struct range_job *range;
    void (*then)(struct unary *u); /* after unary_read() */
    const ProtobufCMessageDescriptor *answer_type;
    size_t request_bytes;
    bool answered;
};

/* For a method's `message`: checks leader and learner rules, unpacks. NULL: answered with an error. */
struct unary *unary_begin(struct rpc_call *call, struct api_port *port,
                          const ProtobufCMessageDescriptor *type, struct bytes message);
void unary_closed(struct rpc_call *call, void *service); /* every method's `closed` */

/* Answers. `message`'s first field is its header: if it has one, cluster, member and term are filled in,
 * and the current revision if it has none. */
void unary_reply(struct unary *u, const ProtobufCMessage *message);
void unary_fail(struct unary *u, enum errc code);

/* Calls `then` at a linearizable point, or fails the call. */
void unary_read(struct unary *u, void (*then)(struct unary *u));
/* Proposes and answers with the result; the session header of the call is added. */
void unary_propose(struct unary *u, Raftpb__InternalRequest *request);
/* Carries the call to the leader and answers with its answer, under this member's id; if this member is
 * the leader by then, `local` is called. On the peer port: ERR_NOT_LEADER. */
void unary_forward(struct unary *u, const char *path, const ProtobufCMessageDescriptor *answer_type,
                   void (*local)(struct unary *u));
/* A token for a callback without cancel: unary_later_take() frees it and returns the call or NULL. */
struct unary_later *unary_later(struct unary *u);
struct unary *unary_later_take(struct unary_later *later);

void *unary_alloc(struct unary *u, size_t n);

/* ---- Headers, state -------------------------------------------------------------------------------- */

void api_header(struct api *api, Etcdserverpb__ResponseHeader *header, int64_t revision);
bool api_is_leader(struct api *api);
bool api_has_leader(struct api *api);
bool api_is_learner(struct api *api);
bool call_wants_leader(const struct rpc_call *call); /* metadata `hasleader: true` */

/* After a read failed with *err (zeros: without one): damage goes to the member, which ends by it. */
void api_check_damage(struct api *api, const struct error *err);

/* Whether writes that add data are refused now (the NOSPACE alarm). */
bool api_no_space(struct api *api);

/* ---- Streams --------------------------------------------------------------------------------------- */

struct api_stream {
    struct list link; /* in api.streams */
    struct rpc_call *call;
    bool wants_leader;
    bool finished;
    void (*tick)(struct api_stream *st, uint64_t now_ms); /* or NULL */
};
/* False: refused (no leader, stopping, learner): the call is finished. `st` is linked in any case. */
bool api_stream_begin(struct api *api, struct api_stream *st, struct rpc_call *call);
void api_stream_finish(struct api_stream *st, enum errc code); /* once */
void api_stream_end(struct api_stream *st);                    /* in `closed` */

/* Packs and sends on a stream. */
void api_send(struct api *api, struct rpc_call *call, const ProtobufCMessage *message);

/* ---- Services: tables for registering -------------------------------------------------------------- */

extern const struct rpc_method kv_methods[], watch_methods[], lease_methods[], cluster_methods[],
    maintenance_methods[], snapshot_methods[], health_methods[], info_methods[];
extern const size_t kv_method_count, watch_method_count, lease_method_count, cluster_method_count,
    maintenance_method_count, snapshot_method_count, health_method_count, info_method_count;

void watch_poll(struct api *api);

bool snapshot_poll(struct api *api); /* snapshot.c: one piece; true: there is more to send */

/* ---- range.c: ranges in slices, so that a large one doesn't hold the loop */

/* Whether range_start() can serve it: in key order and unfiltered. */
bool range_is_plain(const Etcdserverpb__RangeRequest *r);
void range_start(struct unary *u); /* answers now or from range_poll() */
void range_poll(struct api *api);  /* one slice */
void range_drop(struct range_job *job);

#endif
