/* Starting and ending a member: what is opened, in which order, and closed in the reverse one. */
#include "daemon/server/server_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/log.h"

/* ---- Opening ------------------------------------------------------------------------------------- */

/* What clients are told: as set, else what is bound. */
static void advertise(struct server *s)
{
    s->advertised = s->config.advertise_client_urls;
    if (s->advertised.count > 0)
        return;
    for (size_t i = 0; i < s->config.listen_client_urls.count; i++)
        s->advertised.url[s->advertised.count++] = s->client_urls[i];
}

static enum errc open_replica(struct server *s, struct error *err)
{
    char note[512];
    struct replica_config config = {
        .data_dir = s->config.data_dir,
        .name = s->config.name,
        .env = env_system(),
        .disk = s->disk,
        .log_worker = s->log_worker,
        .store_worker = s->store_worker,
        .transport = peers_transport(s->peers),
        .cluster_id = s->identity.cluster_id,
        .member_id = s->identity.member_id,
        .initial_members = s->identity.members,
        .initial_member_count = s->identity.member_count,
        .join = s->identity.joined,
        .client_urls = s->advertised.url,
        .client_url_count = s->advertised.count,
        .tick_ms = s->config.heartbeat_ms,
        .election_ticks = (uint32_t)(s->config.election_ms / s->config.heartbeat_ms),
        .snapshot_entries = s->config.snapshot_count,
        .txn_ops_max = s->config.max_txn_ops,
        .request_bytes_max = s->config.max_request_bytes,
        .quota_bytes = s->config.quota_bytes,
        .scrub_ms = s->config.scrub_ms,
        .request_timeout_ms = 5000 + 2 * s->config.election_ms, /* etcd's */
    };
    drive_replica_config(s, &config);
    enum errc e = replica_open(&config, &s->replica, note, err);
    if (!e && note[0])
        log_warn("log", "%s", note);
    return e;
}

/* A directory that has been part of a larger cluster can't be served without its peers. */
static enum errc check_alone(struct server *s, struct error *err)
{
    size_t count;
    replica_members(s->replica, &count);
    if (s->config.listen_peer_urls.count > 0 || count <= 1)
        return ERR_OK;
    return error_set(err, ERR_INVALID,
                     "%s belongs to a cluster of %zu members: start quorumd on it and use its "
                     "address instead of the directory",
                     s->config.data_dir, count);
}

enum errc server_open_member(struct server *s, struct error *err)
{
    s->peers = peers_new(s->loop, s->identity.cluster_id, s->identity.member_id,
                         s->config.max_request_bytes);
    enum errc e = port_open_clients(s, err);
    if (!e)
        e = port_open_peers(s, false, err);
    if (!e)
        e = worker_thread_start(s->loop, "log", &s->log_worker, err);
    if (!e)
        e = worker_thread_start(s->loop, "store", &s->store_worker, err);
    if (e)
        return e;
    advertise(s);
    e = open_replica(s, err);
    if (!e)
        e = check_alone(s, err);
    if (e)
        return e;
    struct api_config config = {
        .loop = s->loop,
        .replica = s->replica,
        .peers = s->peers,
        .env = env_system(),
        .request_bytes_max = s->config.max_request_bytes,
        .txn_ops_max = s->config.max_txn_ops,
        .request_timeout_ms = 5000 + 2 * s->config.election_ms,
        .election_ms = s->config.election_ms,
        .snapshot_stall_ms = s->config.snapshot_stall_ms,
        .damaged = drive_damaged,
        .ctx = s,
    };
    s->api = api_new(&config);
    api_register(s->api, s->clients);
    if (s->peer_port) {
        api_register_peer(s->api, s->peer_port);
        peers_serve(s->peers, s->peer_port);
        port_end_waiting(s);
    }
    peers_start(s->peers, s->replica, drive_removed, s);
    s->state = SERVER_RUNNING;
    drive_start(s);
    if (!s->config.quiet)
        log_info("server", "serving name=%s member=%016llx cluster=%016llx clients=%s peers=%s",
                 s->config.name, (unsigned long long)s->identity.member_id,
                 (unsigned long long)s->identity.cluster_id, s->client_urls[0],
                 s->peer_port ? s->peer_urls[0] : "none");
    return ERR_OK;
}

/* ---- Start --------------------------------------------------------------------------------------- */

enum errc server_start(uv_loop_t *loop, const struct server_config *config,
                       struct server **ret_server,
                       void (*stopped)(void *ctx, const struct error *why), void *ctx,
                       struct error *err)
{
    enum errc e = server_config_check(config, err);
    if (e)
        return e;
    struct server *s = xcalloc(1, sizeof(*s));
    s->loop = loop;
    s->disk = disk_posix();
    s->stopped = stopped;
    s->ctx = ctx;
    s->state = SERVER_JOINING;
    server_config_copy(&s->config, config);
    if (!s->config.data_dir)
        s->config.data_dir = xasprintf("%s.etcd", s->config.name);
    drive_init(s);
    e = server_begin(s, err);
    if (!e && !s->join && !s->first && !s->rejoin)
        e = server_open_member(s, err);
    if (e) {
        s->silent = true;
        server_close(s);
        return e;
    }
    *ret_server = s;
    return ERR_OK;
}

const char *server_client_url(const struct server *s, size_t i)
{
    return i < s->config.listen_client_urls.count ? s->client_urls[i] : NULL;
}

const char *server_peer_url(const struct server *s, size_t i)
{
    return i < s->config.listen_peer_urls.count ? s->peer_urls[i] : NULL;
}

/* ---- End ----------------------------------------------------------------------------------------- */

static void free_server(struct server *s)
{
    void (*stopped)(void *, const struct error *) = s->silent ? NULL : s->stopped;
    void *ctx = s->ctx;
    struct error why = s->why;
    bool failed = s->why.code != ERR_OK;
    identity_free(&s->identity);
    server_config_free(&s->config);
    free(s);
    if (stopped)
        stopped(ctx, failed ? &why : NULL);
}

/* The replica goes first: its closing still uses the workers; calls are over, and what the compactor
 * waits for is answered by it. The peers' streams have to be gone before it. */
static void close_rest(struct server *s)
{
    s->state = SERVER_CLOSING_HANDLES;
    if (s->peers)
        peers_free(s->peers);
    if (s->replica && !s->failed)
        replica_close(s->replica);
    if (s->api)
        api_free(s->api);
    if (s->log_worker && !s->failed)
        worker_thread_stop(s->log_worker);
    if (s->store_worker && !s->failed)
        worker_thread_stop(s->store_worker);
    s->replica = NULL;
    if (s->lock)
        s->disk->close(s->disk, s->lock);
    drive_close(s, free_server);
}

static void on_peers_closed(void *ctx)
{
    struct server *s = ctx;
    s->peer_port = NULL;
    close_rest(s);
}

static void on_clients_closed(void *ctx)
{
    struct server *s = ctx;
    s->clients = NULL;
    s->state = SERVER_CLOSING_PEERS;
    if (s->peer_port)
        rpc_server_stop(s->peer_port, s->failed ? 0 : SERVER_PEER_GRACE_MS, on_peers_closed, s);
    else
        close_rest(s);
}

void server_close(struct server *s)
{
    if (s->state >= SERVER_CLOSING_CLIENTS)
        return;
    s->state = SERVER_CLOSING_CLIENTS;
    if (s->join)
        join_free(s->join);
    s->join = NULL;
    if (s->first)
        first_free(s->first);
    s->first = NULL;
    if (s->rejoin)
        rejoin_free(s->rejoin);
    s->rejoin = NULL;
    if (s->api)
        api_stop(s->api);
    if (s->clients)
        rpc_server_stop(s->clients, s->failed ? 0 : SERVER_STOP_GRACE_MS, on_clients_closed, s);
    else
        on_clients_closed(s);
}

/* After a failed disk nothing may be written any more: the replica and its workers are left as they are,
 * for the end of the process. */
void server_fail(struct server *s, const struct error *why)
{
    if (s->why.code)
        return;
    s->why = *why;
    if (why->code != ERR_STOPPED)
        s->failed = true;
    server_close(s);
}

void server_stop(struct server *s)
{
    if (s->state == SERVER_RUNNING) {
        struct raft_status status;
        replica_status(s->replica, &status);
        if (status.role == RAFT_LEADER && status.conf.voter_count > 1 &&
            replica_transfer_leader(s->replica, 0) == ERR_OK) {
            s->state = SERVER_HANDING_OVER;
            s->handover_until_ms = uv_now(s->loop) + s->config.election_ms;
            drive_wake(s);
            return;
        }
    }
    server_close(s);
}
