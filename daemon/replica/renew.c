/* Renewals of leases. */
#include "daemon/replica/internal.h"

struct replica_op *replica_lease_renew(struct replica *r, int64_t id,
                                       void (*done)(void *ctx, enum errc code, int64_t ttl),
                                       void *ctx)
{
    struct replica_op *op = request_new(r, OP_RENEWAL, ctx);
    op->done_renewal = done;
    op->lease = id;
    read_enqueue(op);
    return op;
}

static enum errc renew(struct replica *r, struct replica_op *op)
{
    if (r->failed || !leader_knows_all_leases(r) || !lessor_is_primary(r->lessor))
        return ERR_NOT_LEADER;
    /* No other leader can have been elected within an election timeout of a confirmed round: those who
     * answered it refuse their votes for that long. */
    uint64_t now = replica_now_ms(r);
    if (r->lead_confirmed_ms == 0 || now - r->lead_confirmed_ms >= leader_election_ms(r))
        return ERR_NOT_LEADER;
    return lessor_renew(r->lessor, op->lease, now, &op->ttl);
}

/* Another round, when the transfer of leadership that is in the way is over; that it takes a round trip
 * each time is the pause in between. */
static void again(struct replica_op *op)
{
    list_append(&op->replica->reads_waiting, &op->link);
    replica_wake(op->replica);
}

/* Proposes that the whole TTL counts again. Never forwarded: another leader has its own view. */
static enum errc take_back(struct replica *r, struct replica_op *op)
{
    Etcdserverpb__LeaseCheckpoint row = ETCDSERVERPB__LEASE_CHECKPOINT__INIT, *rows[] = {&row};
    Etcdserverpb__LeaseCheckpointRequest checkpoint = ETCDSERVERPB__LEASE_CHECKPOINT_REQUEST__INIT;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    row.id = op->lease;
    checkpoint.checkpoints = rows;
    checkpoint.n_checkpoints = 1;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_CHECKPOINT;
    request.lease_checkpoint = &checkpoint;
    enum errc code = propose_as_leader(r, &request, &op->sent_index);
    if (code == ERR_UNAVAILABLE) {
        again(op);
        return ERR_OK;
    }
    if (code != ERR_OK)
        return code;
    op->id = request.id;
    op->sent_term = r->status.term;
    request_register(op);
    list_append(&r->sent, &op->link);
    return ERR_OK;
}

void renewal_confirmed(struct replica_op *op)
{
    struct replica *r = op->replica;
    enum errc code = renew(r, op);
    if (code == ERR_BUSY) {
        code = take_back(r, op);
        if (code == ERR_OK)
            return;
    }
    request_complete(op, &(struct apply_result){.code = code});
}

/* Once more from the begin: another leader may have been elected while it was being committed. */
void renewal_taken_back(struct replica_op *op)
{
    request_unregister(op);
    list_remove(&op->link);
    again(op);
}
