/* The properties of Figure 3 of the paper, checked at every step of the fixture. */
#include "tests/unit/raft_fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/base/memory.h"

/* Election safety and, the first time that a leader is seen, leader completeness. */
static void check_leader(struct fixture *f, const struct fixture_member *m)
{
    struct raft_status s;
    raft_status(m->raft, &s);
    if (s.role != RAFT_LEADER)
        return;
    while (s.term >= f->leaders_cap) {
        size_t cap = f->leaders_cap == 0 ? 64 : f->leaders_cap * 2;
        f->leaders = xrealloc(f->leaders, cap * sizeof *f->leaders);
        memset(f->leaders + f->leaders_cap, 0, (cap - f->leaders_cap) * sizeof *f->leaders);
        f->leaders_cap = cap;
    }
    if (f->leaders[s.term] == m->id)
        return;
    if (f->leaders[s.term] != 0)
        fail_msg("election safety: %" PRIu64 " and %" PRIu64 " lead term %" PRIu64,
                 f->leaders[s.term], m->id, s.term);
    f->leaders[s.term] = m->id;
    for (uint64_t i = s.first_index; i < f->committed_count; i++) {
        /* "If a log entry is committed in a given term, then that entry will be present in the logs of the
         * leaders for all higher-numbered terms". */
        if (f->committed[i] != NULL && f->committed_term[i] < s.term &&
            raft_term_at(m->raft, i) != f->committed[i]->term)
            fail_msg("leader completeness: %" PRIu64 " leads term %" PRIu64
                     " without the committed entry %" PRIu64,
                     m->id, s.term, i);
    }
}

void fixture_check_member(struct fixture *f, struct fixture_member *m)
{
    struct raft_status s;
    raft_status(m->raft, &s);
    if (s.term < m->term_seen)
        fail_msg("term of %" PRIu64 " went back to %" PRIu64, m->id, s.term);
    m->term_seen = s.term;
    assert_true(s.applied <= s.commit && s.commit <= s.last_index);
    assert_true(s.persisted <= s.last_index);
    assert_true(s.forgotten == 0 || m->disk_forgot);
    check_leader(f, m);
}

void fixture_check_logs(struct fixture *f)
{
    for (uint64_t a = 1; a <= FIXTURE_MEMBERS_MAX; a++) {
        for (uint64_t b = a + 1; b <= FIXTURE_MEMBERS_MAX; b++) {
            if (!fixture_up(f, a) || !fixture_up(f, b))
                continue;
            struct raft_status sa = fixture_status(f, a), sb = fixture_status(f, b);
            uint64_t last = sa.last_index < sb.last_index ? sa.last_index : sb.last_index;
            uint64_t first = sa.first_index > sb.first_index ? sa.first_index : sb.first_index;
            bool same = false;
            for (uint64_t i = last; i >= first; i--) {
                bool equal =
                    raft_term_at(f->members[a].raft, i) == raft_term_at(f->members[b].raft, i);
                if (same && !equal)
                    fail_msg("log matching: %" PRIu64 " and %" PRIu64 " differ at %" PRIu64
                             " and agree behind it",
                             a, b, i);
                same = same || equal;
            }
        }
    }
}

/* --- refused proposals ------------------------------------------------------------------------ */

uint64_t fixture_record_proposal(struct fixture *f, const char *text)
{
    f->proposals = xrealloc(f->proposals, (f->proposal_count + 1) * sizeof *f->proposals);
    f->proposals[f->proposal_count++] = (struct fixture_proposal){.text = xstrdup(text)};
    return f->proposal_count;
}

static bool has_text(const struct raft_entry *e, const char *text)
{
    return e != NULL && e->type == RAFT_ENTRY_COMMAND &&
           bytes_equal(bytes_of(e->data, e->size), bytes_str(text));
}

void fixture_record_refusal(struct fixture *f, struct fixture_member *m,
                            const struct raft_refusal *refusal)
{
    static const char *const reasons[] = {[RAFT_REFUSED_TOO_MANY] = "too many",
                                          [RAFT_REFUSED_NO_LEADER] = "no leader",
                                          [RAFT_REFUSED_TRANSFER] = "transfer"};
    assert_in_range(refusal->context, 1, f->proposal_count);
    struct fixture_proposal *p = &f->proposals[refusal->context - 1];
    buf_printf(&f->out, "%" PRIu64 ": %s was refused: %s\n", m->id, p->text,
               reasons[refusal->reason]);
    m->last_refusal = *refusal;
    m->refusal_count++;
    p->refused = true;
    for (size_t i = 0; f->check_refused && i < f->committed_count; i++)
        assert_false(has_text(f->committed[i], p->text));
}

static void check_not_refused(const struct fixture *f, const struct raft_entry *e)
{
    for (size_t i = 0; f->check_refused && i < f->proposal_count; i++) {
        if (f->proposals[i].refused && has_text(e, f->proposals[i].text))
            fail_msg("%s was refused, and is applied as entry %" PRIu64, f->proposals[i].text,
                     e->index);
    }
}

/* State machine safety: "no other server will ever apply a different log entry for the same index". */
void fixture_record_committed(struct fixture *f, const struct fixture_member *m,
                              struct raft_entry *e)
{
    while (e->index >= f->committed_cap) {
        size_t cap = f->committed_cap == 0 ? 64 : f->committed_cap * 2;
        f->committed = xrealloc(f->committed, cap * sizeof *f->committed);
        f->committed_conf = xrealloc(f->committed_conf, cap * sizeof *f->committed_conf);
        f->committed_term = xrealloc(f->committed_term, cap * sizeof *f->committed_term);
        memset(f->committed + f->committed_cap, 0, (cap - f->committed_cap) * sizeof *f->committed);
        f->committed_cap = cap;
    }
    while (f->committed_count <= e->index)
        f->committed[f->committed_count++] = NULL;
    struct raft_entry *known = f->committed[e->index];
    if (known == NULL) {
        check_not_refused(f, e);
        f->committed[e->index] = raft_entry_ref(e);
        f->committed_conf[e->index] = m->conf;
        f->committed_term[e->index] = m->raft == NULL ? e->term : fixture_status(f, m->id).term;
        return;
    }
    if (known->term != e->term || known->type != e->type || known->stamp != e->stamp ||
        !bytes_equal(bytes_of(known->data, known->size), bytes_of(e->data, e->size)))
        fail_msg("state machine safety: %" PRIu64 " applies another entry %" PRIu64, m->id,
                 e->index);
    assert_memory_equal(&f->committed_conf[e->index], &m->conf, sizeof m->conf);
}
