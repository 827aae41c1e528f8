/* Proposals: from the caller into the log. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define NAME_BITS 48 /* of an id, that count up */
#define NAME_MASK ((UINT64_C(1) << NAME_BITS) - 1)

/* High bits of the member's id, low ones that start anywhere and count up: no other member's proposal and
 * none of this member's former lives has the same. */
uint64_t propose_next_id(struct replica *r)
{
    if (r->next_id == 0)
        r->next_id = r->config.env->random(r->config.env) >> 16;
    r->next_id++;
    uint64_t low = r->next_id & NAME_MASK;
    uint64_t id = (r->member_id << NAME_BITS) | low;
    return id ? id : propose_next_id(r);
}

static uint8_t *pack(const Raftpb__InternalRequest *request, size_t *ret_size)
{
    size_t n = raftpb__internal_request__get_packed_size(request);
    uint8_t *p = xmalloc(n ? n : 1);
    raftpb__internal_request__pack(request, p);
    *ret_size = n;
    return p;
}

static void fill_in_lease(struct replica *r, Etcdserverpb__LeaseGrantRequest *g)
{
    if (g->id == 0) {
        do {
            g->id = (int64_t)(r->config.env->random(r->config.env) & INT64_MAX);
        } while (g->id == 0 || lessor_exists(r->lessor, g->id));
    }
    /* etcd's shortest lease: it must outlive the election of a leader that can renew it. */
    uint64_t min_ms = 3 * (uint64_t)r->config.election_ticks / 2 * r->config.tick_ms;
    int64_t min_ttl = (int64_t)((min_ms + 999) / 1000);
    if (g->ttl < min_ttl)
        g->ttl = min_ttl;
}

static enum errc check_space(struct replica *r, const Raftpb__InternalRequest *request)
{
    uint64_t cost = apply_cost(request);
    if (cost == 0)
        return ERR_OK;
    if (apply_alarm_nospace(r->apply) || r->space.low)
        return ERR_NO_SPACE;
    uint64_t used = mvcc_size_in_use(r->store) + mvcc_backlog_bytes(r->store);
    if (used + cost <= duties_quota(r))
        return ERR_OK;
    space_quota_reached(r);
    return ERR_NO_SPACE;
}

static enum errc check_limits(struct replica *r, const Raftpb__InternalRequest *request,
                              size_t size)
{
    size_t bytes_max =
        r->config.request_bytes_max ? r->config.request_bytes_max : APPLY_REQUEST_BYTES_MAX_DEFAULT;
    if (size > bytes_max)
        return ERR_REQUEST_TOO_LARGE;
    enum errc code = check_space(r, request); /* first: waiting would not help */
    if (code != ERR_OK)
        return code;
    if (r->proposal_count > REPLICA_PROPOSALS_MAX ||
        r->proposal_bytes + size > REPLICA_PROPOSAL_BYTES_MAX ||
        mvcc_backlog_bytes(r->store) > MVCC_BACKLOG_MAX)
        return ERR_TOO_MANY_REQUESTS;
    return ERR_OK;
}

static struct replica_op *enqueue(struct replica *r, Raftpb__InternalRequest *request,
                                  bool internal,
                                  void (*done)(void *ctx, const struct apply_result *result),
                                  void *ctx)
{
    struct replica_op *op = request_new(r, OP_PROPOSAL, ctx);
    op->done_result = done;
    op->internal = internal;
    op->has_session = request->client_id != 0;
    request->id = propose_next_id(r);
    if (request->request_case == RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT)
        fill_in_lease(r, request->lease_grant);
    size_t size;
    uint8_t *data = pack(request, &size);
    enum errc code = internal ? ERR_OK : check_limits(r, request, size);
    if (r->failed)
        code = ERR_STOPPED;
    if (code != ERR_OK) {
        free(data);
        request_finish(op, code);
        return op;
    }
    op->data = data;
    op->size = size;
    r->proposal_bytes += size;
    op->id = request->id;
    request_register(op);
    list_append(&r->unsent, &op->link);
    replica_wake(r);
    return op;
}

struct replica_op *replica_propose(struct replica *r, Raftpb__InternalRequest *request,
                                   void (*done)(void *ctx, const struct apply_result *result),
                                   void *ctx)
{
    return enqueue(r, request, false, done, ctx);
}

struct replica_op *propose_internal(struct replica *r, Raftpb__InternalRequest *request,
                                    void (*done)(void *ctx, const struct apply_result *result))
{
    return enqueue(r, request, true, done, r);
}

enum errc propose_as_leader(struct replica *r, Raftpb__InternalRequest *request,
                            uint64_t *ret_index)
{
    if (!replica_leads(r))
        return ERR_NOT_LEADER;
    request->id = propose_next_id(r);
    size_t size;
    uint8_t *data = pack(request, &size);
    *ret_index = 0;
    enum errc code = raft_propose(r->raft, bytes_of(data, size), 0, ret_index);
    free(data);
    /* Nothing since replica_refresh() has changed the role. */
    assert(code != ERR_OK || *ret_index != 0);
    replica_wake(r);
    return code;
}

/* ---- sending, and what comes of it -------------------------------------------------------------- */

/* What a sending is called: its number, and the request's id without the member's. */
static uint64_t next_name(const struct replica_op *op)
{
    return (uint64_t)(op->sendings + 1) << NAME_BITS | (op->id & NAME_MASK);
}

static void send_again(struct replica_op *op, struct list *later)
{
    op->away = false;
    list_remove(&op->link);
    list_append(later, &op->link);
    replica_wake(op->replica);
}

void propose_pending(struct replica *r)
{
    LIST_FOR_EACH_SAFE(it, tmp, &r->unsent)
    {
        struct replica_op *op = CONTAINER_OF(it, struct replica_op, link);
        uint64_t index = 0;
        enum errc code = raft_propose(r->raft, bytes_of(op->data, op->size), next_name(op), &index);
        if (code == ERR_NO_LEADER || code == ERR_UNAVAILABLE)
            return; /* they wait for a leader, or for the end of a transfer */
        if (code == ERR_TOO_MANY_REQUESTS && op->astray) {
            send_again(op, &r->refused); /* nobody can say yet that it won't be applied */
            continue;
        }
        if (code != ERR_OK) {
            request_finish(op, code);
            continue;
        }
        op->sendings++;
        op->away = index == 0;
        op->sent_term = r->status.term;
        op->sent_index = index;
        list_remove(&op->link);
        list_append(&r->sent, &op->link);
    }
}

/* The last sending of a proposal was not taken. If it was the only one that could get into the log, the
 * outcome is known: a limit is answered, and what has only met with a change of leaders is sent again. */
void propose_refused(struct replica *r, const struct raft_refusal *refusal)
{
    uint64_t id = r->member_id << NAME_BITS | (refusal->context & NAME_MASK);
    struct replica_op *op = request_find(r, id);
    if (!op || op->kind != OP_PROPOSAL || !op->away ||
        op->sendings != refusal->context >> NAME_BITS)
        return; /* repeated, or late: it has been decided otherwise */
    bool only_one = !op->astray || MUTANT(refused_while_astray);
    if (refusal->reason == RAFT_REFUSED_TOO_MANY && only_one && !op->internal)
        request_finish(op, ERR_TOO_MANY_REQUESTS);
    else
        send_again(op, &r->refused);
}

/* Not at once: who refused would be asked again with each round trip. */
void propose_refused_again(struct replica *r)
{
    LIST_FOR_EACH_SAFE(it, tmp, &r->refused)
    send_again(CONTAINER_OF(it, struct replica_op, link), &r->unsent);
}

/* The outcome of `op`, which won't be proposed again. */
static void give_up(struct replica_op *op)
{
    /* A renewal is the present leader's to answer, and asking it twice does no harm. */
    request_finish(op, op->kind == OP_RENEWAL ? ERR_NOT_LEADER : ERR_TIMEOUT_LEADER_FAIL);
}

/* An entry of `term` has been applied. What this member appended itself in an earlier term and hasn't
 * been applied is not in the log any more: it is proposed again. What it forwarded may still be on its
 * way to the log: again only if the state machine recognizes it, else the caller learns that the outcome
 * is unknown now instead of after the whole timeout. */
void propose_settle(struct replica *r, uint64_t term)
{
    LIST_FOR_EACH_SAFE(it, tmp, &r->sent)
    {
        struct replica_op *op = CONTAINER_OF(it, struct replica_op, link);
        if (op->sent_term >= term)
            continue;
        if (op->kind == OP_PROPOSAL && (op->sent_index || op->has_session)) {
            op->astray |= op->away;
            send_again(op, &r->unsent);
        } else {
            give_up(op);
        }
    }
}

/* A snapshot took the place of entries that this member has not seen: what it had appended or forwarded may be
 * among them. Again only what the state machine recognizes; proposed once more, anything else could be applied
 * twice (simulator, seed 575 of its day). */
void propose_settle_unseen(struct replica *r)
{
    LIST_FOR_EACH_SAFE(it, tmp, &r->sent)
    {
        struct replica_op *op = CONTAINER_OF(it, struct replica_op, link);
        if (op->kind == OP_PROPOSAL && op->has_session) {
            op->astray = true;
            send_again(op, &r->unsent);
        } else {
            give_up(op);
        }
    }
}
