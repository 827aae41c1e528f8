/* The end of a rejoin (marker.h), in the running member: promotion, the alarm, and what was moved aside. */
#include <stdlib.h>

#include "daemon/server/known.h"
#include "daemon/server/server_internal.h"
#include "lib/base/log.h"

#define RETRY_MS 300 /* a learner catches up in about that or in minutes */
#define CALL_MS 5000
#define LOG_MS 30000

static const struct replica_member *find_self(struct server *s)
{
    size_t count;
    const struct replica_member *members = replica_members(s->replica, &count);
    for (size_t i = 0; i < count; i++)
        if (members[i].id == s->identity.member_id)
            return &members[i];
    return NULL;
}

/* ---- Promotion ----------------------------------------------------------------------------------- */

static void on_promoted(void *ctx, enum errc code, struct bytes answer)
{
    struct server *s = ctx;
    uint64_t now = uv_now(s->loop);
    (void)answer;
    s->promotion.forward = NULL;
    s->promotion.next_ms = now + RETRY_MS;
    if (!code || code == ERR_STOPPED || now - s->promotion.log_ms < LOG_MS)
        return;
    if (s->promotion.log_ms)
        log_warn("rejoin", "still a learner, tried again until it is promoted: %s",
                 errc_text(code));
    s->promotion.log_ms = now;
}

static void ask_promotion(struct server *s)
{
    Etcdserverpb__MemberPromoteRequest request = ETCDSERVERPB__MEMBER_PROMOTE_REQUEST__INIT;
    uint8_t packed[16];
    request.id = s->identity.member_id;
    size_t n = etcdserverpb__member_promote_request__pack(&request, packed);
    s->promotion.forward = peers_forward(s->peers, "/etcdserverpb.Cluster/MemberPromote",
                                         bytes_of(packed, n), CALL_MS, on_promoted, s);
}

/* ---- Afterwards ---------------------------------------------------------------------------------- */

static void on_disarmed(void *ctx, const struct apply_result *result)
{
    struct server *s = ctx;
    s->promotion.disarming = NULL;
    s->promotion.next_ms = uv_now(s->loop) + (result->code ? RETRY_MS : 0);
    if (!result->code)
        s->promotion.disarmed++;
}

static void disarm(struct server *s)
{
    Etcdserverpb__AlarmRequest alarm = ETCDSERVERPB__ALARM_REQUEST__INIT;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    alarm.action = ETCDSERVERPB__ALARM_REQUEST__ALARM_ACTION__DEACTIVATE;
    alarm.memberid = s->marker.old[s->promotion.disarmed];
    alarm.alarm = ETCDSERVERPB__ALARM_TYPE__CORRUPT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM;
    request.alarm = &alarm;
    s->promotion.disarming = replica_propose(s->replica, &request, on_disarmed, s);
}

struct clean_up {
    struct job job;
    struct server *server;
    struct error err;
};

/* The marker goes last. */
static void clean_up(struct job *job)
{
    struct clean_up *c = CONTAINER_OF(job, struct clean_up, job);
    struct server *s = c->server;
    c->err.code = ERR_OK;
    if (member_remove_damaged(s->disk, s->config.data_dir, &c->err) == ERR_OK)
        marker_remove(s->disk, s->config.data_dir, &c->err);
}

static void on_cleaned_up(struct job *job)
{
    struct clean_up *c = CONTAINER_OF(job, struct clean_up, job);
    if (c->err.code)
        log_warn("rejoin", "the member is back, but what was damaged could not be removed: %s",
                 c->err.message);
    else
        log_info(
            "rejoin",
            "member=%016llx is a full member again; what was kept of the old one is removed (%s)",
            (unsigned long long)c->server->identity.member_id, c->server->marker.reason);
    free(c);
}

static void finish(struct server *s)
{
    struct clean_up *c = xcalloc(1, sizeof(*c));
    s->has_marker = false;
    c->job.run = clean_up;
    c->job.done = on_cleaned_up;
    c->server = s;
    s->store_worker->submit(s->store_worker, &c->job);
}

void promote_tick(struct server *s)
{
    if (!s->has_marker || s->state != SERVER_RUNNING || s->promotion.forward ||
        s->promotion.disarming || uv_now(s->loop) < s->promotion.next_ms)
        return;
    const struct replica_member *self = find_self(s);
    if (!self)
        return; /* has not learned of itself yet */
    if (self->learner && s->marker.role == MARKER_ROLE_VOTER)
        ask_promotion(s);
    else if (self->client_url_count == 0)
        return; /* a learner that has published itself has caught up with the present */
    else if (s->promotion.disarmed < s->marker.old_count)
        disarm(s);
    else
        finish(s);
}
