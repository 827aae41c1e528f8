/* Time: one tick of the driver's clock. */
#include "daemon/raft/core.h"

static void tick_leader(struct raft *r)
{
    r->election_elapsed++;
    r->heartbeat_elapsed++;
    if (r->election_elapsed >= r->config.election_ticks) {
        r->election_elapsed = 0;
        raft_leader_check_quorum(r);
    }
    if (r->role != RAFT_LEADER)
        return;
    raft_transfer_tick(r);
    if (r->role != RAFT_LEADER)
        return;
    raft_leader_watch_disk(r);
    if (r->heartbeat_elapsed >= r->config.heartbeat_ticks) {
        r->heartbeat_elapsed = 0;
        raft_leader_heartbeat(r);
    }
}

void raft_tick(struct raft *r)
{
    r->ticks++;
    if (r->forgotten != 0)
        return;
    if (r->role == RAFT_LEADER) {
        tick_leader(r);
        return;
    }
    raft_reads_tick(r);
    if (r->hasty_ticks > 0)
        r->hasty_ticks--;
    if (++r->election_elapsed < r->election_timeout)
        return;
    /* Another campaign would only make the disk sync another vote. */
    if (r->role == RAFT_CANDIDATE && r->hard_state_synced.term != r->term)
        return;
    enum errc rc = raft_start_campaign(r, CAMPAIGN_PREVOTE);
    if (rc == ERR_OK)
        return;
    /* Can't stand for election: at least it no longer believes in a leader that is silent. What it is
     * busy with ends soon, so it tries again at the next tick. */
    raft_set_leader(r, 0);
    if (rc == ERR_BUSY)
        return;
    r->election_elapsed = 0;
    raft_draw_timeout(r);
}
