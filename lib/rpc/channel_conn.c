/* A channel's connection: nghttp2's callbacks, keepalive, GOAWAY. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/rpc/channel.h"
#include "lib/rpc/status.h"

/* ---- Keepalive --------------------------------------------------------------------------------- */

/* Only while calls are open: etcd ends connections of clients that ping without any. */
static void on_keepalive(struct deadline *d)
{
    struct channel_conn *cc = CONTAINER_OF(d, struct channel_conn, keepalive);
    struct rpc_channel *ch = cc->ch;
    uint64_t now = uv_now(ch->loop), silence = now - cc->c.received_ms;
    uint64_t limit = ch->config.keepalive_ms;
    /* An answer may come within the very millisecond of the ping; nothing else has, it was silent before. */
    if (cc->pinged && cc->c.received_ms >= cc->pinged_ms)
        cc->pinged = false;
    if (silence < limit) {
        deadline_set(&ch->deadlines, d, cc->c.received_ms + limit);
        return;
    }
    if (cc->pinged) {
        conn_end(&cc->c, false, "keepalive: the server does not answer");
        return;
    }
    if (!list_empty(&cc->streams)) {
        cc->pinged = true;
        cc->pinged_ms = now;
        nghttp2_submit_ping(cc->c.session, NGHTTP2_FLAG_NONE, NULL);
        conn_schedule_flush(&cc->c);
    }
    deadline_set(&ch->deadlines, d, now + limit);
}

/* ---- GOAWAY ------------------------------------------------------------------------------------ */

static void cut_oldest_draining(struct rpc_channel *ch)
{
    LIST_FOR_EACH_SAFE(it, tmp, &ch->conns)
    {
        struct channel_conn *cc = CONTAINER_OF(it, struct channel_conn, link);
        if (cc->draining && !cc->c.ended) {
            conn_end(&cc->c, false, "the connection was going away for too long");
            return;
        }
    }
}

void channel_conn_drain(struct channel_conn *cc)
{
    struct rpc_channel *ch = cc->ch;
    if (cc->draining)
        return;
    cc->draining = true;
    if (ch->current == cc) {
        ch->current = NULL;
        ch->up = false;
    }
    if (++ch->draining_count > CHANNEL_DRAINING_MAX)
        cut_oldest_draining(ch);
}

/* Calls that were not sent yet can't be sent here any more. nghttp2 itself closes those above the
 * last stream id, but it would keep those that wait for MAX_CONCURRENT_STREAMS. */
static void fail_unsent(struct channel_conn *cc, const char *reason)
{
    struct rpc_stream *st;
    do {
        st = NULL;
        LIST_FOR_EACH_SAFE(it, tmp, &cc->streams)
        {
            struct rpc_stream *candidate = CONTAINER_OF(it, struct rpc_stream, conn_link);
            if (candidate->sent || candidate->done)
                continue;
            st = candidate;
            break;
        }
        if (st)
            stream_done(st, GRPC_UNAVAILABLE, reason, false);
    } while (st && !cc->c.ended);
}

static void on_goaway(struct channel_conn *cc, const nghttp2_goaway *goaway)
{
    struct rpc_channel *ch = cc->ch;
    char reason[128];
    bool was_current = ch->current == cc, was_up = ch->up;
    snprintf(reason, sizeof reason, "the server closes the connection (GOAWAY %s)",
             nghttp2_http2_strerror(goaway->error_code));
    if (was_current && !was_up) {
        channel_connect_failed(ch, false, reason);
        return;
    }
    channel_conn_drain(cc);
    if (was_current)
        channel_tell(ch, false, true, reason);
    if (!cc->c.ended)
        fail_unsent(cc, reason);
}

/* ---- nghttp2's callbacks ----------------------------------------------------------------------- */

/* After conn_end() within a callback the session must stop as well. */
static int go_on(const struct conn *c)
{
    return c->ended ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                     void *user_data)
{
    struct rpc_stream *st = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)flags;
    (void)user_data;
    if (st && !st->done && frame->hd.type == NGHTTP2_HEADERS)
        stream_add_header(st, bytes_of(name, name_n), bytes_of(value, value_n));
    return 0;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    struct channel_conn *cc = user_data;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        on_goaway(cc, &frame->goaway);
        return go_on(&cc->c);
    }
    if (frame->hd.type == NGHTTP2_SETTINGS) {
        if (cc->ch->current == cc && !cc->ch->up && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
            channel_connect_done(cc->ch);
        return go_on(&cc->c);
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    struct rpc_stream *st = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!st)
        return 0;
    transfer_ref(&st->t);
    if (frame->hd.type == NGHTTP2_HEADERS && !st->done)
        stream_headers_done(st);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        transfer_receive_end(&st->t);
    transfer_unref(&st->t);
    return go_on(&cc->c);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data,
                   size_t n, void *user_data)
{
    struct channel_conn *cc = user_data;
    struct rpc_stream *st = nghttp2_session_get_stream_user_data(session, stream_id);
    (void)flags;
    if (st)
        transfer_receive(&st->t, bytes_of(data, n));
    else
        nghttp2_session_consume(session, stream_id, n);
    return go_on(&cc->c);
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code,
                           void *user_data)
{
    struct channel_conn *cc = user_data;
    struct rpc_stream *st = nghttp2_session_get_stream_user_data(session, stream_id);
    if (st)
        stream_closed(st, error_code);
    return go_on(&cc->c);
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user_data)
{
    (void)user_data;
    if (frame->hd.type != NGHTTP2_HEADERS)
        return 0;
    struct rpc_stream *st = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (st)
        st->sent = true;
    return 0;
}

nghttp2_session_callbacks *channel_conn_callbacks(void)
{
    nghttp2_session_callbacks *cbs;
    int rc = nghttp2_session_callbacks_new(&cbs);
    assert(rc == 0);
    nghttp2_session_callbacks_set_on_header_callback(cbs, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cbs, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cbs, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cbs, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cbs, on_frame_send);
    return cbs;
}

/* ---- Life -------------------------------------------------------------------------------------- */

static void on_down(struct conn *c, bool refused, const char *reason)
{
    struct channel_conn *cc = CONTAINER_OF(c, struct channel_conn, c);
    struct rpc_channel *ch = cc->ch;
    deadline_clear(&ch->deadlines, &cc->keepalive);
    if (cc->draining)
        ch->draining_count--;
    if (ch->current == cc) {
        bool was_up = ch->up;
        ch->current = NULL;
        ch->up = false;
        if (was_up)
            channel_tell(ch, false, refused, reason);
        else if (!ch->freed)
            channel_connect_next(ch, refused, reason);
    }
    while (!list_empty(&cc->streams))
        stream_lost(CONTAINER_OF(cc->streams.next, struct rpc_stream, conn_link), reason);
}

static void on_freed(struct conn *c)
{
    struct channel_conn *cc = CONTAINER_OF(c, struct channel_conn, c);
    struct rpc_channel *ch = cc->ch;
    list_remove(&cc->link);
    free(cc);
    channel_handle_closed(ch);
}

static const struct conn_ops channel_conn_ops = {
    .down = on_down,
    .freed = on_freed,
};

struct channel_conn *channel_conn_new(struct rpc_channel *ch)
{
    struct channel_conn *cc = xcalloc(1, sizeof *cc);
    cc->ch = ch;
    list_init(&cc->streams);
    list_append(&ch->conns, &cc->link);
    ch->handles++;
    deadline_init(&cc->keepalive, on_keepalive);
    conn_init(&cc->c, ch->loop, ch->address.is_unix, &ch->turn, &ch->deadlines, &channel_conn_ops);
    return cc;
}

void channel_conn_start(struct channel_conn *cc)
{
    struct rpc_channel *ch = cc->ch;
    conn_start(&cc->c, ch->callbacks, 0);
    if (ch->config.keepalive_ms)
        deadline_set(&ch->deadlines, &cc->keepalive, uv_now(ch->loop) + ch->config.keepalive_ms);
}
