#include "tests/sim/note.h"

#include <stdio.h>

#include "lib/base/memory.h"
#include "proto/raft.pb-c.h"
#include "tests/sim/sim.h"

typedef unsigned long long ull;

/* ---- entries ------------------------------------------------------------------------------------ */

static uint64_t key_of(ProtobufCBinaryData key)
{
    uint64_t n = 0;
    for (size_t i = 1; i < key.len && key.data[i] >= '0' && key.data[i] <= '9'; i++)
        n = n * 10 + (uint64_t)(key.data[i] - '0');
    return n;
}

static uint64_t request_of(ProtobufCBinaryData value)
{
    return model_request_of(model_value_number(bytes_of(value.data, value.len)));
}

/* The first put of a transaction, NULL: none. */
static const Etcdserverpb__PutRequest *put_of(const Etcdserverpb__TxnRequest *t)
{
    for (size_t i = 0; i < t->n_success; i++) {
        if (t->success[i]->request_case == ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT)
            return t->success[i]->request_put;
    }
    return NULL;
}

static void note_txn(struct world *w, const struct simnode *n, const struct raft_entry *e,
                     const Etcdserverpb__TxnRequest *t)
{
    const Etcdserverpb__PutRequest *put = put_of(t);
    if (put)
        NOTE5(w, "+entry %i of term %t is new, in the log of %m: a transaction on %k (request %v)",
              e->index, e->term, n->id, key_of(put->key), request_of(put->value));
    else
        NOTE3(w, "+entry %i of term %t is new, in the log of %m: a transaction", e->index, e->term,
              n->id);
}

static void note_command(struct world *w, const struct simnode *n, const struct raft_entry *e,
                         const Raftpb__InternalRequest *q)
{
    switch (q->request_case) {
    case RAFTPB__INTERNAL_REQUEST__REQUEST_PUT:
        NOTE5(w, "+entry %i of term %t is new, in the log of %m: put %k (request %v)", e->index,
              e->term, n->id, key_of(q->put->key), request_of(q->put->value));
        if (q->put->lease)
            NOTE2(w, "+entry %i puts it with lease %l", e->index, q->put->lease);
        break;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_DELETE_RANGE:
        NOTE4(w, "+entry %i of term %t is new, in the log of %m: delete, from %k on", e->index,
              e->term, n->id, key_of(q->delete_range->key));
        break;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_TXN:
        note_txn(w, n, e, q->txn);
        break;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_COMPACTION:
        NOTE4(w, "+entry %i of term %t is new, in the log of %m: compact up to %u", e->index,
              e->term, n->id, q->compaction->revision);
        break;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_GRANT:
        NOTE5(w, "+entry %i of term %t is new, in the log of %m: grant lease %l for %u s", e->index,
              e->term, n->id, q->lease_grant->id, q->lease_grant->ttl);
        break;
    case RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_REVOKE:
        NOTE4(w, "+entry %i of term %t is new, in the log of %m: revoke lease %l", e->index,
              e->term, n->id, q->lease_revoke->id);
        break;
    default:
        NOTE4(w, "+entry %i of term %t is new, in the log of %m: a request of kind %u", e->index,
              e->term, n->id, q->request_case);
    }
}

void note_entry(struct simnode *n, const struct raft_entry *e)
{
    struct world *w = &n->sim->world;
    if (e->type != RAFT_ENTRY_COMMAND) {
        NOTE3(w,
              e->size ? "+entry %i of term %t is new, in the log of %m: a membership change"
                      : "+entry %i of term %t is new, in the log of %m: the first of a new leader",
              e->index, e->term, n->id);
        return;
    }
    Raftpb__InternalRequest *q = raftpb__internal_request__unpack(NULL, e->size, e->data);
    if (q)
        note_command(w, n, e, q);
    raftpb__internal_request__free_unpacked(q, NULL);
}

void note_applied(struct simnode *n, const struct raft_entry *e)
{
    TRACE3(&n->sim->world, "%m is the first to apply entry %i of term %t", n->id, e->index,
           e->term);
}

/* ---- messages ----------------------------------------------------------------------------------- */

static void note_append(struct world *w, const struct simnode *n, const struct raft_message *m)
{
    if (m->entry_count > 0)
        TRACE5(w, ">%m gets entries %i to %j from %m, its leader in term %t", n->id, m->index + 1,
               m->index + m->entry_count, m->from, m->term);
    else
        TRACE4(w, ".%m gets no entries after %u from %m, its leader in term %t", n->id, m->index,
               m->from, m->term);
}

static void note_reply(struct world *w, const struct simnode *n, const struct raft_message *m)
{
    if (m->reject)
        TRACE4(w, ">%m hears from %m that its log does not match before entry %u (term %t)", n->id,
               m->from, m->index, m->term);
    else
        TRACE4(w, ">%m hears from %m that all up to entry %a is on its disk (term %t)", n->id,
               m->from, m->index, m->term);
}

static void note_vote(struct world *w, const struct simnode *n, const struct raft_message *m)
{
    const char *words;
    if (m->type == RAFT_MSG_VOTE)
        words = "?%m is asked by %m for its vote in term %t (whose last entry is %u)";
    else if (m->type == RAFT_MSG_PREVOTE)
        words = "?%m is asked by %m whether it would vote in term %t (its last entry is %u)";
    else if (m->type == RAFT_MSG_VOTE_REPLY)
        words = m->reject ? "?%m is refused the vote of %m in term %t"
                          : "?%m gets the vote of %m in term %t";
    else
        words = m->reject ? "?%m hears that %m would not vote for it in term %t"
                          : "?%m hears that %m would vote for it in term %t";
    TRACE4(w, words, n->id, m->from, m->term, m->index);
}

void note_message(struct simnode *n, const struct raft_message *m)
{
    struct world *w = &n->sim->world;
    switch (m->type) {
    case RAFT_MSG_APPEND:
        note_append(w, n, m);
        break;
    case RAFT_MSG_APPEND_REPLY:
        note_reply(w, n, m);
        break;
    case RAFT_MSG_VOTE:
    case RAFT_MSG_VOTE_REPLY:
    case RAFT_MSG_PREVOTE:
    case RAFT_MSG_PREVOTE_REPLY:
        note_vote(w, n, m);
        break;
    case RAFT_MSG_TIMEOUT_NOW:
        TRACE3(w, "=%m is told by %m to campaign at once, in term %t", n->id, m->from, m->term);
        break;
    case RAFT_MSG_PROPOSE:
        TRACE2(w, ".%m gets a proposal from %m", n->id, m->from);
        break;
    default:
        TRACE5(w, ".%m gets a message of %m (kind %u, term %t, %u)", n->id, m->from, m->type,
               m->term, m->index);
    }
    world_mix(w, m->commit ^ (uint64_t)m->entry_count << 40 ^ (uint64_t)m->type << 52 ^
                     (uint64_t)m->reject << 60);
}

void note_lost(struct sim *s, const char *why, uint64_t from, uint64_t to, uint64_t first,
               uint64_t last)
{
    if (first)
        NOTE4(&s->world, why, first, last, from, to);
}

/* ---- requests ----------------------------------------------------------------------------------- */

void note_request(struct sim *s, size_t client, uint64_t node, const struct simreq *q,
                  int64_t floor)
{
    static const char *const words[] = {
        [REQ_PUT] = ">%c asks %m to put %k (request %v)",
        [REQ_DELETE] = ">%c asks %m to delete %k (request %v)",
        [REQ_DELETE_RANGE] = ">%c asks %m to delete some keys from %k on (request %v)",
        [REQ_CAS] = ">%c asks %m to swap %k (request %v)",
        [REQ_NESTED] = ">%c asks %m for a nested transaction on %k (request %v)",
        [REQ_OLD_TXN] = ">%c asks %m to read %k of long ago and put it (request %v)",
        [REQ_GET] = ">%c asks %m for %k (request %v; it knows of revision %r)",
        [REQ_RANGE] = ">%c asks %m for keys from %k on (request %v; it knows of revision %r)",
    };
    struct world *w = &s->world;
    if (q->kind == REQ_COMPACT)
        TRACE4(w, ">%c asks %m to compact the history up to %u (request %v)", client, node,
               q->revision, q->value);
    else
        TRACE5(w, words[q->kind], client, node, q->key, q->value, floor);
    world_mix(w, q->kind);
}

void note_lease_request(struct sim *s, uint64_t node, const struct simreq *q)
{
    static const char *const words[] = {
        [REQ_GRANT] = "%m is asked to grant lease %l, for %u s",
        [REQ_REVOKE] = "%m is asked to revoke lease %l",
        [REQ_KEEPALIVE] = "%m is asked to renew lease %l",
    };
    if (q->kind == REQ_PUT)
        NOTE4(&s->world, "%m is asked to put with lease %l %k (request %v)", node, q->lease, q->key,
              q->value);
    else
        NOTE3(&s->world, words[q->kind], node, q->lease, q->ttl);
}

/* ---- disks -------------------------------------------------------------------------------------- */

static const char *disk_words(enum simdisk_op op)
{
    switch (op) {
    case SIMDISK_WRITE:
        return "*%m writes to %f";
    case SIMDISK_SYNC:
        return "*%m syncs %f";
    case SIMDISK_TRUNCATE:
        return "*%m sets the size of %f";
    case SIMDISK_ALLOCATE:
        return "*%m takes space for %f";
    case SIMDISK_RENAME:
        return "*%m renames %f";
    case SIMDISK_UNLINK:
        return "*%m deletes %f";
    case SIMDISK_SYNC_DIR:
        return "*%m syncs the folder %f";
    default:
        return NULL;
    }
}

void note_disk(void *ctx, enum simdisk_op op, const char *path)
{
    struct simnode *n = ctx;
    const char *words = disk_words(op);
    if (words)
        NOTE2(&n->sim->world, words, n->id, trace_file(&n->sim->world.trace, path));
}

/* ---- what is wrong now -------------------------------------------------------------------------- */

static void print_until(const char *what, uint64_t until, uint64_t now)
{
    if (until > now)
        fprintf(stderr, "; %s for %llu ms more", what, (ull)((until - now) / MS));
}

static void print_member(const struct simnode *n)
{
    uint64_t now = n->sim->world.now;
    if (n->gone && !n->lost)
        return;
    fprintf(stderr, "  n%llu %s", (ull)n->id,
            n->lost       ? "has lost its disk"
            : !n->replica ? "is down"
                          : "runs");
    print_until("paused", n->paused_until, now);
    print_until("its disk hangs", n->hung_until, now);
    print_until("its disk is slow", n->slow_until, now);
    if (simdisk_is_limited(n->disk))
        fprintf(stderr, "; its disk is full");
    if (n->damaged)
        fprintf(stderr, "; its disk was harmed");
    if (n->disk_failed)
        fprintf(stderr, "; its disk has failed an operation");
    if (n->clock_ppm)
        fprintf(stderr, "; its clock is %lld ppm fast", (long long)n->clock_ppm);
    if (n->wall_skew)
        fprintf(stderr, "; its wall clock is %lld ms off", (long long)(n->wall_skew / (int64_t)MS));
    fprintf(stderr, "\n");
}

static void print_links(const struct sim *s)
{
    const char *before = "  cut links:";
    for (uint64_t a = 1; a <= s->node_count; a++) {
        for (uint64_t b = 1; b <= s->node_count; b++) {
            const struct link *l = &s->net.links[a][b];
            if (s->nodes[a - 1]->gone || s->nodes[b - 1]->gone || (!l->cut && !l->slow))
                continue;
            fprintf(stderr, "%s n%llu to n%llu%s", before, (ull)a, (ull)b, l->cut ? "" : " (slow)");
            before = ",";
        }
    }
    fprintf(stderr, "%s", before[0] == ',' ? "\n" : "");
}

void note_state(void *ctx)
{
    const struct sim *s = ctx;
    const struct faults *f = &s->faults;
    char kinds[1024];
    without_print(without_drawn(f), kinds, sizeof(kinds));
    fprintf(stderr, "at this moment%s:\n", s->calm ? " (no new faults any more)" : "");
    for (size_t i = 0; i < s->node_count; i++)
        print_member(s->nodes[i]);
    print_links(s);
    if (!s->calm)
        fprintf(stderr, "  packets: %u%% lost, %u%% twice, %u%% out of order, %u%% late\n",
                f->loss_percent, f->duplicate_percent, f->reorder_percent, f->late_percent);
    fprintf(stderr, "seed %llu: %zu members, %zu clients, scenario %s; faults: %s\n",
            (ull)s->world.seed, s->initial_count, s->clients.count, scenario_name(s->scenario.kind),
            kinds[0] ? kinds : "none");
}
