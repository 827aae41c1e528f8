/* What changes with leadership: who judges leases, and how sure the leader is to be one. */
#include "daemon/replica/internal.h"
#include "lib/base/mutant.h"

/* A revoke that has been proposed is proposed again after this, if the lease is still there; etcd's. */
#define REVOKE_RETRY_MS 3000
#define CHECKPOINT_INTERVAL_MS (5u * 60 * 1000)
#define CHECKPOINTS_A_TICK 100

uint64_t leader_election_ms(const struct replica *r)
{
    return r->config.election_ticks * r->config.tick_ms;
}

void leader_hears(struct replica *r, uint64_t id)
{
    struct heard *oldest = NULL;
    for (size_t i = 0; i < r->heard_count; i++) {
        struct heard *h = &r->heard[i];
        if (h->id == id) {
            h->at_ms = replica_now_ms(r);
            return;
        }
        if (!oldest || h->at_ms < oldest->at_ms)
            oldest = h;
    }
    struct heard *h = r->heard_count < RAFT_MEMBERS_MAX ? &r->heard[r->heard_count++] : oldest;
    *h = (struct heard){id, replica_now_ms(r)};
}

bool leader_finds_active(const struct replica *r, uint64_t id)
{
    if (id == r->member_id)
        return true;
    for (size_t i = 0; i < r->heard_count; i++) {
        if (r->heard[i].id == id)
            return replica_now_ms(r) - r->heard[i].at_ms <= leader_election_ms(r);
    }
    return false;
}

bool leader_knows_all_leases(const struct replica *r)
{
    return replica_leads(r) && mvcc_applied_term(r->store) == r->status.term;
}

void leader_watch(struct replica *r)
{
    bool leads = replica_leads(r);
    if (!leader_knows_all_leases(r)) {
        if (lessor_is_primary(r->lessor))
            lessor_demote(r->lessor);
    } else if (!lessor_is_primary(r->lessor)) {
        lessor_promote(r->lessor, replica_now_ms(r));
    }
    if (r->status.leader == r->leader_told && r->status.term == r->term_told &&
        leads == r->lead_told)
        return;
    if (r->status.leader != r->leader_told && r->status.leader)
        r->leader_since_ms = replica_now_ms(r);
    r->lead_confirmed_ms = 0;
    r->leader_told = r->status.leader;
    r->term_told = r->status.term;
    r->lead_told = leads;
    propose_refused_again(r);
    if (r->status.leader && !list_empty(&r->unsent))
        replica_wake(r);
    if (r->config.leader_changed)
        r->config.leader_changed(r->config.ctx, r->status.leader, r->status.term, leads);
}

/* Never forwarded: a leader that has been deposed can't revoke what its successor keeps alive. */
static void revoke_expired(struct replica *r)
{
    int64_t ids[LEASE_EXPIRE_BATCH_MAX];
    size_t n =
        lessor_expired(r->lessor, replica_now_ms(r), REVOKE_RETRY_MS, ids, LEASE_EXPIRE_BATCH_MAX);
    for (size_t i = 0; i < n; i++) {
        Etcdserverpb__LeaseRevokeRequest revoke = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
        Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
        revoke.id = ids[i];
        request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE;
        request.lease_revoke = &revoke;
        if (MUTANT(stalled_leader_revokes)) /* goes to whoever leads by then (e#15247) */
            propose_internal(r, &request, NULL);
        else if (propose_as_leader(r, &request, &(uint64_t){0}) != ERR_OK)
            lessor_revoke_unsent(r->lessor, ids[i]);
    }
    if (MUTANT(expiry_unbounded) && n == LEASE_EXPIRE_BATCH_MAX) /* e#8097 */
        revoke_expired(r);
}

static void checkpoint(struct replica *r)
{
    int64_t ids[CHECKPOINTS_A_TICK], remaining[CHECKPOINTS_A_TICK];
    uint64_t interval =
        r->config.lease_checkpoint_ms ? r->config.lease_checkpoint_ms : CHECKPOINT_INTERVAL_MS;
    size_t n = lessor_checkpoints_due(r->lessor, replica_now_ms(r), interval, ids, remaining,
                                      CHECKPOINTS_A_TICK);
    if (n == 0)
        return;
    uint64_t index;
    Etcdserverpb__LeaseCheckpoint rows[CHECKPOINTS_A_TICK], *each[CHECKPOINTS_A_TICK];
    for (size_t i = 0; i < n; i++) {
        etcdserverpb__lease_checkpoint__init(&rows[i]);
        rows[i].id = ids[i];
        rows[i].remaining_ttl = remaining[i];
        each[i] = &rows[i];
    }
    Etcdserverpb__LeaseCheckpointRequest checkpoints = ETCDSERVERPB__LEASE_CHECKPOINT_REQUEST__INIT;
    checkpoints.checkpoints = each;
    checkpoints.n_checkpoints = n;
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_CHECKPOINT;
    request.lease_checkpoint = &checkpoints;
    if (propose_as_leader(r, &request, &index) != ERR_OK)
        lessor_checkpoints_unsent(r->lessor, ids, n);
}

void leader_duties(struct replica *r)
{
    if (!lessor_is_primary(r->lessor) || !leader_knows_all_leases(r))
        return;
    revoke_expired(r);
    checkpoint(r);
}
