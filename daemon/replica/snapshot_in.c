/* Snapshots on their way in, from a leader.
 *
 * What has been received outlives the stream that brought it, and the process: the store keeps it, and a later
 * stream of the very same snapshot goes on with it. Any other snapshot takes its place. It is thrown away when
 * it is found to be wrong, when the disk is full, when the log has brought this member past it, or when
 * nobody has gone on with it for REPLICA_RECEIVED_KEEP_MS. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/crc32c.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

/* ---- the stream ---------------------------------------------------------------------------------- */

/* Tells the stream, and it is over if that is a failure. */
static void answer(struct replica *r, enum errc code)
{
    struct incoming *in = &r->in;
    struct replica_receiver to = in->receiver;
    bool beginning = in->beginning, storing = in->storing;
    in->beginning = in->storing = false;
    if (code != ERR_OK) {
        in->stream = 0;
        in->left_ms = replica_now_ms(r);
    }
    if (beginning)
        to.begun(to.ctx, code, in->at);
    else if (storing)
        to.stored(to.ctx, code);
}

/* ---- throwing away ------------------------------------------------------------------------------- */

static void advance(struct replica *r);

/* As soon as the store is through with what it does for it. */
static void give_up(struct replica *r)
{
    r->in.doomed = r->in.restore != NULL;
    advance(r);
}

static void note_thrown_away(struct replica *r, const char *why)
{
    char text[320];
    snprintf(text, sizeof(text),
             "throws away %" PRIu64 " bytes that had been received of the snapshot at %" PRIu64
             " from member %" PRIx64 ": %s",
             r->in.at.offset, r->in.announcement.id.index, r->in.announcement.message.from, why);
    replica_note(r, text);
}

bool snapshot_in_drop(struct replica *r, enum errc code, const char *why)
{
    if (mvcc_has_partial(r->store) && !r->in.restore) {
        replica_note(r, "throws away what a former life had received of a snapshot");
        mvcc_drop_partial(r->store);
        return true;
    }
    if (!r->in.restore || r->in.verified || r->in.doomed)
        return false;
    if (r->in.stream)
        answer(r, code);
    note_thrown_away(r, why);
    give_up(r);
    return true;
}

static void drop_received(struct replica *r)
{
    mvcc_restore_abort(r->in.restore);
    r->in.restore = NULL;
    r->in.doomed = r->in.last = r->in.verified = false;
    r->in.at = (struct mvcc_snapshot_at){0};
}

/* ---- beginning, or going on ---------------------------------------------------------------------- */

static void on_resumed(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    struct replica *r = ctx;
    struct incoming *in = &r->in;
    in->busy = false;
    if (in->doomed) {
        advance(r);
        return;
    }
    in->at = at;
    in->last = false;
    if (in->beginning)
        answer(r, code);
    if (code != ERR_OK)
        give_up(r);
}

/* Goes on with what waits for the store. */
static void advance(struct replica *r)
{
    struct incoming *in = &r->in;
    if (in->busy)
        return; /* the store takes a new one only when it is through with the old */
    if (in->doomed)
        drop_received(r);
    if (!in->beginning)
        return;
    const struct mvcc_snapshot_id *id = &in->wanted.id;
    in->announcement = in->wanted;
    if (!in->restore)
        in->restore = mvcc_restore_begin(r->store, id->maker ? id : NULL);
    in->busy = true;
    mvcc_restore_resume(in->restore, on_resumed, r);
}

static bool is_same(const struct replica_announcement *a, const struct replica_announcement *b)
{
    return a->id.maker && a->id.maker == b->id.maker && a->id.serial == b->id.serial &&
           a->id.index == b->id.index && a->id.term == b->id.term;
}

/* Before it fills the disk, and then stops everybody's writes. */
static bool finds_room(struct replica *r, const struct replica_announcement *a)
{
    uint64_t free_bytes, have = is_same(a, &r->in.announcement) ? r->in.at.offset : 0;
    struct disk *disk = r->config.disk;
    if (disk->free_bytes(disk, r->config.data_dir, &free_bytes, NULL) != ERR_OK || a->size <= have)
        return true;
    return free_bytes >= a->size - have + space_low_mark(r);
}

static enum errc may_begin(struct replica *r, const struct replica_announcement *a)
{
    const struct raft_message *m = &a->message;
    const struct incoming *in = &r->in;
    if (m->type != RAFT_MSG_SNAPSHOT || m->term < r->status.term || m->snapshot_index == 0)
        return ERR_INVALID;
    if (r->failed || r->closing || (in->restore && in->verified))
        return ERR_BUSY;
    if (m->snapshot_index <= r->status.commit) {
        raft_step(r->raft, m); /* answers with what this member has */
        replica_wake(r);
        return ERR_EXISTS;
    }
    /* What comes late of a stream that its sender has given up. */
    if (in->stream && m->term == in->announcement.message.term &&
        m->snapshot_index < in->announcement.message.snapshot_index)
        return ERR_BUSY;
    return finds_room(r, a) ? ERR_OK : ERR_NO_SPACE;
}

enum errc replica_receive_snapshot_begin(struct replica *r, const struct replica_announcement *a,
                                         const struct replica_receiver *receiver,
                                         uint64_t *ret_stream)
{
    struct incoming *in = &r->in;
    replica_refresh(r);
    if (MUTANT(second_snapshot_replaces_first) && in->verified) { /* e#18055 */
        in->verified = false;
        give_up(r);
    }
    enum errc code = may_begin(r, a);
    if (code != ERR_OK)
        return code;
    if (in->stream)
        answer(r, ERR_CANCELLED);
    if (in->restore && !in->doomed && !is_same(a, &in->announcement))
        snapshot_in_drop(r, ERR_CANCELLED, "another one takes its place");
    in->receiver = *receiver;
    in->wanted = *a;
    *ret_stream = in->stream = ++in->streams;
    in->beginning = true;
    advance(r);
    return ERR_OK;
}

/* What is here is of no use. A stream that waits to go on with it begins anew. */
static void refuse(struct replica *r, enum errc code)
{
    if (r->in.storing)
        answer(r, code);
    note_thrown_away(r, code == ERR_CORRUPT ? "it is damaged" : errc_text(code));
    give_up(r);
}

static void on_verified(void *ctx, enum errc code, uint64_t index, uint64_t term)
{
    struct replica *r = ctx;
    struct incoming *in = &r->in;
    in->busy = false;
    if (in->doomed) {
        advance(r);
        return;
    }
    struct raft_message m = in->announcement.message;
    if (code == ERR_OK && (index != m.snapshot_index || term != m.snapshot_term))
        code = ERR_CORRUPT;
    if (code != ERR_OK) {
        refuse(r, code);
        return;
    }
    in->verified = true;
    raft_step(r->raft, &m);
    leader_hears(r, m.from);
    replica_wake(r);
    answer(r, in->beginning ? ERR_BUSY
                            : ERR_OK); /* another stream, that came meanwhile, or this one */
    in->stream = 0;
}

static void on_chunk(void *ctx, enum errc code)
{
    struct replica *r = ctx;
    struct incoming *in = &r->in;
    in->busy = false;
    if (in->doomed) {
        advance(r);
    } else if (code != ERR_OK) {
        refuse(r, code);
    } else if (in->last) {
        in->busy = true;
        mvcc_restore_finish(in->restore, in->announcement.id.maker ? &in->at : NULL, on_verified,
                            r);
    } else if (in->beginning) {
        advance(r); /* the stream of this chunk is gone, and the next one waits */
    } else if (in->storing) {
        answer(r, ERR_OK);
    }
}

enum errc replica_receive_snapshot_chunk(struct replica *r, uint64_t stream,
                                         const struct replica_chunk *chunk)
{
    struct incoming *in = &r->in;
    if ((stream != in->stream && !MUTANT(second_snapshot_replaces_first)) || stream == 0 ||
        in->doomed)
        return ERR_CANCELLED;
    assert(in->restore && !in->beginning && !in->storing && !in->busy);
    uint32_t sum = crc32c(in->at.sum, chunk->data.p, chunk->data.n);
    if (in->announcement.id.maker && !MUTANT(second_snapshot_replaces_first)) {
        if (chunk->offset != in->at.offset)
            return ERR_INVALID;
        if (chunk->sum != sum)
            return ERR_CORRUPT; /* on its way: what is here is good, and the next stream goes on with it */
    }
    in->at = (struct mvcc_snapshot_at){in->at.offset + chunk->data.n, sum};
    in->last = chunk->last;
    in->storing = in->busy = true;
    mvcc_restore_chunk(in->restore, chunk->data, on_chunk, r);
    return ERR_OK;
}

void replica_receive_snapshot_leave(struct replica *r, uint64_t stream)
{
    struct incoming *in = &r->in;
    if (stream == 0 || stream != in->stream)
        return;
    in->stream = 0;
    in->beginning = in->storing = false;
    in->left_ms = replica_now_ms(r);
    if (in->restore && !in->announcement.id.maker)
        give_up(r); /* no other stream can go on with it */
}

void snapshot_in_tick(struct replica *r)
{
    struct incoming *in = &r->in;
    uint64_t now = replica_now_ms(r);
    if (!in->left_ms)
        in->left_ms = now; /* of a former life's: since the start */
    if (in->stream || in->verified || in->doomed || in->busy)
        return;
    if (in->restore && in->announcement.message.snapshot_index <= r->status.commit)
        snapshot_in_drop(r, ERR_CANCELLED, "the log has brought this member past it");
    else if (now - in->left_ms >= REPLICA_RECEIVED_KEEP_MS)
        snapshot_in_drop(r, ERR_CANCELLED, "nobody goes on with it");
}

/* ---- installing --------------------------------------------------------------------------------- */

void snapshot_drop_refused(struct replica *r)
{
    if (r->in.restore && r->in.verified && !r->in.installing && !raft_has_ready(r->raft)) {
        r->in.verified = false;
        give_up(r);
    }
}

static void on_installed(void *ctx, enum errc code)
{
    struct replica *r = ctx;
    struct raft_message m = r->in.announcement.message;
    struct error err = {0};
    r->in = (struct incoming){.streams = r->in.streams};
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
    assert(r->in.announcement.message.snapshot_index == ready->snapshot_index);
    r->in.installing = true;
    mvcc_restore_install(r->in.restore, on_installed, r);
}
