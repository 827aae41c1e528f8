/* Sync points of a watch, in rounds that all waiting callers share.
 *
 * On quorumd a round is one progress question with `linearizable`: the server confirms its leadership and
 * answers on the stream, behind all events. Progress answers have no number, so the next round does not
 * ask before this one has its answer or a new stream.
 *
 * On etcd it is a linearizable read of the store's revision, and then progress questions until an answer,
 * or events, have reached it. One that still reads history for the watch gives no answer: it is asked
 * again. One before 3.4.25 (3.5.8) may send an answer ahead of events that it has queued: it picks
 * between the two queues at random each time. There an unbroken run of PROGRESS_RUN answers without an
 * event stands for one answer (a queued event stays behind all of them once in 2^PROGRESS_RUN times), and
 * none counts while the server may still be reading history. */
#include <assert.h>
#include <stdlib.h>

#include "lib/client/watch_internal.h"

#define SYNC_WAITERS_MAX 10000 /* as CLIENT_CALLS_MAX: each is a request of the mount that waits */
#define PROGRESS_RUN 24
#define ASK_AGAIN_MS 20 /* of a member that is behind, or gave no answer */
#define READ_AGAIN_MS 50
#define ROUND_MS_MIN 250

struct waiter {
    struct list link;
    uint64_t deadline;
    enum errc expiry; /* what it gets at its deadline */
    void (*done)(void *ctx, enum errc code, int64_t revision);
    void *ctx;
};

static void on_sync_timer(uv_timer_t *timer);
static void sync_kick(struct client_watch *w);

static void timer_before(struct client_watch *w, uint64_t at)
{
    struct sync *s = &w->sync;
    uint64_t now = uv_now(w->client->loop);
    uint64_t delay = at > now ? at - now : 0;
    if (uv_is_active((uv_handle_t *)&s->timer) && uv_timer_get_due_in(&s->timer) <= delay)
        return;
    uv_timer_start(&s->timer, on_sync_timer, delay, 0);
}

/* ---- Waiters ------------------------------------------------------------------------------------- */

/* Their callbacks may stop the watch, which empties all lists: each step looks at the list anew. */
static void waiters_finish(struct client_watch *w, struct list *waiters, enum errc code)
{
    while (!list_empty(waiters)) {
        struct waiter *it = CONTAINER_OF(waiters->next, struct waiter, link);
        list_remove(&it->link);
        w->sync.waiters--;
        it->done(it->ctx, code == ERR_DEADLINE ? it->expiry : code, w->seen);
        free(it);
    }
}

static void waiters_move(struct list *to, struct list *from)
{
    LIST_FOR_EACH_SAFE(it, tmp, from)
    {
        list_remove(it);
        list_append(to, it);
    }
}

static void waiters_take_expired(struct list *from, uint64_t now, struct list *ret_expired,
                                 uint64_t *earliest)
{
    LIST_FOR_EACH_SAFE(it, tmp, from)
    {
        struct waiter *waiter = CONTAINER_OF(it, struct waiter, link);
        if (waiter->deadline <= now) {
            list_remove(it);
            list_append(ret_expired, it);
        } else if (waiter->deadline < *earliest) {
            *earliest = waiter->deadline;
        }
    }
}

/* ---- Rounds -------------------------------------------------------------------------------------- */

/* The waiters of the round under way become the first ones of the next. */
static void round_abandon(struct client_watch *w)
{
    struct sync *s = &w->sync;
    if (s->read)
        client_cancel(s->read);
    s->read = NULL;
    s->phase = SYNC_IDLE;
    s->run = 0;
    s->ask_at = s->give_up_at = 0;
    waiters_move(&s->round, &s->next);
    waiters_move(&s->next, &s->round);
}

static void round_done(struct client_watch *w)
{
    struct sync *s = &w->sync;
    struct list finished;
    list_init(&finished);
    waiters_move(&finished, &s->round);
    int64_t target = s->target;
    round_abandon(w);
    /* Where answers overtake events only the whole round proves that nothing is missing. */
    if (w->seen < target) {
        w->seen = target;
        w->handler->events(w->ctx, NULL, 0, target);
    }
    waiters_finish(w, &finished, w->stopped ? ERR_CLOSED : ERR_OK);
    if (!w->stopped)
        sync_kick(w);
}

static void ask(struct client_watch *w)
{
    struct sync *s = &w->sync;
    uint64_t now = uv_now(w->client->loop);
    s->ask_at = 0;
    if (w->conn->kind == KIND_QUORUMD) {
        watch_ask_progress(w, true);
        return;
    }
    if (w->conn->progress_overtakes && now < w->history_until) {
        s->ask_at = w->history_until;
    } else {
        unsigned count = w->conn->progress_overtakes ? PROGRESS_RUN : 1;
        for (unsigned i = 0; i < count; i++)
            watch_ask_progress(w, false);
        s->ask_at = now + ASK_AGAIN_MS;
    }
    timer_before(w, s->ask_at);
}

/* Half of the time that the first waiter has left, so that another member can still be asked. */
static void set_give_up(struct client_watch *w, uint64_t deadline)
{
    struct sync *s = &w->sync;
    uint64_t now = uv_now(w->client->loop);
    uint64_t half = deadline > now ? (deadline - now) / 2 : 0;
    s->give_up_at = now + (half > ROUND_MS_MIN ? half : ROUND_MS_MIN);
    timer_before(w, s->give_up_at);
}

static void progress_begin(struct client_watch *w)
{
    struct sync *s = &w->sync;
    s->phase = SYNC_PROGRESS;
    s->run = 0;
    if (!list_empty(&s->round))
        set_give_up(w, CONTAINER_OF(s->round.next, struct waiter, link)->deadline);
    ask(w);
}

static void on_read(void *ctx, const struct client_result *result)
{
    struct client_watch *w = ctx;
    struct sync *s = &w->sync;
    s->read = NULL;
    if (result->code != ERR_OK) {
        /* It was tried for as long as its first waiter waits: whoever has time left tries anew. */
        round_abandon(w);
        s->ask_at = uv_now(w->client->loop) + READ_AGAIN_MS;
        timer_before(w, s->ask_at);
        return;
    }
    const Etcdserverpb__RangeResponse *r =
        CONTAINER_OF(result->message, Etcdserverpb__RangeResponse, base);
    s->target = r->header ? r->header->revision : 0;
    if (w->seen >= s->target)
        round_done(w);
    else
        progress_begin(w);
}

static void read_begin(struct client_watch *w)
{
    struct sync *s = &w->sync;
    uint64_t now = uv_now(w->client->loop);
    uint64_t deadline = CONTAINER_OF(s->round.next, struct waiter, link)->deadline;
    Etcdserverpb__RangeRequest request = ETCDSERVERPB__RANGE_REQUEST__INIT;
    request.key = (ProtobufCBinaryData){w->key.n, w->key.p};
    request.count_only = true;
    s->phase = SYNC_READ;
    s->read = client_range(w->client, &request, deadline > now ? deadline - now : 1, on_read, w);
}

/* Begins a round if callers wait, none is under way and the stream can carry one. */
static void sync_kick(struct client_watch *w)
{
    struct sync *s = &w->sync;
    if (s->phase != SYNC_IDLE || list_empty(&s->next) || !w->up || w->conn->kind == KIND_UNKNOWN ||
        s->ask_at > uv_now(w->client->loop))
        return;
    waiters_move(&s->round, &s->next);
    s->target = 0;
    if (w->conn->kind == KIND_QUORUMD)
        progress_begin(w);
    else
        read_begin(w);
}

void sync_stream_up(struct client_watch *w)
{
    sync_kick(w);
}

void sync_stream_lost(struct client_watch *w)
{
    round_abandon(w);
}

void sync_events(struct client_watch *w)
{
    struct sync *s = &w->sync;
    s->run = 0;
    if (s->phase == SYNC_PROGRESS && s->target > 0 && w->seen >= s->target)
        round_done(w);
}

void sync_progress(struct client_watch *w, int64_t revision)
{
    struct sync *s = &w->sync;
    if (s->phase != SYNC_PROGRESS)
        return;
    if (w->conn->kind == KIND_QUORUMD) {
        round_done(w);
        return;
    }
    if (w->conn->progress_overtakes && uv_now(w->client->loop) < w->history_until)
        return;
    s->run = revision < s->target ? 0 : s->run + 1;
    if (s->run >= (w->conn->progress_overtakes ? PROGRESS_RUN : 1))
        round_done(w);
}

static uint64_t earlier(uint64_t at, uint64_t than)
{
    return at && at < than ? at : than;
}

static void on_sync_timer(uv_timer_t *timer)
{
    struct client_watch *w = timer->data;
    struct sync *s = &w->sync;
    uint64_t now = uv_now(w->client->loop);
    struct list expired;
    list_init(&expired);
    uint64_t next = UINT64_MAX;
    waiters_take_expired(&s->round, now, &expired, &next);
    waiters_take_expired(&s->next, now, &expired, &next);
    waiters_finish(w, &expired, ERR_DEADLINE);
    if (w->stopped)
        return;
    /* The read finds its own way to another member; the stream needs help. */
    if (s->phase == SYNC_PROGRESS && s->give_up_at && s->give_up_at <= now) {
        s->give_up_at = 0;
        if (s->waiters)
            watch_give_up_stream(w, "no answer to a sync point");
    }
    if (w->stopped)
        return;
    if (s->phase == SYNC_PROGRESS && s->ask_at && s->ask_at <= now)
        ask(w);
    else
        sync_kick(w);
    next = earlier(s->ask_at, earlier(s->give_up_at, next));
    if (next != UINT64_MAX)
        timer_before(w, next);
}

/* ---- Asking and ending --------------------------------------------------------------------------- */

void client_watch_sync(struct client_watch *w, uint64_t timeout_ms,
                       void (*done)(void *ctx, enum errc code, int64_t revision), void *ctx)
{
    struct sync *s = &w->sync;
    struct waiter *waiter = xcalloc(1, sizeof(*waiter));
    uint64_t now = uv_now(w->client->loop);
    waiter->done = done;
    waiter->ctx = ctx;
    waiter->deadline = now + (timeout_ms ? timeout_ms : w->client->timeout_ms);
    waiter->expiry = ERR_DEADLINE;
    if (s->failure || s->waiters >= SYNC_WAITERS_MAX) {
        waiter->expiry = s->failure ? s->failure : ERR_TOO_MANY_REQUESTS;
        waiter->deadline = now; /* the timer says so at once */
    }
    s->waiters++;
    list_append(&s->next, &waiter->link);
    timer_before(w, waiter->deadline);
    if (s->phase == SYNC_PROGRESS && !s->give_up_at)
        set_give_up(w, waiter->deadline); /* the round's own waiters have all gone */
    sync_kick(w);
}

void sync_init(struct client_watch *w)
{
    struct sync *s = &w->sync;
    list_init(&s->round);
    list_init(&s->next);
    int rc = uv_timer_init(w->client->loop, &s->timer);
    assert(rc == 0);
    s->timer.data = w;
    w->open_handles++;
}

void sync_fail(struct client_watch *w, enum errc code)
{
    struct sync *s = &w->sync;
    s->failure = code;
    round_abandon(w);
    struct list all;
    list_init(&all);
    waiters_move(&all, &s->next);
    waiters_finish(w, &all, code);
}

void sync_close(struct client_watch *w)
{
    sync_fail(w, ERR_CLOSED);
    uv_close((uv_handle_t *)&w->sync.timer, watch_handle_closed);
}
