#include "tests/unit/raft_fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/memory.h"

#define DELIVERIES_MAX 100000 /* a cluster that is never quiet without ticks is a failure */

/* --- a member's driver ------------------------------------------------------------------------ */

static void trace(void *ctx, const char *text)
{
    struct fixture_member *m = ctx;
    if (m->f->show_trace)
        buf_printf(&m->f->out, "%" PRIu64 ": %s\n", m->id, text);
}

static uint64_t next_random(void *ctx)
{
    struct fixture_member *m = ctx;
    if (m->f->seed == 0)
        return m->id;
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random;
}

static void free_append(struct fixture_append *a)
{
    for (size_t i = 0; i < a->entry_count; i++)
        raft_entry_unref(a->entries[i]);
    free(a->entries);
    for (size_t i = 0; i < a->message_count; i++)
        fixture_free_message(&a->messages[i]);
    free(a->messages);
}

static void write_to_disk(struct fixture_member *m, const struct fixture_append *a)
{
    if (a->has_hard_state)
        m->hard_state = a->hard_state;
    if (a->entry_count > 0) {
        assert_true(a->entries[0]->index <= raft_log_last(&m->log) + 1); /* no gap */
        raft_log_truncate(&m->log, a->entries[0]->index);
    }
    for (size_t i = 0; i < a->entry_count; i++)
        raft_log_append(&m->log, a->entries[i]);
    assert_true(m->hard_state.commit <= raft_log_last(&m->log));
}

/* Syncs the oldest append, sends what waited for it. */
static void sync_oldest(struct fixture_member *m)
{
    struct fixture_append a = m->appends[0];
    m->append_count--;
    memmove(m->appends, m->appends + 1, m->append_count * sizeof *m->appends);
    write_to_disk(m, &a);
    for (size_t i = 0; i < a.message_count; i++)
        fixture_enqueue(m->f, &a.messages[i]);
    a.message_count = 0;
    raft_persisted(m->raft, a.token);
    free_append(&a);
}

static void take_append(struct fixture_member *m, const struct raft_ready *d)
{
    if (d->persist_token == 0) {
        assert_int_equal(d->message_after_sync_count, 0);
        assert_int_equal(d->entry_count, 0);
        assert_false(d->has_hard_state);
        return;
    }
    /* A crash in the middle of the append may keep the state and lose the entries. */
    if (d->has_hard_state)
        assert_true(d->hard_state.commit <= fixture_status(m->f, m->id).persisted);
    struct fixture_append a = {.token = d->persist_token,
                               .has_hard_state = d->has_hard_state,
                               .hard_state = d->hard_state,
                               .entry_count = d->entry_count,
                               .message_count = d->message_after_sync_count};
    a.entries = xcalloc(a.entry_count + 1, sizeof *a.entries);
    for (size_t i = 0; i < a.entry_count; i++)
        a.entries[i] = raft_entry_ref(d->entries[i]);
    a.messages = xcalloc(a.message_count + 1, sizeof *a.messages);
    for (size_t i = 0; i < a.message_count; i++)
        a.messages[i] = fixture_copy_message(&d->messages_after_sync[i]);
    m->appends = xrealloc(m->appends, (m->append_count + 1) * sizeof *m->appends);
    m->appends[m->append_count++] = a;
}

static void install(struct fixture_member *m, const struct raft_ready *d)
{
    struct fixture *f = m->f;
    while (m->append_count > 0)
        sync_oldest(m);
    assert_true(d->snapshot_index < f->committed_count);
    assert_int_equal(f->committed[d->snapshot_index]->term, d->snapshot_term);
    assert_memory_equal(&f->committed_conf[d->snapshot_index], &d->snapshot_conf,
                        sizeof d->snapshot_conf);
    raft_log_reset(&m->log, d->snapshot_index, d->snapshot_term);
    m->applied = d->snapshot_index;
    m->applied_term = d->snapshot_term;
    m->conf = d->snapshot_conf;
    raft_snapshot_installed(m->raft, d->snapshot_index, d->snapshot_term, &d->snapshot_conf);
    buf_printf(&f->out, "%" PRIu64 ": installed snapshot %" PRIu64 "\n", m->id, d->snapshot_index);
}

static void apply(struct fixture_member *m, struct raft_entry *e)
{
    struct fixture *f = m->f;
    assert_int_equal(e->index, m->applied + 1);
    /* "nothing is applied or acknowledged before it is on this disk" */
    assert_true(raft_log_matches(&m->log, e->index, e->term));
    if (e->type == RAFT_ENTRY_CONF) {
        struct raft_conf_change c;
        struct bytes context;
        assert_int_equal(raft_conf_change_decode(bytes_of(e->data, e->size), &c, &context), ERR_OK);
        raft_apply_conf(m->raft, e->index, &c, &m->conf);
        buf_printf(&f->out, "%" PRIu64 ": applied %" PRIu64 ", %zu voters, %zu learners\n", m->id,
                   e->index, m->conf.voter_count, m->conf.learner_count);
    } else if (e->type == RAFT_ENTRY_COMMAND) {
        buf_printf(&f->out, "%" PRIu64 ": applied %" PRIu64 " %.*s\n", m->id, e->index,
                   (int)e->size, (const char *)e->data);
    }
    m->applied = e->index;
    m->applied_term = e->term;
    fixture_record_committed(f, m, e);
}

static void take_reads(struct fixture_member *m, const struct raft_ready *d)
{
    for (size_t i = 0; i < d->read_state_count; i++) {
        const struct raft_read_state *s = &d->read_states[i];
        m->last_read = *s;
        m->reads_done++;
        if (s->failed)
            buf_printf(&m->f->out, "%" PRIu64 ": read %" PRIu64 " failed\n", m->id, s->context);
        else
            buf_printf(&m->f->out, "%" PRIu64 ": read %" PRIu64 " at index %" PRIu64 "\n", m->id,
                       s->context, s->index);
    }
}

static void take_refusals(struct fixture_member *m, const struct raft_ready *d)
{
    for (size_t i = 0; i < d->refusal_count; i++)
        fixture_record_refusal(m->f, m, &d->refusals[i]);
}

void fixture_ready(struct fixture *f, uint64_t id)
{
    struct fixture_member *m = &f->members[id];
    while (m->raft != NULL && raft_has_ready(m->raft)) {
        struct raft_ready d;
        raft_ready(m->raft, &d);
        if (d.has_snapshot)
            install(m, &d);
        take_append(m, &d);
        for (size_t i = 0; i < d.message_count; i++) {
            struct raft_message c = fixture_copy_message(&d.messages[i]);
            fixture_enqueue(f, &c);
        }
        for (size_t i = 0; i < d.committed_count; i++) {
            apply(m, d.committed[i]);
            raft_applied(m->raft, m->applied);
        }
        take_reads(m, &d);
        take_refusals(m, &d);
        while (!m->manual_sync && m->append_count > 0)
            sync_oldest(m);
        fixture_check_member(f, m);
    }
}

void fixture_sync_one(struct fixture *f, uint64_t id)
{
    if (f->members[id].append_count > 0)
        sync_oldest(&f->members[id]);
    fixture_ready(f, id);
}

void fixture_sync(struct fixture *f, uint64_t id)
{
    while (f->members[id].append_count > 0)
        fixture_sync_one(f, id);
}

/* --- life cycle ------------------------------------------------------------------------------- */

void fixture_start(struct fixture *f, uint64_t id)
{
    struct fixture_member *m = &f->members[id];
    assert_null(m->raft);
    struct raft_config config = f->config;
    config.id = id;
    config.random_ctx = config.trace_ctx = m;
    struct raft_start start = {.hard_state = m->hard_state,
                               .conf = m->conf,
                               .applied = m->applied,
                               .applied_term = m->applied_term,
                               .base_index = m->log.base_index,
                               .base_term = m->log.base_term,
                               .entries = m->log.items == NULL ? NULL : m->log.items + m->log.start,
                               .entry_count = m->log.count};
    struct error err;
    if (raft_new(&config, &start, &m->raft, &err) != ERR_OK)
        fail_msg("can't start %" PRIu64 ": %s", id, err.message);
    m->term_seen = 0;
    fixture_ready(f, id);
}

void fixture_crash(struct fixture *f, uint64_t id, size_t kept)
{
    struct fixture_member *m = &f->members[id];
    for (size_t i = 0; i < m->append_count; i++) {
        if (i < kept)
            write_to_disk(m, &m->appends[i]);
        free_append(&m->appends[i]);
    }
    m->append_count = 0;
    raft_free(m->raft);
    m->raft = NULL;
}

void fixture_forget(struct fixture *f, uint64_t id, uint64_t index)
{
    struct fixture_member *m = &f->members[id];
    assert_null(m->raft);
    m->disk_forgot = true;
    raft_log_truncate(&m->log, index + 1);
    if (m->hard_state.commit > index)
        m->hard_state.commit = index;
    if (m->applied > index) {
        m->applied = index;
        m->applied_term = raft_log_term_at(&m->log, index);
    }
}

void fixture_init(struct fixture *f, size_t voters, size_t learners, uint64_t seed)
{
    *f = (struct fixture){.seed = seed, .show_trace = true};
    f->config = (struct raft_config){.election_ticks = FIXTURE_ELECTION_TICKS,
                                     .heartbeat_ticks = FIXTURE_HEARTBEAT_TICKS,
                                     .inflight_messages_max = 8,
                                     .inflight_bytes_max = 1 << 20,
                                     .message_bytes_max = 1 << 16,
                                     .uncommitted_bytes_max = 1 << 20,
                                     .committed_batch_max = 4,
                                     .random = next_random,
                                     .trace = trace};
    assert_true(voters + learners <= FIXTURE_MEMBERS_MAX);
    struct raft_conf conf = {.voter_count = voters, .learner_count = learners};
    for (size_t i = 0; i < voters; i++)
        conf.voters[i] = i + 1;
    for (size_t i = 0; i < learners; i++)
        conf.learners[i] = voters + i + 1;
    for (uint64_t id = 1; id <= FIXTURE_MEMBERS_MAX; id++) {
        f->members[id] = (struct fixture_member){
            .id = id, .f = f, .random = (seed * 2654435761u + id * 40503u) | 1};
        if (id > voters + learners)
            continue;
        f->members[id].conf = conf;
        fixture_start(f, id);
    }
}

void fixture_rebase(struct fixture *f)
{
    struct raft_entry *first = raft_entry_new(1, 1, RAFT_ENTRY_NOOP, 0, BYTES_EMPTY);
    for (uint64_t id = 1; id <= FIXTURE_MEMBERS_MAX; id++) {
        struct fixture_member *m = &f->members[id];
        if (m->raft == NULL)
            continue;
        fixture_crash(f, id, 0);
        raft_log_reset(&m->log, 1, 1);
        m->hard_state = (struct raft_hard_state){.term = 1, .commit = 1};
        m->applied = m->applied_term = 1;
        fixture_record_committed(f, m, first);
        fixture_start(f, id);
    }
    raft_entry_unref(first);
}

void fixture_free(struct fixture *f)
{
    for (uint64_t id = 1; id <= FIXTURE_MEMBERS_MAX; id++) {
        fixture_crash(f, id, 0);
        free(f->members[id].appends);
        raft_log_free(&f->members[id].log);
    }
    fixture_clear(f);
    for (size_t i = 0; i < f->committed_count; i++)
        raft_entry_unref(f->committed[i]);
    free(f->committed);
    for (size_t i = 0; i < f->proposal_count; i++)
        free(f->proposals[i].text);
    free(f->proposals);
    free(f->committed_conf);
    free(f->committed_term);
    free(f->leaders);
    free(f->queue);
    buf_free(&f->out);
}

void fixture_set_log(struct fixture *f, uint64_t id, uint64_t term, const uint64_t *terms, size_t n)
{
    struct fixture_member *m = &f->members[id];
    assert_null(m->raft);
    raft_log_reset(&m->log, 0, 0);
    for (size_t i = 0; i < n; i++) {
        struct raft_entry *e = raft_entry_new(terms[i], i + 1, RAFT_ENTRY_COMMAND, 0, BYTES_EMPTY);
        raft_log_append(&m->log, e);
        raft_entry_unref(e);
    }
    m->hard_state = (struct raft_hard_state){.term = term};
}

bool fixture_up(const struct fixture *f, uint64_t id)
{
    return f->members[id].raft != NULL;
}

struct raft *fixture_raft(struct fixture *f, uint64_t id)
{
    assert_non_null(f->members[id].raft);
    return f->members[id].raft;
}

struct raft_status fixture_status(struct fixture *f, uint64_t id)
{
    struct raft_status s;
    raft_status(fixture_raft(f, id), &s);
    return s;
}

/* --- events ----------------------------------------------------------------------------------- */

enum errc fixture_step(struct fixture *f, uint64_t to, struct raft_message m)
{
    m.to = to;
    enum errc rc = raft_step(fixture_raft(f, to), &m);
    fixture_ready(f, to);
    return rc;
}

void fixture_deliver_at(struct fixture *f, size_t pos, bool duplicate)
{
    assert_true(pos < f->queue_count);
    struct raft_message m = f->queue[pos];
    if (duplicate) {
        m = fixture_copy_message(&f->queue[pos]);
    } else {
        f->queue_count--;
        memmove(f->queue + pos, f->queue + pos + 1, (f->queue_count - pos) * sizeof *f->queue);
    }
    bool arrives = !f->cut[m.from][m.to] && fixture_up(f, m.to);
    if (f->show_messages) {
        fixture_format(&f->out, &m);
        buf_printf(&f->out, arrives ? "\n" : " (lost)\n");
    }
    if (arrives)
        assert_int_equal(fixture_step(f, m.to, m), ERR_OK);
    if (m.type == RAFT_MSG_SNAPSHOT && fixture_up(f, m.from)) {
        raft_report_snapshot(f->members[m.from].raft, m.to, arrives);
        fixture_ready(f, m.from);
    }
    fixture_free_message(&m);
}

void fixture_deliver(struct fixture *f)
{
    for (size_t n = 0; f->queue_count > 0; n++) {
        if (n == DELIVERIES_MAX)
            fail_msg("the cluster is never quiet");
        fixture_deliver_at(f, 0, false);
    }
    fixture_check_logs(f);
}

void fixture_tick(struct fixture *f, uint64_t id, size_t n)
{
    for (size_t i = 0; i < n && fixture_up(f, id); i++) {
        raft_tick(f->members[id].raft);
        fixture_ready(f, id);
    }
}

void fixture_tick_all(struct fixture *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (uint64_t id = 1; id <= FIXTURE_MEMBERS_MAX; id++)
            fixture_tick(f, id, 1);
        fixture_deliver(f);
    }
}

void fixture_cut(struct fixture *f, uint64_t a, uint64_t b, bool cut)
{
    f->cut[a][b] = f->cut[b][a] = cut;
}

void fixture_isolate(struct fixture *f, uint64_t id, bool cut)
{
    for (uint64_t other = 1; other <= FIXTURE_MEMBERS_MAX; other++)
        fixture_cut(f, id, other, cut);
}

void fixture_elect(struct fixture *f, uint64_t id)
{
    assert_int_equal(raft_campaign(fixture_raft(f, id)), ERR_OK);
    fixture_ready(f, id);
    fixture_deliver(f);
    assert_int_equal(fixture_status(f, id).role, RAFT_LEADER);
}

enum errc fixture_propose(struct fixture *f, uint64_t id, const char *text)
{
    uint64_t index;
    enum errc rc = raft_propose(fixture_raft(f, id), bytes_str(text),
                                fixture_record_proposal(f, text), &index);
    fixture_ready(f, id);
    return rc;
}

enum errc fixture_conf(struct fixture *f, uint64_t id, enum raft_conf_change_type type,
                       uint64_t member)
{
    struct raft_conf_change c = {type, member};
    enum errc rc = raft_propose_conf(fixture_raft(f, id), &c, BYTES_EMPTY);
    fixture_ready(f, id);
    return rc;
}

void fixture_compact(struct fixture *f, uint64_t id, uint64_t index)
{
    struct fixture_member *m = &f->members[id];
    if (index > m->applied)
        index = m->applied;
    raft_compact(fixture_raft(f, id), index);
    raft_log_compact(&m->log, index);
}

uint64_t fixture_leader(struct fixture *f)
{
    uint64_t leader = 0, term = 0;
    for (uint64_t id = 1; id <= FIXTURE_MEMBERS_MAX; id++) {
        if (!fixture_up(f, id))
            continue;
        struct raft_status s = fixture_status(f, id);
        if (s.role == RAFT_LEADER && s.term > term) {
            leader = id;
            term = s.term;
        }
    }
    return leader;
}

void fixture_log_text(struct fixture *f, uint64_t id, char *text, size_t cap)
{
    struct raft_status s = fixture_status(f, id);
    size_t n = 0;
    text[0] = '\0';
    for (uint64_t i = s.first_index; i <= s.last_index && n < cap; i++)
        n += (size_t)snprintf(text + n, cap - n, "%s%" PRIu64, i == s.first_index ? "" : " ",
                              raft_term_at(f->members[id].raft, i));
}
