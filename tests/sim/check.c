#include "tests/sim/check.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/raft/core.h"
#include "daemon/replica/internal.h"
#include "lib/base/memory.h"
#include "tests/sim/note.h"
#include "tests/sim/sim.h"

#define AWAKE_GAP (300 * MS) /* a leader that runs is seen at every heartbeat */
#define COMMIT_GAP                                                                                 \
    (1000 * MS) /* less than that delays a checkpoint less than the lease check allows */

typedef unsigned long long ull;

void check_init(struct check *c)
{
    *c = (struct check){.known_cap = 4096};
    c->known = xcalloc(c->known_cap, sizeof(*c->known));
}

void check_free(struct check *c)
{
    free(c->reigns);
    free(c->stalls);
    free(c->leaders);
    for (size_t i = 0; i < c->applied_cap; i++)
        free(c->applied[i].conf);
    free(c->applied);
    free(c->known);
}

/* Makes `index` a valid place of an array of zeros. */
static void *grow(void *p, size_t *cap, uint64_t index, size_t size)
{
    if (index < *cap)
        return p;
    size_t old = *cap;
    *cap = (size_t)index * 2 + 256;
    p = xrealloc(p, *cap * size);
    memset((char *)p + old * size, 0, (*cap - old) * size);
    return p;
}

static uint64_t hash_of(const struct raft_entry *e)
{
    uint64_t h = 14695981039346656037ull ^ e->term ^ (uint64_t)e->type << 56 ^ e->stamp;
    for (size_t i = 0; i < e->size; i++)
        h = (h ^ e->data[i]) * 1099511628211ull;
    return h | 1;
}

/* ---- Election Safety ---------------------------------------------------------------------------- */

static void check_completeness(struct simnode *n, const struct raft *r)
{
    struct check *c = &n->sim->check;
    for (uint64_t i = c->applied_last; i > r->log.base_index; i--) {
        const struct applied_entry *a = &c->applied[i];
        if (!a->hash || a->in_term >= r->term)
            continue;
        if (raft_log_term_at(&r->log, i) != a->term)
            world_fail_about(
                &n->sim->world, ABOUT(.member = n->id, .index = i, .term = r->term),
                "leader completeness: leader %llu of term %llu lacks entry %llu of term "
                "%llu, which was committed by term %llu",
                (ull)n->id, (ull)r->term, (ull)i, (ull)a->term, (ull)a->in_term);
    }
}

static void add_stall(struct check *c, uint64_t term, uint64_t from, uint64_t to, bool asleep)
{
    c->stalls = grow(c->stalls, &c->stall_cap, c->stall_count, sizeof(*c->stalls));
    c->stalls[c->stall_count++] = (struct stall){term, from, to, asleep};
}

static void see_reign(struct simnode *n, const struct raft *r, struct reign *reign)
{
    struct check *c = &n->sim->check;
    uint64_t now = n->sim->world.now;
    if (now - reign->to > AWAKE_GAP)
        add_stall(c, r->term, reign->to, now, true);
    reign->to = now;
    if (!reign->is_ready)
        reign->ready = now;
    reign->is_ready |= raft_own_term_committed(r);
    if (r->commit == reign->commit)
        return;
    if (now - reign->committed_at > COMMIT_GAP)
        add_stall(c, r->term, reign->committed_at, now, false);
    reign->commit = r->commit;
    reign->committed_at = now;
}

static void check_leader(struct simnode *n, const struct raft *r)
{
    struct check *c = &n->sim->check;
    if (r->role != RAFT_LEADER)
        return;
    c->leaders = grow(c->leaders, &c->leaders_cap, r->term, sizeof(*c->leaders));
    if (c->leaders[r->term] == n->id) {
        for (size_t i = c->reign_count; i > 0; i--) {
            if (c->reigns[i - 1].term == r->term) {
                see_reign(n, r, &c->reigns[i - 1]);
                return;
            }
        }
        return;
    }
    if (c->leaders[r->term])
        world_fail_about(&n->sim->world,
                         ABOUT(.member = n->id, .other = c->leaders[r->term], .term = r->term),
                         "election safety: term %llu has two leaders, %llu and %llu", (ull)r->term,
                         (ull)c->leaders[r->term], (ull)n->id);
    c->leaders[r->term] = n->id;
    TRACE2(&n->sim->world, "=%m leads term %t", n->id, r->term);
    uint64_t now = n->sim->world.now;
    c->reigns = grow(c->reigns, &c->reign_cap, c->reign_count, sizeof(*c->reigns));
    c->reigns[c->reign_count++] =
        (struct reign){n->id, r->term, now, now, now, false, r->commit, now};
    check_completeness(n, r);
    faults_new_leader(n);
}

/* What a leader counts as replicated is on that member's disk, and nothing but a later term may take it
 * away. A member whose disk was harmed can't be held to it. */
static void check_promises(struct simnode *n, const struct raft *r)
{
    for (size_t i = 0; r->role == RAFT_LEADER && i < r->peer_count; i++) {
        const struct raft_progress *p = &r->peers[i];
        const struct simnode *other = sim_node(n->sim, p->id);
        if (!other || !other->replica || other->fatal || other->damaged)
            continue;
        const struct raft *o = other->replica->raft;
        if (o->term == r->term && o->persisted < p->match)
            world_fail_about(
                &n->sim->world,
                ABOUT(.member = p->id, .other = n->id, .index = p->match, .term = r->term),
                "member %llu has %llu entries on its disk, but has acknowledged %llu to "
                "leader %llu of term %llu",
                (ull)p->id, (ull)o->persisted, (ull)p->match, (ull)n->id, (ull)r->term);
    }
}

/* ---- Log Matching ------------------------------------------------------------------------------- */

static struct known_entry *known_slot(struct check *c, uint64_t index, uint64_t term)
{
    uint64_t h = (index * 0x9e3779b97f4a7c15ull) ^ (term * 0xd1342543de82ef95ull);
    size_t i = (size_t)(h >> 20) % c->known_cap;
    while (c->known[i].term && (c->known[i].index != index || c->known[i].term != term))
        i = (i + 1) % c->known_cap;
    return &c->known[i];
}

static void known_grow(struct check *c)
{
    struct known_entry *old = c->known;
    size_t cap = c->known_cap;
    c->known_cap *= 2;
    c->known = xcalloc(c->known_cap, sizeof(*c->known));
    for (size_t i = 0; i < cap; i++) {
        if (old[i].term)
            *known_slot(c, old[i].index, old[i].term) = old[i];
    }
    free(old);
}

static void check_entry(struct simnode *n, const struct raft_entry *e, uint64_t before_term)
{
    struct check *c = &n->sim->check;
    if (c->known_count * 2 >= c->known_cap)
        known_grow(c);
    struct known_entry *k = known_slot(c, e->index, e->term);
    struct known_entry now = {e->index, e->term, hash_of(e), before_term};
    if (!k->term) {
        *k = now;
        c->known_count++;
        note_entry(n, e);
    } else if (k->hash != now.hash || (before_term && k->before_term != before_term)) {
        world_fail_about(&n->sim->world, ABOUT(.member = n->id, .index = e->index),
                         "log matching: entry %llu of term %llu is another one on member %llu",
                         (ull)e->index, (ull)e->term, (ull)n->id);
    }
}

static void check_log(struct simnode *n, const struct raft *r)
{
    uint64_t last = raft_log_last(&r->log), last_term = raft_log_last_term(&r->log);
    if (last == n->last_checked && last_term == n->last_term_checked)
        return;
    n->last_checked = last;
    n->last_term_checked = last_term;
    n->terms_seen = grow(n->terms_seen, &n->terms_cap, last, sizeof(*n->terms_seen));
    for (uint64_t i = last; i > r->log.base_index; i--) {
        const struct raft_entry *e = raft_log_at(&r->log, i);
        if (n->terms_seen[i] == e->term)
            break;
        n->terms_seen[i] = e->term;
        check_entry(n, e, raft_log_term_at(&r->log, i - 1));
    }
}

/* ---- State Machine Safety ----------------------------------------------------------------------- */

static void first_applied(struct simnode *n, const struct raft_entry *e)
{
    note_applied(n, e);
    if (e->type != RAFT_ENTRY_COMMAND)
        return;
    Raftpb__InternalRequest *q = raftpb__internal_request__unpack(NULL, e->size, e->data);
    if (q->request_case == RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE)
        leases_revoked(&n->sim->leases, q->lease_revoke->id, q->id);
    raftpb__internal_request__free_unpacked(q, NULL);
}

static void check_one_applied(struct simnode *n, const struct raft *r, uint64_t index)
{
    struct check *c = &n->sim->check;
    const struct raft_entry *e = raft_log_at(&r->log, index);
    if (!e)
        return; /* compacted in the same turn, or before the log begins */
    c->applied = grow(c->applied, &c->applied_cap, index, sizeof(*c->applied));
    struct applied_entry *a = &c->applied[index];
    if (!a->hash) {
        a->term = e->term;
        a->hash = hash_of(e);
        a->in_term = r->term;
        if (index > c->applied_last)
            c->applied_last = index;
        first_applied(n, e);
        return;
    }
    if (a->hash != hash_of(e))
        world_fail_about(
            &n->sim->world, ABOUT(.member = n->id, .index = index),
            "state machine safety: member %llu applied another entry %llu (term %llu, not "
            "%llu)",
            (ull)n->id, (ull)index, (ull)e->term, (ull)a->term);
    if (r->term < a->in_term)
        a->in_term = r->term;
}

static bool conf_equal(const struct raft_conf *a, const struct raft_conf *b)
{
    return a->voter_count == b->voter_count && a->learner_count == b->learner_count &&
           memcmp(a->voters, b->voters, a->voter_count * sizeof(*a->voters)) == 0 &&
           memcmp(a->learners, b->learners, a->learner_count * sizeof(*a->learners)) == 0;
}

/* The membership that the state machine has is the one that the core has applied, and every other member's. */
static void check_membership(struct simnode *n, const struct raft *r)
{
    struct raft_conf ours;
    const struct raft_conf *core = &r->membership.applied;
    const struct member_list *l = &n->replica->members;
    member_list_conf(l, &ours);
    if (l->count && !conf_equal(&ours, core))
        world_fail_about(
            &n->sim->world, ABOUT(.member = n->id),
            "member %llu has %zu voters and %zu learners, its core has applied %zu and %zu",
            (ull)n->id, ours.voter_count, ours.learner_count, core->voter_count,
            core->learner_count);
    struct check *c = &n->sim->check;
    uint64_t index = r->membership.applied_index;
    c->applied = grow(c->applied, &c->applied_cap, index, sizeof(*c->applied));
    struct applied_entry *a = &c->applied[index];
    if (a->conf && !conf_equal(a->conf, core))
        world_fail_about(&n->sim->world, ABOUT(.member = n->id, .index = index),
                         "state machine safety: member %llu has another membership as of entry "
                         "%llu: %zu voters and %zu learners, not %zu and %zu",
                         (ull)n->id, (ull)index, core->voter_count, core->learner_count,
                         a->conf->voter_count, a->conf->learner_count);
    if (!a->conf) {
        a->conf = xmalloc(sizeof(*a->conf));
        *a->conf = *core;
    }
}

static void note_membership(struct simnode *n, const struct raft *r)
{
    const struct raft_membership *m = &r->membership;
    n->conf_applied = m->applied;
    n->conf_applied_index = m->applied_index;
    n->conf_newest = r->conf;
    n->conf_newest_index = m->newest_index ? m->newest_index : m->applied_index;
}

static void check_applied(struct simnode *n, const struct raft *r)
{
    uint64_t applied = mvcc_applied_index(replica_store(n->replica));
    for (uint64_t i = n->applied_checked + 1; i <= applied; i++)
        check_one_applied(n, r, i);
    if (n->applied_checked != applied)
        check_membership(n, r);
    n->applied_checked = applied;
}

void check_node(struct simnode *n)
{
    const struct raft *r = n->replica->raft;
    struct world *w = &n->sim->world;
    if (r->term < n->term_seen)
        world_fail_about(w, ABOUT(.member = n->id, .term = n->term_seen),
                         "member %llu went back to term %llu", (ull)n->id, (ull)r->term);
    n->term_seen = r->term;
    int64_t revision = mvcc_revision(replica_store(n->replica));
    if (revision < n->revision_seen)
        world_fail_about(w, ABOUT(.member = n->id, .revision = (uint64_t)n->revision_seen),
                         "member %llu went back to revision %lld", (ull)n->id, (long long)revision);
    n->revision_seen = revision;
    if (r->persisted != n->persisted_seen)
        NOTE2(w, "*%m: all up to entry %a is on its disk, it believes", n->id, r->persisted);
    n->persisted_seen = r->persisted;
    check_leader(n, r);
    check_promises(n, r);
    note_membership(n, r);
    if (n->sim->steady)
        return;
    check_log(n, r);
    check_applied(n, r);
}

/* ---- what it applies, change by change ---------------------------------------------------------- */

static void compare(struct simnode *n, int64_t revision)
{
    enum errc code = model_compare(&n->sim->model, n->id, replica_store(n->replica), revision);
    if (code == ERR_CORRUPT)
        rot_found(n, "the store, reading all of it");
}

static bool on_events(void *ctx, struct watcher *watcher, const struct watch_event *events,
                      size_t count, int64_t revision)
{
    (void)watcher;
    struct simnode *n = ctx;
    struct modelkv kvs[MODEL_KEYS];
    if (count > MODEL_KEYS)
        world_fail_about(&n->sim->world, ABOUT(.member = n->id, .revision = (uint64_t)revision),
                         "revision %lld has %zu changes", (long long)revision, count);
    for (size_t i = 0; i < count; i++)
        model_take(&n->sim->model, events[i].kv, &kvs[i]);
    model_observe(&n->sim->model, n->id, revision, kvs, count);
    return true;
}

static void on_compacted(void *ctx, struct watcher *watcher, int64_t revision)
{
    (void)watcher;
    struct simnode *n = ctx;
    if (n->damaged) {
        rot_found(n, "its history");
        return;
    }
    world_fail_about(&n->sim->world, ABOUT(.member = n->id),
                     "member %llu: the observer fell behind revision %lld", (ull)n->id,
                     (long long)revision);
}

static void observe(struct simnode *n)
{
    static const uint8_t zero[1] = {0};
    struct watch_spec spec = {
        .range = {.key = bytes_of(zero, 1), .end = bytes_of(zero, 1)},
        .start_revision = mvcc_revision(replica_store(n->replica)) + 1,
    };
    n->observer = watch_start(replica_watch_hub(n->replica), &spec,
                              &(struct watch_consumer){on_events, on_compacted}, n);
}

void check_started(struct simnode *n)
{
    struct mvcc *store = replica_store(n->replica);
    n->applied_checked = mvcc_applied_index(store);
    n->revision_seen = mvcc_revision(store);
    n->term_seen = 0;
    n->last_checked = n->last_term_checked = 0;
    if (n->terms_cap)
        memset(n->terms_seen, 0, n->terms_cap * sizeof(*n->terms_seen));
    if (n->sim->steady)
        return;
    compare(n, mvcc_revision(store));
    observe(n);
}

void check_stopped(struct simnode *n)
{
    if (n->observer)
        watch_cancel(n->observer);
    n->observer = NULL;
}

/* The store was replaced: the observer goes on at its revision, whose contents are compared at once. */
void check_snapshot_installed(struct simnode *n)
{
    struct mvcc *store = replica_store(n->replica);
    TRACE2(&n->sim->world, "=%m installed a snapshot of all up to entry %u", n->id,
           mvcc_applied_index(store));
    if (n->sim->steady)
        return;
    watch_cancel(n->observer);
    n->applied_checked = mvcc_applied_index(store);
    compare(n, mvcc_revision(store));
    observe(n);
    faults_snapshot_installed(n);
}

/* ---- after a restore ----------------------------------------------------------------------------- */

static void check_lease(void *ctx, int64_t id)
{
    bool *seen = ctx;
    seen[id] = true;
}

void check_restored(struct simnode *n, const bool *leases)
{
    struct sim *s = n->sim;
    struct mvcc *store = replica_store(n->replica);
    bool seen[LEASES_MAX + 1] = {false};
    size_t count;
    const struct replica_member *members = replica_members(n->replica, &count);
    if (mvcc_revision(store) != s->model.last)
        world_fail(&s->world, "member %llu was restored at revision %lld, the backup is of %lld",
                   (ull)n->id, (long long)mvcc_revision(store), (long long)s->model.last);
    int64_t compacted = mvcc_compact_revision(store);
    for (int64_t r = compacted > 1 ? compacted : 1; r <= s->model.last; r++)
        compare(n, r);
    lessor_each(replica_lessor(n->replica), check_lease, seen);
    for (size_t id = 1; id <= LEASES_MAX; id++)
        if (seen[id] != leases[id])
            world_fail(&s->world, "member %llu was restored with lease %zu: %d, the backup: %d",
                       (ull)n->id, id, seen[id], leases[id]);
    for (size_t i = 0; i < count; i++)
        if (count != s->initial_count || members[i].id <= s->initial_first)
            world_fail(&s->world, "member %llu was restored with member %llu", (ull)n->id,
                       (ull)members[i].id);
}

/* ---- the end ------------------------------------------------------------------------------------ */

static bool same_members(const struct simnode *a, const struct simnode *b)
{
    size_t count, other_count;
    const struct replica_member *all = replica_members(a->replica, &count);
    const struct replica_member *others = replica_members(b->replica, &other_count);
    bool same = count == other_count;
    for (size_t i = 0; same && i < count; i++)
        same = all[i].id == others[i].id && all[i].learner == others[i].learner;
    return same;
}

void check_equal(struct sim *s)
{
    struct simnode *first = NULL;
    for (size_t i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[i];
        if (!n->replica)
            continue;
        struct mvcc *store = replica_store(n->replica);
        if (mvcc_revision(store) != s->model.last)
            world_fail_about(&s->world, ABOUT(.member = n->id),
                             "at the end member %llu is at revision %lld, not %lld", (ull)n->id,
                             (long long)mvcc_revision(store), (long long)s->model.last);
        int64_t compacted = mvcc_compact_revision(store);
        for (int64_t r = compacted > 1 ? compacted : 1; r <= s->model.last;
             r += 1 + (s->model.last - r) / 8)
            compare(n, r);
        compare(n, s->model.last);
        if (first &&
            (lessor_count(replica_lessor(n->replica)) !=
                 lessor_count(replica_lessor(first->replica)) ||
             compacted != mvcc_compact_revision(replica_store(first->replica)) ||
             mvcc_applied_index(store) != mvcc_applied_index(replica_store(first->replica))))
            world_fail_about(&s->world, ABOUT(.member = first->id, .other = n->id),
                             "at the end members %llu and %llu differ", (ull)first->id, (ull)n->id);
        if (first && !same_members(first, n))
            world_fail_about(&s->world, ABOUT(.member = first->id, .other = n->id),
                             "at the end members %llu and %llu know different members",
                             (ull)first->id, (ull)n->id);
        first = first ? first : n;
    }
}
