/* The member on its loop: ticks, turns, and what the replica reports. */
#include "daemon/server/server_internal.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/server/known.h"
#include "lib/base/log.h"

/* After a pause (a stopped process, a starved machine) the clock has moved on but what the others have said
 * is still unread: no more ticks than this at once, so that nobody campaigns out of such a gap. */
#define CATCH_UP_TICKS_MAX 2
#define REMOVED_GRACE_MS 1000 /* etcd's */

static void on_busy(uv_idle_t *idle)
{
    (void)idle; /* its being active is all: the loop does not sleep */
}

/* ---- The replica's news -------------------------------------------------------------------------- */

void drive_wake(struct server *s)
{
    s->woken = true;
    uv_idle_start(&s->busy, on_busy);
}

static void on_wake(void *ctx)
{
    drive_wake(ctx);
}

static void on_fatal(void *ctx, const struct error *err)
{
    server_fail(ctx, err);
}

void drive_damaged(void *ctx, const struct error *err)
{
    struct server *s = ctx;
    if (s->damage.code)
        return;
    s->damage = *err;
    drive_wake(s);
}

/* The end waits a little: a leader that removed itself has still to answer the one who asked for it, and to
 * tell the others that the entry is committed. */
void drive_removed(void *ctx)
{
    struct server *s = ctx;
    if (s->removed_until_ms == 0)
        s->removed_until_ms = uv_now(s->loop) + REMOVED_GRACE_MS;
}

static void end_removed(struct server *s)
{
    struct error why;
    error_set(
        &why, ERR_STOPPED,
        "member %llx was removed from the cluster: to use this machine again, empty %s and add "
        "it as a new member",
        (unsigned long long)s->identity.member_id, s->config.data_dir);
    server_fail(s, &why);
}

static void on_leader_changed(void *ctx, uint64_t leader, uint64_t term, bool self)
{
    struct server *s = ctx;
    if (s->config.quiet)
        return;
    if (leader == 0)
        log_warn("raft", "no leader term=%llu", (unsigned long long)term);
    else
        log_info("raft", "leader=%016llx term=%llu%s", (unsigned long long)leader,
                 (unsigned long long)term, self ? " (this member)" : "");
}

static void on_note(void *ctx, const char *text)
{
    struct server *s = ctx;
    if (!s->config.quiet)
        log_info("raft", "%s", text);
}

static void on_space(void *ctx, bool shortage, const char *text)
{
    (void)ctx; /* a quiet server says this too: nobody else would */
    if (shortage)
        log_warn("space", "%s", text);
    else
        log_info("space", "%s", text);
}

void drive_replica_config(struct server *s, struct replica_config *config)
{
    config->fatal = on_fatal;
    config->removed = drive_removed;
    config->space = on_space;
    config->leader_changed = on_leader_changed;
    config->note = on_note;
    config->wake = on_wake;
    config->ctx = s;
}

/* ---- Ticks --------------------------------------------------------------------------------------- */

/* Says what the cluster survives, at the start and whenever the membership has changed. */
static void log_quorum(struct server *s)
{
    struct raft_status status;
    replica_status(s->replica, &status);
    size_t n = status.conf.voter_count;
    if (s->config.quiet || n == 0 || (n == s->voters && status.conf.learner_count == s->learners))
        return;
    s->voters = n;
    s->learners = status.conf.learner_count;
    size_t survives = (n - 1) / 2;
    log_info("cluster", "%zu member%s, quorum %zu, survives %zu failure%s%s", n, n == 1 ? "" : "s",
             n / 2 + 1, survives, survives == 1 ? "" : "s",
             s->learners ? " (learners not counted)" : "");
    if (n % 2 == 0)
        log_warn(
            "cluster",
            "an even number of voters (%zu) survives no more failures than %zu and has one more "
            "that can fail: add or remove one",
            n, n - 1);
}

static void tick(struct server *s)
{
    replica_tick(s->replica);
    api_tick(s->api);
    compactor_tick(s, uv_now(s->loop));
    log_quorum(s);
    lacking_tick(s);
    promote_tick(s);
    known_note(s);
    if (s->removed_until_ms && uv_now(s->loop) >= s->removed_until_ms)
        end_removed(s);
    if (s->state == SERVER_HANDING_OVER) {
        struct raft_status status;
        replica_status(s->replica, &status);
        if (status.role != RAFT_LEADER || uv_now(s->loop) >= s->handover_until_ms)
            server_close(s);
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct server *s = timer->data;
    uint64_t now = uv_now(s->loop);
    uint64_t due = (now - s->last_tick_ms) / s->config.heartbeat_ms;
    s->last_tick_ms += due * s->config.heartbeat_ms;
    if (due > CATCH_UP_TICKS_MAX)
        due = CATCH_UP_TICKS_MAX;
    for (; due > 0 && s->replica && !s->failed; due--)
        tick(s);
    drive_wake(s);
}

/* ---- Turns --------------------------------------------------------------------------------------- */

/* After the loop has read what there is: one round of the replica for all of it, so that what arrived
 * together becomes one append, one sync and one message to each peer. */
static void on_turn(uv_check_t *check)
{
    struct server *s = check->data;
    if (!s->replica || s->failed)
        return;
    if (s->damage.code) {
        server_fail(s, &s->damage);
        return;
    }
    s->woken = false;
    bool more = replica_poll(s->replica);
    if (s->failed)
        return;
    peers_flush(s->peers);
    more |= api_poll(s->api);
    if (more || s->woken)
        uv_idle_start(&s->busy, on_busy);
    else
        uv_idle_stop(&s->busy);
}

/* ---- Handles ------------------------------------------------------------------------------------- */

void drive_init(struct server *s)
{
    uv_timer_init(s->loop, &s->ticks);
    uv_check_init(s->loop, &s->turn);
    uv_idle_init(s->loop, &s->busy);
    s->ticks.data = s->turn.data = s->busy.data = s;
    s->open_handles = 3;
}

/* A voter that is alone needs no timeout to know that nobody else leads. */
static void elect_alone(struct server *s)
{
    struct raft_status status;
    replica_status(s->replica, &status);
    if (status.conf.voter_count != 1 || status.conf.voters[0] != replica_id(s->replica))
        return;
    uint64_t ticks = 2 * s->config.election_ms / s->config.heartbeat_ms + 1;
    for (; ticks > 0 && status.role == RAFT_FOLLOWER; ticks--) {
        replica_tick(s->replica);
        replica_status(s->replica, &status);
    }
}

void drive_start(struct server *s)
{
    uv_update_time(s->loop); /* opening has blocked */
    s->last_tick_ms = uv_now(s->loop);
    uv_timer_start(&s->ticks, on_tick, s->config.heartbeat_ms, s->config.heartbeat_ms);
    uv_check_start(&s->turn, on_turn);
    elect_alone(s);
    log_quorum(s);
    drive_wake(s);
}

static void on_closed(uv_handle_t *handle)
{
    struct server *s = handle->data;
    if (--s->open_handles == 0)
        s->closed(s);
}

void drive_close(struct server *s, void (*closed)(struct server *s))
{
    s->closed = closed;
    uv_close((uv_handle_t *)&s->ticks, on_closed);
    uv_close((uv_handle_t *)&s->turn, on_closed);
    uv_close((uv_handle_t *)&s->busy, on_closed);
}
