/* Messages come in: validity, terms (the figure's "Rules for Servers: All Servers"), dispatch. */
#include <assert.h>

#include "daemon/raft/core.h"
#include "lib/base/mutant.h"

static bool from_leader(const struct raft_message *m)
{
    return m->type == RAFT_MSG_APPEND || m->type == RAFT_MSG_HEARTBEAT ||
           m->type == RAFT_MSG_SNAPSHOT;
}

static bool about_votes(const struct raft_message *m)
{
    return m->type == RAFT_MSG_VOTE || m->type == RAFT_MSG_VOTE_REPLY ||
           m->type == RAFT_MSG_PREVOTE || m->type == RAFT_MSG_PREVOTE_REPLY;
}

static void refuse(struct raft *r, uint64_t to, enum raft_message_type type)
{
    raft_send(r, (struct raft_message){.type = type, .to = to, .reject = true});
}

/* "If RPC request or response contains term T > currentTerm: set currentTerm = T, convert to follower",
 * with the exceptions of pre-vote. False if the message is dealt with. */
static bool newer_term(struct raft *r, const struct raft_message *m)
{
    if (m->type == RAFT_MSG_VOTE || m->type == RAFT_MSG_PREVOTE) {
        /* "if a server receives a RequestVote request within the minimum election timeout of hearing
         * from a current leader, it does not update its term or grant its vote" (thesis 4.2.3). If it is
         * that leader itself who asks, it has started anew. */
        if (!m->force && raft_in_lease(r) && m->from != r->leader) {
            if (m->type == RAFT_MSG_PREVOTE)
                refuse(r, m->from, RAFT_MSG_PREVOTE_REPLY);
            return false;
        }
        if (m->type == RAFT_MSG_PREVOTE)
            return true; /* nobody's term changes by asking */
    }
    if (m->type == RAFT_MSG_PREVOTE_REPLY && !m->reject)
        return true; /* carries the term that was asked for */
    raft_become_follower(r, m->term, from_leader(m) ? m->from : 0);
    return true;
}

/* "Reply false if term < currentTerm". The answers carry this member's term, so that a leader or
 * candidate that has fallen behind catches up: without them a member with a higher term and a leader
 * that it ignores would wait for each other for ever. */
static void older_term(struct raft *r, const struct raft_message *m)
{
    if (from_leader(m))
        refuse(r, m->from, RAFT_MSG_APPEND_REPLY);
    else if (m->type == RAFT_MSG_VOTE)
        refuse(r, m->from, RAFT_MSG_VOTE_REPLY);
    else if (m->type == RAFT_MSG_PREVOTE && !MUTANT(prevote_of_older_term_ignored)) /* e#8501 */
        refuse(r, m->from, RAFT_MSG_PREVOTE_REPLY);
}

static enum errc step_from_leader(struct raft *r, const struct raft_message *m)
{
    /* There is one leader in a term, and it doesn't send to itself. */
    if (r->role == RAFT_LEADER || (r->leader != 0 && r->leader != m->from))
        return ERR_INVALID;
    /* "If AppendEntries RPC received from new leader: convert to follower". */
    if (r->role != RAFT_FOLLOWER)
        raft_become_follower(r, r->term, m->from);
    raft_set_leader(r, m->from);
    r->election_elapsed = 0;
    switch (m->type) {
    case RAFT_MSG_APPEND:
        return raft_recv_append(r, m);
    case RAFT_MSG_HEARTBEAT:
        raft_recv_heartbeat(r, m);
        return ERR_OK;
    default:
        raft_recv_snapshot(r, m);
        return ERR_OK;
    }
}

static enum errc dispatch(struct raft *r, const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_MSG_APPEND:
    case RAFT_MSG_HEARTBEAT:
    case RAFT_MSG_SNAPSHOT:
        return step_from_leader(r, m);
    case RAFT_MSG_APPEND_REPLY:
        return r->role == RAFT_LEADER ? raft_recv_append_reply(r, m) : ERR_OK;
    case RAFT_MSG_HEARTBEAT_REPLY:
        if (r->role == RAFT_LEADER)
            raft_recv_heartbeat_reply(r, m);
        return ERR_OK;
    case RAFT_MSG_VOTE:
    case RAFT_MSG_PREVOTE:
        raft_recv_vote(r, m);
        return ERR_OK;
    case RAFT_MSG_VOTE_REPLY:
    case RAFT_MSG_PREVOTE_REPLY:
        raft_recv_vote_reply(r, m);
        return ERR_OK;
    case RAFT_MSG_PROPOSE:
        raft_recv_propose(r, m);
        return ERR_OK;
    case RAFT_MSG_PROPOSE_REFUSED:
        raft_recv_propose_refused(r, m);
        return ERR_OK;
    case RAFT_MSG_READ_INDEX:
        raft_recv_read_index(r, m);
        return ERR_OK;
    case RAFT_MSG_READ_INDEX_REPLY:
        raft_recv_read_index_reply(r, m);
        return ERR_OK;
    case RAFT_MSG_TIMEOUT_NOW:
        raft_recv_timeout_now(r, m);
        return ERR_OK;
    case RAFT_MSG_TRANSFER_LEADER:
        raft_recv_transfer(r, m);
        return ERR_OK;
    }
    return ERR_INVALID;
}

enum errc raft_step(struct raft *r, const struct raft_message *m)
{
    if (!raft_message_valid(r, m))
        return ERR_INVALID;
    if (r->forgotten != 0)
        return ERR_OK;
    if (about_votes(m))
        raft_learn_commit(r, m); /* of whatever term: what is committed stays so */
    bool has_term = m->term != 0;
    if (has_term && m->term > r->term && !newer_term(r, m))
        return ERR_OK;
    if (has_term && m->term < r->term) {
        older_term(r, m);
        return ERR_OK;
    }
    return dispatch(r, m);
}
