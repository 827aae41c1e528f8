/* Messages on their way to the driver. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/raft/core.h"
#include "lib/base/memory.h"

/* The figure: persistent state is "updated on stable storage before responding to RPCs". A refusal and
 * the answer to a pre-vote promise nothing. */
static bool promises_durability(const struct raft_message *m)
{
    return (m->type == RAFT_MSG_VOTE_REPLY || m->type == RAFT_MSG_APPEND_REPLY) && !m->reject;
}

static void push(struct raft_outbox *o, const struct raft_message *m)
{
    if (o->count == o->cap) {
        o->cap = o->cap == 0 ? 16 : o->cap * 2;
        o->items = xrealloc(o->items, o->cap * sizeof *o->items);
    }
    o->items[o->count++] = *m;
}

void raft_send(struct raft *r, struct raft_message m)
{
    assert(m.to != 0 && m.to != r->id);
    m.from = r->id;
    if (m.term == 0 && raft_message_has_term(m.type))
        m.term = r->term;
    push(promises_durability(&m) ? &r->after_sync : &r->now, &m);
}

void raft_outbox_move(struct raft_outbox *to, struct raft_outbox *from)
{
    for (size_t i = 0; i < from->count; i++)
        push(to, &from->items[i]);
    free(from->items);
    *from = (struct raft_outbox){0};
}

void raft_outbox_free(struct raft_outbox *o)
{
    for (size_t i = 0; i < o->count; i++) {
        for (size_t k = 0; k < o->items[i].entry_count; k++)
            raft_entry_unref(o->items[i].entries[k]);
        free(o->items[i].entries);
    }
    free(o->items);
    *o = (struct raft_outbox){0};
}
