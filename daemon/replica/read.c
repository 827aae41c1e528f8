/* Linearizable reads: all that wait when a round begins share it; those that come later wait for the next
 * one, so a confirmation is never older than a read that it serves (thesis 6.4; e#20418). */
#include "daemon/replica/internal.h"
#include "lib/base/mutant.h"

struct replica_op *replica_read(struct replica *r, void (*done)(void *ctx, enum errc code),
                                void *ctx)
{
    struct replica_op *op = request_new(r, OP_READ, ctx);
    op->done_code = done;
    read_enqueue(op);
    return op;
}

void read_enqueue(struct replica_op *op)
{
    struct replica *r = op->replica;
    if (r->failed)
        request_finish(op, ERR_STOPPED);
    else if (r->read_count > REPLICA_READS_MAX)
        request_finish(op, ERR_TOO_MANY_REQUESTS);
    else
        list_append(&r->reads_waiting, &op->link);
    replica_wake(r);
}

static void move_all(struct list *from, struct list *to)
{
    LIST_FOR_EACH_SAFE(it, tmp, from)
    {
        list_remove(it);
        list_append(to, it);
    }
}

/* One round is under way at a time; `read_context` isn't 0 meanwhile. A leader also begins rounds without
 * a read now and then, to know that it still leads (leader.c). */
void read_begin_round(struct replica *r)
{
    if (MUTANT(read_index_reused) && r->read_context) /* joins a round that began before it */
        move_all(&r->reads_waiting, &r->reads_round);
    if (r->read_context)
        return;
    uint64_t context = propose_next_id(r);
    if (raft_read_index(r->raft, context) != ERR_OK)
        return; /* no leader, or too many: tried again on the next turn or tick */
    r->read_context = context;
    r->round_begun_ms = replica_now_ms(r);
    move_all(&r->reads_waiting, &r->reads_round);
}

void read_confirmed(struct replica *r, const struct raft_read_state *state)
{
    if (state->context != r->read_context)
        return;
    r->read_context = 0;
    if (state->failed) {
        /* Again, before those that came later. */
        move_all(&r->reads_waiting, &r->reads_round);
        move_all(&r->reads_round, &r->reads_waiting);
        return;
    }
    if (replica_leads(r))
        r->lead_confirmed_ms = r->round_begun_ms;
    LIST_FOR_EACH_SAFE(it, tmp, &r->reads_round)
    CONTAINER_OF(it, struct replica_op, link)->read_index = state->index;
    move_all(&r->reads_round, &r->reads_ready);
}

void read_complete(struct replica *r)
{
    uint64_t applied = mvcc_applied_index(r->store);
    struct list batch;
    list_init(&batch);
    LIST_FOR_EACH_SAFE(it, tmp, &r->reads_ready)
    {
        struct replica_op *op = CONTAINER_OF(it, struct replica_op, link);
        if (op->read_index > applied)
            break; /* later rounds have later indices */
        list_remove(it);
        list_append(&batch, it);
    }
    while (!list_empty(&batch)) {
        struct replica_op *op = CONTAINER_OF(batch.next, struct replica_op, link);
        list_remove(&op->link);
        if (op->kind == OP_RENEWAL)
            renewal_confirmed(op);
        else
            request_complete(op, &(struct apply_result){.code = ERR_OK});
    }
}
