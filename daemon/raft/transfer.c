/* Leadership transfer (thesis, section 3.10). */
#include <inttypes.h>

#include "daemon/raft/core.h"

uint64_t raft_transfer_best(struct raft *r)
{
    const struct raft_progress *best = NULL;
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_progress *p = &r->peers[i];
        if (p->id == r->id || p->learner)
            continue;
        /* Heard from lately before silent ones, then by the log. */
        if (best == NULL || p->recent_active > best->recent_active ||
            (p->recent_active == best->recent_active && p->match > best->match))
            best = p;
    }
    return best == NULL ? 0 : best->id;
}

static void send_timeout_now(struct raft *r)
{
    raft_trace(r, "hands over to %" PRIx64, r->transferee);
    raft_send(r, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .to = r->transferee});
}

/* "The prior leader stops accepting new client requests", brings the target's log up to date, then
 * "sends a TimeoutNow request". */
enum errc raft_leader_transfer(struct raft *r, uint64_t to)
{
    if (to == 0)
        to = raft_transfer_best(r);
    if (to == r->id)
        return ERR_OK;
    if (!raft_conf_is_voter(&r->conf, to))
        return ERR_BAD_LEADER_TRANSFEREE;
    if (r->transferee == to)
        return ERR_OK; /* under way; its timeout goes on */
    r->transferee = to;
    r->transfer_elapsed = 0;
    struct raft_progress *p = raft_peer(r, to);
    if (p->match == raft_log_last(&r->log)) {
        send_timeout_now(r);
    } else {
        p->due = true;
        r->replication_due = true;
    }
    return ERR_OK;
}

enum errc raft_transfer_leader(struct raft *r, uint64_t to)
{
    if (r->role == RAFT_LEADER)
        return raft_leader_transfer(r, to);
    if (r->leader == 0)
        return ERR_NO_LEADER;
    if (to == r->leader)
        return ERR_OK;
    if (!raft_conf_is_voter(&r->conf, to == 0 ? r->id : to))
        return ERR_BAD_LEADER_TRANSFEREE;
    raft_send(
        r, (struct raft_message){.type = RAFT_MSG_TRANSFER_LEADER, .to = r->leader, .context = to});
    return ERR_OK;
}

void raft_transfer_continue(struct raft *r)
{
    if (r->role != RAFT_LEADER || r->transferee == 0)
        return;
    const struct raft_progress *p = raft_peer(r, r->transferee);
    if (p != NULL && p->match == raft_log_last(&r->log))
        send_timeout_now(r);
}

void raft_transfer_tick(struct raft *r)
{
    if (r->transferee == 0 || ++r->transfer_elapsed < r->config.election_ticks)
        return;
    raft_trace(r, "gave up handing over to %" PRIx64, r->transferee);
    r->transferee = 0;
    /* It isn't fit to lead, so any other one is better; silent, it lets the others elect one. */
    if (r->disk_transfer && raft_disk_hangs(r))
        raft_become_follower(r, r->term, 0);
    r->disk_transfer = false;
}

void raft_recv_transfer(struct raft *r, const struct raft_message *m)
{
    if (r->role == RAFT_LEADER && raft_peer(r, m->from) != NULL)
        raft_leader_transfer(r, m->context != 0 ? m->context : m->from);
}

/* "The target server ... starts a new election (incrementing its term and becoming a candidate)", with
 * requests that the others heed in spite of their lease. */
void raft_recv_timeout_now(struct raft *r, const struct raft_message *m)
{
    if (r->role == RAFT_FOLLOWER && (r->leader == 0 || r->leader == m->from))
        raft_start_campaign(r, CAMPAIGN_TRANSFER);
}
