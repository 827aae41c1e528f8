/* The set of peers: connections, back-off, and what is sent. */
#include "daemon/peer/peer_internal.h"

#include <stdlib.h>

#include "lib/base/log.h"

struct queued {
    struct list link;
    struct buf batch;
};

static void peer_connect(struct peer *peer);

struct peer *peer_find(struct peers *p, uint64_t id)
{
    LIST_FOR_EACH_SAFE(it, tmp, &p->list)
    {
        struct peer *peer = CONTAINER_OF(it, struct peer, link);
        if (peer->id == id)
            return peer;
    }
    return NULL;
}

static void drop_queue(struct peer *peer)
{
    LIST_FOR_EACH_SAFE(it, tmp, &peer->queue)
    {
        struct queued *q = CONTAINER_OF(it, struct queued, link);
        list_remove(it);
        buf_free(&q->batch);
        free(q);
    }
    peer->queue_bytes = 0;
    buf_free(&peer->batch);
}

/* ---- Connections --------------------------------------------------------------------------------- */

/* The fields are cleared first: the last callbacks find that they are about nothing of ours. */
static void disconnect(struct peer *peer)
{
    struct rpc_stream *stream = peer->stream;
    struct rpc_channel *channel = peer->channel;
    peer->stream = NULL;
    peer->channel = NULL;
    peer->up = false;
    if (stream)
        rpc_stream_cancel(stream);
    if (channel)
        rpc_channel_free(channel);
}

static void on_backoff(uv_timer_t *timer)
{
    struct peer *peer = timer->data;
    disconnect(peer);
    peer_connect(peer);
}

/* The connection is of no use any more. It is let go of by the timer, since we may be inside one of its
 * callbacks, and tried again with the next URL. */
static void peer_lost(struct peer *peer)
{
    if (peer->lost)
        return;
    peer->lost = true;
    peer->up = false;
    peer->stream = NULL;
    drop_queue(peer);
    if (peer->url_count)
        peer->url_next = (peer->url_next + 1) % peer->url_count;
    uv_timer_start(peer->timer, on_backoff, peer->backoff_ms, 0);
    peer->backoff_ms *= 2;
    if (peer->backoff_ms > PEER_BACKOFF_MAX_MS)
        peer->backoff_ms = PEER_BACKOFF_MAX_MS;
}

static void on_state(void *ctx, struct rpc_channel *ch, bool up, bool refused, const char *reason)
{
    struct peer *peer = ctx;
    if (peer->channel != ch || peer->peers->stopping)
        return;
    if (up) {
        peer->up = true;
        log_info("peer", "connected peer=%016llx url=%s", (unsigned long long)peer->id,
                 rpc_channel_url(ch));
        return;
    }
    if (peer->up)
        log_warn("peer", "lost the connection peer=%016llx reason=%s", (unsigned long long)peer->id,
                 reason);
    peer_lost(peer);
    if (refused && peer->peers->replica)
        replica_peer_gone(peer->peers->replica, peer->id);
}

static void flush_queue(struct peer *peer)
{
    while (peer->stream && !list_empty(&peer->queue) && rpc_stream_writable(peer->stream)) {
        struct queued *q = CONTAINER_OF(peer->queue.next, struct queued, link);
        list_remove(&q->link);
        peer->queue_bytes -= q->batch.n;
        rpc_stream_send(peer->stream, buf_bytes(&q->batch));
        buf_free(&q->batch);
        free(q);
    }
}

static void on_writable(struct rpc_stream *st, void *ctx)
{
    (void)st;
    flush_queue(ctx);
}

/* The peer acknowledges batches; an answer at all says that it takes them. */
static void on_ack(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    (void)message;
    ((struct peer *)ctx)->backoff_ms = PEER_BACKOFF_MIN_MS;
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    (void)sent;
    struct peer *peer = ctx;
    if (peer->stream != st)
        return;
    peer->stream = NULL;
    if (peer->peers->stopping)
        return;
    if (status == errc_grpc_code(ERR_BUSY) && !peer->logged_refusal) {
        log_error("peer", "refused by peer=%016llx url=%s: %s", (unsigned long long)peer->id,
                  rpc_channel_url(peer->channel), text);
        peer->logged_refusal = true;
    }
    struct peers *p = peer->peers;
    peer_lost(peer);
    if (status == errc_grpc_code(ERR_BUSY) && !strcmp(text, PEER_REMOVED_TEXT) && p->removed)
        p->removed(p->removed_ctx);
}

static const struct rpc_stream_handler stream_handler = {
    .message = on_ack,
    .writable = on_writable,
    .closed = on_closed,
};

static void peer_connect(struct peer *peer)
{
    peer->lost = false;
    if (peer->url_count == 0 || peer->peers->stopping)
        return;
    struct rpc_channel_config config = {
        .message_max = peers_message_max(peer->peers),
        .connect_timeout_ms = 2 * PEER_BACKOFF_MAX_MS,
        .keepalive_ms = PEER_KEEPALIVE_MS,
        .state = on_state,
        .ctx = peer,
    };
    peer->channel = rpc_channel_new(peer->peers->loop, peer->urls[peer->url_next], &config);
    peer->stream =
        rpc_stream_open(peer->channel, "/raftpb.Peer/Messages", 0, NULL, 0, &stream_handler, peer);
}

/* ---- Sending ------------------------------------------------------------------------------------- */

static void report_dropped(struct peer *peer)
{
    if (peer->peers->replica)
        replica_peer_unreachable(peer->peers->replica, peer->id);
}

static void finish_batch(struct peer *peer)
{
    if (peer->batch.n == 0)
        return;
    codec_batch_end(&peer->batch);
    if (list_empty(&peer->queue) && rpc_stream_writable(peer->stream)) {
        rpc_stream_send(peer->stream, buf_bytes(&peer->batch));
        if (peer->batch.cap > PEER_BATCH_BYTES)
            buf_free(&peer->batch);
        peer->batch.n = 0;
        return;
    }
    struct queued *q = xcalloc(1, sizeof(*q));
    q->batch = peer->batch;
    peer->batch = (struct buf){0};
    peer->queue_bytes += q->batch.n;
    list_append(&peer->queue, &q->link);
}

static void want_snapshot(struct peer *peer, const struct raft_message *m)
{
    if (peer->snapshot || peer->snapshot_wanted)
        return; /* one at a time; the running one's report lets Raft go on */
    peer->snapshot_wanted = xmalloc(sizeof(*m));
    *peer->snapshot_wanted = *m;
}

static void transport_send(struct replica_transport *t, const struct raft_message *m)
{
    struct peers *p = CONTAINER_OF(t, struct peers, transport);
    struct peer *peer = peer_find(p, m->to);
    if (!peer || p->stopping)
        return;
    if (m->type == RAFT_MSG_SNAPSHOT) {
        want_snapshot(peer, m);
        return;
    }
    /* A connection that is being made takes messages too: the first of them wait for it. */
    if (!peer->stream || peer->queue_bytes + peer->batch.n > PEER_QUEUE_BYTES_MAX) {
        report_dropped(peer);
        return;
    }
    if (peer->batch.n == 0)
        codec_batch_begin(&peer->batch, p->cluster_id, p->member_id);
    codec_batch_add(&peer->batch, m);
    if (peer->batch.n >= PEER_BATCH_BYTES)
        finish_batch(peer);
}

void peers_flush(struct peers *p)
{
    LIST_FOR_EACH_SAFE(it, tmp, &p->list)
    {
        struct peer *peer = CONTAINER_OF(it, struct peer, link);
        if (peer->stream) {
            flush_queue(peer);
            finish_batch(peer);
        }
        if (peer->snapshot_wanted)
            snapshot_out_begin(peer);
    }
}

/* ---- Membership ---------------------------------------------------------------------------------- */

static void free_urls(struct peer *peer)
{
    for (size_t i = 0; i < peer->url_count; i++)
        free(peer->urls[i]);
    free(peer->urls);
    peer->urls = NULL;
    peer->url_count = peer->url_next = 0;
}

static bool set_urls(struct peer *peer, const struct replica_member *m)
{
    bool same = peer->url_count == m->peer_url_count;
    for (size_t i = 0; same && i < m->peer_url_count; i++)
        same = !strcmp(peer->urls[i], m->peer_urls[i]);
    if (same)
        return false;
    free_urls(peer);
    peer->urls = xcalloc(m->peer_url_count, sizeof(*peer->urls));
    peer->url_count = m->peer_url_count;
    for (size_t i = 0; i < m->peer_url_count; i++)
        peer->urls[i] = xstrdup(m->peer_urls[i]);
    return true;
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle);
}

static void peer_free(struct peer *peer)
{
    list_remove(&peer->link);
    snapshot_out_abort(peer);
    disconnect(peer);
    uv_close((uv_handle_t *)peer->timer, on_timer_closed);
    drop_queue(peer);
    free_urls(peer);
    free(peer->snapshot_wanted);
    free(peer);
}

static struct peer *peer_new(struct peers *p, uint64_t id)
{
    struct peer *peer = xcalloc(1, sizeof(*peer));
    peer->peers = p;
    peer->id = id;
    peer->backoff_ms = PEER_BACKOFF_MIN_MS;
    list_init(&peer->queue);
    peer->timer = xcalloc(1, sizeof(*peer->timer));
    uv_timer_init(p->loop, peer->timer);
    peer->timer->data = peer;
    list_append(&p->list, &peer->link);
    return peer;
}

static bool is_member(const struct replica_member *members, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++)
        if (members[i].id == id)
            return true;
    return false;
}

/* Connecting and freeing run off the timer: the membership may change inside a peer's own callback. */
static void transport_members(struct replica_transport *t, const struct replica_member *members,
                              size_t count)
{
    struct peers *p = CONTAINER_OF(t, struct peers, transport);
    LIST_FOR_EACH_SAFE(it, tmp, &p->list)
    {
        struct peer *peer = CONTAINER_OF(it, struct peer, link);
        if (!is_member(members, count, peer->id))
            peer_free(peer);
    }
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == p->member_id)
            continue;
        struct peer *peer = peer_find(p, members[i].id);
        bool fresh = !peer;
        if (fresh)
            peer = peer_new(p, members[i].id);
        if (!set_urls(peer, &members[i]) && !fresh)
            continue;
        peer->lost = true;
        uv_timer_start(peer->timer, on_backoff, 0, 0);
    }
}

/* ---- Life ---------------------------------------------------------------------------------------- */

struct peers *peers_new(uv_loop_t *loop, uint64_t cluster_id, uint64_t member_id,
                        size_t request_bytes_max)
{
    struct peers *p = xcalloc(1, sizeof(*p));
    p->loop = loop;
    p->cluster_id = cluster_id;
    p->member_id = member_id;
    p->request_bytes_max = request_bytes_max;
    p->transport.send = transport_send;
    p->transport.members = transport_members;
    list_init(&p->list);
    list_init(&p->forwards);
    list_init(&p->receiving);
    p->forward_timer = xcalloc(1, sizeof(*p->forward_timer));
    uv_timer_init(loop, p->forward_timer);
    p->forward_timer->data = p;
    return p;
}

struct replica_transport *peers_transport(struct peers *p)
{
    return &p->transport;
}

void peers_start(struct peers *p, struct replica *r, void (*removed)(void *ctx), void *ctx)
{
    p->replica = r;
    p->removed = removed;
    p->removed_ctx = ctx;
}

size_t peers_message_max(const struct peers *p)
{
    return p->request_bytes_max + PEER_MESSAGE_OVERHEAD;
}

void peers_serve(struct peers *p, struct rpc_server *peer_port)
{
    rpc_server_add(peer_port, &peer_messages_method, 1, p);
    rpc_server_add(peer_port, &peer_snapshot_method, 1, p);
}

void peers_free(struct peers *p)
{
    p->stopping = true;
    forwards_fail(p, ERR_STOPPED);
    snapshot_in_abandon_all(p);
    LIST_FOR_EACH_SAFE(it, tmp, &p->list)
    peer_free(CONTAINER_OF(it, struct peer, link));
    uv_close((uv_handle_t *)p->forward_timer, on_timer_closed);
    free(p);
}
