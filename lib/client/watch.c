/* Watches: each is a stream of its own, opened again from the revision after the last one delivered. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/client/watch_internal.h"

#define REOPEN_MS 20
#define REOPEN_MS_MAX 1000
/* A server that doesn't confirm a watch in this time is given up. */
#define CREATE_MS 3000
/* An etcd looks at watches that begin in the past every 100 ms, a slice at a time. */
#define HISTORY_MS 1000

static void on_watch_timer(uv_timer_t *timer);

struct client_watch *watch_of_link(struct list *link)
{
    return CONTAINER_OF(link, struct client_watch, link);
}

static void timer_at(struct client_watch *w, uint64_t at)
{
    uint64_t now = uv_now(w->client->loop);
    uv_timer_start(&w->timer, on_watch_timer, at > now ? at - now : 0, 0);
}

/* ---- Pieces of a revision ------------------------------------------------------------------------ */

static void held_clear(struct client_watch *w)
{
    for (size_t i = 0; i < w->held_count; i++)
        etcdserverpb__watch_response__free_unpacked(w->held[i].response, NULL);
    w->held_count = w->event_count = 0;
}

/* Forgets the first `count` held events, and the messages that are through. */
static void held_drop(struct client_watch *w, size_t count)
{
    w->event_count -= count;
    memmove(w->events, w->events + count, w->event_count * sizeof(w->events[0]));
    size_t through = 0;
    while (through < w->held_count && w->held[through].left <= count) {
        count -= w->held[through].left;
        etcdserverpb__watch_response__free_unpacked(w->held[through].response, NULL);
        through++;
    }
    if (through < w->held_count)
        w->held[through].left -= count;
    w->held_count -= through;
    memmove(w->held, w->held + through, w->held_count * sizeof(w->held[0]));
}

/* Takes the message over. Events that were delivered on an earlier stream are left out. */
static void held_add(struct client_watch *w, Etcdserverpb__WatchResponse *r)
{
    size_t before = w->event_count;
    if (w->event_cap < w->event_count + r->n_events) {
        w->event_cap = 2 * w->event_count + r->n_events;
        w->events = xrealloc(w->events, w->event_cap * sizeof(w->events[0]));
    }
    for (size_t i = 0; i < r->n_events; i++)
        if (r->events[i]->kv->mod_revision > w->seen)
            w->events[w->event_count++] = r->events[i];
    if (w->held_count == w->held_cap) {
        w->held_cap = 2 * w->held_cap + 4;
        w->held = xrealloc(w->held, w->held_cap * sizeof(w->held[0]));
    }
    w->held[w->held_count++] = (struct held){r, w->event_count - before};
}

/* Hands out whole revisions: all held events, or, while more pieces follow, those of revisions before the
 * last one. */
static void held_deliver(struct client_watch *w, bool more_follows)
{
    size_t count = w->event_count;
    if (count && more_follows) {
        int64_t last = w->events[count - 1]->kv->mod_revision;
        while (count && w->events[count - 1]->kv->mod_revision == last)
            count--;
    }
    if (count) {
        w->seen = w->events[count - 1]->kv->mod_revision;
        w->handler->events(w->ctx, w->events, count, w->seen);
        if (w->stopped)
            return;
    }
    if (more_follows)
        held_drop(w, count);
    else
        held_clear(w);
    if (count)
        sync_events(w);
}

/* ---- The stream ---------------------------------------------------------------------------------- */

static void stream_drop(struct client_watch *w)
{
    if (w->stream)
        rpc_stream_cancel(w->stream);
    w->stream = NULL;
    w->conn = NULL;
    w->up = false;
    held_clear(w);
    sync_stream_lost(w);
}

/* The stream is gone; the user is told and a new one opened from the timer. */
static void stream_lost(struct client_watch *w, const char *reason)
{
    stream_drop(w);
    if (!w->told_down)
        snprintf(w->lost, sizeof(w->lost), "%s",
                 reason[0] ? reason : "the server ended the stream");
    uint64_t now = uv_now(w->client->loop);
    w->failures++;
    w->open_at = now + client_backoff_ms(w->client, w->failures, REOPEN_MS, REOPEN_MS_MAX);
    timer_at(w, now);
}

void watch_give_up_stream(struct client_watch *w, const char *reason)
{
    struct conn *conn = w->conn;
    stream_lost(w, reason);
    client_conn_bad(conn, reason);
}

static void watch_send(struct client_watch *w, const Etcdserverpb__WatchRequest *request)
{
    size_t n = protobuf_c_message_get_packed_size(&request->base);
    uint8_t *packed = xmalloc(n + 1);
    protobuf_c_message_pack(&request->base, packed);
    rpc_stream_send(w->stream, bytes_of(packed, n));
    free(packed);
}

void watch_ask_progress(struct client_watch *w, bool linearizable)
{
    Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    progress.linearizable = linearizable;
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    request.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    request.progress_request = &progress;
    watch_send(w, &request);
}

static void watch_compacted(struct client_watch *w, int64_t compact_revision)
{
    w->over = true;
    stream_drop(w);
    uv_timer_stop(&w->timer);
    sync_fail(w, ERR_COMPACTED);
    if (!w->stopped)
        w->handler->compacted(w->ctx, compact_revision);
}

static void watch_created(struct client_watch *w, const Etcdserverpb__WatchResponse *r)
{
    int64_t revision = r->header ? r->header->revision : 0;
    w->up = true;
    w->watch_id = r->watch_id;
    w->failures = 0;
    w->told_down = false;
    w->lost[0] = '\0';
    uv_timer_stop(&w->timer);
    w->history_until =
        w->seen >= 0 && revision > w->seen ? uv_now(w->client->loop) + HISTORY_MS : 0;
    if (w->seen < 0)
        w->seen = revision; /* the watch begins with the next one */
    client_conn_good(w->conn);
    if (w->stopped)
        return;
    if (w->handler->state)
        w->handler->state(w->ctx, true, rpc_channel_url(w->conn->channel));
    if (!w->stopped && w->up)
        sync_stream_up(w);
}

static void watch_progress(struct client_watch *w, const Etcdserverpb__WatchResponse *r)
{
    if (!r->header || w->event_count)
        return; /* inside a revision nothing is said about it */
    int64_t revision = r->header->revision;
    bool of_stream = r->watch_id == -1;
    bool believed = !of_stream || w->conn->kind == KIND_QUORUMD ||
                    (w->conn->kind == KIND_ETCD && !w->conn->progress_overtakes);
    if (believed && revision > w->seen) {
        w->seen = revision;
        w->handler->events(w->ctx, NULL, 0, revision);
        if (w->stopped)
            return;
    }
    if (of_stream)
        sync_progress(w, revision);
    else
        sync_events(w);
}

static bool events_readable(const Etcdserverpb__WatchResponse *r)
{
    for (size_t i = 0; i < r->n_events; i++)
        if (!r->events[i]->kv)
            return false;
    return true;
}

static void on_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    struct client_watch *w = ctx;
    Etcdserverpb__WatchResponse *r =
        etcdserverpb__watch_response__unpack(NULL, message.n, message.p);
    if (!r || !events_readable(r)) {
        if (r)
            etcdserverpb__watch_response__free_unpacked(r, NULL);
        watch_give_up_stream(w, "the server's answer cannot be read");
        return;
    }
    if (r->canceled) {
        if (r->compact_revision > 0) {
            watch_compacted(w, r->compact_revision);
        } else {
            stream_lost(w, r->cancel_reason[0] ? r->cancel_reason : "the server ended the watch");
        }
    } else if (r->created) {
        watch_created(w, r);
    } else if (!w->up) {
        /* of no concern before the watch is confirmed */
    } else if (r->n_events || r->fragment || w->held_count) {
        bool more_follows = r->fragment;
        if (r->n_events) {
            held_add(w, r);
            r = NULL;
        }
        held_deliver(w, more_follows);
    } else {
        watch_progress(w, r);
    }
    if (r)
        etcdserverpb__watch_response__free_unpacked(r, NULL);
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    (void)st;
    (void)sent;
    struct client_watch *w = ctx;
    struct conn *conn = w->conn;
    w->stream = NULL;
    stream_lost(w, text);
    /* A lost connection is client.c's to see; this is for a member that answers and is of no use. */
    enum errc code = errc_from_grpc(status, text);
    if (client_endpoint_failed(code))
        client_conn_bad(conn, text);
}

static const struct rpc_stream_handler watch_stream = {.message = on_message, .closed = on_closed};

static void stream_open(struct client_watch *w, struct conn *conn)
{
    /* A member that loses its leader ends the stream, instead of keeping silent on it. */
    struct rpc_header header = {bytes_str("hasleader"), bytes_str("true")};
    w->conn = conn;
    w->stream = rpc_stream_open(conn->channel, "/etcdserverpb.Watch/Watch", 0, &header, 1,
                                &watch_stream, w);
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    create.key = (ProtobufCBinaryData){w->key.n, w->key.p};
    create.range_end = (ProtobufCBinaryData){w->end.n, w->end.p};
    create.start_revision = w->seen + 1;
    create.progress_notify = true;
    create.prev_kv = w->prev_kv;
    create.fragment = true;
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    request.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &create;
    watch_send(w, &request);
    timer_at(w, uv_now(w->client->loop) + CREATE_MS);
}

/* Does what is due: tell that the stream was lost, give up one that is not confirmed, open one. */
static void on_watch_timer(uv_timer_t *timer)
{
    struct client_watch *w = CONTAINER_OF(timer, struct client_watch, timer);
    if (w->lost[0]) {
        char reason[sizeof(w->lost)];
        memcpy(reason, w->lost, sizeof(reason));
        w->lost[0] = '\0';
        w->told_down = true;
        if (w->handler->state)
            w->handler->state(w->ctx, false, reason);
        if (w->stopped)
            return;
    }
    if (w->over || w->up)
        return;
    uint64_t now = uv_now(w->client->loop);
    if (w->stream) {
        watch_give_up_stream(w, "no answer to a watch");
        return;
    }
    struct conn *conn = client_ready(w->client);
    if (!conn)
        return; /* watch_conn_changed() will come */
    if (now < w->open_at)
        timer_at(w, w->open_at);
    else
        stream_open(w, conn);
}

void watch_conn_changed(struct client_watch *w)
{
    if (w->over)
        return;
    struct client *c = w->client;
    if (w->stream && w->conn != c->conn) {
        stream_lost(w, c->reason);
        /* The stream did nothing wrong: no wait on the next endpoint. */
        w->failures = 0;
        w->open_at = 0;
    } else if (!w->stream) {
        timer_at(w, uv_now(c->loop));
    } else if (w->up) {
        sync_stream_up(w);
    }
}

/* ---- Life cycle ---------------------------------------------------------------------------------- */

struct client_watch *client_watch_start(struct client *c, const struct client_watch_spec *spec,
                                        const struct client_watch_handler *handler, void *ctx)
{
    assert(!c->closing);
    struct client_watch *w = xcalloc(1, sizeof(*w));
    w->client = c;
    buf_append(&w->key, spec->key.p, spec->key.n);
    buf_append(&w->end, spec->end.p, spec->end.n);
    w->prev_kv = spec->prev_kv;
    w->seen = spec->start_revision > 0 ? spec->start_revision - 1 : -1;
    w->handler = handler;
    w->ctx = ctx;
    list_append(&c->watches, &w->link);
    int rc = uv_timer_init(c->loop, &w->timer);
    assert(rc == 0);
    w->timer.data = w;
    w->open_handles = 1;
    sync_init(w);
    timer_at(w, uv_now(c->loop));
    return w;
}

void watch_handle_closed(uv_handle_t *handle)
{
    struct client_watch *w = handle->data;
    assert(w->open_handles > 0);
    if (--w->open_handles > 0)
        return;
    held_clear(w);
    free(w->held);
    free(w->events);
    buf_free(&w->key);
    buf_free(&w->end);
    free(w);
}

void client_watch_stop(struct client_watch *w)
{
    assert(!w->stopped);
    w->stopped = true;
    if (w->stream)
        rpc_stream_cancel(w->stream);
    w->stream = NULL;
    w->conn = NULL;
    w->up = false;
    list_remove(&w->link);
    uv_close((uv_handle_t *)&w->timer, watch_handle_closed);
    sync_close(w);
}
