/* Joining a running cluster: its members are asked, at their peer ports, who they are. This member was added
 * there before (`member add`), with the peer URLs that it is started with: that tells it its id. */
#include "daemon/server/server_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

#define JOIN_CALL_MS 2000
/* Over all members' URLs, before it is given up. Every other one asks for a linearizable answer. */
#define JOIN_ROUNDS_MAX 6

struct join {
    struct server *server;
    struct identity computed; /* whom to ask: the settings' initial cluster */
    size_t member, url;       /* the one that is asked */
    size_t rounds;
    uint64_t id;                       /* ours, by those who agree */
    uint64_t agreed[RAFT_MEMBERS_MAX]; /* who know us as a member that never ran */
    size_t agreed_count;
    struct rpc_channel *channel;
    struct rpc_stream *call;
    uv_timer_t
        *timer; /* the next attempt runs off it, since a channel can't be freed in its callback */
    char last_error[RPC_STATUS_TEXT_MAX];
};

static void ask(struct join *j);

static void disconnect(struct join *j)
{
    struct rpc_stream *call = j->call;
    struct rpc_channel *channel = j->channel;
    j->call = NULL;
    j->channel = NULL;
    if (call)
        rpc_stream_cancel(call);
    if (channel)
        rpc_channel_free(channel);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void join_free(struct join *j)
{
    disconnect(j);
    uv_close((uv_handle_t *)j->timer, on_timer_closed);
    identity_free(&j->computed);
    free(j);
}

static void fail(struct join *j, const char *format, const char *detail)
{
    struct server *s = j->server;
    struct error why;
    char text[400];
    snprintf(text, sizeof(text), format, detail);
    error_set(&why, ERR_UNAVAILABLE, "join the cluster of --initial-cluster %s: %s",
              s->config.initial_cluster, text);
    s->join = NULL;
    join_free(j);
    server_fail(s, &why);
}

/* ---- The answer ---------------------------------------------------------------------------------- */

static bool is_self(const struct server_config *config, const Etcdserverpb__Member *m)
{
    const struct server_urls *urls = &config->initial_advertise_peer_urls;
    if (m->n_peerurls != urls->count)
        return false;
    for (size_t i = 0; i < m->n_peerurls; i++) {
        bool found = false;
        for (size_t k = 0; k < urls->count; k++)
            found |= !strcmp(m->peerurls[i], urls->url[k]);
        if (!found)
            return false;
    }
    return true;
}

static void on_timer(uv_timer_t *timer)
{
    struct join *j = timer->data;
    disconnect(j);
    ask(j);
}

static void ask_next(struct join *j, const char *why)
{
    snprintf(j->last_error, sizeof(j->last_error), "%s", why);
    uv_timer_start(j->timer, on_timer, 100, 0);
}

/* A single member may lag, and not know that this one ran: such knowledge is committed by a majority, so it
 * takes as many as no majority is without. A cluster that grows from one to two voters can't give a
 * linearizable answer before the second one is there, but a local one will do. */
static bool all_agree(struct join *j, const Etcdserverpb__MemberListResponse *response,
                      uint64_t own_id)
{
    uint64_t id = response->header->member_id;
    size_t i = 0, voters = 0;
    if (j->id != own_id)
        j->agreed_count = 0;
    j->id = own_id;
    while (i < j->agreed_count && j->agreed[i] != id)
        i++;
    if (i == j->agreed_count && i < RAFT_MEMBERS_MAX)
        j->agreed[j->agreed_count++] = id;
    for (i = 0; i < response->n_members; i++)
        voters += !response->members[i]->islearner;
    return j->agreed_count >= voters - (voters / 2 + 1) + 1;
}

/* It has been published: the directory was wiped, and has forgotten what it said. */
static void rejoin(struct join *j, uint64_t cluster_id)
{
    struct server *s = j->server;
    struct marker marker = {.cluster_id = cluster_id, .unknown = true};
    snprintf(marker.reason, sizeof(marker.reason), "%s is empty, but this member has run before",
             s->config.data_dir);
    s->join = NULL;
    join_free(j);
    server_rejoin(s, &marker);
}

static void open_joined(struct join *j, const Etcdserverpb__MemberListResponse *response,
                        uint64_t member_id)
{
    struct server *s = j->server;
    struct error err;
    identity_from_list(&s->identity, response, member_id, s->config.name);
    enum errc e = identity_save(s->disk, s->config.data_dir, &s->identity, &err);
    s->join = NULL;
    join_free(j);
    if (!e)
        e = server_open_member(s, &err);
    if (e)
        server_fail(s, &err);
}

static void take_answer(struct join *j, const Etcdserverpb__MemberListResponse *response)
{
    struct server *s = j->server;
    const Etcdserverpb__Member *self = NULL;
    bool linearizable = j->rounds % 2 == 1;
    for (size_t i = 0; i < response->n_members; i++)
        if (is_self(&s->config, response->members[i]))
            self = response->members[i];
    if (self && self->n_clienturls > 0)
        rejoin(j, response->header->cluster_id);
    else if (self && (linearizable || all_agree(j, response, self->id)))
        open_joined(j, response, self->id);
    else if (!self && linearizable)
        fail(j,
             "it has no member with this one's --initial-advertise-peer-urls (%s): add it first, "
             "with `etcdctl member add`",
             s->config.initial_advertise_peer_urls.count
                 ? s->config.initial_advertise_peer_urls.url[0]
                 : "none");
    else
        ask_next(j, "a member's answer is not enough to tell who this one is");
}

static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    (void)sent;
    struct join *j = ctx;
    j->call = NULL;
    Etcdserverpb__MemberListResponse *response =
        status ? NULL : etcdserverpb__member_list_response__unpack(NULL, answer.n, answer.p);
    if (response && response->header) {
        take_answer(j, response);
    } else {
        ask_next(j, status ? text : "a malformed answer");
    }
    if (response)
        etcdserverpb__member_list_response__free_unpacked(response, NULL);
}

/* ---- The question -------------------------------------------------------------------------------- */

/* The next URL of the others; false: all have been asked often enough. */
static bool next(struct join *j)
{
    const struct identity *id = &j->computed;
    for (;;) {
        if (j->member == id->member_count) {
            j->member = 0;
            if (++j->rounds == JOIN_ROUNDS_MAX)
                return false;
        }
        const struct replica_member *m = &id->members[j->member];
        if (m->id != id->member_id && j->url < m->peer_url_count)
            return true;
        j->member++;
        j->url = 0;
    }
}

static void ask(struct join *j)
{
    if (!next(j)) {
        fail(j, "none of its members answers (%s)", j->last_error);
        return;
    }
    struct rpc_channel_config config = {.connect_timeout_ms = JOIN_CALL_MS};
    const char *url = j->computed.members[j->member].peer_urls[j->url++];
    Etcdserverpb__MemberListRequest request = ETCDSERVERPB__MEMBER_LIST_REQUEST__INIT;
    uint8_t packed[8];
    request.linearizable = j->rounds % 2 == 1;
    size_t n = etcdserverpb__member_list_request__pack(&request, packed);
    j->channel = rpc_channel_new(j->server->loop, url, &config);
    j->call = rpc_unary(j->channel, "/etcdserverpb.Cluster/MemberList", bytes_of(packed, n),
                        JOIN_CALL_MS, NULL, 0, on_answer, j);
}

struct join *join_start(struct server *s, const struct identity *computed)
{
    struct join *j = xcalloc(1, sizeof(*j));
    j->server = s;
    for (size_t i = 0; i < computed->member_count; i++) {
        const struct replica_member *m = &computed->members[i];
        identity_add(&j->computed, m->id, m->name, false, m->peer_urls, m->peer_url_count);
    }
    j->computed.member_id = computed->member_id;
    snprintf(j->last_error, sizeof(j->last_error), "there is no other member");
    j->timer = xcalloc(1, sizeof(*j->timer));
    uv_timer_init(s->loop, j->timer);
    j->timer->data = j;
    uv_timer_start(j->timer, on_timer, 0, 0);
    return j;
}
