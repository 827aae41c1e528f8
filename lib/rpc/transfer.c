#include "lib/rpc/transfer.h"

#include <assert.h>
#include <stdio.h>

#include "lib/rpc/rpc.h"
#include "lib/rpc/status.h"

/* A producer that goes on though it was told to wait is a bug of ours; its call is cut here, before it
 * takes the process's memory. */
#define SEND_QUEUE_HARD_MAX (64 * RPC_SEND_QUEUE_MAX)
/* Below this, moving the unsent rest to the front costs more than the room is worth. */
#define TX_SHIFT_MIN (64 * 1024)
#define TX_CAP_IDLE (16 * 1024)

static void on_later(struct turn_item *item);

void transfer_init(struct transfer *t, const struct transfer_ops *ops, struct turn *turn,
                   size_t message_max)
{
    t->ops = ops;
    t->turn = turn;
    t->refs = 1;
    t->rx.message_max = message_max;
    turn_item_init(&t->later, on_later);
}

void transfer_ref(struct transfer *t)
{
    t->refs++;
}

void transfer_unref(struct transfer *t)
{
    assert(t->refs > 0);
    if (--t->refs > 0)
        return;
    turn_drop(&t->later);
    buf_free(&t->tx);
    frame_free(&t->rx);
    t->ops->freed(t);
}

void transfer_attach(struct transfer *t, struct conn *conn, int32_t stream_id)
{
    assert(!t->conn);
    t->conn = conn;
    t->stream_id = stream_id;
    transfer_ref(t);
}

/* ---- Out --------------------------------------------------------------------------------------- */

size_t transfer_queued(const struct transfer *t)
{
    return t->tx.n - t->tx_off;
}

bool transfer_writable(const struct transfer *t)
{
    return !t->full && !t->finishing;
}

static void wake_provider(struct transfer *t)
{
    if (!t->conn || t->conn->ended)
        return;
    if (t->deferred) {
        t->deferred = false;
        nghttp2_session_resume_data(t->conn->session, t->stream_id);
    }
    conn_schedule_flush(t->conn);
}

void transfer_send(struct transfer *t, struct bytes message)
{
    uint8_t prefix[FRAME_PREFIX];
    if (t->finishing)
        return;
    if (transfer_queued(t) > SEND_QUEUE_HARD_MAX) {
        t->ops->overrun(t);
        return;
    }
    if (t->tx_off >= TX_SHIFT_MIN && t->tx_off >= t->tx.n / 2) {
        buf_consume(&t->tx, t->tx_off);
        t->tx_off = 0;
    }
    frame_prefix(prefix, message.n);
    buf_reserve(&t->tx, FRAME_PREFIX + message.n);
    buf_append(&t->tx, prefix, FRAME_PREFIX);
    buf_append(&t->tx, message.p, message.n);
    if (transfer_queued(t) >= RPC_SEND_QUEUE_MAX)
        t->full = true;
    wake_provider(t);
}

void transfer_finish(struct transfer *t)
{
    t->finishing = true;
    wake_provider(t);
}

void transfer_discard_unsent(struct transfer *t)
{
    buf_free(&t->tx);
    t->tx_off = 0;
}

ssize_t transfer_provide(nghttp2_session *session, int32_t stream_id, uint8_t *buf, size_t length,
                         uint32_t *data_flags, nghttp2_data_source *source, void *user_data)
{
    struct transfer *t = source->ptr;
    size_t n = transfer_queued(t) < length ? transfer_queued(t) : length;
    (void)session;
    (void)stream_id;
    (void)user_data;
    if (n)
        memcpy(buf, t->tx.p + t->tx_off, n);
    t->tx_off += n;
    if (t->full && transfer_queued(t) <= RPC_SEND_QUEUE_MAX / 2) {
        t->full = false;
        t->tell_writable = true;
        turn_add_work(t->turn, &t->later);
    }
    if (transfer_queued(t))
        return (ssize_t)n;
    t->tx.n = t->tx_off = 0;
    if (t->tx.cap > TX_CAP_IDLE)
        buf_free(&t->tx);
    if (t->finishing) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
        if (t->ops->sent_all)
            t->ops->sent_all(t, data_flags);
    } else if (n == 0) {
        t->deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    return (ssize_t)n;
}

/* ---- In ---------------------------------------------------------------------------------------- */

/* Gives the windows back what was read, or withholds it while the call is paused. */
static void settle(struct transfer *t, size_t arrived)
{
    struct conn *c = t->conn;
    if (!c)
        return;
    size_t kept = t->deaf ? 0 : frame_kept(&t->rx);
    c->buffered = c->buffered - t->counted + kept;
    t->counted = kept;
    if (c->ended)
        return;
    if (t->paused && !t->deaf) {
        if (c->buffered <= CONN_HELD_MAX)
            nghttp2_session_consume_connection(c->session, arrived);
        else
            t->owed += arrived;
    } else {
        nghttp2_session_consume_connection(c->session, arrived + t->owed);
        nghttp2_session_consume_stream(c->session, t->stream_id, t->unconsumed);
        t->owed = t->unconsumed = 0;
    }
    conn_schedule_flush(c);
}

void transfer_detach(struct transfer *t)
{
    assert(t->conn);
    t->deferred = false;
    if (!t->conn->ended && t->owed) {
        nghttp2_session_consume_connection(t->conn->session, t->owed);
        conn_schedule_flush(t->conn);
    }
    t->conn->buffered -= t->counted;
    t->counted = t->owed = t->unconsumed = 0;
    t->conn = NULL;
    transfer_unref(t);
}

static void tell_broken(struct transfer *t, enum frame_result why, size_t size)
{
    char text[128];
    if (why == FRAME_COMPRESSED) {
        t->ops->broken(t, GRPC_UNIMPLEMENTED, "grpc: compressed messages are not supported");
        return;
    }
    snprintf(text, sizeof text, "grpc: received message larger than max (%zu vs. %zu)", size,
             t->rx.message_max);
    t->ops->broken(t, GRPC_RESOURCE_EXHAUSTED, text);
}

static void tell_end(struct transfer *t)
{
    if (!t->peer_ended || t->end_told)
        return;
    t->end_told = true;
    if (frame_kept(&t->rx))
        t->ops->broken(t, GRPC_INTERNAL, "the stream ended within a message");
    else
        t->ops->ended(t);
}

/* Hands out what is complete. The caller's `t` may be gone afterwards. */
static void deliver(struct transfer *t, size_t arrived)
{
    struct bytes message;
    transfer_ref(t);
    t->dispatching = true;
    while (!t->paused && !t->deaf) {
        enum frame_result result = frame_next(&t->rx, &message);
        if (result == FRAME_MESSAGE) {
            t->ops->message(t, message);
        } else if (result == FRAME_MORE) {
            tell_end(t);
            break;
        } else {
            tell_broken(t, result, message.n);
            t->deaf = true;
        }
    }
    t->dispatching = false;
    if (t->deaf)
        frame_free(&t->rx);
    else
        frame_keep(&t->rx);
    settle(t, arrived);
    if (t->conn && t->conn->bounded && t->conn->buffered > CONN_BUFFERED_MAX && !t->deaf) {
        t->ops->broken(t, GRPC_RESOURCE_EXHAUSTED,
                       "the connection has too many unfinished messages");
        transfer_deafen(t);
    }
    transfer_unref(t);
}

void transfer_receive(struct transfer *t, struct bytes chunk)
{
    t->unconsumed += chunk.n;
    if (t->deaf) {
        settle(t, chunk.n);
        return;
    }
    frame_feed(&t->rx, chunk);
    deliver(t, chunk.n);
}

void transfer_receive_end(struct transfer *t)
{
    t->peer_ended = true;
    if (!t->deaf)
        deliver(t, 0);
}

void transfer_pause(struct transfer *t)
{
    t->paused = true;
}

void transfer_resume(struct transfer *t)
{
    if (!t->paused)
        return;
    t->paused = false;
    if (!t->deaf)
        turn_add_work(t->turn, &t->later);
}

void transfer_deafen(struct transfer *t)
{
    t->deaf = true;
    if (t->dispatching)
        return; /* the message may still be in use: deliver() cleans up */
    frame_free(&t->rx);
    settle(t, 0);
}

static void on_later(struct turn_item *item)
{
    struct transfer *t = CONTAINER_OF(item, struct transfer, later);
    transfer_ref(t);
    if (t->tell_writable) {
        t->tell_writable = false;
        if (!t->finishing && !t->full)
            t->ops->writable(t);
    }
    if (!t->paused && !t->deaf)
        deliver(t, 0);
    transfer_unref(t);
}
