/* Life cycle and status of a member. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/raft/core.h"
#include "lib/base/memory.h"

void raft_trace(struct raft *r, const char *format, ...)
{
    if (r->config.trace == NULL)
        return;
    char text[256];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    r->config.trace(r->config.trace_ctx, text);
}

static enum errc check_config(const struct raft_config *c, struct error *err)
{
    if (c->id == 0)
        return error_set(err, ERR_INVALID, "raft: a member's id can't be 0");
    if (c->heartbeat_ticks == 0 || c->election_ticks <= c->heartbeat_ticks)
        return error_set(err, ERR_INVALID,
                         "raft: the election timeout (%" PRIu32
                         " ticks) must be longer than the heartbeat interval (%" PRIu32 " ticks)",
                         c->election_ticks, c->heartbeat_ticks);
    if (c->inflight_messages_max == 0 || c->inflight_bytes_max == 0 || c->message_bytes_max == 0 ||
        c->uncommitted_bytes_max == 0 || c->committed_batch_max == 0)
        return error_set(err, ERR_INVALID, "raft: a limit is 0");
    if (c->random == NULL)
        return error_set(err, ERR_INVALID, "raft: no source of randomness");
    return ERR_OK;
}

static enum errc check_entries(const struct raft_start *s, struct error *err)
{
    uint64_t index = s->base_index, term = s->base_term;
    for (size_t i = 0; i < s->entry_count; i++) {
        const struct raft_entry *e = s->entries[i];
        if (e->index != index + 1)
            return error_set(err, ERR_CORRUPT,
                             "raft: the log has entry %" PRIu64 " behind entry %" PRIu64, e->index,
                             index);
        if (e->term < term || e->term == 0)
            return error_set(err, ERR_CORRUPT,
                             "raft: the log's terms go back: %" PRIu64 " at entry %" PRIu64
                             " behind %" PRIu64,
                             e->term, e->index, term);
        index = e->index;
        term = e->term;
    }
    if (term > s->hard_state.term)
        return error_set(err, ERR_CORRUPT,
                         "raft: the log has an entry of term %" PRIu64
                         ", but the member's term is %" PRIu64,
                         term, s->hard_state.term);
    return ERR_OK;
}

static enum errc check_start(const struct raft_start *s, struct error *err)
{
    enum errc rc = check_entries(s, err);
    if (rc != ERR_OK)
        return rc;
    if ((s->base_index == 0) != (s->base_term == 0))
        return error_set(err, ERR_CORRUPT,
                         "raft: the log begins behind entry %" PRIu64 " of term %" PRIu64,
                         s->base_index, s->base_term);
    if (!raft_conf_valid(&s->conf))
        return error_set(err, ERR_CORRUPT, "raft: the stored membership is malformed");
    uint64_t last = s->base_index + s->entry_count;
    if (s->hard_state.commit > last)
        return error_set(err, ERR_CORRUPT,
                         "raft: entry %" PRIu64 " is committed, but the log ends at %" PRIu64,
                         s->hard_state.commit, last);
    if (s->applied < s->base_index || s->applied > last)
        return error_set(err, ERR_CORRUPT,
                         "raft: entry %" PRIu64 " is applied, but the log goes from %" PRIu64
                         " to %" PRIu64,
                         s->applied, s->base_index + 1, last);
    uint64_t term = s->applied == s->base_index ? s->base_term
                                                : s->entries[s->applied - s->base_index - 1]->term;
    if (term != s->applied_term)
        return error_set(err, ERR_CORRUPT,
                         "raft: the log has term %" PRIu64 " at entry %" PRIu64
                         ", the store was built from term %" PRIu64,
                         term, s->applied, s->applied_term);
    return ERR_OK;
}

enum errc raft_new(const struct raft_config *config, const struct raft_start *start,
                   struct raft **ret_raft, struct error *err)
{
    enum errc rc = check_config(config, err);
    if (rc != ERR_OK)
        return rc;
    rc = check_start(start, err);
    if (rc != ERR_OK)
        return rc;

    struct raft *r = xcalloc(1, sizeof *r);
    r->config = *config;
    r->id = config->id;
    r->term = start->hard_state.term;
    r->vote = start->hard_state.vote;
    r->hard_state_emitted = r->hard_state_synced = start->hard_state;
    raft_log_reset(&r->log, start->base_index, start->base_term);
    for (size_t i = 0; i < start->entry_count; i++) {
        raft_log_append(&r->log, start->entries[i]);
        if (start->entries[i]->stamp > r->last_stamp)
            r->last_stamp = start->entries[i]->stamp;
    }
    r->applied = r->handed = start->applied;
    r->commit =
        start->hard_state.commit > start->applied ? start->hard_state.commit : start->applied;
    r->emitted = r->persisted = raft_log_last(&r->log);
    raft_membership_set(r, &start->conf, start->applied);
    r->reads.away_nonce = config->random(config->random_ctx);
    raft_become_follower(r, r->term, 0);
    /* Nobody else could be leader: no reason to wait for one. */
    if (raft_conf_is_only_voter(&r->conf, r->id))
        r->election_elapsed = r->election_timeout;
    *ret_raft = r;
    return ERR_OK;
}

void raft_free(struct raft *r)
{
    if (r == NULL)
        return;
    raft_leader_clear(r);
    raft_reads_free(r);
    raft_log_free(&r->log);
    raft_ready_release(r);
    raft_outbox_free(&r->now);
    raft_outbox_free(&r->after_sync);
    free(r->refusals.items);
    free(r->persists);
    free(r);
}

void raft_set_time(struct raft *r, uint64_t wall_ns)
{
    r->time = wall_ns;
}

bool raft_own_term_committed(const struct raft *r)
{
    return raft_log_term_at(&r->log, r->commit) == r->term;
}

void raft_commit_to(struct raft *r, uint64_t index)
{
    assert(index <= raft_log_last(&r->log));
    if (index <= r->commit)
        return;
    if (r->role == RAFT_LEADER) {
        for (uint64_t i = r->commit + 1; i <= index; i++) {
            size_t size = raft_log_at(&r->log, i)->size;
            r->uncommitted_bytes -= size < r->uncommitted_bytes ? size : r->uncommitted_bytes;
        }
        r->replication_due = true;
    }
    r->commit = index;
}

void raft_truncate(struct raft *r, uint64_t index)
{
    assert(index > r->commit);
    raft_log_truncate(&r->log, index);
    raft_membership_reread(r);
    uint64_t kept = index - 1;
    if (r->emitted > kept)
        r->emitted = kept;
    if (r->persisted > kept)
        r->persisted = kept;
    /* Appends under way hold entries that are replaced now: what they confirm ends before those,
     * whatever has the same index by then. */
    for (size_t i = 0; i < r->persist_count; i++) {
        if (r->persists[i].last > kept)
            r->persists[i].last = kept;
    }
}

void raft_compact(struct raft *r, uint64_t index)
{
    raft_log_compact(&r->log, index < r->applied ? index : r->applied);
}

uint64_t raft_term_at(const struct raft *r, uint64_t index)
{
    return raft_log_term_at(&r->log, index);
}

void raft_status(const struct raft *r, struct raft_status *ret_status)
{
    *ret_status = (struct raft_status){
        .id = r->id,
        .term = r->term,
        .vote = r->vote,
        .leader = r->leader,
        .role = r->role,
        .commit = r->commit,
        .applied = r->applied,
        .first_index = r->log.base_index + 1,
        .last_index = raft_log_last(&r->log),
        .persisted = r->persisted,
        .forgotten = r->forgotten,
        .last_stamp = r->last_stamp,
        .memory_bytes = r->log.bytes,
        .transferee = r->transferee,
        .conf = r->conf,
        .peer_count = r->peer_count,
    };
    for (size_t i = 0; i < r->peer_count; i++) {
        const struct raft_progress *p = &r->peers[i];
        bool self = p->id == r->id;
        ret_status->peers[i] = (struct raft_peer_status){
            .id = p->id,
            .learner = p->learner,
            .recent_active = self || p->recent_active,
            .match = p->match,
            .next = self ? raft_log_last(&r->log) + 1 : p->next,
            .state = self ? RAFT_REPLICATE : (int)p->state,
        };
    }
}
