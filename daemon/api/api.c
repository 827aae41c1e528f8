#include "daemon/api/api.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/api/call.h"

#define TICK_MS 100 /* how often streams are looked at; progress and lost leaders need no better */

struct api *api_new(const struct api_config *config)
{
    struct api *api = xcalloc(1, sizeof(*api));
    api->config = *config;
    if (api->config.snapshot_stall_ms == 0)
        api->config.snapshot_stall_ms = API_SNAPSHOT_STALL_MS;
    api->client = (struct api_port){api, false};
    api->peer = (struct api_port){api, true};
    list_init(&api->streams);
    list_init(&api->waiting);
    list_init(&api->slicing);
    list_init(&api->snapping);
    return api;
}

void api_register(struct api *api, struct rpc_server *client_port)
{
    rpc_server_add(client_port, kv_methods, kv_method_count, &api->client);
    rpc_server_add(client_port, watch_methods, watch_method_count, &api->client);
    rpc_server_add(client_port, lease_methods, lease_method_count, &api->client);
    rpc_server_add(client_port, cluster_methods, cluster_method_count, &api->client);
    rpc_server_add(client_port, maintenance_methods, maintenance_method_count, &api->client);
    rpc_server_add(client_port, snapshot_methods, snapshot_method_count, &api->client);
    rpc_server_add(client_port, health_methods, health_method_count, &api->client);
    rpc_server_add(client_port, info_methods, info_method_count, &api->client);
}

void api_register_peer(struct api *api, struct rpc_server *peer_port)
{
    rpc_server_add(peer_port, lease_methods, lease_method_count, &api->peer);
    rpc_server_add(peer_port, cluster_methods, cluster_method_count, &api->peer);
    rpc_server_add(peer_port, maintenance_methods, maintenance_method_count, &api->peer);
}

bool api_poll(struct api *api)
{
    if (!list_empty(&api->waiting))
        watch_poll(api);
    range_poll(api);
    bool snaps = snapshot_poll(api);
    return snaps || !list_empty(&api->slicing);
}

/* Streams that asked for a leader end when there has been none for a while (etcd's monitorLeader). */
static void check_leader(struct api *api, uint64_t now_ms)
{
    if (api_has_leader(api)) {
        api->no_leader_since_ms = 0;
        return;
    }
    if (api->no_leader_since_ms == 0)
        api->no_leader_since_ms = now_ms;
    if (now_ms - api->no_leader_since_ms < API_NO_LEADER_TICKS * api->config.election_ms)
        return;
    LIST_FOR_EACH_SAFE(it, tmp, &api->streams)
    {
        struct api_stream *st = CONTAINER_OF(it, struct api_stream, link);
        if (st->wants_leader)
            api_stream_finish(st, ERR_NO_LEADER);
    }
}

void api_tick(struct api *api)
{
    uint64_t now_ms = uv_now(api->config.loop);
    if (now_ms < api->tick_at_ms)
        return;
    api->tick_at_ms = now_ms + TICK_MS;
    check_leader(api, now_ms);
    LIST_FOR_EACH_SAFE(it, tmp, &api->streams)
    {
        struct api_stream *st = CONTAINER_OF(it, struct api_stream, link);
        if (st->tick && !st->finished)
            st->tick(st, now_ms);
    }
}

void api_stop(struct api *api)
{
    api->stopping = true;
    LIST_FOR_EACH_SAFE(it, tmp, &api->streams)
    api_stream_finish(CONTAINER_OF(it, struct api_stream, link), ERR_STOPPED);
}

void api_free(struct api *api)
{
    assert(list_empty(&api->streams));
    buf_free(&api->scratch);
    free(api);
}
