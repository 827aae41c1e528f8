#include "lib/rpc/channel.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/rpc/status.h"

struct rpc_channel *rpc_channel_new(uv_loop_t *loop, const char *url,
                                    const struct rpc_channel_config *config)
{
    struct rpc_channel *ch = xcalloc(1, sizeof *ch);
    ch->loop = loop;
    ch->url = xstrdup(url);
    if (config)
        ch->config = *config;
    if (!ch->config.message_max || ch->config.message_max > INT32_MAX)
        ch->config.message_max = INT32_MAX;
    if (!ch->config.connect_timeout_ms)
        ch->config.connect_timeout_ms = CHANNEL_CONNECT_TIMEOUT_MS;
    if (rpc_url_parse(url, &ch->address, &ch->bad_url) == ERR_OK)
        rpc_url_authority(&ch->address, ch->authority, sizeof ch->authority);
    turn_init(&ch->turn, loop);
    deadlines_init(&ch->deadlines, loop);
    ch->handles = 2;
    ch->callbacks = channel_conn_callbacks();
    list_init(&ch->conns);
    list_init(&ch->streams);
    channel_connect_init(ch);
    return ch;
}

void rpc_channel_connect(struct rpc_channel *ch)
{
    channel_connect_soon(ch);
}

bool rpc_channel_is_up(const struct rpc_channel *ch)
{
    return ch->up;
}

const char *rpc_channel_url(const struct rpc_channel *ch)
{
    return ch->url;
}

void channel_tell(struct rpc_channel *ch, bool up, bool refused, const char *reason)
{
    if (ch->config.state && !ch->freed)
        ch->config.state(ch->config.ctx, ch, up, refused, reason);
}

void channel_fail_waiting(struct rpc_channel *ch, const char *reason)
{
    struct list failed;
    list_init(&failed);
    LIST_FOR_EACH_SAFE(it, tmp, &ch->streams)
    {
        struct rpc_stream *st = CONTAINER_OF(it, struct rpc_stream, link);
        if (!st->waiting)
            continue;
        list_remove(it);
        list_append(&failed, it);
    }
    /* A callback may free the channel: the calls it hasn't ended by then are ended here all the same. */
    while (!list_empty(&failed))
        stream_done(CONTAINER_OF(failed.next, struct rpc_stream, link), GRPC_UNAVAILABLE, reason,
                    false);
}

/* ---- The end ----------------------------------------------------------------------------------- */

static void on_turn_closed(struct turn *t)
{
    channel_handle_closed(CONTAINER_OF(t, struct rpc_channel, turn));
}

static void on_deadlines_closed(struct deadlines *ds)
{
    channel_handle_closed(CONTAINER_OF(ds, struct rpc_channel, deadlines));
}

/* Turn and timer close last: connections use them to their end. */
static void close_own_handles(struct rpc_channel *ch)
{
    if (!ch->freed || ch->closing || ch->handles > 2)
        return;
    ch->closing = true;
    turn_close(&ch->turn, on_turn_closed);
    deadlines_close(&ch->deadlines, on_deadlines_closed);
}

void channel_handle_closed(struct rpc_channel *ch)
{
    ch->handles--;
    close_own_handles(ch);
    if (ch->handles > 0)
        return;
    nghttp2_session_callbacks_del(ch->callbacks);
    free(ch->url);
    free(ch);
}

void rpc_channel_free(struct rpc_channel *ch)
{
    if (!ch)
        return;
    assert(!ch->freed);
    ch->freed = true;
    ch->up = false;
    channel_connect_abort(ch);
    while (!list_empty(&ch->streams)) {
        struct rpc_stream *st = CONTAINER_OF(ch->streams.next, struct rpc_stream, link);
        stream_done(st, GRPC_UNAVAILABLE, "the channel was closed", st->sent);
    }
    LIST_FOR_EACH_SAFE(it, tmp, &ch->conns)
    {
        struct channel_conn *cc = CONTAINER_OF(it, struct channel_conn, link);
        conn_end(&cc->c, false, "the channel was closed");
    }
    close_own_handles(ch);
}
