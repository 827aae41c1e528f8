/* Snapshots: out to members that lag behind the log, in from a leader. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

/* ---- out ---------------------------------------------------------------------------------------- */

struct replica_snapshot *replica_snapshot_open(struct replica *r, uint64_t to,
                                               struct raft_message *ret_message)
{
    replica_refresh(r);
    if (!replica_leads(r) || r->failed || r->closing) {
        raft_report_snapshot(r->raft, to, false);
        return NULL;
    }
    struct replica_snapshot *s = xcalloc(1, sizeof(*s));
    s->replica = r;
    s->to = to;
    uint64_t term;
    s->source = mvcc_snapshot_begin(r->store, &s->index, &term);
    list_init(&s->link);
    list_append(&r->snapshots, &s->link);
    /* The membership is as of the applied entry, like the data (canonical/raft#250). */
    *ret_message = (struct raft_message){
        .type = RAFT_MSG_SNAPSHOT,
        .from = r->member_id,
        .to = to,
        .term = r->status.term,
        .snapshot_index = s->index,
        .snapshot_term = term,
    };
    member_list_conf(&r->members, &ret_message->snapshot_conf);
    return s;
}

/* Damage that a snapshot comes upon is this member's own: it would come upon it again and again. */
static void on_out_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct replica_snapshot *s = ctx;
    struct replica *r = s->replica;
    s->done(s->ctx, code, chunk, last); /* may end it */
    if (code != ERR_CORRUPT)
        return;
    struct error err;
    error_set(&err, code,
              "a row of the store is damaged (its checksum is wrong; found by a snapshot)");
    replica_fail(r, &err);
}

void replica_snapshot_next(struct replica_snapshot *s,
                           void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                           void *ctx)
{
    s->done = done;
    s->ctx = ctx;
    mvcc_snapshot_next(s->source, on_out_chunk, s);
}

void replica_snapshot_sent(struct replica_snapshot *s, bool ok)
{
    struct replica *r = s->replica;
    list_remove(&s->link);
    mvcc_snapshot_end(s->source);
    raft_report_snapshot(r->raft, s->to, ok);
    free(s);
    replica_wake(r);
}

uint64_t snapshot_lowest(const struct replica *r)
{
    uint64_t lowest = UINT64_MAX;
    for (const struct list *it = r->snapshots.next; it != &r->snapshots; it = it->next) {
        const struct replica_snapshot *s = CONTAINER_OF(it, struct replica_snapshot, link);
        if (s->index < lowest)
            lowest = s->index;
    }
    return lowest;
}

/* ---- in ----------------------------------------------------------------------------------------- */

static void answer(struct replica *r, enum errc code)
{
    void (*done)(void *, enum errc) = r->in.done;
    void *ctx = r->in.ctx;
    r->in.done = NULL;
    if (done)
        done(ctx, code);
}

static void give_up(struct replica *r)
{
    r->in.done = NULL;
    r->in.doomed = true;
    if (r->in.busy)
        return; /* the store takes a new one only when it is through with the old */
    mvcc_restore_abort(r->in.restore);
    r->in = (struct incoming){0};
}

/* The store is done with a step; false if the snapshot has been given up meanwhile. */
static bool step_done(struct replica *r)
{
    r->in.busy = false;
    if (r->in.doomed)
        give_up(r);
    return r->in.restore != NULL;
}

enum errc replica_receive_snapshot_begin(struct replica *r, const struct raft_message *m)
{
    replica_refresh(r);
    if (m->type != RAFT_MSG_SNAPSHOT || m->term < r->status.term || m->snapshot_index == 0)
        return ERR_INVALID;
    if (MUTANT(second_snapshot_replaces_first) && r->in.restore)
        give_up(r); /* e#18055 */
    if (r->failed || r->closing || r->in.restore)
        return ERR_BUSY;
    if (m->snapshot_index <= r->status.commit) {
        raft_step(r->raft, m); /* answers with what this member has */
        replica_wake(r);
        return ERR_EXISTS;
    }
    r->in = (struct incoming){.message = *m, .restore = mvcc_restore_begin(r->store)};
    return ERR_OK;
}

static void on_verified(void *ctx, enum errc code, uint64_t index, uint64_t term)
{
    struct replica *r = ctx;
    if (!step_done(r))
        return;
    const struct raft_message *m = &r->in.message;
    if (code == ERR_OK && (index != m->snapshot_index || term != m->snapshot_term))
        code = ERR_INVALID;
    if (code != ERR_OK) {
        void (*done)(void *, enum errc) = r->in.done;
        void *done_ctx = r->in.ctx;
        give_up(r);
        if (done)
            done(done_ctx, code);
        return;
    }
    r->in.verified = true;
    raft_step(r->raft, m);
    leader_hears(r, m->from);
    replica_wake(r);
    answer(r, ERR_OK);
}

static void on_chunk(void *ctx, enum errc code)
{
    struct replica *r = ctx;
    if (!step_done(r))
        return;
    if (code == ERR_OK && r->in.last) {
        r->in.busy = true;
        mvcc_restore_finish(r->in.restore, on_verified, r);
    } else {
        answer(r, code);
    }
}

void replica_receive_snapshot_chunk(struct replica *r, struct bytes chunk, bool last,
                                    void (*done)(void *ctx, enum errc code), void *ctx)
{
    assert(r->in.restore && !r->in.done && !r->in.last);
    r->in.last = last;
    r->in.done = done;
    r->in.ctx = ctx;
    r->in.busy = true;
    mvcc_restore_chunk(r->in.restore, chunk, on_chunk, r);
}

void replica_receive_snapshot_abort(struct replica *r)
{
    /* Once it is verified it is the core's: it is as good as installed. */
    if (r->in.restore && !r->in.verified)
        give_up(r);
}

void snapshot_drop_refused(struct replica *r)
{
    if (r->in.restore && r->in.verified && !r->in.installing && !raft_has_ready(r->raft))
        give_up(r);
}

static void on_installed(void *ctx, enum errc code)
{
    struct replica *r = ctx;
    struct raft_message m = r->in.message;
    struct error err = {0};
    r->in = (struct incoming){0};
    if (r->close_later) {
        replica_close_now(r);
        return;
    }
    if (code == ERR_OK)
        code = apply_load(r->apply, &err);
    if (code == ERR_OK)
        code = members_load(r, &err);
    if (code != ERR_OK) {
        if (err.code == ERR_OK)
            error_set(&err, code, "a received snapshot can't be installed: %s", errc_text(code));
        replica_fail(r, &err);
        return;
    }
    assert(mvcc_applied_index(r->store) == m.snapshot_index);
    wal_reset(r->wal, m.snapshot_index, m.snapshot_term, NULL, NULL, 0);
    raft_snapshot_installed(r->raft, m.snapshot_index, m.snapshot_term, &m.snapshot_conf);
    propose_settle_unseen(r);
    drive_applied_jumped(r, m.snapshot_index);
    watch_hub_store_replaced(r->hub);
    members_tell(r);
    replica_wake(r);
}

void snapshot_install(struct replica *r, const struct raft_ready *ready)
{
    assert(r->in.restore && r->in.verified);
    assert(r->in.message.snapshot_index == ready->snapshot_index);
    r->in.installing = true;
    mvcc_restore_install(r->in.restore, on_installed, r);
}
