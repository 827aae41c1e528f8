#include "daemon/server/rejoin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server/ask.h"
#include "daemon/server/known.h"
#include "daemon/server/server_internal.h"
#include "lib/base/log.h"

#define CALL_MS                                                                                    \
    3000 /* longer than ASK_CONNECT_MS: an address without anybody is no silent member */
#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 2000 /* an election that brings the quorum back takes about as long */
#define FIRST_LOG_MS 2000   /* the usual refusals are over by then */
#define LOG_MS 10000
/* Damaged again while it rejoined: the disk may be bad, and each round costs the cluster four log entries. */
#define AGAIN_MS 5000

struct rejoin {
    struct server *server;
    struct known known; /* whom to ask */
    size_t next;
    struct ask *call;
    uv_timer_t *timer;
    size_t own; /* the own URL that is asked whether somebody answers there */
    uint64_t backoff_ms, next_log_ms;
    size_t failures; /* since the last success */
    bool learner;    /* the one to be removed is */
    char why[160];   /* no answer of a linearizable point */
};

static void list(struct rejoin *r);
static void look(struct rejoin *r, int status, const char *text);

/* ---- What comes next ----------------------------------------------------------------------------- */

static bool is_self(const struct server_config *config, const Etcdserverpb__Member *m)
{
    for (size_t i = 0; i < m->n_peerurls; i++)
        if (known_is_own(config, m->peerurls[i]))
            return true;
    return false;
}

enum rejoin_step rejoin_judge(const struct marker *marker, const struct server_config *config,
                              const Etcdserverpb__MemberListResponse *response,
                              const Etcdserverpb__Member **ret_self)
{
    const Etcdserverpb__Member *self = NULL;
    bool learner = false; /* another one */
    if (marker->cluster_id && response->header->cluster_id != marker->cluster_id)
        return REJOIN_FOREIGN;
    for (size_t i = 0; i < response->n_members; i++) {
        const Etcdserverpb__Member *m = response->members[i];
        if (is_self(config, m))
            self = m;
        else
            learner |= m->islearner;
    }
    *ret_self = self;
    if (!self && !marker->removing)
        return REJOIN_REMOVED;
    if (self && !marker->unknown && !marker_is_old(marker, self->id) && self->n_clienturls == 0)
        return REJOIN_ADOPT;
    if (learner)
        return REJOIN_BUSY;
    return self ? REJOIN_REMOVE : REJOIN_ADD;
}

const Etcdserverpb__Member *rejoin_only_other(const struct server_config *config,
                                              const Etcdserverpb__MemberListResponse *response)
{
    const Etcdserverpb__Member *other = NULL;
    size_t voters = 0;
    bool self = false;
    for (size_t i = 0; i < response->n_members; i++) {
        const Etcdserverpb__Member *m = response->members[i];
        if (m->islearner)
            continue;
        voters++;
        if (is_self(config, m))
            self = true;
        else
            other = m;
    }
    return voters == 2 && self ? other : NULL;
}

/* ---- Steps --------------------------------------------------------------------------------------- */

static void on_timer(uv_timer_t *timer)
{
    list(timer->data);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

void rejoin_free(struct rejoin *r)
{
    if (r->call)
        ask_cancel(r->call);
    uv_close((uv_handle_t *)r->timer, on_timer_closed);
    known_free(&r->known);
    free(r);
}

/* The next round asks the next member; only when all have been asked it waits. */
static void again(struct rejoin *r, const char *what, const char *why)
{
    struct server *s = r->server;
    uint64_t now = uv_now(s->loop);
    r->next++;
    r->failures++;
    if (now >= r->next_log_ms) {
        log_warn("rejoin", "not a member yet, tried again until the others let it in: %s: %s", what,
                 why);
        r->next_log_ms = now + LOG_MS;
    }
    uint64_t wait = BACKOFF_MIN_MS;
    if (r->failures % r->known.count == 0) {
        wait = r->backoff_ms;
        r->backoff_ms = 2 * r->backoff_ms < BACKOFF_MAX_MS ? 2 * r->backoff_ms : BACKOFF_MAX_MS;
    }
    uv_timer_start(r->timer, on_timer, wait, 0);
}

static void end(struct rejoin *r, const struct error *why)
{
    struct server *s = r->server;
    s->rejoin = NULL;
    rejoin_free(r);
    server_fail(s, why);
}

static bool save_marker(struct rejoin *r)
{
    struct server *s = r->server;
    struct error err;
    if (marker_save(s->disk, s->config.data_dir, &s->marker, &err) == ERR_OK)
        return true;
    end(r, &err);
    return false;
}

static const char *url_of(const struct rejoin *r)
{
    return r->known.urls[r->next % r->known.count];
}

static void on_changed(void *ctx, int status, const char *text, struct bytes answer)
{
    struct rejoin *r = ctx;
    (void)answer;
    r->call = NULL;
    if (status)
        again(r, url_of(r), text);
    else
        list(r); /* which shows what has come of it */
}

static void call(struct rejoin *r, const char *path, const ProtobufCMessage *request,
                 void (*done)(void *ctx, int status, const char *text, struct bytes answer))
{
    size_t n = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = xmalloc(n + 1);
    protobuf_c_message_pack(request, packed);
    r->call = ask_start(r->server->loop, url_of(r), path, bytes_of(packed, n), CALL_MS, done, r);
    free(packed);
}

static void add(struct rejoin *r)
{
    const struct server_urls *own = &r->server->config.initial_advertise_peer_urls;
    Etcdserverpb__MemberAddRequest request = ETCDSERVERPB__MEMBER_ADD_REQUEST__INIT;
    request.peerurls = (char **)own->url;
    request.n_peerurls = own->count;
    request.islearner = true;
    call(r, "/etcdserverpb.Cluster/MemberAdd", &request.base, on_changed);
}

static uint64_t old_id(const struct rejoin *r)
{
    const struct marker *m = &r->server->marker;
    return m->old[m->old_count - 1];
}

static void on_alarm(void *ctx, int status, const char *text, struct bytes answer)
{
    struct rejoin *r = ctx;
    (void)answer;
    r->call = NULL;
    if (status) {
        again(r, url_of(r), text);
        return;
    }
    Etcdserverpb__MemberRemoveRequest request = ETCDSERVERPB__MEMBER_REMOVE_REQUEST__INIT;
    request.id = old_id(r);
    call(r, "/etcdserverpb.Cluster/MemberRemove", &request.base, on_changed);
}

static void raise_alarm(struct rejoin *r)
{
    Etcdserverpb__AlarmRequest request = ETCDSERVERPB__ALARM_REQUEST__INIT;
    request.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__ACTIVATE;
    request.alarm = ETCDSERVERPB__ALARM_TYPE__CORRUPT;
    request.memberid = old_id(r);
    call(r, "/etcdserverpb.Maintenance/Alarm", &request.base, on_alarm);
}

/* ---- Does somebody answer in our name? ----------------------------------------------------------- */

static void check_next(struct rejoin *r);

static void on_own(void *ctx, int status, const char *text, struct bytes answer)
{
    struct rejoin *r = ctx;
    (void)answer;
    const struct server_urls *own = &r->server->config.initial_advertise_peer_urls;
    const char *url = own->url[r->own];
    r->call = NULL;
    bool nobody =
        status == errc_grpc_code(ERR_UNAVAILABLE) && strncmp(text, "etcdserver:", 11) != 0;
    enum port_answer who = port_answer_of(text, r->server->waiting.nonce);
    if (who == PORT_SELF || (nobody && who == PORT_NO_ANSWER)) {
        r->own++;
        check_next(r);
        return;
    }
    log_error("rejoin",
              "another process answers at this member's --initial-advertise-peer-urls %s: two "
              "daemons with one address; nothing is done to its membership (%s)",
              url, status ? text : "it is a member");
    r->next_log_ms = uv_now(r->server->loop) + LOG_MS;
    r->backoff_ms = BACKOFF_MAX_MS;
    again(r, url, "another process answers there");
}

static void check_next(struct rejoin *r)
{
    const struct server_urls *own = &r->server->config.initial_advertise_peer_urls;
    if (r->own == own->count)
        raise_alarm(r);
    else
        r->call = ask_members(r->server->loop, own->url[r->own], false, CALL_MS, on_own, r);
}

/* What is going to happen is on disk before it does. */
static void remove_old(struct rejoin *r, const Etcdserverpb__Member *old, uint64_t cluster_id)
{
    struct marker *m = &r->server->marker;
    log_info("rejoin", "replacing member=%016llx (%s)", (unsigned long long)old->id, m->reason);
    m->cluster_id = cluster_id;
    m->unknown = false;
    m->removing = true;
    if (m->role == MARKER_ROLE_UNKNOWN)
        m->role = old->islearner ? MARKER_ROLE_LEARNER : MARKER_ROLE_VOTER;
    if (marker_is_old(m, old->id)) /* the alarm and the removal are for the last one */
        for (size_t i = 0; i < m->old_count; i++)
            if (m->old[i] == old->id)
                memmove(&m->old[i], &m->old[i + 1], (--m->old_count - i) * sizeof(m->old[0]));
    marker_add_old(m, old->id);
    if (!save_marker(r))
        return;
    r->own = 0;
    check_next(r);
}

static void adopt(struct rejoin *r, const Etcdserverpb__MemberListResponse *response,
                  const Etcdserverpb__Member *self)
{
    struct server *s = r->server;
    struct error err;
    identity_free(&s->identity);
    identity_from_list(&s->identity, response, self->id, s->config.name);
    enum errc e = identity_save(s->disk, s->config.data_dir, &s->identity, &err);
    s->rejoin = NULL;
    rejoin_free(r);
    if (!e)
        e = server_open_member(s, &err);
    if (e)
        server_fail(s, &err);
    else
        log_info("rejoin", "back as member=%016llx%s", (unsigned long long)s->identity.member_id,
                 s->marker.role == MARKER_ROLE_VOTER ? ", a learner until it has caught up" : "");
}

static void end_removed(struct rejoin *r)
{
    struct error why;
    error_set(&why, ERR_STOPPED,
              "%s: this member lost its data (%s), and was removed from the cluster meanwhile: add "
              "it with `etcdctl member add`, empty %s, and start it with --initial-cluster-state "
              "existing",
              r->server->config.data_dir, r->server->marker.reason, r->server->config.data_dir);
    end(r, &why);
}

static void take_list(struct rejoin *r, const Etcdserverpb__MemberListResponse *response)
{
    struct server *s = r->server;
    const Etcdserverpb__Member *self = NULL;
    enum rejoin_step step = rejoin_judge(&s->marker, &s->config, response, &self);
    if (step != REJOIN_FOREIGN)
        for (size_t i = 0; i < response->n_members; i++)
            for (size_t k = 0; k < response->members[i]->n_peerurls; k++)
                known_add(&r->known, &s->config, response->members[i]->peerurls[k]);
    switch (step) {
    case REJOIN_ADOPT:
        adopt(r, response, self);
        break;
    case REJOIN_REMOVE:
        remove_old(r, self, response->header->cluster_id);
        break;
    case REJOIN_ADD:
        add(r);
        break;
    case REJOIN_BUSY:
        again(r, "the cluster", "another learner has to be promoted first");
        break;
    case REJOIN_FOREIGN:
        again(r, url_of(r), "it is of another cluster");
        break;
    case REJOIN_REMOVED:
        end_removed(r);
        break;
    }
}

static void on_list(void *ctx, int status, const char *text, struct bytes answer)
{
    struct rejoin *r = ctx;
    r->call = NULL;
    Etcdserverpb__MemberListResponse *response = ask_member_list(status, answer);
    if (response) {
        take_list(r, response);
        etcdserverpb__member_list_response__free_unpacked(response, NULL);
    } else {
        look(r, status, text);
    }
}

/* ---- Nobody can decide --------------------------------------------------------------------------- */

/* A member of a cluster of two that forgot its votes can't be replaced by anybody: the other one is no majority,
 * and to take this one back under its old id would be to trust what it has forgotten. */
static void tell_pair(struct rejoin *r, const Etcdserverpb__Member *other)
{
    struct server *s = r->server;
    r->next_log_ms = uv_now(s->loop) + LOG_MS;
    log_error(
        "rejoin",
        "this cluster has two voters, and this one lost its data (%s): a majority of two is "
        "two, so %s (%s) alone can't even replace it, and what this one voted for is "
        "forgotten. Bring its data back, or make a cluster of one of what %s has: stop it, "
        "`quorumd --rescue NEWDIR --data-dir DIR` with its other settings, start it on NEWDIR "
        "without --initial-cluster; then empty %s here, `etcdctl member add`, and start this "
        "member with --initial-cluster-state existing",
        s->marker.reason, other->name[0] ? other->name : "the other one",
        other->n_peerurls ? other->peerurls[0] : "no URL", other->name[0] ? other->name : "it",
        s->config.data_dir);
}

static void on_look(void *ctx, int status, const char *text, struct bytes answer)
{
    struct rejoin *r = ctx;
    (void)text;
    r->call = NULL;
    Etcdserverpb__MemberListResponse *response = ask_member_list(status, answer);
    const Etcdserverpb__Member *other =
        response ? rejoin_only_other(&r->server->config, response) : NULL;
    if (other)
        tell_pair(r, other);
    if (response)
        etcdserverpb__member_list_response__free_unpacked(response, NULL);
    again(r, url_of(r), r->why);
}

/* Before it is said that there is no answer: is it one of two? Without a leader the one that is asked still says
 * what it knows. */
static void look(struct rejoin *r, int status, const char *text)
{
    struct server *s = r->server;
    snprintf(r->why, sizeof(r->why), "%s", status ? text : "a malformed answer");
    if (uv_now(s->loop) < r->next_log_ms)
        again(r, url_of(r), r->why);
    else
        r->call = ask_members(s->loop, url_of(r), false, CALL_MS, on_look, r);
}

static void list(struct rejoin *r)
{
    r->call = ask_members(r->server->loop, url_of(r), true, CALL_MS, on_list, r);
}

/* ---- Start --------------------------------------------------------------------------------------- */

struct rejoin *rejoin_start(struct server *s, struct error *err)
{
    struct known known;
    known_load(s->disk, &s->config, &known);
    if (known.count == 0) {
        error_set(err, ERR_INVALID,
                  "%s has to rejoin its cluster (%s), but no other member is known: name them with "
                  "--initial-cluster",
                  s->config.data_dir, s->marker.reason);
        return NULL;
    }
    struct rejoin *r = xcalloc(1, sizeof(*r));
    r->server = s;
    r->known = known;
    r->backoff_ms = BACKOFF_MIN_MS;
    r->next_log_ms = uv_now(s->loop) + FIRST_LOG_MS;
    r->timer = xcalloc(1, sizeof(*r->timer));
    uv_timer_init(s->loop, r->timer);
    r->timer->data = r;
    uint64_t wait = s->marker.old_count > 1 ? (s->marker.old_count - 1) * AGAIN_MS : 0;
    uv_timer_start(r->timer, on_timer, wait, 0);
    log_warn("rejoin", "coming back as a new member of the cluster: %s", s->marker.reason);
    return r;
}
