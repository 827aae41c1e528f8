/* etcdserverpb.Cluster: who is a member. Changes are proposed by the leader; followers forward them. */
#include "daemon/api/call.h"

#include <stdlib.h>

#include "daemon/peer/ids.h"

/* A change that is answered with the list of members; for an addition with the new one too. */
struct change {
    struct unary *u;
    uint64_t added;
};

static int compare_members(const void *a, const void *b)
{
    uint64_t x = (*(Etcdserverpb__Member *const *)a)->id,
             y = (*(Etcdserverpb__Member *const *)b)->id;
    return (x > y) - (x < y);
}

/* The strings stay the replica's: the answer is packed before anything changes. */
static void fill_member(Etcdserverpb__Member *to, const struct replica_member *from)
{
    etcdserverpb__member__init(to);
    to->id = from->id;
    to->name = from->name;
    to->n_peerurls = from->peer_url_count;
    to->peerurls = from->peer_urls;
    to->n_clienturls = from->client_url_count;
    to->clienturls = from->client_urls;
    to->islearner = from->learner;
}

static Etcdserverpb__Member **list_members(struct unary *u, size_t *ret_count)
{
    size_t count;
    const struct replica_member *members = replica_members(u->api->config.replica, &count);
    Etcdserverpb__Member *rows = unary_alloc(u, count * sizeof(*rows));
    Etcdserverpb__Member **list = unary_alloc(u, count * sizeof(*list));
    for (size_t i = 0; i < count; i++) {
        fill_member(&rows[i], &members[i]);
        list[i] = &rows[i];
    }
    if (count)
        qsort(list, count, sizeof(*list), compare_members);
    *ret_count = count;
    return list;
}

/* etcd's member answers carry no revision; so the header is filled here and not by unary_reply(). */
static void reply_without_revision(struct unary *u, ProtobufCMessage *response,
                                   Etcdserverpb__ResponseHeader *header)
{
    size_t size;
    api_header(u->api, header, 0);
    size = protobuf_c_message_get_packed_size(response);
    uint8_t *packed = unary_alloc(u, size);
    protobuf_c_message_pack(response, packed);
    u->answered = true;
    rpc_call_reply(u->call, bytes_of(packed, size));
}

/* ---- List ---------------------------------------------------------------------------------------- */

static void list_now(struct unary *u)
{
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__MemberListResponse response = ETCDSERVERPB__MEMBER_LIST_RESPONSE__INIT;
    response.header = &header;
    response.members = list_members(u, &response.n_members);
    reply_without_revision(u, &response.base, &header);
}

static void on_list(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__member_list_request__descriptor, message);
    if (!u)
        return;
    if (((const Etcdserverpb__MemberListRequest *)u->request)->linearizable)
        unary_read(u, list_now);
    else
        list_now(u);
}

/* ---- Changes ------------------------------------------------------------------------------------- */

/* All four answers are alike but for the new member of the first. */
static void reply_changed(struct unary *u)
{
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__MemberRemoveResponse response = ETCDSERVERPB__MEMBER_REMOVE_RESPONSE__INIT;
    response.header = &header;
    response.members = list_members(u, &response.n_members);
    reply_without_revision(u, &response.base, &header);
}

static void on_changed(void *ctx, enum errc code)
{
    struct unary *u = ctx;
    u->op = NULL;
    if (code)
        unary_fail(u, code);
    else
        reply_changed(u);
}

static bool urls_valid(char *const *urls, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (url_check(urls[i], NULL))
            return false;
    return count > 0;
}

static void on_added(void *ctx, enum errc code)
{
    struct change *c = ctx;
    struct unary *u = c->u;
    u->op = NULL;
    if (code) {
        unary_fail(u, code);
        return;
    }
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__MemberAddResponse response = ETCDSERVERPB__MEMBER_ADD_RESPONSE__INIT;
    response.header = &header;
    response.members = list_members(u, &response.n_members);
    for (size_t i = 0; i < response.n_members; i++)
        if (response.members[i]->id == c->added)
            response.member = response.members[i];
    reply_without_revision(u, &response.base, &header);
}

static void add_leading(struct unary *u)
{
    Etcdserverpb__MemberAddRequest *r = (Etcdserverpb__MemberAddRequest *)u->request;
    struct env *env = u->api->config.env;
    struct replica_member member = {
        .id = member_id_compute(r->peerurls, r->n_peerurls, "",
                                (int64_t)(env->wall_ns(env) / 1000000000)),
        .name = "",
        .peer_urls = r->peerurls,
        .peer_url_count = r->n_peerurls,
        .learner = r->islearner,
    };
    struct change *c = unary_alloc(u, sizeof(*c));
    *c = (struct change){u, member.id};
    u->op = replica_conf_change(u->api->config.replica,
                                r->islearner ? RAFT_CONF_ADD_LEARNER : RAFT_CONF_ADD_VOTER, &member,
                                on_added, c);
}

static void on_add(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__member_add_request__descriptor, message);
    if (!u)
        return;
    const Etcdserverpb__MemberAddRequest *r = (const Etcdserverpb__MemberAddRequest *)u->request;
    if (!urls_valid(r->peerurls, r->n_peerurls))
        unary_fail(u, ERR_MEMBER_BAD_URLS);
    else if (api_is_leader(u->api))
        add_leading(u);
    else
        unary_forward(u, "/etcdserverpb.Cluster/MemberAdd",
                      &etcdserverpb__member_add_response__descriptor, add_leading);
}

static void remove_leading(struct unary *u)
{
    struct replica_member member = {
        .id = ((const Etcdserverpb__MemberRemoveRequest *)u->request)->id};
    u->op = replica_conf_change(u->api->config.replica, RAFT_CONF_REMOVE, &member, on_changed, u);
}

static void on_remove(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__member_remove_request__descriptor, message);
    if (!u)
        return;
    if (api_is_leader(u->api))
        remove_leading(u);
    else
        unary_forward(u, "/etcdserverpb.Cluster/MemberRemove",
                      &etcdserverpb__member_remove_response__descriptor, remove_leading);
}

static void update_leading(struct unary *u)
{
    Etcdserverpb__MemberUpdateRequest *r = (Etcdserverpb__MemberUpdateRequest *)u->request;
    struct replica_member member = {
        .id = r->id, .peer_urls = r->peerurls, .peer_url_count = r->n_peerurls};
    u->op = replica_conf_change(u->api->config.replica, RAFT_CONF_UPDATE, &member, on_changed, u);
}

static void on_update(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__member_update_request__descriptor, message);
    if (!u)
        return;
    const Etcdserverpb__MemberUpdateRequest *r =
        (const Etcdserverpb__MemberUpdateRequest *)u->request;
    if (!urls_valid(r->peerurls, r->n_peerurls))
        unary_fail(u, ERR_MEMBER_BAD_URLS);
    else if (api_is_leader(u->api))
        update_leading(u);
    else
        unary_forward(u, "/etcdserverpb.Cluster/MemberUpdate",
                      &etcdserverpb__member_update_response__descriptor, update_leading);
}

/* Promotion is an addition as a voter of one that is a learner now. */
static void promote_leading(struct unary *u)
{
    uint64_t id = ((const Etcdserverpb__MemberPromoteRequest *)u->request)->id;
    size_t count;
    const struct replica_member *members = replica_members(u->api->config.replica, &count);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id != id)
            continue;
        if (!members[i].learner) {
            unary_fail(u, ERR_MEMBER_NOT_LEARNER);
            return;
        }
        struct replica_member member = members[i];
        member.learner = false;
        u->op = replica_conf_change(u->api->config.replica, RAFT_CONF_ADD_VOTER, &member,
                                    on_changed, u);
        return;
    }
    unary_fail(u, ERR_MEMBER_NOT_FOUND);
}

static void on_promote(struct rpc_call *call, void *service, struct bytes message)
{
    struct unary *u =
        unary_begin(call, service, &etcdserverpb__member_promote_request__descriptor, message);
    if (!u)
        return;
    if (api_is_leader(u->api))
        promote_leading(u);
    else
        unary_forward(u, "/etcdserverpb.Cluster/MemberPromote",
                      &etcdserverpb__member_promote_response__descriptor, promote_leading);
}

const struct rpc_method cluster_methods[] = {
    {.path = "/etcdserverpb.Cluster/MemberList", .message = on_list, .closed = unary_closed},
    {.path = "/etcdserverpb.Cluster/MemberAdd", .message = on_add, .closed = unary_closed},
    {.path = "/etcdserverpb.Cluster/MemberRemove", .message = on_remove, .closed = unary_closed},
    {.path = "/etcdserverpb.Cluster/MemberUpdate", .message = on_update, .closed = unary_closed},
    {.path = "/etcdserverpb.Cluster/MemberPromote", .message = on_promote, .closed = unary_closed},
};
const size_t cluster_method_count = ARRAY_LEN(cluster_methods);
