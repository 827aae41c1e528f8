/* The gRPC services of etcd's v3 API on top of one replica: one file a service.
 *
 * Answers, status codes and error texts are etcd 3.4's; what a follower can't answer (lease renewal,
 * member changes) is forwarded to the leader's peer port, where the same services are registered once more
 * and answer only as the leader. Extensions: the request header `quorumfs-request-id` ("CLIENTIDHEX/SEQ")
 * names a write that is applied once however often it is sent; WatchProgressRequest.linearizable;
 * /quorumfs.Info/Version, by which a client knows that it may use them.
 *
 * Life cycle: api_new(), api_register() on the client port and api_register_peer() on the peer port;
 * api_poll() once a loop turn, after replica_poll(); api_tick() with the replica's ticks; api_stop() ends the
 * streams before the rpc servers are stopped; api_free() after the replica was closed. Loop thread only. */
#ifndef API_API_H
#define API_API_H

#include <uv.h>

#include "daemon/peer/peer.h"
#include "daemon/replica/replica.h"
#include "lib/rpc/rpc.h"

/* What `endpoint status` and clients that look for features see: the release of etcd whose behaviour the
 * API has (progress answers that never run ahead of events came with it). */
#define API_ETCD_VERSION "3.4.31"

#define API_WATCHES_MAX 100000 /* on one stream; each is some 300 bytes */
#define API_PROGRESS_MAX 64    /* progress requests of a stream under way; then it isn't read */
#define API_RENEWALS_MAX 1024  /* renewals of a stream under way; then it isn't read */
#define API_PROGRESS_NOTIFY_MS 600000 /* etcd's interval */
#define API_NO_LEADER_TICKS 3 /* election timeouts without a leader that end `hasleader` streams */
/* Copies of the store going out at once: each keeps compaction from going on. A client that takes nothing for
 * API_SNAPSHOT_STALL_MS, or needs longer than API_SNAPSHOT_MS for all of it (2 GiB at 600 KB/s), is cut off. */
#define API_SNAPSHOTS_MAX 2
#define API_SNAPSHOT_STALL_MS 30000
#define API_SNAPSHOT_MS 3600000
/* gRPC's own limit on a message stands above the request's, as etcd's: between the two the answer is
 * etcd's "request is too large". */
#define API_MESSAGE_OVERHEAD (512u * 1024)

struct api;

struct api_config {
    uv_loop_t *loop;
    struct replica *replica;
    struct peers *peers;
    struct env *env;
    size_t request_bytes_max;
    size_t txn_ops_max;
    uint64_t request_timeout_ms; /* of what is forwarded */
    uint64_t election_ms;
    uint64_t snapshot_stall_ms;                 /* 0: API_SNAPSHOT_STALL_MS */
    void (*defragmented)(void *ctx, bool done); /* for the log; may be NULL */
    /* A read found a row whose checksum is wrong; may be NULL. The call fails, and the member is not to be
     * trusted any more. Ends nothing by itself. */
    void (*damaged)(void *ctx, const struct error *err);
    void *ctx;
};

struct api *api_new(const struct api_config *config);
void api_register(struct api *api, struct rpc_server *client_port);
void api_register_peer(struct api *api, struct rpc_server *peer_port);

/* Progress answers that have become true, slices of large ranges; true: call again without sleeping. */
bool api_poll(struct api *api);
void api_tick(struct api *api); /* every so often; keeps time itself */

/* Ends all watch, keep-alive and health streams with "server stopped". */
void api_stop(struct api *api);
void api_free(struct api *api); /* no call may be left */

#endif
