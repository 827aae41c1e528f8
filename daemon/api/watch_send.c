/* What a watch stream sends: events, and what became of watches. A client that is behind holds its watches
 * back (they keep no queue, the store has the history) until the stream can be written again. */
#include "daemon/api/encode.h"
#include "daemon/api/watch_stream.h"

static int64_t revision_now(struct watch_stream *ws)
{
    return mvcc_revision(replica_store(ws->api->config.replica));
}

static void send_response(struct watch_stream *ws, Etcdserverpb__WatchResponse *response,
                          int64_t revision)
{
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    if (ws->stream.finished)
        return;
    api_header(ws->api, &header, revision);
    response->header = &header;
    api_send(ws->api, ws->call, &response->base);
}

void watch_send_created(struct watch_stream *ws, int64_t id, const char *cancel_reason)
{
    Etcdserverpb__WatchResponse response = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    response.watch_id = id;
    response.created = true;
    if (cancel_reason) {
        response.canceled = true;
        response.cancel_reason = (char *)cancel_reason;
    }
    send_response(ws, &response, revision_now(ws));
}

void watch_send_canceled(struct watch_stream *ws, int64_t id)
{
    Etcdserverpb__WatchResponse response = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    response.watch_id = id;
    response.canceled = true;
    send_response(ws, &response, revision_now(ws));
}

void watch_send_progress(struct watch_stream *ws, int64_t id, int64_t revision)
{
    Etcdserverpb__WatchResponse response = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    response.watch_id = id;
    send_response(ws, &response, revision);
}

/* ---- Events -------------------------------------------------------------------------------------- */

/* Sends events[0..count) as one message; the buffer is the api's. */
static void send_events(struct watch *w, const Etcdserverpb__ResponseHeader *header,
                        const struct watch_event *events, size_t count, bool fragment)
{
    struct watch_stream *ws = w->stream;
    struct buf *b = &ws->api->scratch;
    b->n = 0;
    encode_watch_head(b, header, w->id, fragment);
    for (size_t i = 0; i < count; i++)
        encode_event(b, &events[i]);
    rpc_call_send(ws->call, buf_bytes(b));
    if (b->cap > 1024 * 1024)
        buf_free(b);
}

/* A client that asked for it gets what is too large for one message in pieces, each but the last marked
 * (an event alone is never split). */
static void send_fragments(struct watch *w, const Etcdserverpb__ResponseHeader *header,
                           const struct watch_event *events, size_t count)
{
    size_t size_max = w->stream->api->config.request_bytes_max + API_MESSAGE_OVERHEAD;
    size_t begin = 0, size = 0;
    for (size_t i = 0; i < count; i++) {
        size_t event_size = encode_event_size(&events[i]);
        if (i > begin && size + event_size > size_max) {
            send_events(w, header, events + begin, i - begin, true);
            begin = i;
            size = 0;
        }
        size += event_size;
    }
    send_events(w, header, events + begin, count - begin, false);
}

static bool on_events(void *ctx, struct watcher *watcher, const struct watch_event *events,
                      size_t count, int64_t revision)
{
    (void)watcher;
    struct watch *w = ctx;
    struct watch_stream *ws = w->stream;
    if (ws->stream.finished)
        return false; /* it is about to be closed: nothing more is wanted */
    if (count > 0) {
        Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
        api_header(ws->api, &header, revision);
        w->quiet = false;
        if (w->fragment)
            send_fragments(w, &header, events, count);
        else
            send_events(w, &header, events, count, false);
    }
    if (rpc_call_writable(ws->call))
        return true;
    list_remove(&w->blocked);
    list_append(&ws->blocked, &w->blocked);
    return false;
}

static void on_compacted(void *ctx, struct watcher *watcher, int64_t compact_revision)
{
    (void)watcher;
    struct watch *w = ctx;
    struct watch_stream *ws = w->stream;
    Etcdserverpb__WatchResponse response = ETCDSERVERPB__WATCH_RESPONSE__INIT;
    response.watch_id = w->id;
    response.canceled = true;
    response.compact_revision = compact_revision;
    if (compact_revision == 0)
        response.cancel_reason = (char *)"the history can't be read at this member";
    watch_remove(w);
    send_response(ws, &response, 0); /* etcd says no revision here */
}

const struct watch_consumer watch_consumer = {
    .deliver = on_events,
    .compacted = on_compacted,
};

/* Nothing is delivered inside watch_resume(), so the list is stable; those that are behind again after
 * their next slice come back to its end. */
void watch_writable(struct rpc_call *call, void *service)
{
    (void)service;
    struct watch_stream *ws = rpc_call_user(call);
    if (ws->stream.finished)
        return;
    LIST_FOR_EACH_SAFE(it, tmp, &ws->blocked)
    {
        struct watch *w = CONTAINER_OF(it, struct watch, blocked);
        list_remove(it);
        watch_resume(w->watcher);
    }
}
