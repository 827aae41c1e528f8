#include "daemon/api/call.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/log.h"

/* Every response begins like this. */
struct with_header {
    ProtobufCMessage base;
    Etcdserverpb__ResponseHeader *header;
};

/* etcd counts the log entry, not the request: its own fields around the request's bytes. */
#define ENTRY_OVERHEAD 18

static void *alloc_in_arena(void *arena, size_t n)
{
    return arena_alloc(arena, n);
}

static void free_in_arena(void *arena, void *p)
{
    (void)arena;
    (void)p;
}

/* ---- State --------------------------------------------------------------------------------------- */

bool api_is_leader(struct api *api)
{
    struct raft_status status;
    replica_status(api->config.replica, &status);
    return status.role == RAFT_LEADER;
}

bool api_has_leader(struct api *api)
{
    struct raft_status status;
    replica_status(api->config.replica, &status);
    return status.leader != 0;
}

bool api_is_learner(struct api *api)
{
    size_t count;
    const struct replica_member *members = replica_members(api->config.replica, &count);
    uint64_t id = replica_id(api->config.replica);
    for (size_t i = 0; i < count; i++)
        if (members[i].id == id)
            return members[i].learner;
    return false;
}

bool call_wants_leader(const struct rpc_call *call)
{
    return bytes_equal(rpc_call_header(call, "hasleader"), bytes_str("true"));
}

void api_check_damage(struct api *api, const struct error *err)
{
    if (err->code == ERR_CORRUPT && api->config.damaged)
        api->config.damaged(api->config.ctx, err);
}

bool api_no_space(struct api *api)
{
    return apply_alarm_nospace(replica_apply(api->config.replica));
}

void api_header(struct api *api, Etcdserverpb__ResponseHeader *header, int64_t revision)
{
    struct raft_status status;
    replica_status(api->config.replica, &status);
    header->cluster_id = replica_cluster_id(api->config.replica);
    header->member_id = replica_id(api->config.replica);
    header->raft_term = status.term;
    header->revision = revision;
}

static struct bytes pack(struct api *api, const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    api->scratch.n = 0;
    buf_reserve(&api->scratch, size);
    protobuf_c_message_pack(message, api->scratch.p);
    return bytes_of(api->scratch.p, size);
}

/* The buffer stays for the next answer unless a large one has blown it up. */
static void scratch_done(struct api *api)
{
    if (api->scratch.cap > 1024 * 1024)
        buf_free(&api->scratch);
}

void api_send(struct api *api, struct rpc_call *call, const ProtobufCMessage *message)
{
    rpc_call_send(call, pack(api, message));
    scratch_done(api);
}

/* ---- Unary --------------------------------------------------------------------------------------- */

/* etcd's interceptor: a learner serves its status and what asks for no agreement. */
static bool learner_serves(const ProtobufCMessage *request)
{
    if (request->descriptor == &etcdserverpb__status_request__descriptor)
        return true;
    return request->descriptor == &etcdserverpb__range_request__descriptor &&
           ((const Etcdserverpb__RangeRequest *)request)->serializable;
}

static enum errc admit(struct unary *u)
{
    if (u->api->stopping)
        return ERR_STOPPED;
    if (api_is_learner(u->api) && !learner_serves(u->request))
        return ERR_NOT_LEARNER_CAPABLE;
    if (call_wants_leader(u->call) && !api_has_leader(u->api))
        return ERR_NO_LEADER;
    return ERR_OK;
}

struct unary *unary_begin(struct rpc_call *call, struct api_port *port,
                          const ProtobufCMessageDescriptor *type, struct bytes message)
{
    struct unary *u = xcalloc(1, sizeof(*u));
    u->api = port->api;
    u->port = port;
    u->call = call;
    u->request_bytes = message.n;
    rpc_call_set_user(call, u);
    ProtobufCAllocator allocator = {alloc_in_arena, free_in_arena, &u->arena};
    u->request = protobuf_c_message_unpack(type, &allocator, message.n, message.p);
    if (!u->request) {
        u->answered = true;
        rpc_call_finish(call, errc_grpc_code(ERR_INTERNAL),
                        "grpc: failed to unmarshal the received message");
        return NULL;
    }
    enum errc e = admit(u);
    if (e) {
        unary_fail(u, e);
        return NULL;
    }
    return u;
}

void unary_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct unary *u = rpc_call_user(call);
    if (!u)
        return;
    if (u->op)
        replica_cancel(u->op);
    if (u->forward)
        peer_forward_cancel(u->forward);
    if (u->later)
        u->later->u = NULL;
    if (u->range)
        range_drop(u->range);
    arena_free(&u->arena);
    free(u);
}

void *unary_alloc(struct unary *u, size_t n)
{
    return arena_alloc(&u->arena, n);
}

void unary_reply(struct unary *u, const ProtobufCMessage *message)
{
    assert(!u->answered);
    u->answered = true;
    Etcdserverpb__ResponseHeader *header = ((const struct with_header *)message)->header;
    if (header)
        api_header(u->api, header,
                   header->revision ? header->revision
                                    : mvcc_revision(replica_store(u->api->config.replica)));
    rpc_call_reply(u->call, pack(u->api, message));
    scratch_done(u->api);
}

void unary_fail(struct unary *u, enum errc code)
{
    assert(!u->answered);
    u->answered = true;
    rpc_call_fail(u->call, code);
}

static void on_read(void *ctx, enum errc code)
{
    struct unary *u = ctx;
    u->op = NULL;
    if (code)
        unary_fail(u, code);
    else
        u->then(u);
}

void unary_read(struct unary *u, void (*then)(struct unary *u))
{
    u->then = then;
    u->op = replica_read(u->api->config.replica, on_read, u);
}

/* "CLIENTIDHEX/SEQ"; anything else is no session. */
static void add_session(const struct rpc_call *call, Raftpb__InternalRequest *request)
{
    struct bytes header = rpc_call_header(call, "quorumfs-request-id");
    char text[48], *slash, *end;
    if (header.p == NULL || header.n >= sizeof(text))
        return;
    memcpy(text, header.p, header.n);
    text[header.n] = 0;
    uint64_t client = strtoull(text, &slash, 16);
    if (slash == text || *slash != '/')
        return;
    uint64_t seq = strtoull(slash + 1, &end, 10);
    if (end == slash + 1 || *end)
        return;
    request->client_id = client;
    request->client_seq = seq;
}

static void on_applied(void *ctx, const struct apply_result *result)
{
    struct unary *u = ctx;
    u->op = NULL;
    if (result->code)
        unary_fail(u, result->code);
    else
        unary_reply(u, result->message);
}

void unary_propose(struct unary *u, Raftpb__InternalRequest *request)
{
    if (u->request_bytes + ENTRY_OVERHEAD > u->api->config.request_bytes_max) {
        unary_fail(u, ERR_REQUEST_TOO_LARGE);
        return;
    }
    if (request->request_case != RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM &&
        apply_alarm_corrupt(replica_apply(u->api->config.replica))) {
        unary_fail(u, ERR_CORRUPT);
        return;
    }
    add_session(u->call, request);
    u->op = replica_propose(u->api->config.replica, request, on_applied, u);
}

static void on_forwarded(void *ctx, enum errc code, struct bytes answer)
{
    struct unary *u = ctx;
    u->forward = NULL;
    if (code == ERR_LEADER_CHANGED && api_is_leader(u->api)) {
        u->then(u);
        return;
    }
    if (code) {
        unary_fail(u, code);
        return;
    }
    ProtobufCAllocator allocator = {alloc_in_arena, free_in_arena, &u->arena};
    struct with_header *message = (struct with_header *)protobuf_c_message_unpack(
        u->answer_type, &allocator, answer.n, answer.p);
    if (!message) {
        unary_fail(u, ERR_INTERNAL);
        return;
    }
    /* The leader's answer in this member's name; its revision is at most what we will have. */
    if (message->header)
        message->header->member_id = replica_id(u->api->config.replica);
    u->answered = true;
    rpc_call_reply(u->call, pack(u->api, &message->base));
}

static void forward_start(struct unary *u)
{
    u->forward = peers_forward(u->api->config.peers, u->path, pack(u->api, u->request),
                               u->api->config.request_timeout_ms, on_forwarded, u);
    if (!u->forward)
        unary_fail(u, ERR_TOO_MANY_REQUESTS);
}

void unary_forward(struct unary *u, const char *path, const ProtobufCMessageDescriptor *answer_type,
                   void (*local)(struct unary *u))
{
    if (u->port->peer) {
        unary_fail(u, ERR_NOT_LEADER);
        return;
    }
    u->path = path;
    u->answer_type = answer_type;
    u->then = local;
    forward_start(u);
}

struct unary_later *unary_later(struct unary *u)
{
    assert(!u->later);
    u->later = xcalloc(1, sizeof(*u->later));
    u->later->u = u;
    return u->later;
}

struct unary *unary_later_take(struct unary_later *later)
{
    struct unary *u = later->u;
    if (u)
        u->later = NULL;
    free(later);
    return u;
}

/* ---- Streams ------------------------------------------------------------------------------------- */

void api_stream_finish(struct api_stream *st, enum errc code)
{
    if (st->finished)
        return;
    st->finished = true;
    if (code)
        rpc_call_fail(st->call, code);
    else
        rpc_call_finish(st->call, 0, "");
}

bool api_stream_begin(struct api *api, struct api_stream *st, struct rpc_call *call)
{
    st->call = call;
    st->wants_leader = call_wants_leader(call);
    list_append(&api->streams, &st->link);
    enum errc e = api->stopping                              ? ERR_STOPPED
                  : api_is_learner(api)                      ? ERR_NOT_LEARNER_CAPABLE
                  : st->wants_leader && !api_has_leader(api) ? ERR_NO_LEADER
                                                             : ERR_OK;
    if (e)
        api_stream_finish(st, e);
    return e == ERR_OK;
}

void api_stream_end(struct api_stream *st)
{
    list_remove(&st->link);
}
