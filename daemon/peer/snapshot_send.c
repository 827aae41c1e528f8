/* Sending a snapshot: chunks are pulled from the replica as the peer acknowledges them. */
#include "daemon/peer/peer_internal.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/log.h"

struct snapshot_out {
    struct peer *peer;
    struct rpc_stream *stream;
    struct replica_snapshot *source;
    uint64_t sent; /* chunks, the announcing one included */
    uint64_t acked;
    bool pulling; /* a replica_snapshot_next() is under way */
    bool last_sent;
    uint64_t bytes;
};

static void pull(struct snapshot_out *s);

static void finish(struct snapshot_out *s, bool ok, const char *why)
{
    struct peer *peer = s->peer;
    assert(peer->snapshot == s);
    peer->snapshot = NULL;
    if (s->stream)
        rpc_stream_cancel(s->stream);
    if (ok)
        log_info("peer", "sent a snapshot peer=%016llx bytes=%llu", (unsigned long long)peer->id,
                 (unsigned long long)s->bytes);
    else
        log_warn("peer", "a snapshot failed peer=%016llx bytes=%llu reason=%s",
                 (unsigned long long)peer->id, (unsigned long long)s->bytes, why);
    replica_snapshot_sent(s->source, ok);
    free(s);
}

static void send_chunk(struct snapshot_out *s, const Raftpb__Message *announce, struct bytes data,
                       bool last)
{
    struct peers *p = s->peer->peers;
    Raftpb__SnapshotChunk chunk = RAFTPB__SNAPSHOT_CHUNK__INIT;
    chunk.cluster_id = p->cluster_id;
    chunk.from = p->member_id;
    chunk.to = s->peer->id;
    chunk.message = (Raftpb__Message *)announce;
    chunk.seq = s->sent++;
    chunk.data = (ProtobufCBinaryData){data.n, (uint8_t *)data.p};
    chunk.crc = crc32c(0, data.p, data.n);
    chunk.last = last;
    size_t size = raftpb__snapshot_chunk__get_packed_size(&chunk);
    uint8_t *packed = xmalloc(size);
    raftpb__snapshot_chunk__pack(&chunk, packed);
    rpc_stream_send(s->stream, bytes_of(packed, size));
    free(packed);
    s->bytes += data.n;
    s->last_sent = last;
}

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct snapshot_out *s = ctx;
    s->pulling = false;
    if (code) {
        finish(s, false, errc_text(code));
        return;
    }
    send_chunk(s, NULL, chunk, last);
    pull(s);
}

static void pull(struct snapshot_out *s)
{
    if (s->pulling || s->last_sent || s->sent - s->acked >= PEER_SNAPSHOT_WINDOW ||
        !rpc_stream_writable(s->stream))
        return;
    s->pulling = true;
    replica_snapshot_next(s->source, on_chunk, s);
}

static void on_ack(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    struct snapshot_out *s = ctx;
    Raftpb__SnapshotAck *ack = raftpb__snapshot_ack__unpack(NULL, message.n, message.p);
    if (!ack || ack->error[0] || ack->seq != s->acked || ack->seq >= s->sent) {
        finish(s, false, ack && ack->error[0] ? ack->error : "a malformed acknowledgement");
    } else {
        s->acked++;
        if (s->last_sent && s->acked == s->sent)
            finish(s, true, NULL);
        else
            pull(s);
    }
    if (ack)
        raftpb__snapshot_ack__free_unpacked(ack, NULL);
}

static void on_writable(struct rpc_stream *st, void *ctx)
{
    (void)st;
    pull(ctx);
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    (void)st;
    (void)sent;
    struct snapshot_out *s = ctx;
    s->stream = NULL;
    finish(s, false, status ? text : "the receiver closed the stream early");
}

static const struct rpc_stream_handler handler = {
    .message = on_ack,
    .writable = on_writable,
    .closed = on_closed,
};

void snapshot_out_begin(struct peer *peer)
{
    assert(!peer->snapshot && peer->snapshot_wanted);
    free(peer->snapshot_wanted);
    peer->snapshot_wanted = NULL;
    struct raft_message m;
    struct replica_snapshot *source = replica_snapshot_open(peer->peers->replica, peer->id, &m);
    if (!source)
        return;
    if (!peer->channel || peer->lost) {
        replica_snapshot_sent(source, false);
        return;
    }
    struct snapshot_out *s = xcalloc(1, sizeof(*s));
    s->peer = peer;
    s->source = source;
    peer->snapshot = s;
    s->stream = rpc_stream_open(peer->channel, "/raftpb.Peer/Snapshot", 0, NULL, 0, &handler, s);
    struct arena arena = {0};
    Raftpb__Message wire;
    codec_to_wire(&m, &arena, &wire);
    send_chunk(s, &wire, BYTES_EMPTY, false);
    arena_free(&arena);
    pull(s);
}

void snapshot_out_abort(struct peer *peer)
{
    if (peer->snapshot)
        finish(peer->snapshot, false, "the peer was removed, or this member stops");
}
