/* A disk that hangs: a leader's log that takes nothing any more, while its heartbeats go out and its
 * followers' disks work (e#13527, e#22214, hashicorp/raft#503). Commits go on without it, but it can't apply
 * them: whoever asks this member waits. */
#include <inttypes.h>

#include "daemon/raft/core.h"
#include "lib/base/mutant.h"

static uint64_t age(const struct raft *r)
{
    return r->persist_count > 0 ? r->ticks - r->persists[0].since : 0;
}

bool raft_disk_hangs(const struct raft *r)
{
    return age(r) > r->config.election_ticks;
}

/* A voter that has on its disk what this one couldn't get onto its own; the one with most, 0: none. When
 * all disks hang (one storage for all of them), another leader would be no better. */
static uint64_t find_heir(const struct raft *r)
{
    const struct raft_progress *best = NULL;
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_progress *p = &r->peers[i];
        if (p->id == r->id || p->learner || p->match < r->persists[0].last ||
            p->match <= r->persisted)
            continue;
        if (best == NULL || p->match > best->match)
            best = p;
    }
    return best == NULL ? 0 : best->id;
}

void raft_leader_watch_disk(struct raft *r)
{
    if (r->transferee != 0 || !raft_disk_hangs(r) || MUTANT(hung_leader_stays))
        return;
    uint64_t heir = find_heir(r);
    if (heir == 0)
        return;
    raft_trace(r,
               "the disk of the log hangs: synced up to entry %" PRIu64 " for %" PRIu64
               " ticks, while member %" PRIx64 " has synced up to entry %" PRIu64,
               r->persisted, age(r), heir, raft_peer(r, heir)->match);
    r->disk_transfer = true;
    raft_leader_transfer(r, heir);
}
