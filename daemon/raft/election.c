/* Elections: timeouts, pre-vote and vote (the figure's "Rules for Servers" and "RequestVote RPC";
 * thesis 9.6 for pre-vote, 4.2.3 for the leader's lease that a vote request respects). */
#include <assert.h>
#include <inttypes.h>

#include "daemon/raft/core.h"
#include "lib/base/mutant.h"

static uint32_t draw(struct raft *r, uint32_t below)
{
    return (uint32_t)(r->config.random(r->config.random_ctx) % below);
}

/* "Election timeouts are chosen randomly from a fixed interval" (paper, section 5.2). Shortly after the
 * leader's connection broke, the pauses are short instead: the others are about to notice too. */
void raft_draw_timeout(struct raft *r)
{
    uint32_t election = r->config.election_ticks, heartbeat = r->config.heartbeat_ticks;
    r->election_timeout = election + draw(r, election);
    if (r->hasty_ticks == 0)
        return;
    uint32_t hasty = r->role == RAFT_CANDIDATE ? 2 * heartbeat + draw(r, 2 * heartbeat)
                                               : 1 + draw(r, heartbeat + 1);
    if (hasty < r->election_timeout)
        r->election_timeout = hasty;
}

void raft_set_leader(struct raft *r, uint64_t leader)
{
    if (leader == r->leader)
        return;
    raft_reads_fail(r);
    r->leader = leader;
    if (leader != 0) {
        r->hasty_ticks = 0;
        raft_trace(r, "leader %" PRIx64 " term %" PRIu64, leader, r->term);
    }
}

static void reset(struct raft *r, uint64_t term)
{
    assert(term >= r->term);
    if (term != r->term) {
        r->term = term;
        r->vote = 0;
    }
    if (r->role == RAFT_LEADER) {
        raft_reads_fail(r);
        raft_leader_clear(r);
    }
    r->vote_count = 0;
    r->election_elapsed = 0;
    r->heartbeat_elapsed = 0;
}

void raft_become_follower(struct raft *r, uint64_t term, uint64_t leader)
{
    if (r->role == RAFT_LEADER)
        raft_trace(r, "stepped down at term %" PRIu64, term);
    reset(r, term);
    r->role = RAFT_FOLLOWER;
    raft_set_leader(r, leader);
    raft_draw_timeout(r);
}

/* The leader was heard from within the shortest election timeout: nobody needs another. */
bool raft_in_lease(const struct raft *r)
{
    return r->leader != 0 && r->election_elapsed < r->config.election_ticks;
}

/* --- votes ---------------------------------------------------------------------------------- */

static void record(struct raft *r, uint64_t id, bool granted)
{
    for (size_t i = 0; i < r->vote_count; i++) {
        if (r->votes[i].id == id) { /* asked twice: it may have come round */
            r->votes[i].granted |= granted;
            return;
        }
    }
    if (raft_conf_is_voter(&r->conf, id) && r->vote_count < RAFT_MEMBERS_MAX)
        r->votes[r->vote_count++] = (struct raft_vote){.id = id, .granted = granted};
}

static void request_vote(struct raft *r, uint64_t id, enum raft_campaign_kind kind)
{
    bool pre = kind == CAMPAIGN_PREVOTE;
    raft_send(r, (struct raft_message){.type = pre ? RAFT_MSG_PREVOTE : RAFT_MSG_VOTE,
                                       .to = id,
                                       .term = pre ? r->term + 1 : r->term,
                                       .index = raft_log_last(&r->log),
                                       .log_term = raft_log_last_term(&r->log),
                                       .commit = r->commit,
                                       .hint_term = raft_log_term_at(&r->log, r->commit),
                                       .force = kind == CAMPAIGN_TRANSFER});
}

static void request_votes(struct raft *r, enum raft_campaign_kind kind);

static void begin_candidacy(struct raft *r, enum raft_campaign_kind kind)
{
    reset(r, r->term + 1);
    r->vote = r->id;
    r->role = RAFT_CANDIDATE;
    raft_set_leader(r, 0);
    raft_draw_timeout(r);
    raft_trace(r, "campaigns for term %" PRIu64, r->term);
    /* The own vote counts once it is synced, like everybody's: raft_own_vote_persisted(). A leader
     * whose vote were lost in a crash could be elected again in the same term. */
    request_votes(r, kind);
}

/* It needn't count, but it is what keeps this member from voting for another in the same term. */
static bool own_vote_is_cast(const struct raft *r)
{
    return r->role == RAFT_PRECANDIDATE ||
           (r->hard_state_synced.term == r->term && r->hard_state_synced.vote == r->id);
}

static void count_votes(struct raft *r)
{
    size_t granted = 0, refused = 0;
    for (size_t i = 0; i < r->vote_count; i++) {
        granted += r->votes[i].granted;
        refused += !r->votes[i].granted;
    }
    size_t quorum = raft_conf_quorum(&r->conf);
    if (granted >= quorum && own_vote_is_cast(r)) {
        if (r->role == RAFT_PRECANDIDATE)
            begin_candidacy(r, CAMPAIGN_VOTE);
        else
            raft_become_leader(r);
    } else if (r->conf.voter_count - refused < quorum) {
        raft_trace(r, "lost the %s at term %" PRIu64,
                   r->role == RAFT_PRECANDIDATE ? "pre-vote" : "vote", r->term);
        raft_become_follower(r, r->term, 0);
    }
}

static void request_votes(struct raft *r, enum raft_campaign_kind kind)
{
    for (size_t i = 0; i < r->conf.voter_count; i++) {
        if (r->conf.voters[i] != r->id)
            request_vote(r, r->conf.voters[i], kind);
    }
}

void raft_own_vote_persisted(struct raft *r)
{
    if (r->role != RAFT_CANDIDATE || !own_vote_is_cast(r))
        return;
    record(r, r->id, true);
    count_votes(r);
}

/* --- campaigns ------------------------------------------------------------------------------ */

enum errc raft_start_campaign(struct raft *r, enum raft_campaign_kind kind)
{
    if (r->role == RAFT_LEADER)
        return ERR_OK;
    if (!raft_may_lead(r))
        return ERR_INVALID;
    if (r->forgotten != 0 || r->snapshot.waiting)
        return ERR_BUSY;
    if (raft_disk_hangs(r) && !MUTANT(hung_leader_stays))
        return ERR_BUSY; /* it could lead, but serve nobody */
    if (kind != CAMPAIGN_PREVOTE) {
        begin_candidacy(r, kind);
        return ERR_OK;
    }
    reset(r, r->term); /* "a Pre-Vote phase does not increment the term" (thesis 9.6) */
    r->role = RAFT_PRECANDIDATE;
    raft_set_leader(r, 0);
    raft_draw_timeout(r);
    raft_trace(r, "asks for pre-votes at term %" PRIu64, r->term);
    record(r, r->id, true);
    request_votes(r, kind);
    count_votes(r);
    return ERR_OK;
}

enum errc raft_campaign(struct raft *r)
{
    return raft_start_campaign(r, CAMPAIGN_PREVOTE);
}

void raft_report_peer_gone(struct raft *r, uint64_t id)
{
    if (r->role == RAFT_LEADER) {
        raft_report_unreachable(r, id);
        return;
    }
    if (id == 0 || id != r->leader)
        return;
    raft_trace(r, "leader %" PRIx64 " is gone", id);
    r->hasty_ticks = HASTY_ELECTION_TIMEOUTS * r->config.election_ticks;
    r->election_elapsed = 0;
    raft_set_leader(r, 0); /* and with it this member's part of the lease */
    raft_draw_timeout(r);
    raft_start_campaign(r, CAMPAIGN_PREVOTE);
}

/* --- answering ------------------------------------------------------------------------------ */

/* The figure's "at least as up-to-date": the later term of the last entries, then the longer log
 * (paper, section 5.4.1). > 0: theirs is ahead of ours. */
static int compare_logs(const struct raft *r, const struct raft_message *m)
{
    uint64_t term = raft_log_last_term(&r->log), index = raft_log_last(&r->log);
    if (m->log_term != term)
        return m->log_term > term ? 1 : -1;
    return m->index == index ? 0 : m->index > index ? 1 : -1;
}

static bool may_grant(const struct raft *r, const struct raft_message *m)
{
    bool free_vote = r->vote == m->from || (r->vote == 0 && r->leader == 0) ||
                     /* a vote in a later term is free */
                     (m->type == RAFT_MSG_PREVOTE && m->term > r->term);
    return free_vote && compare_logs(r, m) >= 0;
}

/* Two members that saw the same leader go ask at the same time. With equal logs the one with the greater
 * id goes on alone, else their votes would be split; it asks the other again, which may have refused
 * before it noticed. Not for long: when it can't win, the other one must be able to. */
static bool goes_first(struct raft *r, const struct raft_message *m)
{
    if (m->type != RAFT_MSG_PREVOTE || r->role != RAFT_PRECANDIDATE || r->hasty_ticks == 0 ||
        m->term != r->term + 1 || m->from > r->id || compare_logs(r, m) != 0)
        return false;
    request_vote(r, m->from, CAMPAIGN_PREVOTE);
    return true;
}

void raft_recv_vote(struct raft *r, const struct raft_message *m)
{
    bool pre = m->type == RAFT_MSG_PREVOTE;
    bool granted = may_grant(r, m) && !goes_first(r, m);
    /* A granted pre-vote carries the term that was asked for (this member's own may be lower), a refused
     * one this member's. */
    raft_send(r, (struct raft_message){.type = pre ? RAFT_MSG_PREVOTE_REPLY : RAFT_MSG_VOTE_REPLY,
                                       .to = m->from,
                                       .term = pre && granted ? m->term : r->term,
                                       .commit = r->commit,
                                       .hint_term = raft_log_term_at(&r->log, r->commit),
                                       .reject = !granted});
    if (pre || !granted)
        return;
    if (r->role == RAFT_PRECANDIDATE)
        raft_become_follower(r, r->term, 0); /* somebody is ahead already */
    r->vote = m->from;
    r->hasty_ticks = 0;
    r->election_elapsed = 0; /* "... or granting vote to candidate" */
    raft_draw_timeout(r);
}

/* Vote requests and their answers tell what their sender knows to be committed: so a member that was removed,
 * but hasn't learned of it, stops asking for votes that it can't get. */
void raft_learn_commit(struct raft *r, const struct raft_message *m)
{
    if (r->role != RAFT_LEADER && !r->snapshot.waiting &&
        raft_log_matches(&r->log, m->commit, m->hint_term))
        raft_commit_to(r, m->commit);
}

void raft_recv_vote_reply(struct raft *r, const struct raft_message *m)
{
    bool pre = m->type == RAFT_MSG_PREVOTE_REPLY;
    if (r->role != (pre ? RAFT_PRECANDIDATE : RAFT_CANDIDATE))
        return;
    if (pre && !m->reject && m->term != r->term + 1)
        return; /* granted for an earlier term */
    record(r, m->from, !m->reject);
    count_votes(r);
}
