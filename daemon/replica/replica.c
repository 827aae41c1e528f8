#include "daemon/replica/replica.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"

uint64_t replica_now_ms(const struct replica *r)
{
    return env_mono_ms(r->config.env);
}

void replica_wake(struct replica *r)
{
    if (r->config.wake && !r->closing)
        r->config.wake(r->config.ctx);
}

void replica_note(struct replica *r, const char *text)
{
    if (r->config.note && !r->closing)
        r->config.note(r->config.ctx, text);
}

void replica_refresh(struct replica *r)
{
    raft_status(r->raft, &r->status);
}

void replica_fail(struct replica *r, const struct error *err)
{
    if (r->failed || r->closing)
        return;
    r->failed = true;
    if (r->config.fatal)
        r->config.fatal(r->config.ctx, err);
}

static void copy_config(struct replica *r, const struct replica_config *config)
{
    r->config = *config;
    r->name = xstrdup(config->name ? config->name : "");
    for (size_t i = 0; i < config->initial_member_count; i++)
        member_list_set(&r->initial, &config->initial_members[i]);
    r->client_urls = xcalloc(config->client_url_count + 1, sizeof(char *));
    for (size_t i = 0; i < config->client_url_count; i++)
        r->client_urls[i] = xstrdup(config->client_urls[i]);
    r->config.name = r->name;
    r->config.initial_members = r->initial.members;
    r->config.client_urls = (const char *const *)r->client_urls;
}

static void free_all(struct replica *r)
{
    drive_free(r);
    raft_free(r->raft);
    apply_free(r->apply);
    watch_hub_free(r->hub);
    lessor_free(r->lessor);
    member_list_clear(&r->members);
    removed_members_clear(&r->removed);
    member_list_clear(&r->initial);
    for (size_t i = 0; i < r->config.client_url_count; i++)
        free(r->client_urls[i]);
    free(r->client_urls);
    free(r->name);
    free(r);
}

enum errc replica_open(const struct replica_config *config, struct replica **ret_replica,
                       char ret_note[512], struct error *err)
{
    if (config->initial_member_count > RAFT_MEMBERS_MAX)
        return error_set(err, ERR_INVALID, "the cluster has %zu members, at most %d are possible",
                         config->initial_member_count, RAFT_MEMBERS_MAX);
    struct replica *r = xcalloc(1, sizeof(*r));
    copy_config(r, config);
    struct list *lists[] = {&r->unsent,      &r->sent,        &r->refused,  &r->reads_waiting,
                            &r->reads_round, &r->reads_ready, &r->finished, &r->timers,
                            &r->persists,    &r->snapshots};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        list_init(lists[i]);
    enum errc code = replica_recover(r, ret_note, err);
    if (code != ERR_OK) {
        r->closing = true;
        if (r->wal)
            wal_close(r->wal);
        if (r->store)
            mvcc_abandon(r->store);
        free_all(r);
        return code;
    }
    r->settled_term = mvcc_applied_term(r->store);
    replica_refresh(r);
    r->term_told = r->status.term;
    members_tell(r);
    replica_wake(r);
    *ret_replica = r;
    return ERR_OK;
}

/* The store can't be closed while a snapshot takes its place; nothing is lost with it: what was applied
 * is in the log. */
void replica_close_now(struct replica *r)
{
    mvcc_abandon(r->store);
    free_all(r);
}

void replica_close(struct replica *r)
{
    if (!r)
        return;
    r->closing = true;
    requests_stop(r);
    snapshot_out_end(r);
    wal_close(r->wal);
    if (r->in.installing) {
        r->close_later = true;
        return;
    }
    mvcc_close(r->store);
    mvcc_restore_abort(r->in.restore); /* the next life may go on with it */
    free_all(r);
}

void replica_abandon(struct replica *r)
{
    if (!r)
        return;
    r->closing = true;
    while (!list_empty(&r->timers))
        request_free(CONTAINER_OF(r->timers.next, struct replica_op, timer));
    while (!list_empty(&r->finished))
        request_free(CONTAINER_OF(r->finished.next, struct replica_op, link));
    snapshot_out_end(r);
    wal_close(r->wal);
    mvcc_abandon(r->store);
    if (!r->in.installing)
        mvcc_restore_abort(r->in.restore);
    free_all(r);
}

/* ---- input -------------------------------------------------------------------------------------- */

void replica_receive(struct replica *r, const struct raft_message *m)
{
    /* A snapshot_in.counts only with its data: snapshot.c steps it. */
    if (r->failed || m->type == RAFT_MSG_SNAPSHOT)
        return;
    if (raft_step(r->raft, m) == ERR_OK)
        leader_hears(r, m->from);
    replica_wake(r);
}

void replica_peer_unreachable(struct replica *r, uint64_t id)
{
    raft_report_unreachable(r->raft, id);
    replica_wake(r);
}

void replica_peer_gone(struct replica *r, uint64_t id)
{
    raft_report_peer_gone(r->raft, id);
    replica_wake(r);
}

enum errc replica_transfer_leader(struct replica *r, uint64_t to)
{
    enum errc code = raft_transfer_leader(r->raft, to);
    replica_wake(r);
    return code;
}

/* ---- state -------------------------------------------------------------------------------------- */

struct mvcc *replica_store(struct replica *r)
{
    return r->store;
}

struct apply *replica_apply(struct replica *r)
{
    return r->apply;
}

struct lessor *replica_lessor(struct replica *r)
{
    return r->lessor;
}

struct watch_hub *replica_watch_hub(struct replica *r)
{
    return r->hub;
}

bool replica_hears(const struct replica *r, uint64_t id)
{
    return leader_finds_active(r, id);
}

uint64_t replica_id(const struct replica *r)
{
    return r->member_id;
}

uint64_t replica_cluster_id(const struct replica *r)
{
    return r->cluster_id;
}

void replica_status(const struct replica *r, struct raft_status *ret_status)
{
    raft_status(r->raft, ret_status);
}

uint64_t replica_log_bytes(const struct replica *r)
{
    return wal_bytes(r->wal);
}
