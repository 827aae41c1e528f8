/* Whether a message can have come from a correct member: everything that the core would otherwise have
 * to distrust at each use is refused here. */
#include "daemon/raft/core.h"

static bool entries_valid(const struct raft_message *m)
{
    if (m->entry_count > MESSAGE_ENTRIES_MAX || (m->entry_count > 0 && m->entries == NULL))
        return false;
    uint64_t index = m->index, term = m->log_term;
    for (size_t i = 0; i < m->entry_count; i++) {
        const struct raft_entry *e = m->entries[i];
        if (e == NULL || e->index != index + 1 || e->term < term || e->term == 0 ||
            e->term > m->term || e->type > RAFT_ENTRY_CONF)
            return false;
        index = e->index;
        term = e->term;
    }
    return true;
}

static bool append_valid(const struct raft_message *m)
{
    if ((m->index == 0) != (m->log_term == 0) || m->log_term > m->term)
        return false;
    return entries_valid(m);
}

static bool propose_valid(const struct raft_message *m)
{
    return m->entry_count == 1 && m->entries != NULL && m->entries[0] != NULL &&
           m->entries[0]->type == RAFT_ENTRY_COMMAND;
}

static bool body_valid(const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_MSG_APPEND:
        return append_valid(m);
    case RAFT_MSG_PROPOSE:
        return propose_valid(m);
    case RAFT_MSG_VOTE:
    case RAFT_MSG_PREVOTE:
        return m->log_term < m->term; /* a candidate has no entry of the term it wants */
    case RAFT_MSG_SNAPSHOT:
        return m->snapshot_index > 0 && m->snapshot_index <= INDEX_MAX && m->snapshot_term > 0 &&
               m->snapshot_term <= m->term && raft_conf_valid(&m->snapshot_conf) &&
               m->snapshot_conf.voter_count > 0;
    case RAFT_MSG_READ_INDEX:
    case RAFT_MSG_READ_INDEX_REPLY:
        return m->context != 0;
    case RAFT_MSG_PROPOSE_REFUSED:
        return m->context != 0 && m->reason >= RAFT_REFUSED_TOO_MANY &&
               m->reason <= RAFT_REFUSED_MAX;
    default:
        return true;
    }
}

bool raft_message_has_term(enum raft_message_type type)
{
    return type != RAFT_MSG_PROPOSE && type != RAFT_MSG_PROPOSE_REFUSED &&
           type != RAFT_MSG_READ_INDEX;
}

bool raft_message_valid(const struct raft *r, const struct raft_message *m)
{
    if (m->type < RAFT_MSG_APPEND || m->type > RAFT_MSG_TYPE_MAX)
        return false;
    if (m->from == 0 || m->from == r->id || (m->to != 0 && m->to != r->id))
        return false;
    if (m->term == 0 && raft_message_has_term(m->type))
        return false;
    if (m->term > INDEX_MAX || m->index > INDEX_MAX || m->commit > INDEX_MAX ||
        m->reject_hint > INDEX_MAX)
        return false;
    if (m->entry_count > 0 && m->type != RAFT_MSG_APPEND && m->type != RAFT_MSG_PROPOSE)
        return false;
    return body_valid(m);
}
