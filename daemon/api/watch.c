/* etcdserverpb.Watch: the requests of a watch stream and the life of its watches. */
#include "daemon/api/watch_stream.h"

#include <assert.h>
#include <stdlib.h>

#define BUCKETS_MIN 8
#define INVALID_WATCH_ID (-1) /* etcd's id for a watch that could not be made */

/* ---- The table of a stream's watches ------------------------------------------------------------- */

static struct watch **bucket(struct watch_stream *ws, int64_t id)
{
    uint64_t h = (uint64_t)id * 0x9e3779b97f4a7c15ull;
    return &ws->buckets[(h >> 32) & (ws->bucket_count - 1)];
}

struct watch *watch_find(struct watch_stream *ws, int64_t id)
{
    for (struct watch *w = *bucket(ws, id); w; w = w->next)
        if (w->id == id)
            return w;
    return NULL;
}

static void table_grow(struct watch_stream *ws)
{
    if (ws->watch_count < ws->bucket_count)
        return;
    free(ws->buckets);
    ws->bucket_count *= 2;
    ws->buckets = xcalloc(ws->bucket_count, sizeof(struct watch *));
    LIST_FOR_EACH_SAFE(it, tmp, &ws->watches)
    {
        struct watch *w = CONTAINER_OF(it, struct watch, link);
        struct watch **at = bucket(ws, w->id);
        w->next = *at;
        *at = w;
    }
}

static struct watch *watch_add(struct watch_stream *ws, int64_t id)
{
    table_grow(ws);
    struct watch *w = xcalloc(1, sizeof(*w));
    struct watch **at = bucket(ws, id);
    w->stream = ws;
    w->id = id;
    w->quiet = true;
    w->next = *at;
    *at = w;
    list_init(&w->blocked);
    list_append(&ws->watches, &w->link);
    ws->watch_count++;
    return w;
}

void watch_remove(struct watch *w)
{
    struct watch_stream *ws = w->stream;
    struct watch **at = bucket(ws, w->id);
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    list_remove(&w->link);
    list_remove(&w->blocked);
    ws->watch_count--;
    watch_cancel(w->watcher);
    free(w);
}

/* ---- Requests ------------------------------------------------------------------------------------ */

/* The id of a new watch, or INVALID_WATCH_ID with the reason in etcd's words. */
static int64_t choose_id(struct watch_stream *ws, const Etcdserverpb__WatchCreateRequest *r,
                         struct bytes key, struct bytes end, const char **ret_reason)
{
    bool from_key = end.n == 1 && end.p[0] == 0;
    if (end.n > 0 && !from_key && bytes_compare(key, end) >= 0) {
        *ret_reason = "mvcc: watcher range is empty";
        return INVALID_WATCH_ID;
    }
    if (ws->watch_count >= API_WATCHES_MAX) {
        *ret_reason = "etcdserver: too many watches on this stream";
        return INVALID_WATCH_ID;
    }
    if (r->watch_id == 0) {
        while (watch_find(ws, ws->next_id))
            ws->next_id++;
        return ws->next_id++;
    }
    if (watch_find(ws, r->watch_id)) {
        *ret_reason = "mvcc: duplicate watch ID provided on the WatchStream";
        return INVALID_WATCH_ID;
    }
    return r->watch_id;
}

static void create(struct watch_stream *ws, const Etcdserverpb__WatchCreateRequest *r)
{
    struct bytes key = bytes_of(r->key.data, r->key.len);
    struct bytes end =
        r->range_end.len ? bytes_of(r->range_end.data, r->range_end.len) : BYTES_EMPTY;
    if (key.n == 0)
        key = bytes_of("", 1); /* the smallest key */
    const char *reason = NULL;
    int64_t id = choose_id(ws, r, key, end, &reason);
    if (reason) {
        watch_send_created(ws, id, reason);
        return;
    }
    struct watch_spec spec = {
        .range = {key, end},
        .start_revision = r->start_revision > 0 ? r->start_revision : 0,
        .prev_kv = r->prev_kv,
    };
    for (size_t i = 0; i < r->n_filters; i++) {
        spec.no_put |= r->filters[i] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NOPUT;
        spec.no_delete |=
            r->filters[i] == ETCDSERVERPB__WATCH_CREATE_REQUEST__FILTER_TYPE__NODELETE;
    }
    struct watch *w = watch_add(ws, id);
    w->progress_notify = r->progress_notify;
    w->fragment = r->fragment;
    watch_send_created(ws, id, NULL);
    w->watcher = watch_start(replica_watch_hub(ws->api->config.replica), &spec, &watch_consumer, w);
}

static void cancel(struct watch_stream *ws, int64_t id)
{
    struct watch *w = watch_find(ws, id);
    if (!w)
        return; /* as etcd: the watch is gone, which is what was asked for */
    watch_remove(w);
    watch_send_canceled(ws, id);
}

static void on_message(struct rpc_call *call, void *service, struct bytes message)
{
    (void)service;
    struct watch_stream *ws = rpc_call_user(call);
    if (ws->stream.finished)
        return;
    Etcdserverpb__WatchRequest *r = etcdserverpb__watch_request__unpack(NULL, message.n, message.p);
    if (!r) {
        api_stream_finish(&ws->stream, ERR_INTERNAL);
        return;
    }
    switch (r->request_union_case) {
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST:
        create(ws, r->create_request);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST:
        cancel(ws, r->cancel_request->watch_id);
        break;
    case ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST:
        watch_progress_request(ws, r->progress_request->linearizable);
        break;
    default:
        break; /* a request of a later version: etcd ignores it too */
    }
    etcdserverpb__watch_request__free_unpacked(r, NULL);
}

/* ---- The stream ---------------------------------------------------------------------------------- */

static void on_started(struct rpc_call *call, void *service)
{
    struct api_port *port = service;
    struct watch_stream *ws = xcalloc(1, sizeof(*ws));
    ws->api = port->api;
    ws->call = call;
    ws->bucket_count = BUCKETS_MIN;
    ws->buckets = xcalloc(ws->bucket_count, sizeof(struct watch *));
    list_init(&ws->watches);
    list_init(&ws->blocked);
    list_init(&ws->waiting);
    list_init(&ws->progress);
    ws->notify_at_ms = uv_now(port->api->config.loop) + API_PROGRESS_NOTIFY_MS;
    ws->stream.tick = watch_notify_tick;
    rpc_call_set_user(call, ws);
    api_stream_begin(port->api, &ws->stream, call);
}

static void on_half_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct watch_stream *ws = rpc_call_user(call);
    api_stream_finish(&ws->stream, ERR_OK);
}

static void on_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct watch_stream *ws = rpc_call_user(call);
    watch_progress_drop(ws);
    LIST_FOR_EACH_SAFE(it, tmp, &ws->watches)
    watch_remove(CONTAINER_OF(it, struct watch, link));
    assert(ws->watch_count == 0);
    api_stream_end(&ws->stream);
    free(ws->buckets);
    free(ws);
}

const struct rpc_method watch_methods[] = {
    {.path = "/etcdserverpb.Watch/Watch",
     .client_streams = true,
     .started = on_started,
     .message = on_message,
     .half_closed = on_half_closed,
     .writable = watch_writable,
     .closed = on_closed},
};
const size_t watch_method_count = ARRAY_LEN(watch_methods);
