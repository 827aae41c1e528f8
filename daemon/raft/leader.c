/* The leader's state, its own entries, commit by counting, heartbeats and check-quorum. */
#include <assert.h>
#include <inttypes.h>

#include "daemon/raft/core.h"
#include "lib/base/mutant.h"

struct raft_progress *raft_peer(struct raft *r, uint64_t id)
{
    for (size_t i = 0; i < r->peer_count; i++) {
        if (r->peers[i].id == id)
            return &r->peers[i];
    }
    return NULL;
}

static void ensure_peer(struct raft *r, uint64_t id, bool learner)
{
    struct raft_progress *p = raft_peer(r, id);
    if (p == NULL) {
        assert(r->peer_count < RAFT_MEMBERS_MAX);
        p = &r->peers[r->peer_count++];
        /* "initialized to leader last log index + 1" */
        raft_progress_init(p, id, raft_log_last(&r->log) + 1, r->config.inflight_messages_max,
                           r->config.inflight_bytes_max);
        p->recent_active = true; /* has had no chance to be heard from yet */
        p->due = true;
        if (id == r->id)
            raft_progress_update(p, r->persisted);
    }
    p->learner = learner;
}

static bool is_member(const struct raft_conf *c, uint64_t id)
{
    return raft_conf_is_voter(c, id) || raft_conf_is_learner(c, id);
}

/* Until its removal is applied a member is told on, so that it learns of it; it counts for nothing but a commit
 * by the configuration before. With changes upon changes there may be no room for it. */
static void ensure_leaving(struct raft *r, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_member(&r->conf, ids[i]) &&
            (raft_peer(r, ids[i]) != NULL || r->peer_count < RAFT_MEMBERS_MAX))
            ensure_peer(r, ids[i], true);
    }
}

void raft_leader_rebuild_peers(struct raft *r)
{
    const struct raft_conf *before =
        r->membership.newest_index != 0 ? &r->membership.before : &r->conf;
    size_t kept = 0;
    for (size_t i = 0; i < r->peer_count; i++) {
        uint64_t id = r->peers[i].id;
        if (is_member(&r->conf, id) || is_member(before, id))
            r->peers[kept++] = r->peers[i];
        else
            raft_progress_free(&r->peers[i]);
    }
    r->peer_count = kept;
    for (size_t i = 0; i < r->conf.voter_count; i++)
        ensure_peer(r, r->conf.voters[i], false);
    for (size_t i = 0; i < r->conf.learner_count; i++)
        ensure_peer(r, r->conf.learners[i], true);
    ensure_leaving(r, before->voters, before->voter_count);
    ensure_leaving(r, before->learners, before->learner_count);
    r->replication_due = true;
}

void raft_leader_clear(struct raft *r)
{
    for (size_t i = 0; i < r->peer_count; i++)
        raft_progress_free(&r->peers[i]);
    r->peer_count = 0;
    r->replication_due = false;
    r->transferee = 0;
    r->transfer_elapsed = 0;
    r->conf_index_pending = 0;
    r->uncommitted_bytes = 0;
    r->disk_transfer = false;
}

void raft_become_leader(struct raft *r)
{
    assert(r->role == RAFT_CANDIDATE && r->vote == r->id);
    r->role = RAFT_LEADER;
    r->vote_count = 0;
    r->election_elapsed = 0;
    r->heartbeat_elapsed = 0;
    r->reads.round = r->reads.confirmed = 0;
    raft_set_leader(r, r->id);
    raft_leader_rebuild_peers(r);
    /* There may be a membership change in the log that isn't applied: conservatively, wait for all. */
    r->conf_index_pending = MUTANT(conf_change_before_own_term_commit) ? 0 : raft_log_last(&r->log);
    for (uint64_t i = r->commit + 1; i <= raft_log_last(&r->log); i++)
        r->uncommitted_bytes += raft_log_at(&r->log, i)->size;
    /* "each leader commit[s] a blank no-op entry into the log at the start of its term" (section 8) */
    raft_leader_append(r, RAFT_ENTRY_NOOP, BYTES_EMPTY);
}

struct raft_entry *raft_leader_append(struct raft *r, enum raft_entry_type type, struct bytes data)
{
    assert(r->role == RAFT_LEADER);
    if (r->time > r->last_stamp)
        r->last_stamp = r->time;
    struct raft_entry *e =
        raft_entry_new(r->term, raft_log_last(&r->log) + 1, type, r->last_stamp, data);
    raft_log_append(&r->log, e);
    r->uncommitted_bytes += data.n;
    r->replication_due = true;
    raft_membership_appended(r, e);
    raft_entry_unref(e);
    return e;
}

static uint64_t quorum_match(struct raft *r, const struct raft_conf *c)
{
    uint64_t matches[RAFT_MEMBERS_MAX];
    for (size_t i = 0; i < c->voter_count; i++) {
        const struct raft_progress *p = raft_peer(r, c->voters[i]);
        matches[i] = p == NULL ? 0 : p->match;
    }
    return raft_conf_quorum_value(matches, c->voter_count);
}

/* "If there exists an N such that N > commitIndex, a majority of matchIndex[i] >= N, and log[N].term ==
 * currentTerm: set commitIndex = N" (Figure 2; Figure 8 tells why the term matters). A majority of either
 * configuration, while the newest may not be committed: see membership.c. */
bool raft_leader_maybe_commit(struct raft *r)
{
    uint64_t index = quorum_match(r, &r->conf);
    if (raft_membership_undecided(r)) {
        uint64_t before = quorum_match(r, &r->membership.before);
        if (before > index)
            index = before;
    }
    bool own = raft_log_term_at(&r->log, index) == r->term;
    if (MUTANT(commit_earlier_term_by_counting)) /* Figure 8 */
        own = true;
    if (index <= r->commit || !own)
        return false;
    raft_commit_to(r, index);
    return true;
}

void raft_leader_heartbeat(struct raft *r)
{
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_progress *p = &r->peers[i];
        if (p->id == r->id)
            continue;
        /* Only what the member is known to have: it may have anything else beyond. */
        raft_send(r, (struct raft_message){.type = RAFT_MSG_HEARTBEAT,
                                           .to = p->id,
                                           .index = p->match,
                                           .commit = p->match < r->commit ? p->match : r->commit,
                                           .context = r->reads.round});
    }
}

/* "a leader steps down if an election timeout elapses without a successful round of heartbeats to a
 * majority of its cluster" (thesis 6.2). */
void raft_leader_check_quorum(struct raft *r)
{
    size_t active = 0;
    for (size_t i = 0; i < r->peer_count; i++) {
        struct raft_progress *p = &r->peers[i];
        if (!p->learner && (p->id == r->id || p->recent_active))
            active++;
        p->recent_active = false;
    }
    if (active < raft_conf_quorum(&r->conf)) {
        raft_trace(r, "no quorum: %zu of %zu voters were heard from", active, r->conf.voter_count);
        raft_become_follower(r, r->term, 0);
    }
}
