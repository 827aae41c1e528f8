/* Proposals: of commands, forwarded ones, and of membership changes (thesis, chapter 4). */
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/raft/core.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

/* `context` of a PROPOSE that a second member passes on; it goes no further than to the third. */
#define PROPOSE_PASSED_ON 1

static enum errc leader_accepts(const struct raft *r, size_t bytes)
{
    if (r->transferee != 0)
        return ERR_UNAVAILABLE;
    /* One proposal of any size is taken when there is none: the limit must not block for ever. */
    if (r->uncommitted_bytes > 0 && r->uncommitted_bytes + bytes > r->config.uncommitted_bytes_max)
        return ERR_TOO_MANY_REQUESTS;
    return ERR_OK;
}

enum errc raft_propose(struct raft *r, struct bytes data, uint64_t *ret_index)
{
    if (r->role == RAFT_LEADER) {
        enum errc rc = leader_accepts(r, data.n);
        if (rc == ERR_OK)
            *ret_index = raft_leader_append(r, RAFT_ENTRY_COMMAND, data)->index;
        return rc;
    }
    if (r->leader == 0)
        return ERR_NO_LEADER;
    struct raft_entry **entries = xmalloc(sizeof *entries);
    entries[0] = raft_entry_new(0, 0, RAFT_ENTRY_COMMAND, 0, data);
    raft_send(r,
              (struct raft_message){
                  .type = RAFT_MSG_PROPOSE, .to = r->leader, .entries = entries, .entry_count = 1});
    *ret_index = 0;
    return ERR_OK;
}

static void pass_on(struct raft *r, const struct raft_message *m)
{
    if (r->leader == 0 || r->leader == m->from || m->context == PROPOSE_PASSED_ON) {
        raft_trace(r, "dropped a proposal of %" PRIx64 ": no leader here", m->from);
        return;
    }
    struct raft_entry **entries = xmalloc(m->entry_count * sizeof *entries);
    for (size_t i = 0; i < m->entry_count; i++)
        entries[i] = raft_entry_ref(m->entries[i]);
    raft_send(r, (struct raft_message){.type = RAFT_MSG_PROPOSE,
                                       .to = r->leader,
                                       .entries = entries,
                                       .entry_count = m->entry_count,
                                       .context = PROPOSE_PASSED_ON});
}

void raft_recv_propose(struct raft *r, const struct raft_message *m)
{
    if (r->role != RAFT_LEADER) {
        pass_on(r, m);
        return;
    }
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct raft_entry *e = m->entries[i];
        if (leader_accepts(r, e->size) != ERR_OK) {
            raft_trace(r, "dropped a proposal of %" PRIx64, m->from);
            return;
        }
        raft_leader_append(r, RAFT_ENTRY_COMMAND, bytes_of(e->data, e->size));
    }
}

/* --- membership ------------------------------------------------------------------------------- */

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

void raft_apply_conf(struct raft *r, const struct raft_conf_change *c, struct raft_conf *ret_conf)
{
    if (c != NULL && raft_conf_change_apply(&r->conf, c) && r->role == RAFT_LEADER) {
        if (!raft_conf_is_voter(&r->conf, r->id)) {
            leave(r);
        } else {
            raft_leader_rebuild_peers(r);
            if (r->transferee != 0 && !raft_conf_is_voter(&r->conf, r->transferee))
                r->transferee = 0;
            /* The quorum may be smaller now. */
            raft_leader_maybe_commit(r);
            raft_reads_confirm(r);
        }
    }
    *ret_conf = r->conf;
}
