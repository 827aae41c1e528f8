/* etcdserverpb.Maintenance: about this member, not about the keys. */
#include "daemon/api/call.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- Status -------------------------------------------------------------------------------------- */

struct alarm_list {
    struct unary *u;
    size_t count;
    Etcdserverpb__AlarmMember rows[32]; /* members x two kinds */
    unsigned causes[32];
};

static void add_alarm(void *ctx, uint64_t member_id, int alarm, unsigned causes)
{
    struct alarm_list *list = ctx;
    if (list->count == ARRAY_LEN(list->rows))
        return;
    list->causes[list->count] = causes;
    Etcdserverpb__AlarmMember *row = &list->rows[list->count++];
    etcdserverpb__alarm_member__init(row);
    row->memberid = member_id;
    row->alarm = (Etcdserverpb__AlarmType)alarm;
}

static const char *alarm_name(Etcdserverpb__AlarmType alarm)
{
    return alarm == ETCDSERVERPB__ALARM_TYPE__NOSPACE   ? "NOSPACE"
           : alarm == ETCDSERVERPB__ALARM_TYPE__CORRUPT ? "CORRUPT"
                                                        : "NONE";
}

/* Behind etcd's text: what the operator has to look at. */
static const char *cause_text(unsigned causes)
{
    return causes == ALARM_CAUSE_DISK  ? "(the disk is full; ends by itself)"
           : causes & ALARM_CAUSE_DISK ? "(quota, and the disk is full)"
                                       : "";
}

static void add_errors(struct unary *u, Etcdserverpb__StatusResponse *response)
{
    struct alarm_list *list = unary_alloc(u, sizeof(*list));
    list->u = u;
    apply_each_alarm(replica_apply(u->api->config.replica), add_alarm, list);
    response->errors = unary_alloc(u, (list->count + 2) * sizeof(*response->errors));
    if (response->leader == 0)
        response->errors[response->n_errors++] = (char *)errc_text(ERR_NO_LEADER);
    if (replica_log_hangs(u->api->config.replica)) {
        char *text = unary_alloc(u, 80);
        snprintf(text, 80, "the disk of the log hangs: no answer for %llu ms",
                 (unsigned long long)replica_log_silent_ms(u->api->config.replica));
        response->errors[response->n_errors++] = text;
    }
    for (size_t i = 0; i < list->count; i++) {
        char *text = unary_alloc(u, 96);
        snprintf(text, 96, "memberID:%llu alarm:%s %s", (unsigned long long)list->rows[i].memberid,
                 alarm_name(list->rows[i].alarm), cause_text(list->causes[i]));
        response->errors[response->n_errors++] = text;
    }
}

static void on_status(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__status_request__descriptor, message);
    if (!u)
        return;
    struct mvcc *store = replica_store(u->api->config.replica);
    struct raft_status status;
    replica_status(u->api->config.replica, &status);
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__StatusResponse response = ETCDSERVERPB__STATUS_RESPONSE__INIT;
    response.header = &header;
    response.version = (char *)API_ETCD_VERSION;
    response.dbsize = (int64_t)mvcc_size(store);
    response.dbsizeinuse = (int64_t)mvcc_size_in_use(store);
    response.leader = status.leader;
    response.raftindex = status.commit;
    response.raftterm = status.term;
    response.raftappliedindex = mvcc_applied_index(store);
    response.islearner = api_is_learner(u->api);
    add_errors(u, &response);
    unary_reply(u, &response.base);
}

/* ---- Hashes -------------------------------------------------------------------------------------- */

/* The call that waits for a hash; NULL: it is gone, or has been failed. A hash goes over every row, and so finds
 * what no read has come upon. */
static struct unary *take_hashed(void *ctx, enum errc code)
{
    struct unary *u = unary_later_take(ctx);
    if (!u || code == ERR_OK)
        return u;
    struct error err = {0};
    if (code == ERR_CORRUPT) {
        error_set(&err, code,
                  "a row of the store is damaged (its checksum is wrong; found by a hash)");
        api_check_damage(u->api, &err);
    }
    unary_fail(u, code);
    return NULL;
}

static void on_hash_kv_done(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                            int64_t hash_revision)
{
    (void)hash_revision;
    struct unary *u = take_hashed(ctx, code);
    if (!u)
        return;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__HashKVResponse response = ETCDSERVERPB__HASH_KVRESPONSE__INIT;
    response.header = &header;
    response.hash = hash;
    response.compact_revision = compact_revision;
    unary_reply(u, &response.base);
}

static void on_hash_kv(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__hash_kvrequest__descriptor, message);
    if (!u)
        return;
    mvcc_hash_kv(replica_store(u->api->config.replica),
                 ((const Etcdserverpb__HashKVRequest *)u->request)->revision, on_hash_kv_done,
                 unary_later(u));
}

static void on_hash_done(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                         int64_t hash_revision)
{
    (void)compact_revision;
    (void)hash_revision;
    struct unary *u = take_hashed(ctx, code);
    if (!u)
        return;
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__HashResponse response = ETCDSERVERPB__HASH_RESPONSE__INIT;
    response.header = &header;
    response.hash = hash;
    unary_reply(u, &response.base);
}

/* etcd hashes its whole file here, which nothing else can match: the keys' hash serves the purpose of
 * comparing members. */
static void on_hash(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u = unary_begin(call, service, &etcdserverpb__hash_request__descriptor, message);
    if (u)
        mvcc_hash_kv(replica_store(u->api->config.replica), 0, on_hash_done, unary_later(u));
}

/* ---- Defragment ---------------------------------------------------------------------------------- */

static void on_defragmented(void *ctx, enum errc code)
{
    struct unary *u = unary_later_take(ctx);
    if (!u)
        return;
    if (code) {
        unary_fail(u, code);
        return;
    }
    Etcdserverpb__DefragmentResponse response = ETCDSERVERPB__DEFRAGMENT_RESPONSE__INIT;
    unary_reply(u, &response.base); /* without a header, as etcd's */
}

static void on_defragment(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__defragment_request__descriptor, message);
    if (u)
        mvcc_defragment(replica_store(u->api->config.replica), on_defragmented, unary_later(u));
}

/* ---- Alarms -------------------------------------------------------------------------------------- */

static void list_alarms(struct unary *u)
{
    const Etcdserverpb__AlarmRequest *r = (const Etcdserverpb__AlarmRequest *)u->request;
    struct alarm_list *list = unary_alloc(u, sizeof(*list));
    list->u = u;
    apply_each_alarm(replica_apply(u->api->config.replica), add_alarm, list);
    Etcdserverpb__AlarmResponse response = ETCDSERVERPB__ALARM_RESPONSE__INIT;
    response.alarms = unary_alloc(u, (list->count + 1) * sizeof(*response.alarms));
    for (size_t i = 0; i < list->count; i++)
        if (r->alarm == ETCDSERVERPB__ALARM_TYPE__NONE || r->alarm == list->rows[i].alarm)
            response.alarms[response.n_alarms++] = &list->rows[i];
    unary_reply(u, &response.base);
}

static void on_alarm(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u = unary_begin(call, service, &etcdserverpb__alarm_request__descriptor, message);
    if (!u)
        return;
    Etcdserverpb__AlarmRequest *r = (Etcdserverpb__AlarmRequest *)u->request;
    if (r->action == ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__GET) {
        unary_read(u, list_alarms);
        return;
    }
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM;
    request.alarm = r;
    unary_propose(u, &request);
}

/* ---- Leadership ---------------------------------------------------------------------------------- */

/* The transfer takes about one round trip; the caller is answered when the leadership has moved, which
 * api_tick() looks for, or when it was given up (an election timeout). */
struct move {
    struct api_stream stream;
    struct api *api;
    uint64_t target;
    uint64_t deadline_ms;
};

static bool is_voter(struct api *api, uint64_t id)
{
    struct raft_status status;
    replica_status(api->config.replica, &status);
    for (size_t i = 0; i < status.conf.voter_count; i++)
        if (status.conf.voters[i] == id)
            return true;
    return false;
}

static void move_finish(struct move *m, enum errc code)
{
    if (m->stream.finished)
        return;
    if (code) {
        api_stream_finish(&m->stream, code);
        return;
    }
    m->stream.finished = true;
    rpc_call_reply(m->stream.call,
                   BYTES_EMPTY); /* MoveLeaderResponse without a header, as etcd's */
}

static void move_tick(struct api_stream *st, uint64_t now_ms)
{
    struct move *m = CONTAINER_OF(st, struct move, stream);
    struct raft_status status;
    replica_status(m->api->config.replica, &status);
    if (status.leader == m->target)
        move_finish(m, ERR_OK);
    else if (now_ms >= m->deadline_ms)
        move_finish(m, ERR_TIMEOUT_LEADER_FAIL);
}

static void move_started(struct rpc_call *call, void *service)
{
    struct api_port *port = service;
    struct move *m = xcalloc(1, sizeof(*m));
    m->api = port->api;
    rpc_call_set_user(call, m);
    api_stream_begin(port->api, &m->stream, call);
}

static void move_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct move *m = rpc_call_user(call);
    if (m->stream.finished)
        return;
    Etcdserverpb__MoveLeaderRequest *r =
        etcdserverpb__move_leader_request__unpack(NULL, message.n, message.p);
    if (!r) {
        move_finish(m, ERR_INTERNAL);
        return;
    }
    m->target = r->targetid;
    etcdserverpb__move_leader_request__free_unpacked(r, NULL);
    enum errc e = !api_is_leader(m->api)         ? ERR_NOT_LEADER
                  : !is_voter(m->api, m->target) ? ERR_BAD_LEADER_TRANSFEREE
                  : m->target == replica_id(m->api->config.replica)
                      ? ERR_OK
                      : replica_transfer_leader(m->api->config.replica, m->target);
    m->deadline_ms = uv_now(m->api->config.loop) + m->api->config.election_ms;
    if (e || m->target == replica_id(m->api->config.replica)) {
        move_finish(m, e);
        return;
    }
    m->stream.tick = move_tick;
}

static void move_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct move *m = rpc_call_user(call);
    api_stream_end(&m->stream);
    free(m);
}

const struct rpc_method maintenance_methods[] = {
    {.path = "/etcdserverpb.Maintenance/Alarm", .message = on_alarm, .closed = unary_closed},
    {.path = "/etcdserverpb.Maintenance/Status", .message = on_status, .closed = unary_closed},
    {.path = "/etcdserverpb.Maintenance/Defragment",
     .message = on_defragment,
     .closed = unary_closed},
    {.path = "/etcdserverpb.Maintenance/Hash", .message = on_hash, .closed = unary_closed},
    {.path = "/etcdserverpb.Maintenance/HashKV", .message = on_hash_kv, .closed = unary_closed},
    {.path = "/etcdserverpb.Maintenance/MoveLeader",
     .started = move_started,
     .message = move_message,
     .closed = move_closed},
};
const size_t maintenance_method_count = ARRAY_LEN(maintenance_methods);
