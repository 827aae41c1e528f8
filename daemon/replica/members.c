/* The membership as part of the replicated state, and the changes of it. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define CONF_CONTEXT_ID_BYTES 8 /* the request's id stands before the packed member */
#define LEARNERS_MAX 1          /* etcd's: a learner costs the leader, and votes for nothing */

void members_tell(struct replica *r)
{
    const struct member_list *l = r->members.count ? &r->members : &r->initial;
    if (r->config.transport && r->config.transport->members)
        r->config.transport->members(r->config.transport, l->members, l->count);
}

/* ---- rows --------------------------------------------------------------------------------------- */

static void save(struct replica *r, uint64_t id)
{
    uint8_t key[8], *packed = NULL;
    put_le64(key, id);
    struct bytes value = BYTES_EMPTY;
    const struct replica_member *m = member_list_find(&r->members, id);
    if (m) {
        Raftpb__Member wire;
        member_to_wire(m, &wire);
        packed = xmalloc(raftpb__member__get_packed_size(&wire) + 1);
        value = bytes_of(packed, raftpb__member__pack(&wire, packed));
    }
    mvcc_bucket_put(r->store, MVCC_BUCKET_MEMBER, bytes_of(key, 8), value);
    free(packed);
}

/* A removed member's id never comes back (e#20967): META remembers it as "removed" and the id. */
#define REMOVED "removed"
#define REMOVED_BYTES (sizeof(REMOVED) - 1)

static void save_removed(struct replica *r, uint64_t id)
{
    uint8_t key[REMOVED_BYTES + 8], one = 1;
    memcpy(key, REMOVED, REMOVED_BYTES);
    put_le64(key + REMOVED_BYTES, id);
    mvcc_bucket_put(r->store, MVCC_BUCKET_META, bytes_of(key, sizeof(key)), bytes_of(&one, 1));
}

static void load_removed(void *ctx, struct bytes key, struct bytes value)
{
    struct replica *r = ctx;
    (void)value;
    if (key.n == REMOVED_BYTES + 8 && memcmp(key.p, REMOVED, REMOVED_BYTES) == 0)
        removed_members_add(&r->removed, get_le64(key.p + REMOVED_BYTES));
}

struct load {
    struct replica *replica;
    bool bad;
};

static void load_row(void *ctx, struct bytes key, struct bytes value)
{
    struct load *l = ctx;
    Raftpb__Member *wire = raftpb__member__unpack(NULL, value.n, value.p);
    if (!wire || key.n != 8 || l->replica->members.count == RAFT_MEMBERS_MAX) {
        l->bad = true;
    } else {
        struct replica_member m;
        member_from_wire(wire, &m);
        member_list_set(&l->replica->members, &m);
    }
    if (wire)
        raftpb__member__free_unpacked(wire, NULL);
}

enum errc members_load(struct replica *r, struct error *err)
{
    member_list_clear(&r->members);
    struct load l = {r, false};
    enum errc code = mvcc_bucket_each(r->store, MVCC_BUCKET_MEMBER, load_row, &l, err);
    if (code == ERR_OK && l.bad)
        code = error_set(err, ERR_CORRUPT, "a row of the membership can't be decoded");
    removed_members_clear(&r->removed);
    if (code == ERR_OK)
        code = mvcc_bucket_each(r->store, MVCC_BUCKET_META, load_removed, r, err);
    return code;
}

bool replica_was_removed(const struct replica *r, uint64_t id)
{
    return removed_members_has(&r->removed, id);
}

/* ---- the first entry ---------------------------------------------------------------------------- */

struct raft_entry *members_bootstrap_entry(const struct member_list *initial)
{
    Raftpb__Member wire[RAFT_MEMBERS_MAX], *each[RAFT_MEMBERS_MAX];
    Raftpb__ConfState conf = RAFTPB__CONF_STATE__INIT;
    for (size_t i = 0; i < initial->count; i++) {
        /* Peer URLs only: every member must make the very same entry out of its own configuration. */
        struct replica_member m = {
            .id = initial->members[i].id,
            .peer_urls = initial->members[i].peer_urls,
            .peer_url_count = initial->members[i].peer_url_count,
        };
        member_to_wire(&m, &wire[i]);
        each[i] = &wire[i];
    }
    conf.members = each;
    conf.n_members = initial->count;
    size_t n = raftpb__conf_state__get_packed_size(&conf);
    uint8_t *packed = xmalloc(n + 1);
    raftpb__conf_state__pack(&conf, packed);
    struct raft_entry *e = raft_entry_new(1, 1, RAFT_ENTRY_NOOP, 0, bytes_of(packed, n));
    free(packed);
    return e;
}

bool members_is_bootstrap(const struct raft_entry *e)
{
    return e->type == RAFT_ENTRY_NOOP && e->size > 0;
}

enum errc members_apply_bootstrap(struct replica *r, const struct raft_entry *e, struct error *err)
{
    Raftpb__ConfState *conf = raftpb__conf_state__unpack(NULL, e->size, e->data);
    if (!conf || conf->n_members > RAFT_MEMBERS_MAX || e->index != 1) {
        if (conf)
            raftpb__conf_state__free_unpacked(conf, NULL);
        return error_set(err, ERR_UNIMPLEMENTED, "log entry %llu holds no membership",
                         (unsigned long long)e->index);
    }
    mvcc_begin(r->store, e->index, e->term, e->stamp);
    for (size_t i = 0; i < conf->n_members; i++) {
        struct replica_member m;
        member_from_wire(conf->members[i], &m);
        member_list_set(&r->members, &m);
        save(r, m.id);
        /* A member that joins learns the first entry from the log: the core has to learn of it too. */
        struct raft_conf now;
        struct raft_conf_change add = {
            m.learner ? RAFT_CONF_ADD_LEARNER : RAFT_CONF_ADD_VOTER,
            m.id,
        };
        if (r->raft)
            raft_apply_conf(r->raft, e->index, &add, &now);
    }
    const struct mvcc_change *changes;
    size_t count;
    mvcc_end(r->store, &changes, &count);
    raftpb__conf_state__free_unpacked(conf, NULL);
    return ERR_OK;
}

/* ---- changes ------------------------------------------------------------------------------------ */

/* The leader checks before it proposes. Between that and the change's application no other one is applied, so
 * every member comes to the same result then; it reads nothing from the disk, since that can fail on one alone. */
static enum errc check_change(struct replica *r, const struct raft_conf_change *c,
                              const struct replica_member *m)
{
    const struct replica_member *old = member_list_find(&r->members, c->id);
    struct raft_conf conf;
    member_list_conf(&r->members, &conf);
    switch (c->type) {
    case RAFT_CONF_ADD_VOTER:
        if (old)
            return old->learner ? ERR_OK : ERR_MEMBER_EXISTS;
        break;
    case RAFT_CONF_ADD_LEARNER:
        if (old)
            return ERR_MEMBER_EXISTS;
        if (conf.learner_count >= LEARNERS_MAX)
            return ERR_TOO_MANY_LEARNERS;
        break;
    case RAFT_CONF_REMOVE:
        if (!old)
            return ERR_MEMBER_NOT_FOUND;
        return conf.voter_count == 1 && !old->learner ? ERR_MEMBER_NOT_ENOUGH_STARTED : ERR_OK;
    case RAFT_CONF_UPDATE:
        if (!old)
            return ERR_MEMBER_NOT_FOUND;
        return member_list_has_url(&r->members, c->id, m->peer_urls, m->peer_url_count)
                   ? ERR_PEER_URL_EXISTS
                   : ERR_OK;
    default:
        return ERR_INVALID;
    }
    if (member_list_has_url(&r->members, c->id, m->peer_urls, m->peer_url_count))
        return ERR_PEER_URL_EXISTS;
    if (r->members.count == RAFT_MEMBERS_MAX || replica_was_removed(r, c->id))
        return ERR_MEMBER_EXISTS;
    return ERR_OK;
}

static void change(struct replica *r, const struct raft_conf_change *c, struct replica_member *m)
{
    struct replica_member *old = member_list_find(&r->members, c->id);
    if (c->type == RAFT_CONF_REMOVE) {
        save_removed(r, c->id);
        removed_members_add(&r->removed, c->id);
        member_list_remove(&r->members, c->id);
        if (MUTANT(removed_member_returns)) /* with the next start: e#20967 */
            return;
    } else if (c->type == RAFT_CONF_ADD_VOTER && old) {
        old->learner = false;
    } else if (c->type == RAFT_CONF_UPDATE) {
        struct replica_member updated = *old;
        updated.peer_urls = m->peer_urls;
        updated.peer_url_count = m->peer_url_count;
        member_list_set(&r->members, &updated);
    } else {
        m->id = c->id;
        m->learner = c->type == RAFT_CONF_ADD_LEARNER;
        member_list_set(&r->members, m);
    }
    save(r, c->id);
}

static void check_same(struct replica *r, const struct raft_conf *conf)
{
    struct raft_conf ours;
    member_list_conf(&r->members, &ours);
    assert(ours.voter_count == conf->voter_count && ours.learner_count == conf->learner_count);
    assert(memcmp(ours.voters, conf->voters, ours.voter_count * sizeof(uint64_t)) == 0);
}

/* Only its own removal counts: a member that joins replays the changes from before it was added, and is in none
 * of those memberships. */
static void tell_if_removed(struct replica *r, const struct raft_conf_change *c)
{
    if (c->type != RAFT_CONF_REMOVE || c->id != r->member_id || r->removed_told)
        return;
    r->removed_told = true;
    if (r->config.removed)
        r->config.removed(r->config.ctx);
}

static void carry_out(struct replica *r, const struct raft_entry *e,
                      const struct raft_conf_change *c, struct replica_member *m)
{
    mvcc_begin(r->store, e->index, e->term, e->stamp);
    change(r, c, m);
    if (c->type == RAFT_CONF_REMOVE)
        apply_member_removed(r->apply, c->id);
    const struct mvcc_change *changes;
    size_t count;
    mvcc_end(r->store, &changes, &count);
    struct raft_conf conf;
    raft_apply_conf(r->raft, e->index, c, &conf);
    check_same(r, &conf);
}

enum errc members_apply_conf(struct replica *r, const struct raft_entry *e, struct error *err)
{
    struct raft_conf_change c;
    struct bytes context = BYTES_EMPTY;
    enum errc code = raft_conf_change_decode(bytes_of(e->data, e->size), &c, &context);
    Raftpb__Member *wire = NULL;
    if (code == ERR_OK && context.n >= CONF_CONTEXT_ID_BYTES)
        wire = raftpb__member__unpack(NULL, context.n - CONF_CONTEXT_ID_BYTES,
                                      context.p + CONF_CONTEXT_ID_BYTES);
    if (!wire)
        return error_set(err, ERR_UNIMPLEMENTED, "log entry %llu holds no membership change",
                         (unsigned long long)e->index);
    struct replica_member m;
    member_from_wire(wire, &m);
    code = check_change(r, &c, &m);
    if (code == ERR_OK)
        carry_out(r, e, &c, &m);
    raftpb__member__free_unpacked(wire, NULL);
    if (code != ERR_OK) /* the core counts it since it is in the log */
        return error_set(err, ERR_CORRUPT,
                         "log entry %llu changes the membership in a way that isn't possible: %s",
                         (unsigned long long)e->index, errc_text(code));
    members_tell(r);
    struct replica_op *op = request_find(r, get_le64(context.p));
    if (op)
        request_finish(op, ERR_OK);
    tell_if_removed(r, &c);
    return ERR_OK;
}

void members_apply_attributes(void *ctx, const Raftpb__MemberAttributes *attributes)
{
    struct replica *r = ctx;
    struct replica_member *old = member_list_find(&r->members, attributes->id);
    if (!old)
        return; /* removed meanwhile */
    struct replica_member m = *old;
    m.name = attributes->name;
    m.client_urls = attributes->client_urls;
    m.client_url_count = attributes->n_client_urls;
    member_list_set(&r->members, &m);
    save(r, m.id);
    members_tell(r);
}

/* ---- proposing ---------------------------------------------------------------------------------- */

/* Would the members that have started and answer be a quorum after the change? etcd's strict
 * reconfiguration check: a change must not be what stops the cluster. A voter that is added has not started
 * yet, so all others must answer; a learner that is promoted answers, and counts. */
static enum errc check_quorum(const struct replica *r, const struct raft_conf_change *c,
                              bool promotes)
{
    size_t voters = 0, active = 0, started = 0;
    bool removes_voter = false;
    for (size_t i = 0; i < r->status.peer_count; i++) {
        const struct raft_peer_status *p = &r->status.peers[i];
        if (p->learner && !(promotes && p->id == c->id))
            continue;
        if (c->type == RAFT_CONF_REMOVE && p->id == c->id) {
            removes_voter = true;
            continue;
        }
        voters++;
        active += leader_finds_active(r, p->id);
        started += p->match > 0 || p->id == r->member_id;
    }
    bool adds_voter = c->type == RAFT_CONF_ADD_VOTER && !promotes;
    if (!adds_voter && !removes_voter && !promotes)
        return ERR_OK;
    size_t quorum = (voters + adds_voter) / 2 + 1;
    if (started < quorum && !(adds_voter && voters == 1))
        return ERR_MEMBER_NOT_ENOUGH_STARTED;
    if (adds_voter && active < voters)
        return ERR_UNHEALTHY;
    return !adds_voter && active < quorum ? ERR_UNHEALTHY : ERR_OK;
}

/* A learner may vote when it has nine tenths of the leader's log, as in etcd. */
static enum errc check_promotion(const struct replica *r, uint64_t id)
{
    for (size_t i = 0; i < r->status.peer_count; i++) {
        const struct raft_peer_status *p = &r->status.peers[i];
        if (p->id == id)
            return (double)p->match < 0.9 * (double)r->status.last_index ? ERR_LEARNER_NOT_READY
                                                                         : ERR_OK;
    }
    return ERR_LEARNER_NOT_READY;
}

static enum errc propose(struct replica *r, const struct raft_conf_change *c,
                         const struct replica_member *m, uint64_t id)
{
    if (!replica_leads(r))
        return ERR_NOT_LEADER;
    const struct replica_member *old = member_list_find(&r->members, c->id);
    enum errc code = check_change(r, c, m);
    bool promotes = c->type == RAFT_CONF_ADD_VOTER && old;
    if (code == ERR_OK && promotes)
        code = check_promotion(r, c->id);
    if (code == ERR_OK)
        code = check_quorum(r, c, promotes);
    if (code != ERR_OK)
        return code;
    Raftpb__Member wire;
    member_to_wire(m, &wire);
    struct buf context = {0};
    size_t n = raftpb__member__get_packed_size(&wire);
    buf_reserve(&context, CONF_CONTEXT_ID_BYTES + n);
    put_le64(context.p, id);
    context.n = CONF_CONTEXT_ID_BYTES + raftpb__member__pack(&wire, context.p + 8);
    code = raft_propose_conf(r->raft, c, buf_bytes(&context));
    buf_free(&context);
    return code;
}

struct replica_op *replica_conf_change(struct replica *r, enum raft_conf_change_type type,
                                       const struct replica_member *member,
                                       void (*done)(void *ctx, enum errc code), void *ctx)
{
    struct replica_op *op = request_new(r, OP_CONF, ctx);
    op->done_code = done;
    uint64_t id = propose_next_id(r);
    struct raft_conf_change c = {type, member->id};
    replica_refresh(r);
    raft_set_time(r->raft, r->config.env->wall_ns(r->config.env));
    enum errc code = r->failed ? ERR_STOPPED : propose(r, &c, member, id);
    if (code != ERR_OK) {
        request_finish(op, code);
        return op;
    }
    op->id = id;
    op->sent_term = r->status.term;
    request_register(op);
    list_append(&r->sent, &op->link);
    replica_wake(r);
    return op;
}

const struct replica_member *replica_members(const struct replica *r, size_t *ret_count)
{
    const struct member_list *l = r->members.count ? &r->members : &r->initial;
    *ret_count = l->count;
    return l->members;
}
