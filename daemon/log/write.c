/* The worker's side of appending: operations become batches, batches go into segments. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/mutant.h"

static uint64_t segment_bytes(const struct wal_writer *w)
{
    return w->dir.segments[w->dir.segment_count - 1].bytes;
}

static enum errc sync_segment(struct wal_writer *w, struct error *err)
{
    assert(w->batch.n == 0);
    if (w->synced == w->offset)
        return ERR_OK;
    /* The page cache will do. */
    enum errc rc =
        MUTANT(ack_page_cache_only) ? ERR_OK : w->dir.disk->sync(w->dir.disk, w->file, err);
    if (!rc)
        w->synced = w->offset;
    return rc;
}

static void begin_batch(struct wal_writer *w)
{
    if (w->batch.n > 0)
        return;
    buf_reserve(&w->batch, WAL_BATCH_HEADER);
    w->batch.n = WAL_BATCH_HEADER;
    w->batch_records = 0;
}

/* Writes the batch being built; it is not synced yet. */
static enum errc flush_batch(struct wal_writer *w, struct error *err)
{
    if (w->batch.n == 0)
        return ERR_OK;
    size_t length = w->batch.n - WAL_BATCH_HEADER;
    struct wal_batch b = {
        .seq = w->head.seq,
        .nonce = w->head.nonce,
        .offset = w->offset,
        .number = w->batch_number + 1,
        .synced = w->synced,
        .length = (uint32_t)length,
        .prev_chain = w->chain,
        .records = w->batch_records,
    };
    uint32_t chain = wal_batch_encode(&b, w->batch.p);
    chain = wal_records_seal(w->batch.p + WAL_BATCH_HEADER, length, chain);
    size_t padded = (size_t)wal_round_up(w->batch.n);
    buf_reserve(&w->batch, padded - w->batch.n);
    memset(w->batch.p + w->batch.n, 0, padded - w->batch.n);
    assert(w->offset + padded <= segment_bytes(w));
    enum errc rc = w->dir.disk->write(w->dir.disk, w->file, w->offset, w->batch.p, padded, err);
    if (rc)
        return rc;
    w->vouched = w->batch_records == 0;
    w->batch_number++;
    w->chain = chain;
    w->offset += padded;
    w->batch.n = 0;
    if (w->batch.cap > 2 * WAL_BATCH_BYTES) /* one huge entry does not keep its memory */
        buf_free(&w->batch);
    return ERR_OK;
}

/* Goes on in a new segment that has room for `bytes` behind its head. All that was written before is on disk
 * when there is no space for it. */
static enum errc roll(struct wal_writer *w, uint64_t bytes, struct error *err)
{
    enum errc rc = sync_segment(w, err);
    if (rc)
        return rc;
    struct wal_head head = {
        .cluster_id = w->head.cluster_id,
        .member_id = w->head.member_id,
        .seq = w->head.seq + 1,
        .prev_end = w->offset,
        .prev_chain = w->chain,
        .batch_number = w->batch_number,
        .base_index = w->base_index,
        .base_term = w->base_term,
        .last_index = w->last_index,
        .has_hard_state = w->has_hard_state,
        .hard_state = w->hard_state,
    };
    struct disk_file *file;
    rc = wal_segment_create(&w->dir, &head, WAL_SECTOR + bytes, &file, &w->chain, err);
    w->starved = rc == ERR_NO_SPACE;
    if (rc)
        return rc;
    w->dir.disk->close(w->dir.disk, w->file);
    w->file = file;
    w->head = head;
    w->offset = w->synced = WAL_SECTOR;
    w->hard_state_unwritten = w->base_unwritten = false; /* the head has them */
    return ERR_OK;
}

/* How many of a segment's last sectors stay free of what: the last is for a base record, which frees other
 * segments, the one before it for a watermark. */
enum keep { KEEP_FOR_BASE_AND_WATERMARK = 2, KEEP_FOR_BASE = 1, KEEP_NOTHING = 0 };

static uint64_t room_of(const struct wal_writer *w, enum keep keep)
{
    uint64_t room = segment_bytes(w) - w->offset, kept = (uint64_t)keep * WAL_SECTOR;
    return room > kept ? room - kept : 0;
}

/* Makes the batch one that a record of `bytes` can be added to. */
static enum errc make_room(struct wal_writer *w, size_t bytes, enum keep keep, struct error *err)
{
    begin_batch(w);
    uint64_t room = room_of(w, keep);
    bool full = w->batch_records > 0 && w->batch.n + bytes > WAL_BATCH_BYTES;
    bool fits = wal_round_up(w->batch.n + bytes) <= room;
    if (fits && !full)
        return ERR_OK;
    if (w->batch_records > 0) {
        enum errc rc = flush_batch(w, err);
        if (rc)
            return rc;
    }
    w->batch.n = 0;
    room = room_of(w, keep);
    uint64_t need = wal_round_up(WAL_BATCH_HEADER + bytes);
    if (need > room) {
        if (need > WAL_SEGMENT_BYTES_MAX - 3 * WAL_SECTOR)
            return error_set(err, ERR_REQUEST_TOO_LARGE, "%s: a record of %zu bytes is too large",
                             w->dir.path, bytes);
        enum errc rc = roll(w, need + (uint64_t)keep * WAL_SECTOR, err);
        if (rc)
            return rc;
    }
    begin_batch(w);
    return ERR_OK;
}

static enum errc add_hard_state(struct wal_writer *w, struct error *err)
{
    enum errc rc = make_room(w, WAL_RECORD_HEADER + 24, KEEP_FOR_BASE_AND_WATERMARK, err);
    if (rc)
        return rc;
    wal_put_hard_state(&w->batch, &w->hard_state);
    w->batch_records++;
    w->hard_state_unwritten = false;
    return ERR_OK;
}

static enum errc add_position(struct wal_writer *w, enum wal_record_type type, uint64_t index,
                              uint64_t term, struct error *err)
{
    enum errc rc = make_room(w, WAL_RECORD_HEADER + 16, KEEP_NOTHING, err);
    if (rc)
        return rc;
    wal_put_position(&w->batch, type, index, term);
    w->batch_records++;
    w->base_unwritten = false;
    return ERR_OK;
}

static enum errc add_entry(struct wal_writer *w, const struct raft_entry *e, struct error *err)
{
    enum errc rc = make_room(w, wal_entry_bytes(e), KEEP_FOR_BASE_AND_WATERMARK, err);
    if (rc)
        return rc;
    wal_put_entry(&w->batch, e);
    w->batch_records++;
    w->last_index = e->index;
    struct wal_segment *s = &w->dir.segments[w->dir.segment_count - 1];
    s->max_index = e->index > s->max_index ? e->index : s->max_index;
    return ERR_OK;
}

/* The hard state goes before its entries: an entry never has a later term than the hard state that a
 * torn append leaves. The other way round, a commit index beyond the entries, recovery clamps. */
static enum errc write_append(struct wal_writer *w, struct wal_op *op, struct error *err)
{
    if (op->has_hard_state && !op->begun) {
        bool promise = !w->has_hard_state || op->hard_state.term != w->hard_state.term ||
                       op->hard_state.vote != w->hard_state.vote;
        promise = promise && !MUTANT(vote_not_persisted); /* a vote is only a hint */
        bool news = promise || op->hard_state.commit != w->hard_state.commit;
        w->has_hard_state = true;
        w->hard_state = op->hard_state;
        w->hard_state_unwritten = w->hard_state_unwritten || news;
        op->promise = promise;
    }
    op->begun = true;
    if (op->has_hard_state && !op->promise && op->entry_count == 0)
        return ERR_OK; /* only a hint: it goes with the next batch, and needs no sync */
    enum errc rc = w->hard_state_unwritten && (op->entry_count > 0 || op->has_hard_state)
                       ? add_hard_state(w, err)
                       : ERR_OK;
    while (!rc && op->entries_written < op->entry_count) {
        rc = add_entry(w, op->entries[op->entries_written], err);
        op->entries_written += !rc;
    }
    return rc;
}

static enum errc write_cut(struct wal_writer *w, const struct wal_op *op, struct error *err)
{
    if (op->index <= w->base_index)
        return ERR_OK;
    w->base_index = op->index;
    w->base_term = op->term;
    w->base_unwritten = true;
    if (!wal_segments_droppable(&w->dir, op->index))
        return ERR_OK; /* nothing to gain yet that would be worth a write */
    return add_position(w, WAL_RECORD_BASE, op->index, op->term, err);
}

static enum errc write_reset(struct wal_writer *w, const struct wal_op *op, struct error *err)
{
    enum errc rc = add_position(w, WAL_RECORD_RESET, op->index, op->term, err);
    if (rc)
        return rc;
    w->base_index = w->last_index = op->index;
    w->base_term = op->term;
    for (size_t i = 0; i < w->dir.segment_count; i++)
        w->dir.segments[i].max_index = 0;
    return ERR_OK;
}

/* Only a base that is on disk frees segments: without it recovery would miss their entries. */
static enum errc drop_segments(struct wal_writer *w, struct error *err)
{
    bool dropped;
    return w->base_unwritten ? ERR_OK : wal_segments_drop(&w->dir, w->base_index, &dropped, err);
}

/* The cut that waits may free a segment, which then is the next. All that was written is on disk. */
static enum errc make_way(struct wal_writer *w, struct error *err)
{
    if (w->hint_index > w->base_index) {
        w->base_index = w->hint_index;
        w->base_term = w->hint_term;
        w->base_unwritten = true;
    }
    if (!wal_segments_droppable(&w->dir, w->base_index))
        return ERR_OK;
    enum errc rc = ERR_OK;
    if (w->base_unwritten && room_of(w, KEEP_NOTHING) >= WAL_SECTOR) {
        rc = add_position(w, WAL_RECORD_BASE, w->base_index, w->base_term, err);
        if (!rc)
            rc = flush_batch(w, err);
        if (!rc)
            rc = sync_segment(w, err);
    }
    return rc ? rc : drop_segments(w, err);
}

enum errc wal_write_ops(struct wal_writer *w, struct wal_op *ops, struct error *err)
{
    if (w->starved) {
        w->starved = false;
        enum errc rc = make_way(w, err);
        if (rc)
            return rc;
    }
    for (struct wal_op *op = ops; op; op = op->next) {
        enum errc rc = ERR_OK;
        if (op->written)
            continue;
        switch (op->kind) {
        case WAL_OP_APPEND:
            rc = write_append(w, op, err);
            break;
        case WAL_OP_CUT:
            rc = write_cut(w, op, err);
            break;
        case WAL_OP_RESET:
            rc = write_reset(w, op, err);
            break;
        }
        if (rc)
            return rc;
        op->written = true;
    }
    enum errc rc = flush_batch(w, err);
    if (!rc)
        rc = sync_segment(w, err);
    return rc ? rc : drop_segments(w, err);
}

enum errc wal_write_watermark(struct wal_writer *w, struct error *err)
{
    assert(w->synced == w->offset && w->batch.n == 0);
    if (w->offset == WAL_SECTOR || w->vouched)
        return ERR_OK;
    if (room_of(w, KEEP_FOR_BASE) < WAL_SECTOR) {
        w->vouched = true; /* by the next head, or there is no space even for a spare */
        return w->dir.has_spare ? roll(w, 0, err) : ERR_OK;
    }
    begin_batch(w);
    enum errc rc = flush_batch(w, err);
    return rc ? rc : sync_segment(w, err);
}

enum errc wal_write_closing(struct wal_writer *w, struct error *err)
{
    bool nothing_to_vouch_for = w->offset == WAL_SECTOR || w->vouched;
    if (nothing_to_vouch_for && !w->hard_state_unwritten && !w->base_unwritten)
        return ERR_OK;
    enum errc rc = ERR_OK;
    if (w->hard_state_unwritten)
        rc = add_hard_state(w, err);
    if (!rc && w->base_unwritten)
        rc = add_position(w, WAL_RECORD_BASE, w->base_index, w->base_term, err);
    if (rc)
        return rc;
    rc = make_room(w, 0, KEEP_FOR_BASE, err);
    if (!rc)
        rc = flush_batch(w, err);
    return rc ? rc : sync_segment(w, err);
}

void wal_writer_free(struct wal_writer *w)
{
    if (w->file)
        w->dir.disk->close(w->dir.disk, w->file);
    buf_free(&w->batch);
    wal_dir_free(&w->dir);
}
