/* Progress: telling a client up to which revision it has seen everything.
 *
 * An answer may never run ahead of an event (e#15220): it waits until every watch of the stream has been
 * given all changes up to the revision that it reports. With `linearizable` that revision is at least the
 * cluster's at the time of the request: the leader confirms first, and each request needs a confirmation
 * begun after it. */
#include "daemon/api/watch_stream.h"

#include <stdlib.h>

static void progress_free(struct progress *p)
{
    struct watch_stream *ws = p->stream;
    list_remove(&p->link);
    if (p->op)
        replica_cancel(p->op);
    free(p);
    ws->progress_count--;
    if (list_empty(&ws->progress))
        list_remove(&ws->waiting);
    if (ws->paused && ws->progress_count < API_PROGRESS_MAX / 2) {
        ws->paused = false;
        rpc_call_resume(ws->call);
    }
}

/* Up to where all watches have come; -1 while one of them catches up. */
static int64_t seen_by_all(struct watch_stream *ws)
{
    int64_t seen = mvcc_revision(replica_store(ws->api->config.replica));
    LIST_FOR_EACH_SAFE(it, tmp, &ws->watches)
    {
        int64_t revision = watch_progress(CONTAINER_OF(it, struct watch, link)->watcher);
        if (revision < seen)
            seen = revision;
    }
    return seen;
}

static void answer_ready(struct watch_stream *ws)
{
    if (ws->stream.finished)
        return;
    int64_t seen = seen_by_all(ws);
    LIST_FOR_EACH_SAFE(it, tmp, &ws->progress)
    {
        struct progress *p = CONTAINER_OF(it, struct progress, link);
        if (p->revision < 0 || seen < p->revision)
            continue;
        watch_send_progress(ws, -1, seen); /* -1: it is about all watches of the stream */
        progress_free(p);
    }
}

void watch_poll(struct api *api)
{
    LIST_FOR_EACH_SAFE(it, tmp, &api->waiting)
    answer_ready(CONTAINER_OF(it, struct watch_stream, waiting));
}

static void on_confirmed(void *ctx, enum errc code)
{
    struct progress *p = ctx;
    struct watch_stream *ws = p->stream;
    p->op = NULL;
    if (code) {
        /* The stream can't say "no" to one request: the client opens it again elsewhere. */
        api_stream_finish(&ws->stream, code);
        return;
    }
    p->revision = mvcc_revision(replica_store(ws->api->config.replica));
}

void watch_progress_request(struct watch_stream *ws, bool linearizable)
{
    struct replica *replica = ws->api->config.replica;
    struct progress *p = xcalloc(1, sizeof(*p));
    p->stream = ws;
    p->revision = -1;
    if (list_empty(&ws->progress))
        list_append(&ws->api->waiting, &ws->waiting);
    list_append(&ws->progress, &p->link);
    if (++ws->progress_count >= API_PROGRESS_MAX && !ws->paused) {
        ws->paused = true;
        rpc_call_pause(ws->call);
    }
    if (linearizable)
        p->op = replica_read(replica, on_confirmed, p);
    else
        p->revision = mvcc_revision(replica_store(replica));
}

void watch_progress_drop(struct watch_stream *ws)
{
    ws->paused = false; /* nothing is resumed any more */
    LIST_FOR_EACH_SAFE(it, tmp, &ws->progress)
    progress_free(CONTAINER_OF(it, struct progress, link));
}

/* Watches made with progress_notify hear from us when nothing has happened for an interval. */
void watch_notify_tick(struct api_stream *st, uint64_t now_ms)
{
    struct watch_stream *ws = CONTAINER_OF(st, struct watch_stream, stream);
    if (now_ms < ws->notify_at_ms)
        return;
    ws->notify_at_ms = now_ms + API_PROGRESS_NOTIFY_MS;
    LIST_FOR_EACH_SAFE(it, tmp, &ws->watches)
    {
        struct watch *w = CONTAINER_OF(it, struct watch, link);
        int64_t revision = watch_progress(w->watcher);
        if (w->progress_notify && w->quiet && revision >= 0)
            watch_send_progress(ws, w->id, revision);
        w->quiet = true;
    }
}
