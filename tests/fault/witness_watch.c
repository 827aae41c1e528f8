/* The watches: raw streams that move from member to member. */
#include <inttypes.h>
#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/memory.h"
#include "tests/fault/witness.h"

#define LOOK_MS 200 /* between two requests for progress */
#define REOPEN_MS 50
#define MOVE_MS 4000 /* a stream lives at most this long */

static void look(uv_timer_t *timer);

/* ---- Events ------------------------------------------------------------------------------------ */

void witness_take_kv(const Mvccpb__KeyValue *from, struct witness_kv *ret)
{
    *ret = (struct witness_kv){.key = (char *)bytes_dup(bytes_of(from->key.data, from->key.len)),
                               .value = crc32c(0, from->value.data, from->value.len),
                               .create = from->create_revision,
                               .mod = from->mod_revision,
                               .version = from->version,
                               .lease = from->lease,
                               .stamp = from->stamp};
}

static void take_event(struct witness_watch *t, const Mvccpb__Event *from)
{
    struct witness_events *events = &t->events;
    if (events->count == events->cap) {
        events->cap = events->cap ? 2 * events->cap : 1024;
        events->all = xrealloc(events->all, events->cap * sizeof(events->all[0]));
    }
    struct witness_event *e = &events->all[events->count++];
    *e = (struct witness_event){.deletion = from->type == MVCCPB__EVENT__EVENT_TYPE__DELETE,
                                .has_prev = from->prev_kv != NULL};
    witness_take_kv(from->kv, &e->kv);
    if (e->has_prev)
        witness_take_kv(from->prev_kv, &e->prev);
    if (e->deletion && strncmp(e->kv.key, WITNESS_LEASE_PREFIX, strlen(WITNESS_LEASE_PREFIX)) == 0)
        witness_lease_ended(t->w, e->kv.key);
}

static void take_events(struct witness_watch *t, const Etcdserverpb__WatchResponse *r)
{
    for (size_t i = 0; i < r->n_events; i++) {
        const Mvccpb__KeyValue *kv = r->events[i]->kv;
        if (kv->mod_revision < t->next)
            witness_wrong(t->w,
                          "watch %s at member %zu: revision %" PRId64
                          " comes again, it has all below %" PRId64,
                          t->name, t->member + 1, kv->mod_revision, t->next);
        take_event(t, r->events[i]);
    }
    t->next = r->events[r->n_events - 1]->kv->mod_revision + 1;
}

static void take_response(struct witness_watch *t, const Etcdserverpb__WatchResponse *r)
{
    if (r->canceled) {
        if (r->compact_revision)
            witness_wrong(t->w, "watch %s: revision %" PRId64 " is compacted", t->name, t->next);
        return; /* a member that can't read or has no leader; the stream ends too, or the next look moves on */
    }
    int64_t revision = r->header ? r->header->revision : 0;
    if (r->created) {
        t->created = true;
        if (t->next == 0)
            t->first = t->next = revision + 1;
    } else if (r->n_events) {
        take_events(t, r);
    } else if (t->created && revision >= t->next) {
        t->next = revision + 1; /* progress: everything up to it has been told */
    }
}

/* ---- The stream -------------------------------------------------------------------------------- */

static void on_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    struct witness_watch *t = ctx;
    Etcdserverpb__WatchResponse *r =
        etcdserverpb__watch_response__unpack(NULL, message.n, message.p);
    if (!r) {
        witness_wrong(t->w, "watch %s: an answer can't be read", t->name);
        return;
    }
    take_response(t, r);
    etcdserverpb__watch_response__free_unpacked(r, NULL);
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    (void)st, (void)status, (void)text, (void)sent;
    struct witness_watch *t = ctx;
    t->stream = NULL;
    uv_timer_start(&t->timer, look, REOPEN_MS, 0);
}

static const struct rpc_stream_handler watch_handler = {.message = on_message, .closed = on_closed};

static void open_stream(struct witness_watch *t)
{
    struct witness *w = t->w;
    t->created = false;
    t->move_at =
        t->stays ? UINT64_MAX : uv_now(&w->loop) + MOVE_MS / 4 + witness_random(w, MOVE_MS * 3 / 4);
    Etcdserverpb__WatchCreateRequest create = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    create.key = witness_text(t->key);
    create.range_end = t->end[0] ? witness_text(t->end) : (ProtobufCBinaryData){0};
    create.start_revision = t->next;
    create.prev_kv = t->prev_kv;
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    request.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    request.create_request = &create;
    t->stream = witness_stream(w, t->member, "/etcdserverpb.Watch/Watch", 0, &request.base,
                               &watch_handler, t);
}

static void move_on(struct witness_watch *t)
{
    if (t->stream)
        rpc_stream_cancel(t->stream);
    t->stream = NULL;
    if (!t->stays) {
        t->member = (t->member + 1 + witness_random(t->w, t->w->member_count)) % t->w->member_count;
        t->w->moves++;
    }
    open_stream(t);
}

static void ask_progress(struct witness_watch *t)
{
    Etcdserverpb__WatchProgressRequest progress = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    Etcdserverpb__WatchRequest request = ETCDSERVERPB__WATCH_REQUEST__INIT;
    request.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    request.progress_request = &progress;
    witness_send(t->stream, &request.base);
}

static void look(uv_timer_t *timer)
{
    struct witness_watch *t = timer->data;
    uint64_t after_ms = LOOK_MS;
    if (t->stream && t->often_away && uv_now(&t->w->loop) >= t->move_at && !t->w->ending) {
        rpc_stream_cancel(t->stream);
        t->stream = NULL;
        after_ms = witness_random(t->w, MOVE_MS / 2);
    } else if (!t->stream || uv_now(&t->w->loop) >= t->move_at) {
        move_on(t);
    } else if (t->created) {
        ask_progress(t);
    }
    uv_timer_start(&t->timer, look, after_ms, 0);
}

/* ---- Start and end ----------------------------------------------------------------------------- */

static void watch_start(struct witness *w, struct witness_watch *t)
{
    t->w = w;
    uv_timer_init(&w->loop, &t->timer);
    t->timer.data = t;
    uv_timer_start(&t->timer, look, 0, 0);
}

void witness_watches_start(struct witness *w)
{
    static const struct witness_watch specs[WITNESS_WATCHES] = {
        {.name = "all", .key = "/", .end = "0", .prev_kv = true},
        {.name = "all, often away",
         .key = "/",
         .end = "0",
         .next = 1,
         .first = 1,
         .often_away = true},
        {.name = "the load", .key = "/history/", .end = "/history0", .prev_kv = true},
        {.name = "one key", .key = "/history/0", .end = "", .prev_kv = true},
        {.name = "leases", .key = WITNESS_LEASE_PREFIX, .end = "/witness/lease0", .prev_kv = true},
    };
    for (size_t i = 0; i < WITNESS_WATCHES; i++) {
        w->watches[i] = specs[i];
        w->watches[i].member = i % w->member_count;
        watch_start(w, &w->watches[i]);
    }
}

void witness_reader_start(struct witness *w, size_t member)
{
    w->readers[member] = (struct witness_watch){.name = "history",
                                                .key = "/",
                                                .end = "0",
                                                .prev_kv = true,
                                                .stays = true,
                                                .member = member,
                                                .first = 1,
                                                .next = 1};
    watch_start(w, &w->readers[member]);
}

void witness_watch_stop(struct witness_watch *t)
{
    if (t->stream)
        rpc_stream_cancel(t->stream);
    t->stream = NULL;
    uv_close((uv_handle_t *)&t->timer, NULL);
}

void witness_watch_free(struct witness_watch *t)
{
    for (size_t i = 0; i < t->events.count; i++) {
        free(t->events.all[i].kv.key);
        free(t->events.all[i].prev.key);
    }
    free(t->events.all);
}
