/* What the files of daemon/peer share. */
#ifndef PEER_INTERNAL_H
#define PEER_INTERNAL_H

#include "daemon/peer/codec.h"
#include "daemon/peer/peer.h"
#include "lib/base/list.h"

struct snapshot_out; /* snapshot_send.c */

struct peer {
    struct list link; /* in peers.list */
    struct peers *peers;
    uint64_t id;
    char **urls;
    size_t url_count, url_next;

    struct rpc_channel *channel; /* NULL: waiting for the back-off timer */
    struct rpc_stream *stream;   /* Peer/Messages; NULL as well */
    uv_timer_t *timer;           /* the back-off; closes itself with the peer */
    uint64_t backoff_ms;
    bool up;             /* the connection stands */
    bool lost;           /* the channel is to be freed from the timer, not from its own callback */
    bool logged_refusal; /* another cluster: said once */

    struct buf batch;  /* of this turn, unfinished */
    struct list queue; /* struct queued: finished batches that the stream couldn't take */
    size_t queue_bytes;

    struct raft_message *snapshot_wanted; /* from send(), begun by the next flush */
    struct snapshot_out *snapshot;
};

struct peers {
    struct replica_transport transport;
    uv_loop_t *loop;
    struct replica *replica; /* NULL until peers_start() */
    uint64_t cluster_id, member_id;
    size_t request_bytes_max;
    struct list list;
    struct list forwards; /* struct peer_forward */
    size_t forward_count;
    uv_timer_t *forward_timer;
    struct list receiving; /* struct snapshot_in: at most one lives in the replica */
    bool stopping;
    void (*removed)(void *ctx);
    void *removed_ctx;
    uint64_t strangers[16]; /* members of other clusters whose refusal was logged */
    size_t stranger_next;
};

/* What a removed member is told, with FAILED_PRECONDITION. */
#define PEER_REMOVED_TEXT "the member has been permanently removed from the cluster"

struct peer *peer_find(struct peers *p, uint64_t id);

/* ---- snapshot_send.c */
void snapshot_out_begin(struct peer *peer);
void snapshot_out_abort(struct peer *peer); /* if any: reports the failure */

/* ---- snapshot_receive.c, receive.c: methods of the peer port */
extern const struct rpc_method peer_snapshot_method, peer_messages_method;
void snapshot_in_abandon_all(struct peers *p);

/* ---- forward.c */
void forwards_fail(struct peers *p, enum errc code);

#endif
