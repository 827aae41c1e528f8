/* One watch stream with its watches; shared by watch.c (requests, life), watch_send.c (what goes out) and
 * watch_progress.c (progress answers). */
#ifndef API_WATCH_STREAM_H
#define API_WATCH_STREAM_H

#include "daemon/api/call.h"

struct watch {
    struct watch *next;  /* in its bucket */
    struct list link;    /* in watch_stream.watches */
    struct list blocked; /* in watch_stream.blocked while the client is behind */
    struct watch_stream *stream;
    struct watcher *watcher;
    int64_t id;
    bool progress_notify;
    bool fragment;
    bool quiet; /* no events since the last progress notification */
};

struct progress { /* a progress request that isn't answered yet */
    struct list link;
    struct watch_stream *stream;
    struct replica_op *op; /* linearizable: the read that is under way */
    int64_t revision;      /* every watch must have seen this much; -1: not known yet */
};

struct watch_stream {
    struct api_stream stream;
    struct api *api;
    struct rpc_call *call;
    struct list watches;
    struct watch **buckets; /* by id; a power of two */
    size_t bucket_count;
    size_t watch_count;
    int64_t next_id;
    struct list blocked;
    struct list waiting; /* in api.waiting while `progress` isn't empty */
    struct list progress;
    size_t progress_count;
    bool paused;
    uint64_t notify_at_ms;
};

/* ---- watch.c */
struct watch *watch_find(struct watch_stream *ws, int64_t id);
void watch_remove(struct watch *w);

/* ---- watch_send.c */
extern const struct watch_consumer watch_consumer;
void watch_send_created(struct watch_stream *ws, int64_t id, const char *cancel_reason);
void watch_send_canceled(struct watch_stream *ws, int64_t id);
void watch_send_progress(struct watch_stream *ws, int64_t id, int64_t revision);
void watch_writable(struct rpc_call *call, void *service);

/* ---- watch_progress.c */
void watch_progress_request(struct watch_stream *ws, bool linearizable);
void watch_progress_drop(struct watch_stream *ws); /* at the end of the stream */
void watch_notify_tick(struct api_stream *st, uint64_t now_ms);

#endif
