/* Linearizable reads without writing the log (thesis, section 6.4).
 *
 * On the leader a read waits for a round: heartbeats with the round's number, begun after the read came
 * in. Once a quorum has answered it (or a later one), no newer leader can have committed anything before
 * the round began, so the commit index of that moment is safe. All reads between two readies share one
 * round. On a follower a read goes to the leader; those between two readies share one message.
 *
 * "If the leader has not yet marked an entry from its current term committed, it waits until it has done
 * so": rounds begin only then. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/raft/core.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

static void answer_own(struct raft *r, uint64_t context, uint64_t index, bool failed)
{
    struct raft_reads *q = &r->reads;
    if (q->state_count == q->state_cap) {
        q->state_cap = q->state_cap == 0 ? 16 : q->state_cap * 2;
        q->states = xrealloc(q->states, q->state_cap * sizeof *q->states);
    }
    q->states[q->state_count++] =
        (struct raft_read_state){.context = context, .index = index, .failed = failed};
}

static void answer(struct raft *r, const struct raft_read *read, bool failed)
{
    if (read->from == 0) {
        answer_own(r, read->context, failed ? 0 : read->index, failed);
        return;
    }
    raft_send(r, (struct raft_message){.type = RAFT_MSG_READ_INDEX_REPLY,
                                       .to = read->from,
                                       .index = failed ? 0 : read->index,
                                       .reject = failed,
                                       .context = read->context});
}

static bool leader_add(struct raft *r, uint64_t from, uint64_t context)
{
    struct raft_reads *q = &r->reads;
    if (q->count >= READS_WAITING_MAX)
        return false;
    if (q->count == q->cap) {
        q->cap = q->cap == 0 ? 16 : q->cap * 2;
        q->items = xrealloc(q->items, q->cap * sizeof *q->items);
    }
    q->items[q->count++] = (struct raft_read){.from = from, .context = context};
    q->unassigned++;
    return true;
}

static bool follower_add(struct raft *r, uint64_t context)
{
    struct raft_reads *q = &r->reads;
    if (q->away_count >= READS_WAITING_MAX)
        return false;
    if (q->away_count == q->away_cap) {
        q->away_cap = q->away_cap == 0 ? 16 : q->away_cap * 2;
        q->away = xrealloc(q->away, q->away_cap * sizeof *q->away);
    }
    q->away[q->away_count++] = (struct raft_read_away){.context = context};
    q->away_due = true;
    return true;
}

enum errc raft_read_index(struct raft *r, uint64_t context)
{
    if (context == 0)
        return ERR_INVALID;
    if (r->leader == 0)
        return ERR_NO_LEADER;
    bool ok = r->role == RAFT_LEADER ? leader_add(r, 0, context) : follower_add(r, context);
    return ok ? ERR_OK : ERR_TOO_MANY_REQUESTS;
}

/* --- rounds, on the leader -------------------------------------------------------------------- */

bool raft_reads_due(const struct raft *r)
{
    const struct raft_reads *q = &r->reads;
    /* The commit index of a new leader may be an old one. */
    bool sure = raft_own_term_committed(r) || MUTANT(read_before_own_term_commit);
    return q->away_due || (r->role == RAFT_LEADER && q->unassigned > 0 &&
                           q->round - q->confirmed < READ_ROUNDS_MAX && sure);
}

static void begin_round(struct raft *r)
{
    struct raft_reads *q = &r->reads;
    q->round++;
    for (size_t i = q->count - q->unassigned; i < q->count; i++) {
        q->items[i].round = q->round;
        q->items[i].index = r->commit;
    }
    q->unassigned = 0;
    raft_leader_heartbeat(r);
    raft_reads_confirm(r); /* a sole voter needs nobody */
}

static void send_away(struct raft *r)
{
    struct raft_reads *q = &r->reads;
    q->away_due = false;
    if (++q->away_nonce == 0)
        q->away_nonce = 1;
    for (size_t i = 0; i < q->away_count; i++) {
        if (q->away[i].wire == 0)
            q->away[i].wire = q->away_nonce;
    }
    raft_send(r, (struct raft_message){
                     .type = RAFT_MSG_READ_INDEX, .to = r->leader, .context = q->away_nonce});
}

void raft_read_flush(struct raft *r)
{
    if (!raft_reads_due(r))
        return;
    if (r->reads.away_due)
        send_away(r);
    else
        begin_round(r);
}

void raft_reads_confirm(struct raft *r)
{
    struct raft_reads *q = &r->reads;
    uint64_t rounds[RAFT_MEMBERS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_progress *p = &r->peers[i];
        if (!p->learner)
            rounds[n++] = p->id == r->id ? q->round : p->acked_round;
    }
    uint64_t confirmed = raft_conf_quorum_value(rounds, n);
    if (MUTANT(read_without_quorum_round)) /* "I lead, so I know" */
        confirmed = q->round;
    if (confirmed <= q->confirmed)
        return;
    q->confirmed = confirmed;
    size_t done = 0;
    while (done < q->count - q->unassigned && q->items[done].round <= confirmed)
        answer(r, &q->items[done++], false);
    q->count -= done;
    memmove(q->items, q->items + done, q->count * sizeof *q->items);
}

void raft_recv_read_index(struct raft *r, const struct raft_message *m)
{
    if (r->role == RAFT_LEADER && leader_add(r, m->from, m->context))
        return;
    answer(r, &(struct raft_read){.from = m->from, .context = m->context}, true);
}

/* --- at a follower ---------------------------------------------------------------------------- */

/* Answers those forwarded as `wire`, and if `age_max` isn't 0, fails those that are as old. */
static void settle_away(struct raft *r, uint64_t wire, uint64_t index, bool failed,
                        uint32_t age_max)
{
    struct raft_reads *q = &r->reads;
    size_t kept = 0;
    for (size_t i = 0; i < q->away_count; i++) {
        struct raft_read_away *a = &q->away[i];
        if (wire != 0 && a->wire == wire)
            answer_own(r, a->context, failed ? 0 : index, failed);
        else if (age_max != 0 && a->age >= age_max)
            answer_own(r, a->context, 0, true);
        else
            q->away[kept++] = *a;
    }
    q->away_count = kept;
    if (kept == 0)
        q->away_due = false;
}

void raft_recv_read_index_reply(struct raft *r, const struct raft_message *m)
{
    settle_away(r, m->context, m->index, m->reject, 0);
}

/* The request or its answer may have been lost. */
void raft_reads_tick(struct raft *r)
{
    for (size_t i = 0; i < r->reads.away_count; i++)
        r->reads.away[i].age++;
    if (r->reads.away_count > 0)
        settle_away(r, 0, 0, true, r->config.election_ticks);
}

void raft_reads_fail(struct raft *r)
{
    struct raft_reads *q = &r->reads;
    for (size_t i = 0; i < q->away_count; i++)
        answer_own(r, q->away[i].context, 0, true);
    q->away_count = 0;
    q->away_due = false;
    for (size_t i = 0; i < q->count; i++)
        answer(r, &q->items[i], true);
    q->count = 0;
    q->unassigned = 0;
}

void raft_reads_free(struct raft *r)
{
    free(r->reads.items);
    free(r->reads.away);
    free(r->reads.states);
}
