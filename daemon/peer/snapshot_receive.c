/* Receiving a snapshot: chunks go to the replica one at a time, each acknowledged when it is stored. */
#include "daemon/peer/peer_internal.h"

#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"

struct snapshot_in {
    struct list link; /* in peers.receiving */
    struct peers *peers;
    struct rpc_call *call; /* NULL: closed, but the replica still has our callback */
    bool begun;            /* the replica works on it */
    bool storing;          /* a chunk is with the replica */
    bool last;
    uint64_t seq;
    struct raft_message message; /* without entries */
};

static void on_started(struct rpc_call *call, void *service)
{
    struct peers *p = service;
    struct snapshot_in *s = xcalloc(1, sizeof(*s));
    s->peers = p;
    s->call = call;
    list_append(&p->receiving, &s->link);
    rpc_call_set_user(call, s);
}

static void acknowledge(struct snapshot_in *s, const char *error)
{
    Raftpb__SnapshotAck ack = RAFTPB__SNAPSHOT_ACK__INIT;
    uint8_t packed[RPC_STATUS_TEXT_MAX + 32];
    ack.seq = s->seq++;
    ack.error = (char *)error;
    rpc_call_send(s->call, bytes_of(packed, raftpb__snapshot_ack__pack(&ack, packed)));
}

static void abandon(struct snapshot_in *s)
{
    if (!s->begun)
        return;
    s->begun = false;
    replica_receive_snapshot_abort(s->peers->replica);
}

static void reject(struct snapshot_in *s, const char *why)
{
    log_warn("peer", "refused a snapshot from=%s: %s", rpc_call_peer(s->call), why);
    abandon(s);
    acknowledge(s, why);
    rpc_call_finish(s->call, 0, "");
}

static void on_stored(void *ctx, enum errc code)
{
    struct snapshot_in *s = ctx;
    s->storing = false;
    if (!s->call) {
        abandon(s);
        free(s);
        return;
    }
    if (code) {
        reject(s, errc_text(code));
        return;
    }
    acknowledge(s, "");
    if (s->last) {
        s->begun = false;
        rpc_call_finish(s->call, 0, "");
        return;
    }
    rpc_call_resume(s->call);
}

static const char *begin(struct snapshot_in *s, const Raftpb__SnapshotChunk *chunk)
{
    struct peers *p = s->peers;
    if (chunk->cluster_id != p->cluster_id)
        return "cluster id mismatch";
    if (chunk->to != p->member_id || chunk->from == p->member_id || chunk->from == 0)
        return "member id mismatch";
    if (!chunk->message || chunk->message->type != RAFT_MSG_SNAPSHOT ||
        chunk->message->n_entries > 0 || chunk->message->from != chunk->from ||
        codec_from_wire(chunk->message, &s->message))
        return "a malformed announcement";
    enum errc e = replica_receive_snapshot_begin(p->replica, &s->message);
    if (e)
        return errc_text(e);
    s->begun = true;
    return NULL;
}

static void take(struct snapshot_in *s, const Raftpb__SnapshotChunk *chunk)
{
    if (chunk->seq != s->seq) {
        reject(s, "a chunk out of order");
        return;
    }
    if (chunk->seq == 0) {
        const char *why = begin(s, chunk);
        if (why)
            reject(s, why);
        else
            acknowledge(s, "");
        return;
    }
    if (chunk->crc != crc32c(0, chunk->data.data, chunk->data.len)) {
        reject(s, "a damaged chunk (checksum)");
        return;
    }
    /* Back-pressure: nothing more is read until this chunk is stored. */
    rpc_call_pause(s->call);
    s->storing = true;
    s->last = chunk->last;
    replica_receive_snapshot_chunk(s->peers->replica, bytes_of(chunk->data.data, chunk->data.len),
                                   chunk->last, on_stored, s);
}

static void on_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct snapshot_in *s = rpc_call_user(call);
    Raftpb__SnapshotChunk *chunk = raftpb__snapshot_chunk__unpack(NULL, message.n, message.p);
    if (!chunk) {
        reject(s, "a malformed chunk");
        return;
    }
    take(s, chunk);
    raftpb__snapshot_chunk__free_unpacked(chunk, NULL);
}

static void on_half_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct snapshot_in *s = rpc_call_user(call);
    if (!s->storing)
        rpc_call_finish(call, errc_grpc_code(ERR_INVALID), "a snapshot without its last chunk");
}

static void on_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct snapshot_in *s = rpc_call_user(call);
    s->call = NULL;
    list_remove(&s->link);
    if (s->storing)
        return; /* on_stored() frees it */
    abandon(s);
    free(s);
}

/* At the end of the peers: the replica is closed next and calls nobody back. */
void snapshot_in_abandon_all(struct peers *p)
{
    LIST_FOR_EACH_SAFE(it, tmp, &p->receiving)
    {
        struct snapshot_in *s = CONTAINER_OF(it, struct snapshot_in, link);
        abandon(s);
    }
}

const struct rpc_method peer_snapshot_method = {
    .path = "/raftpb.Peer/Snapshot",
    .client_streams = true,
    .started = on_started,
    .message = on_message,
    .half_closed = on_half_closed,
    .closed = on_closed,
};
