/* Requests that wait: where each is, its deadline, its end. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"

static struct replica_op **slot(struct replica *r, uint64_t id)
{
    struct replica_op **at = &r->buckets[id % OP_BUCKETS]; /* ids count up */
    while (*at && (*at)->id != id)
        at = &(*at)->next;
    return at;
}

static uint64_t timeout_ms(const struct replica *r)
{
    if (r->config.request_timeout_ms)
        return r->config.request_timeout_ms;
    return 5000 + 2 * r->config.election_ticks * r->config.tick_ms; /* etcd's ReqTimeout() */
}

static bool is_read(enum op_kind kind)
{
    return kind == OP_READ || kind == OP_RENEWAL;
}

struct replica_op *request_new(struct replica *r, enum op_kind kind, void *ctx)
{
    struct replica_op *op = xcalloc(1, sizeof(*op));
    op->replica = r;
    op->kind = kind;
    op->ctx = ctx;
    op->started_ms = replica_now_ms(r);
    op->deadline_ms = op->started_ms + timeout_ms(r);
    list_init(&op->link);
    list_append(&r->timers, &op->timer); /* all have the same timeout */
    if (is_read(kind))
        r->read_count++;
    else
        r->proposal_count++;
    return op;
}

struct replica_op *request_find(struct replica *r, uint64_t id)
{
    return id ? *slot(r, id) : NULL;
}

void request_register(struct replica_op *op)
{
    assert(op->id && !op->next);
    struct replica_op **at = slot(op->replica, op->id);
    assert(!*at);
    *at = op;
}

void request_unregister(struct replica_op *op)
{
    if (op->id == 0)
        return;
    struct replica_op **at = slot(op->replica, op->id);
    if (*at == op)
        *at = op->next;
    op->next = NULL;
    op->id = 0;
}

static void request_drop_data(struct replica_op *op)
{
    if (op->data)
        op->replica->proposal_bytes -= op->size;
    free(op->data);
    op->data = NULL;
}

void request_free(struct replica_op *op)
{
    struct replica *r = op->replica;
    request_unregister(op);
    request_drop_data(op);
    list_remove(&op->link);
    list_remove(&op->timer);
    if (is_read(op->kind))
        r->read_count--;
    else
        r->proposal_count--;
    if (r->publish == op)
        r->publish = NULL;
    if (r->alarm == op)
        r->alarm = NULL;
    free(op);
}

void request_complete(struct replica_op *op, const struct apply_result *result)
{
    void (*done_result)(void *, const struct apply_result *) = op->done_result;
    void (*done_code)(void *, enum errc) = op->done_code;
    void (*done_renewal)(void *, enum errc, int64_t) = op->done_renewal;
    int64_t ttl = op->ttl;
    void *ctx = op->ctx;
    request_free(op);
    if (done_result)
        done_result(ctx, result);
    else if (done_code)
        done_code(ctx, result->code);
    else if (done_renewal)
        done_renewal(ctx, result->code, ttl);
}

void request_finish(struct replica_op *op, enum errc outcome)
{
    request_unregister(op); /* a late result finds nobody */
    request_drop_data(op);
    list_remove(&op->timer);
    list_remove(&op->link);
    op->outcome = outcome;
    list_append(&op->replica->finished, &op->link);
    replica_wake(op->replica);
}

static void deliver_first(struct list *l)
{
    struct replica_op *op = CONTAINER_OF(l->next, struct replica_op, link);
    request_complete(op, &(struct apply_result){.code = op->outcome});
}

void requests_deliver_finished(struct replica *r)
{
    /* Only what is there now: a `done` may ask again and fail again. */
    struct list batch;
    list_init(&batch);
    LIST_FOR_EACH_SAFE(it, tmp, &r->finished)
    {
        list_remove(it);
        list_append(&batch, it);
    }
    while (!list_empty(&batch)) /* a `done` may cancel another one of the batch */
        deliver_first(&batch);
}

/* etcd's parseProposeCtxErr: a leader that changed while the request waited, a quorum that can't be
 * reached, else just the time. */
static enum errc timeout_reason(const struct replica *r, const struct replica_op *op)
{
    uint64_t election_ms = r->config.election_ticks * r->config.tick_ms;
    if (r->leader_since_ms > op->started_ms ||
        (r->leader_since_ms && op->started_ms < r->leader_since_ms + 2 * election_ms))
        return ERR_TIMEOUT_LEADER_FAIL;
    size_t voters = 0, active = 0;
    for (size_t i = 0; replica_leads(r) && i < r->status.peer_count; i++) {
        const struct raft_peer_status *p = &r->status.peers[i];
        voters += !p->learner;
        active += !p->learner && leader_finds_active(r, p->id);
    }
    return voters && active < voters / 2 + 1 ? ERR_TIMEOUT_CONNECTION : ERR_TIMEOUT;
}

void requests_time_out(struct replica *r)
{
    uint64_t now = replica_now_ms(r);
    while (!list_empty(&r->timers)) {
        struct replica_op *op = CONTAINER_OF(r->timers.next, struct replica_op, timer);
        if (op->deadline_ms > now)
            break;
        request_finish(op, timeout_reason(r, op));
    }
}

void requests_stop(struct replica *r)
{
    while (!list_empty(&r->timers))
        request_finish(CONTAINER_OF(r->timers.next, struct replica_op, timer), ERR_STOPPED);
    while (!list_empty(&r->finished))
        deliver_first(&r->finished);
}

void replica_cancel(struct replica_op *op)
{
    request_free(op);
}
