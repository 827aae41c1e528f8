/* The fixture's messages: their text, their copies, the queue. */
#include "tests/unit/raft_fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/memory.h"

const char *fixture_message_name(enum raft_message_type type)
{
    static const char *const names[] = {[RAFT_MSG_APPEND] = "APPEND",
                                        [RAFT_MSG_APPEND_REPLY] = "APPEND_REPLY",
                                        [RAFT_MSG_VOTE] = "VOTE",
                                        [RAFT_MSG_VOTE_REPLY] = "VOTE_REPLY",
                                        [RAFT_MSG_PREVOTE] = "PREVOTE",
                                        [RAFT_MSG_PREVOTE_REPLY] = "PREVOTE_REPLY",
                                        [RAFT_MSG_HEARTBEAT] = "HEARTBEAT",
                                        [RAFT_MSG_HEARTBEAT_REPLY] = "HEARTBEAT_REPLY",
                                        [RAFT_MSG_SNAPSHOT] = "SNAPSHOT",
                                        [RAFT_MSG_PROPOSE] = "PROPOSE",
                                        [RAFT_MSG_READ_INDEX] = "READ_INDEX",
                                        [RAFT_MSG_READ_INDEX_REPLY] = "READ_INDEX_REPLY",
                                        [RAFT_MSG_TIMEOUT_NOW] = "TIMEOUT_NOW",
                                        [RAFT_MSG_TRANSFER_LEADER] = "TRANSFER_LEADER",
                                        [RAFT_MSG_PROPOSE_REFUSED] = "PROPOSE_REFUSED"};
    return names[type];
}

const char *fixture_role_name(enum raft_role role)
{
    static const char *const names[] = {"follower", "precandidate", "candidate", "leader"};
    return names[role];
}

void fixture_format(struct buf *b, const struct raft_message *m)
{
    buf_printf(b, "%" PRIu64 ">%" PRIu64 " %s", m->from, m->to, fixture_message_name(m->type));
    if (m->term != 0)
        buf_printf(b, " term %" PRIu64, m->term);
    switch (m->type) {
    case RAFT_MSG_APPEND:
        buf_printf(b, " prev %" PRIu64 "/%" PRIu64 " commit %" PRIu64, m->index, m->log_term,
                   m->commit);
        for (size_t i = 0; i < m->entry_count; i++)
            buf_printf(b, "%s%" PRIu64 "/%" PRIu64, i == 0 ? " entries " : " ",
                       m->entries[i]->index, m->entries[i]->term);
        break;
    case RAFT_MSG_APPEND_REPLY:
        buf_printf(b, " index %" PRIu64, m->index);
        if (m->reject)
            buf_printf(b, " hint %" PRIu64 "/%" PRIu64, m->reject_hint, m->hint_term);
        break;
    case RAFT_MSG_VOTE:
    case RAFT_MSG_PREVOTE:
        buf_printf(b, " log %" PRIu64 "/%" PRIu64 "%s", m->index, m->log_term,
                   m->force ? " force" : "");
        break;
    case RAFT_MSG_HEARTBEAT:
        buf_printf(b, " commit %" PRIu64, m->commit);
        break;
    case RAFT_MSG_SNAPSHOT:
        buf_printf(b, " at %" PRIu64 "/%" PRIu64, m->snapshot_index, m->snapshot_term);
        break;
    case RAFT_MSG_READ_INDEX_REPLY:
        buf_printf(b, " index %" PRIu64, m->index);
        break;
    case RAFT_MSG_PROPOSE:
        if (m->origin != 0)
            buf_printf(b, " of %" PRIu64, m->origin);
        break;
    default:
        break;
    }
    if (m->context != 0 && m->type != RAFT_MSG_PROPOSE)
        buf_printf(b, " context %" PRIu64, m->context);
    if (m->reject)
        buf_printf(b, " reject");
}

struct raft_message fixture_copy_message(const struct raft_message *m)
{
    struct raft_message c = *m;
    c.entries = NULL;
    if (m->entry_count > 0) {
        c.entries = xmalloc(m->entry_count * sizeof *c.entries);
        for (size_t i = 0; i < m->entry_count; i++)
            c.entries[i] = raft_entry_ref(m->entries[i]);
    }
    return c;
}

void fixture_free_message(struct raft_message *m)
{
    for (size_t i = 0; i < m->entry_count; i++)
        raft_entry_unref(m->entries[i]);
    free(m->entries);
}

void fixture_enqueue(struct fixture *f, const struct raft_message *m)
{
    assert_true(m->to >= 1 && m->to <= FIXTURE_MEMBERS_MAX);
    if (f->queue_count == f->queue_cap) {
        f->queue_cap = f->queue_cap == 0 ? 64 : f->queue_cap * 2;
        f->queue = xrealloc(f->queue, f->queue_cap * sizeof *f->queue);
    }
    f->queue[f->queue_count++] = *m;
}

void fixture_drop_at(struct fixture *f, size_t pos)
{
    assert_true(pos < f->queue_count);
    const struct raft_message *m = &f->queue[pos];
    if (m->type == RAFT_MSG_SNAPSHOT && fixture_up(f, m->from))
        raft_report_snapshot(f->members[m->from].raft, m->to, false);
    fixture_free_message(&f->queue[pos]);
    f->queue_count--;
    memmove(f->queue + pos, f->queue + pos + 1, (f->queue_count - pos) * sizeof *f->queue);
}

void fixture_clear(struct fixture *f)
{
    while (f->queue_count > 0)
        fixture_drop_at(f, f->queue_count - 1);
}

const struct raft_message *fixture_find(const struct fixture *f, enum raft_message_type type,
                                        uint64_t to)
{
    for (size_t i = 0; i < f->queue_count; i++) {
        if (f->queue[i].type == type && (to == 0 || f->queue[i].to == to))
            return &f->queue[i];
    }
    return NULL;
}
