/* The other members, over gRPC: a replica_transport, and calls to the leader.
 *
 * To each peer there is one channel with one stream `raftpb.Peer/Messages` for what this member says; what
 * the peer says arrives on the peer's own stream, at our peer port. All messages of one loop turn to one
 * peer go out as one batch. A lost connection is made again after a back-off, at the next of the peer's
 * URLs; a refused or reset one is reported to the replica (replica_peer_gone), and messages for a peer that
 * can't take them are dropped and reported (replica_peer_unreachable): Raft repeats what matters.
 *
 * Snapshots go over a stream of their own (`raftpb.Peer/Snapshot`), one at a time to a peer, a few chunks
 * ahead of the receiver's acknowledgements. A peer of another cluster is refused with FAILED_PRECONDITION
 * and logged once.
 *
 * Life cycle: peers_new(), peers_transport() into the replica's configuration, replica_open(),
 * peers_start(); peers_free() before replica_close(). Threading: the loop thread. */
#ifndef PEER_PEER_H
#define PEER_PEER_H

#include <uv.h>

#include "daemon/replica/replica.h"
#include "lib/rpc/rpc.h"

/* Of one batch, before the next begins: small enough not to hold up a heartbeat behind it for long. */
#define PEER_BATCH_BYTES 1048576u
/* Packed messages waiting for one peer whose connection is behind; more are dropped. Raft's own window
 * (inflight_bytes_max) is below it. */
#define PEER_QUEUE_BYTES_MAX 33554432u
/* What a message on the peer port may be: the largest batch ends with one entry of the largest request,
 * beside a core's append of a few MiB. */
#define PEER_MESSAGE_OVERHEAD 16777216u
#define PEER_BACKOFF_MIN_MS 50   /* half a heartbeat: a restarted peer is found again at once */
#define PEER_BACKOFF_MAX_MS 1000 /* an election timeout: no longer away than one election takes */
#define PEER_KEEPALIVE_MS 5000
#define PEER_SNAPSHOT_WINDOW 4  /* chunks on the way: 1 MiB, a fast link's round trip */
#define PEER_FORWARDS_MAX 10000 /* calls to the leader that wait at a time */
#define PEER_FORWARD_RETRY_MS 50

struct peers;

struct peers *peers_new(uv_loop_t *loop, uint64_t cluster_id, uint64_t member_id,
                        size_t request_bytes_max);
struct replica_transport *peers_transport(struct peers *p);
/* `removed` (may be NULL): a peer says that the cluster has removed this member, which may not have learned of
 * it itself: the entry is committed without it. */
void peers_start(struct peers *p, struct replica *r, void (*removed)(void *ctx), void *ctx);
void peers_serve(struct peers *p, struct rpc_server *peer_port);
size_t peers_message_max(const struct peers *p); /* for the peer port's rpc_server_config */

/* Sends the turn's batches; the driver calls it after replica_poll(). */
void peers_flush(struct peers *p);

/* Ends all streams and calls (forwards fail with ERR_STOPPED) and frees. */
void peers_free(struct peers *p);

/* Calls a unary method (client_streams ones too: one request, one answer) on the leader's peer port. If no
 * leader is known, or the call can't have reached it or found it deposed, it is tried again until
 * timeout_ms have passed. `done` exactly once, never inside this call: ERR_OK with the answer, ERR_TIMEOUT,
 * ERR_STOPPED, ERR_LEADER_CHANGED if this member itself has become the leader (answer it here), or the leader's own error. NULL: too many are waiting. */
struct peer_forward;
struct peer_forward *peers_forward(struct peers *p, const char *path, struct bytes request,
                                   uint64_t timeout_ms,
                                   void (*done)(void *ctx, enum errc code, struct bytes answer),
                                   void *ctx);
void peer_forward_cancel(struct peer_forward *f); /* `done` does not run any more */

#endif
