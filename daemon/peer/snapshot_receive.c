/* Receiving one stream of a snapshot: chunks go to the replica one at a time, each acknowledged when it is stored.
 * What a stream has brought stays with the replica when it ends, for the next one. */
#include "daemon/peer/peer_internal.h"

#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"

struct snapshot_in {
    struct list link; /* in peers.receiving */
    struct peers *peers;
    struct rpc_call *call;
    uint64_t stream; /* its name with the replica; 0: not begun, or over */
    bool waiting;    /* the replica works for it */
    bool last;
    uint64_t seq;
    struct replica_announcement announcement;
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

static void send_ack(struct snapshot_in *s, Raftpb__SnapshotAck *ack)
{
    uint8_t packed[RPC_STATUS_TEXT_MAX + 64];
    ack->seq = s->seq++;
    rpc_call_send(s->call, bytes_of(packed, raftpb__snapshot_ack__pack(ack, packed)));
}

static void leave(struct snapshot_in *s)
{
    replica_receive_snapshot_leave(s->peers->replica, s->stream);
    s->stream = 0;
}

/* code ERR_OK: the sender did something wrong, and should begin anew. */
static void reject(struct snapshot_in *s, enum errc code, const char *why)
{
    Raftpb__SnapshotAck ack = RAFTPB__SNAPSHOT_ACK__INIT;
    if (code != ERR_EXISTS)
        log_warn("peer", "refused a snapshot from=%s: %s", rpc_call_peer(s->call), why);
    leave(s);
    ack.error = (char *)why;
    ack.code = code;
    send_ack(s, &ack);
    rpc_call_finish(s->call, 0, "");
}

static void on_begun(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    struct snapshot_in *s = ctx;
    s->waiting = false;
    if (code) {
        reject(s, code, errc_text(code));
        return;
    }
    log_info("peer", "a snapshot comes from=%s index=%llu offset=%llu", rpc_call_peer(s->call),
             (unsigned long long)s->announcement.message.snapshot_index,
             (unsigned long long)at.offset);
    Raftpb__SnapshotAck ack = RAFTPB__SNAPSHOT_ACK__INIT;
    ack.offset = at.offset;
    ack.sum = at.sum;
    send_ack(s, &ack);
    rpc_call_resume(s->call);
}

static void on_stored(void *ctx, enum errc code)
{
    struct snapshot_in *s = ctx;
    s->waiting = false;
    if (code) {
        reject(s, code, errc_text(code));
        return;
    }
    Raftpb__SnapshotAck ack = RAFTPB__SNAPSHOT_ACK__INIT;
    send_ack(s, &ack);
    if (s->last) {
        s->stream = 0;
        rpc_call_finish(s->call, 0, "");
        return;
    }
    rpc_call_resume(s->call);
}

/* NULL: it is one. */
static const char *read_announcement(struct snapshot_in *s, const Raftpb__SnapshotChunk *chunk)
{
    struct peers *p = s->peers;
    struct replica_announcement *a = &s->announcement;
    if (chunk->cluster_id != p->cluster_id)
        return "cluster id mismatch";
    if (chunk->to != p->member_id || chunk->from == p->member_id || chunk->from == 0)
        return "member id mismatch";
    if (!chunk->message || chunk->message->type != RAFT_MSG_SNAPSHOT ||
        chunk->message->n_entries > 0 || chunk->message->from != chunk->from ||
        codec_from_wire(chunk->message, &a->message))
        return "a malformed announcement";
    if (chunk->id)
        a->id = (struct mvcc_snapshot_id){chunk->id->index, chunk->id->term, chunk->id->maker,
                                          chunk->id->serial};
    a->size = chunk->size;
    return NULL;
}

static void begin(struct snapshot_in *s, const Raftpb__SnapshotChunk *chunk)
{
    const char *why = read_announcement(s, chunk);
    if (why) {
        reject(s, ERR_OK, why);
        return;
    }
    struct replica_receiver receiver = {on_begun, on_stored, s};
    /* Back-pressure, here and for each chunk: nothing more is read until the replica is through. */
    rpc_call_pause(s->call);
    s->waiting = true;
    enum errc code =
        replica_receive_snapshot_begin(s->peers->replica, &s->announcement, &receiver, &s->stream);
    if (code) {
        s->waiting = false;
        reject(s, code, errc_text(code));
    }
}

static void take(struct snapshot_in *s, const Raftpb__SnapshotChunk *chunk)
{
    if (chunk->seq != s->seq) {
        reject(s, ERR_OK, "a chunk out of order");
        return;
    }
    if (chunk->seq == 0) {
        begin(s, chunk);
        return;
    }
    if (chunk->crc != crc32c(0, chunk->data.data, chunk->data.len)) {
        reject(s, ERR_CANCELLED, "a damaged chunk (checksum)");
        return;
    }
    struct replica_chunk c = {bytes_of(chunk->data.data, chunk->data.len), chunk->offset,
                              chunk->sum, chunk->last};
    rpc_call_pause(s->call);
    s->waiting = true;
    s->last = chunk->last;
    enum errc code = replica_receive_snapshot_chunk(s->peers->replica, s->stream, &c);
    if (code) {
        s->waiting = false;
        reject(s, code, errc_text(code));
    }
}

static void on_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct snapshot_in *s = rpc_call_user(call);
    Raftpb__SnapshotChunk *chunk = raftpb__snapshot_chunk__unpack(NULL, message.n, message.p);
    if (!chunk) {
        reject(s, ERR_OK, "a malformed chunk");
        return;
    }
    take(s, chunk);
    raftpb__snapshot_chunk__free_unpacked(chunk, NULL);
}

static void on_half_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct snapshot_in *s = rpc_call_user(call);
    if (!s->waiting)
        rpc_call_finish(call, errc_grpc_code(ERR_INVALID), "a snapshot without its last chunk");
}

static void on_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct snapshot_in *s = rpc_call_user(call);
    list_remove(&s->link);
    leave(s);
    free(s);
}

/* At the end of the peers: the replica is closed next and calls nobody back. */
void snapshot_in_abandon_all(struct peers *p)
{
    LIST_FOR_EACH_SAFE(it, tmp, &p->receiving)
    {
        leave(CONTAINER_OF(it, struct snapshot_in, link));
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
