/* Calls that only the leader can answer, carried to it over its peer connection. */
#include "daemon/peer/peer_internal.h"

#include <stdlib.h>

struct peer_forward {
    struct list link;
    struct peers *peers;
    char *path;
    struct buf request;
    uint64_t deadline_ms;    /* on uv_now()'s clock */
    struct rpc_stream *call; /* NULL: waits for the timer */
    void (*done)(void *ctx, enum errc code, struct bytes answer);
    void *ctx;
};

static void on_timer(uv_timer_t *timer);

static void forward_free(struct peer_forward *f)
{
    list_remove(&f->link);
    f->peers->forward_count--;
    free(f->path);
    buf_free(&f->request);
    free(f);
}

static void finish(struct peer_forward *f, enum errc code, struct bytes answer)
{
    void (*done)(void *, enum errc, struct bytes) = f->done;
    void *ctx = f->ctx;
    forward_free(f);
    done(ctx, code, answer);
}

static void retry_later(struct peer_forward *f)
{
    if (!uv_is_active((uv_handle_t *)f->peers->forward_timer))
        uv_timer_start(f->peers->forward_timer, on_timer, PEER_FORWARD_RETRY_MS, 0);
}

/* Whether the leader has certainly done nothing, so that asking again is safe for any method. */
static bool untouched(enum errc code, bool sent)
{
    return !sent || code == ERR_NOT_LEADER || code == ERR_NO_LEADER;
}

static void on_answer(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct peer_forward *f = ctx;
    f->call = NULL;
    enum errc code = errc_from_grpc(status, text);
    if (code == ERR_DEADLINE)
        code = ERR_TIMEOUT;
    if (code && untouched(code, sent) && !f->peers->stopping)
        retry_later(f);
    else
        finish(f, code, answer);
}

static uint64_t leader(struct peers *p)
{
    struct raft_status status;
    if (!p->replica)
        return 0;
    replica_status(p->replica, &status);
    return status.leader;
}

static void attempt(struct peer_forward *f)
{
    struct peer *peer = peer_find(f->peers, leader(f->peers));
    uint64_t now = uv_now(f->peers->loop);
    if (!peer || !peer->channel || peer->lost) {
        retry_later(f);
        return;
    }
    f->call = rpc_unary(peer->channel, f->path, buf_bytes(&f->request), f->deadline_ms - now, NULL,
                        0, on_answer, f);
}

/* One timer serves all that wait. A `done` may start and cancel others, so the list is looked at from its
 * start after each; what was tried in this round is not waiting any more or moved behind. */
static void on_timer(uv_timer_t *timer)
{
    struct peers *p = timer->data;
    uint64_t now = uv_now(p->loop);
    struct list waiting;
    list_init(&waiting);
    LIST_FOR_EACH_SAFE(it, tmp, &p->forwards)
    {
        struct peer_forward *f = CONTAINER_OF(it, struct peer_forward, link);
        if (f->call)
            continue;
        list_remove(it);
        list_append(&waiting, it);
    }
    while (!list_empty(&waiting)) {
        struct peer_forward *f = CONTAINER_OF(waiting.next, struct peer_forward, link);
        list_remove(&f->link);
        list_append(&p->forwards, &f->link);
        if (now >= f->deadline_ms)
            finish(f, ERR_TIMEOUT, BYTES_EMPTY);
        else if (leader(p) == p->member_id)
            finish(f, ERR_LEADER_CHANGED, BYTES_EMPTY);
        else
            attempt(f);
    }
}

struct peer_forward *peers_forward(struct peers *p, const char *path, struct bytes request,
                                   uint64_t timeout_ms,
                                   void (*done)(void *ctx, enum errc code, struct bytes answer),
                                   void *ctx)
{
    if (p->forward_count >= PEER_FORWARDS_MAX)
        return NULL;
    struct peer_forward *f = xcalloc(1, sizeof(*f));
    f->peers = p;
    f->path = xstrdup(path);
    buf_append(&f->request, request.p, request.n);
    f->deadline_ms = uv_now(p->loop) + timeout_ms;
    f->done = done;
    f->ctx = ctx;
    list_append(&p->forwards, &f->link);
    p->forward_count++;
    attempt(f);
    return f;
}

void peer_forward_cancel(struct peer_forward *f)
{
    if (f->call)
        rpc_stream_cancel(f->call);
    forward_free(f);
}

void forwards_fail(struct peers *p, enum errc code)
{
    while (!list_empty(&p->forwards)) {
        struct peer_forward *f = CONTAINER_OF(p->forwards.next, struct peer_forward, link);
        if (f->call)
            rpc_stream_cancel(f->call);
        finish(f, code, BYTES_EMPTY);
    }
}
