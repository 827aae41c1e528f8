/* Proposals of commands, own and forwarded ones. */
#include <inttypes.h>
#include <stdlib.h>

#include "daemon/raft/core.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

static enum errc leader_accepts(const struct raft *r, size_t bytes)
{
    if (r->transferee != 0)
        return ERR_UNAVAILABLE;
    /* One proposal of any size is taken when there is none: the limit must not block for ever. */
    if (r->uncommitted_bytes > 0 && r->uncommitted_bytes + bytes > r->config.uncommitted_bytes_max)
        return ERR_TOO_MANY_REQUESTS;
    return ERR_OK;
}

enum errc raft_propose(struct raft *r, struct bytes data, uint64_t context, uint64_t *ret_index)
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
    raft_send(r, (struct raft_message){.type = RAFT_MSG_PROPOSE,
                                       .to = r->leader,
                                       .context = context,
                                       .entries = entries,
                                       .entry_count = 1});
    *ret_index = 0;
    return ERR_OK;
}

/* --- proposals of other members --------------------------------------------------------------- */

/* The proposer learns it at once, instead of by its timeout, and can be sure: this copy of the proposal is
 * gone. It is answered only once, but the answer may be lost or repeated. */
static void refuse(struct raft *r, const struct raft_message *m, enum raft_refusal_reason reason)
{
    uint64_t proposer = m->origin != 0 ? m->origin : m->from;
    raft_trace(r, "refused a proposal of %" PRIx64 ": %s", proposer,
               reason == RAFT_REFUSED_TOO_MANY   ? "too many are not committed yet"
               : reason == RAFT_REFUSED_TRANSFER ? "leadership is being handed over"
                                                 : "no leader here");
    if (m->context != 0 && proposer != r->id)
        raft_send(r, (struct raft_message){.type = RAFT_MSG_PROPOSE_REFUSED,
                                           .to = proposer,
                                           .context = m->context,
                                           .reason = reason});
}

/* A proposal goes no further than from a second member to a third. */
static void pass_on(struct raft *r, const struct raft_message *m)
{
    if (r->leader == 0 || r->leader == m->from || m->origin != 0) {
        refuse(r, m, RAFT_REFUSED_NO_LEADER);
        return;
    }
    struct raft_entry **entries = xmalloc(sizeof *entries);
    entries[0] = raft_entry_ref(m->entries[0]);
    raft_send(r, (struct raft_message){.type = RAFT_MSG_PROPOSE,
                                       .to = r->leader,
                                       .context = m->context,
                                       .origin = m->from,
                                       .entries = entries,
                                       .entry_count = 1});
}

void raft_recv_propose(struct raft *r, const struct raft_message *m)
{
    if (r->role != RAFT_LEADER) {
        pass_on(r, m);
        return;
    }
    const struct raft_entry *e = m->entries[0];
    enum errc rc = leader_accepts(r, e->size);
    if (rc == ERR_OK || MUTANT(refused_but_appended))
        raft_leader_append(r, RAFT_ENTRY_COMMAND, bytes_of(e->data, e->size));
    if (rc != ERR_OK)
        refuse(r, m, rc == ERR_UNAVAILABLE ? RAFT_REFUSED_TRANSFER : RAFT_REFUSED_TOO_MANY);
}

/* Whatever term or leader there is by now: what was refused stays so. */
void raft_recv_propose_refused(struct raft *r, const struct raft_message *m)
{
    struct raft_refusals *all = &r->refusals;
    if (all->count == all->cap) {
        all->cap = all->cap == 0 ? 16 : all->cap * 2;
        all->items = xrealloc(all->items, all->cap * sizeof *all->items);
    }
    all->items[all->count++] = (struct raft_refusal){.context = m->context, .reason = m->reason};
}
