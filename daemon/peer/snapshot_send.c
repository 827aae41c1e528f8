/* One stream of a snapshot: chunks are pulled from the replica as the peer acknowledges them, from the place on
 * where the peer says that it is. When the stream breaks, the replica asks for the next one. */
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
    uint64_t begun_at, offset; /* of this stream's data, and of the next chunk, in the snapshot */
};

static void pull(struct snapshot_out *s);

/* Takes s away from its peer: what comes of the stream is nobody's business any more. */
static struct replica_snapshot *detach(struct snapshot_out *s)
{
    struct replica_snapshot *source = s->source;
    assert(s->peer->snapshot == s);
    s->peer->snapshot = NULL;
    if (s->stream)
        rpc_stream_cancel(s->stream);
    free(s);
    return source;
}

static void finish(struct snapshot_out *s)
{
    log_info("peer", "sent a snapshot peer=%016llx from=%llu bytes=%llu",
             (unsigned long long)s->peer->id, (unsigned long long)s->begun_at,
             (unsigned long long)(s->offset - s->begun_at));
    replica_snapshot_sent(detach(s), true);
}

static void fail(struct snapshot_out *s, const char *why)
{
    log_warn("peer", "a snapshot failed peer=%016llx offset=%llu reason=%s",
             (unsigned long long)s->peer->id, (unsigned long long)s->offset, why);
    replica_snapshot_sent(detach(s), false);
}

static void broke(struct snapshot_out *s, enum errc code, const char *why)
{
    log_warn("peer", "a snapshot's stream broke peer=%016llx from=%llu offset=%llu reason=%s",
             (unsigned long long)s->peer->id, (unsigned long long)s->begun_at,
             (unsigned long long)s->offset, why);
    replica_snapshot_broken(detach(s), code);
}

static void send_chunk(struct snapshot_out *s, Raftpb__SnapshotChunk *chunk)
{
    struct peers *p = s->peer->peers;
    chunk->cluster_id = p->cluster_id;
    chunk->from = p->member_id;
    chunk->to = s->peer->id;
    chunk->seq = s->sent++;
    chunk->crc = crc32c(0, chunk->data.data, chunk->data.len);
    size_t size = raftpb__snapshot_chunk__get_packed_size(chunk);
    uint8_t *packed = xmalloc(size);
    raftpb__snapshot_chunk__pack(chunk, packed);
    rpc_stream_send(s->stream, bytes_of(packed, size));
    free(packed);
}

static void announce(struct snapshot_out *s, const struct replica_announcement *a)
{
    struct arena arena = {0};
    Raftpb__Message message;
    Raftpb__SnapshotId id = RAFTPB__SNAPSHOT_ID__INIT;
    Raftpb__SnapshotChunk chunk = RAFTPB__SNAPSHOT_CHUNK__INIT;
    codec_to_wire(&a->message, &arena, &message);
    id.index = a->id.index;
    id.term = a->id.term;
    id.maker = a->id.maker;
    id.serial = a->id.serial;
    chunk.message = &message;
    chunk.id = &id;
    chunk.size = a->size;
    send_chunk(s, &chunk);
    arena_free(&arena);
}

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct snapshot_out *s = ctx;
    s->pulling = false;
    if (code) {
        fail(s, errc_text(code));
        return;
    }
    Raftpb__SnapshotChunk wire = RAFTPB__SNAPSHOT_CHUNK__INIT;
    wire.data = (ProtobufCBinaryData){chunk.n, (uint8_t *)chunk.p};
    wire.offset = s->offset;
    wire.sum = replica_snapshot_at(s->source).sum;
    wire.last = s->last_sent = last;
    s->offset += chunk.n;
    send_chunk(s, &wire);
    pull(s);
}

static void pull(struct snapshot_out *s)
{
    if (s->acked == 0 || s->pulling || s->last_sent || s->sent - s->acked >= PEER_SNAPSHOT_WINDOW ||
        !rpc_stream_writable(s->stream))
        return;
    s->pulling = true;
    replica_snapshot_next(s->source, on_chunk, s);
}

static void refused(struct snapshot_out *s, const Raftpb__SnapshotAck *ack)
{
    if (ack->code && ack->code < ERRC_COUNT)
        broke(s, (enum errc)ack->code, ack->error);
    else
        fail(s, ack->error);
}

static void take_ack(struct snapshot_out *s, const Raftpb__SnapshotAck *ack)
{
    bool first = s->acked++ == 0;
    struct mvcc_snapshot_at at = {ack->offset, ack->sum};
    if (first && replica_snapshot_go_on(s->source, &at) != ERR_OK) {
        fail(s, "the receiver has another one");
        return;
    }
    if (first)
        s->begun_at = s->offset = at.offset;
    else
        replica_snapshot_acknowledged(s->source);
    if (s->last_sent && s->acked == s->sent)
        finish(s);
    else
        pull(s);
}

static void on_ack(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    struct snapshot_out *s = ctx;
    Raftpb__SnapshotAck *ack = raftpb__snapshot_ack__unpack(NULL, message.n, message.p);
    if (ack && ack->error[0])
        refused(s, ack);
    else if (!ack || ack->seq != s->acked || ack->seq >= s->sent)
        fail(s, "a malformed acknowledgement");
    else
        take_ack(s, ack);
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
    broke(s, ERR_OK, status ? text : "the receiver closed the stream early");
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
    struct replica_announcement a;
    struct replica_snapshot *source = replica_snapshot_open(peer->peers->replica, peer->id, &a);
    if (!source)
        return;
    if (!peer->channel || peer->lost) {
        replica_snapshot_broken(source, ERR_OK);
        return;
    }
    struct snapshot_out *s = xcalloc(1, sizeof(*s));
    s->peer = peer;
    s->source = source;
    peer->snapshot = s;
    s->stream = rpc_stream_open(peer->channel, "/raftpb.Peer/Snapshot", 0, NULL, 0, &handler, s);
    announce(s, &a);
}

void snapshot_out_abort(struct peer *peer)
{
    if (peer->snapshot)
        fail(peer->snapshot, "the peer was removed, or this member stops");
}
