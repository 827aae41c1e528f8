/* Maintenance.Snapshot: a copy of this member's store for a file, in etcd's form: blobs, the last of them the
 * SHA-256 of all before it (lib/snapfile/file.h).
 *
 * A chunk of the store is sent and hashed in pieces, one a turn of the loop, and the next one is read when the
 * client has taken it: what waits for a client is a chunk and the stream's queue. Compaction waits for the
 * snapshot, so a client that takes nothing, or too long, is cut off. */
#include <stdlib.h>

#include "daemon/api/call.h"
#include "lib/snapfile/file.h"

#define PIECE_BYTES (32u * 1024) /* etcd's; hashed in a tenth of a millisecond */

struct snapshot_stream {
    struct api_stream stream; /* first */
    struct api *api;
    struct list link; /* in api.snapping: it has something to send */
    struct replica_backup *source;
    struct sha256 *hash;
    int64_t revision;
    uint64_t estimate; /* of all bytes; only the last answers say what really remains */
    uint64_t sent;
    struct buf chunk;
    size_t at; /* of it sent */
    bool pulling, last;
    uint64_t began_ms, progress_ms;
};

/* ---- Sending ------------------------------------------------------------------------------------- */

static void send_blob(struct snapshot_stream *s, const void *p, size_t n, uint64_t remaining)
{
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    Etcdserverpb__SnapshotResponse response = ETCDSERVERPB__SNAPSHOT_RESPONSE__INIT;
    api_header(s->api, &header, s->revision);
    response.header = &header;
    response.remaining_bytes = remaining;
    response.blob = (ProtobufCBinaryData){n, (uint8_t *)p};
    api_send(s->api, s->stream.call, &response.base);
    s->sent += n;
    s->progress_ms = uv_now(s->api->config.loop);
}

static void close_source(struct snapshot_stream *s)
{
    if (!s->source)
        return;
    replica_backup_close(s->source);
    s->source = NULL;
    s->api->snapshot_count--;
}

/* The stream itself ends only when its client takes what is queued: nothing else waits for that. */
static void finish(struct snapshot_stream *s, enum errc code)
{
    list_remove(&s->link);
    close_source(s);
    api_stream_finish(&s->stream, code);
}

static void send_end(struct snapshot_stream *s)
{
    static const uint8_t zeros[SNAPFILE_ALIGN];
    uint8_t digest[SHA256_BYTES];
    size_t padding = snapfile_padding(s->sent);
    sha256_add(s->hash, zeros, padding);
    if (padding > 0)
        send_blob(s, zeros, padding, 0);
    sha256_end(s->hash, digest);
    send_blob(s, digest, sizeof(digest), 0);
    finish(s, ERR_OK);
}

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct snapshot_stream *s = ctx;
    s->pulling = false;
    if (s->stream.finished)
        return;
    if (code) {
        finish(s, code == ERR_CANCELLED ? ERR_UNAVAILABLE : code);
        return;
    }
    s->chunk.n = s->at = 0;
    buf_append(&s->chunk, chunk.p, chunk.n);
    s->last = last;
    list_remove(&s->link);
    list_append(&s->api->snapping, &s->link);
}

static void send_piece(struct snapshot_stream *s)
{
    size_t n = s->chunk.n - s->at < PIECE_BYTES ? s->chunk.n - s->at : PIECE_BYTES;
    const uint8_t *p = s->chunk.p + s->at;
    s->at += n;
    sha256_add(s->hash, p, n);
    uint64_t sent = s->sent + n;
    send_blob(s, p, n, s->estimate > sent ? s->estimate - sent : 1);
    if (s->at < s->chunk.n)
        return;
    list_remove(&s->link);
    if (s->last) {
        send_end(s);
        return;
    }
    s->pulling = true;
    replica_backup_next(s->source, on_chunk, s);
}

/* One piece in all, of the stream that has waited longest. One whose client lags waits for `writable`. */
bool snapshot_poll(struct api *api)
{
    if (list_empty(&api->snapping))
        return false;
    struct snapshot_stream *s = CONTAINER_OF(api->snapping.next, struct snapshot_stream, link);
    list_remove(&s->link);
    if (s->stream.finished || !rpc_call_writable(s->stream.call))
        return !list_empty(&api->snapping);
    list_append(&api->snapping, &s->link);
    send_piece(s);
    return !list_empty(&api->snapping);
}

static void on_writable(struct rpc_call *call, void *service)
{
    (void)service;
    struct snapshot_stream *s = rpc_call_user(call);
    if (s->stream.finished || s->pulling || s->at == s->chunk.n || !list_empty(&s->link))
        return;
    list_append(&s->api->snapping, &s->link);
}

/* ---- Life ---------------------------------------------------------------------------------------- */

static void on_tick(struct api_stream *st, uint64_t now_ms)
{
    struct snapshot_stream *s = CONTAINER_OF(st, struct snapshot_stream, stream);
    if ((!s->pulling && now_ms - s->progress_ms > s->api->config.snapshot_stall_ms) ||
        now_ms - s->began_ms > API_SNAPSHOT_MS)
        finish(s, ERR_DEADLINE);
}

static void on_started(struct rpc_call *call, void *service)
{
    struct api_port *port = service;
    struct snapshot_stream *s = xcalloc(1, sizeof(*s));
    s->api = port->api;
    list_init(&s->link);
    rpc_call_set_user(call, s);
    api_stream_begin(port->api, &s->stream, call);
}

static void on_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service, (void)message; /* the request has no fields */
    struct snapshot_stream *s = rpc_call_user(call);
    if (s->stream.finished || s->source)
        return;
    if (s->api->snapshot_count >= API_SNAPSHOTS_MAX) {
        finish(s, ERR_TOO_MANY_REQUESTS);
        return;
    }
    s->source = replica_backup_open(s->api->config.replica, &s->revision);
    if (!s->source) {
        finish(s, ERR_UNAVAILABLE);
        return;
    }
    s->api->snapshot_count++;
    s->hash = sha256_new();
    s->estimate = mvcc_size_in_use(replica_store(s->api->config.replica));
    s->began_ms = s->progress_ms = uv_now(s->api->config.loop);
    s->stream.tick = on_tick;
    s->pulling = true;
    replica_backup_next(s->source, on_chunk, s);
}

static void on_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct snapshot_stream *s = rpc_call_user(call);
    close_source(s);
    list_remove(&s->link);
    api_stream_end(&s->stream);
    sha256_free(s->hash);
    buf_free(&s->chunk);
    free(s);
}

const struct rpc_method snapshot_methods[] = {
    {.path = "/etcdserverpb.Maintenance/Snapshot",
     .started = on_started,
     .message = on_message,
     .writable = on_writable,
     .closed = on_closed},
};
const size_t snapshot_method_count = ARRAY_LEN(snapshot_methods);
