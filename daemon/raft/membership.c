/* Membership changes of one server at a time (thesis, section 4.1): which configuration counts.
 *
 * A member goes by the newest configuration in its log, committed or not, so it follows the log: entries that
 * are appended, replaced or overtaken by a snapshot. Quorums of a configuration and of the one before it have
 * a member in common. While the newest change isn't committed, the leader may therefore count an entry as
 * committed by a quorum of either; for elections only the newest counts. With the newest alone, a cluster of
 * one couldn't take in a second voter that hasn't started yet. docs/decisions.md has the argument. */
#include <inttypes.h>

#include "daemon/raft/core.h"
#include "lib/base/mutant.h"

/* A change of `e` that makes no sense is none, for every member alike. */
static void follow(struct raft *r, const struct raft_entry *e)
{
    struct raft_conf_change c;
    struct bytes context;
    struct raft_membership *m = &r->membership;
    /* Who has just joined doesn't know yet what is changed here: see struct raft_start. */
    if (e->type != RAFT_ENTRY_CONF || m->applied.voter_count == 0 ||
        raft_conf_change_decode(bytes_of(e->data, e->size), &c, &context) != ERR_OK)
        return;
    if (MUTANT(membership_counts_when_applied))
        return;
    m->before = r->conf;
    m->newest_index = e->index;
    raft_conf_change_apply(&r->conf, &c);
}

void raft_membership_appended(struct raft *r, const struct raft_entry *e)
{
    follow(r, e);
    if (r->role != RAFT_LEADER || r->membership.newest_index != e->index)
        return;
    raft_leader_rebuild_peers(r);
    /* The quorum may be smaller now. */
    raft_leader_maybe_commit(r);
    raft_reads_confirm(r);
}

void raft_membership_reread(struct raft *r)
{
    struct raft_membership *m = &r->membership;
    r->conf = m->applied;
    m->newest_index = 0;
    uint64_t base = r->log.base_index;
    for (uint64_t i = m->applied_index > base ? m->applied_index : base; i < raft_log_last(&r->log);
         i++)
        follow(r, raft_log_at(&r->log, i + 1));
}

void raft_membership_set(struct raft *r, const struct raft_conf *conf, uint64_t applied_index)
{
    r->membership = (struct raft_membership){.applied = *conf, .applied_index = applied_index};
    raft_membership_reread(r);
}

bool raft_membership_undecided(const struct raft *r)
{
    return r->membership.newest_index > r->commit;
}

/* "there are a few reasons why a server that is not part of its own latest configuration should still start new
 * elections": until the change is committed the others may need its log (thesis 4.2.2). */
bool raft_may_lead(const struct raft *r)
{
    return raft_conf_is_voter(&r->conf, r->id) ||
           (raft_membership_undecided(r) && raft_conf_is_voter(&r->membership.before, r->id));
}

enum errc raft_propose_conf(struct raft *r, const struct raft_conf_change *c, struct bytes context)
{
    if (r->role != RAFT_LEADER)
        return ERR_NOT_LEADER;
    if (r->transferee != 0)
        return ERR_UNAVAILABLE;
    struct raft_conf conf = r->conf;
    if (c->id == 0 || c->type > RAFT_CONF_UPDATE || !raft_conf_change_apply(&conf, c))
        return ERR_INVALID;
    /* One at a time, so that old and new quorums overlap (thesis 4.1), and not before an entry of the
     * own term has committed: else a change of a former leader may still be undecided. */
    bool decided = raft_own_term_committed(r) || MUTANT(conf_change_before_own_term_commit);
    if (r->conf_index_pending > r->applied || !decided)
        return ERR_BUSY;
    struct buf data = {0};
    uint8_t head[RAFT_CONF_CHANGE_BYTES];
    raft_conf_change_encode(c, head);
    buf_append(&data, head, sizeof head);
    buf_append(&data, context.p, context.n);
    r->conf_index_pending = raft_leader_append(r, RAFT_ENTRY_CONF, buf_bytes(&data))->index;
    buf_free(&data);
    return ERR_OK;
}

/* It "manages its own removal" and has no say any more. The others have been told of the commit with the
 * ready that handed it out; the best of them takes over at once (thesis 4.2.2). */
static void leave(struct raft *r)
{
    uint64_t heir = raft_transfer_best(r);
    if (heir != 0)
        raft_send(r, (struct raft_message){.type = RAFT_MSG_TIMEOUT_NOW, .to = heir});
    raft_become_follower(r, r->term, 0);
}

void raft_apply_conf(struct raft *r, uint64_t index, const struct raft_conf_change *c,
                     struct raft_conf *ret_conf)
{
    raft_conf_change_apply(&r->membership.applied, c);
    r->membership.applied_index = index;
    raft_membership_reread(r);
    if (r->role == RAFT_LEADER && !raft_conf_is_voter(&r->membership.applied, r->id))
        leave(r);
    else if (r->role == RAFT_LEADER)
        raft_leader_rebuild_peers(r); /* those that are gone now are told nothing more */
    *ret_conf = r->membership.applied;
}
