/* Reading the log again from its oldest segment to what is synced, slice by slice: each batch's checksums
 * and its place in the chain, as recovery would. What is found here another member still has; what
 * recovery finds may be one loss too many. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/log/wal_internal.h"

static enum errc damaged(const struct wal_writer *w, const struct wal_scrub *s, uint64_t offset,
                         const char *what, struct error *err)
{
    return wal_corrupt(&w->dir, s->head.seq, offset, what, s->last_index + 1, 0, err);
}

/* Reads [s->at, s->at + n) of the segment, less at `limit`. */
static enum errc load(const struct wal_writer *w, struct wal_scrub *s, uint64_t seq, uint64_t n,
                      uint64_t limit, struct error *err)
{
    n = n < limit - s->at ? n : limit - s->at;
    char *path = wal_segment_path(&w->dir, seq);
    struct disk *disk = w->dir.disk;
    struct disk_file *file;
    enum errc rc = disk->open(disk, path, DISK_READ, &file, err);
    free(path);
    if (rc == ERR_NOT_FOUND)
        return wal_corrupt(&w->dir, seq, 0, "the segment is missing", s->last_index + 1, 0, err);
    if (rc)
        return rc;
    s->data.n = 0;
    buf_reserve(&s->data, n);
    size_t got = 0;
    rc = disk->read(disk, file, s->at, s->data.p, n, &got, err);
    disk->close(disk, file);
    s->data.n = got;
    if (!rc && got < n)
        rc = wal_corrupt(&w->dir, seq, s->at + got, "the file is shorter than it was",
                         s->last_index + 1, 0, err);
    return rc;
}

/* The head of a segment; `after`: it follows the one read before. */
static enum errc enter(const struct wal_writer *w, struct wal_scrub *s, uint64_t seq, bool after,
                       struct error *err)
{
    struct wal_head head;
    uint32_t chain;
    uint64_t end = s->at;
    s->at = 0;
    enum errc rc = load(w, s, seq, WAL_SECTOR, WAL_SECTOR, err);
    if (rc)
        return rc;
    if (!wal_head_decode(s->data.p, &head, &chain) || head.seq != seq)
        return wal_corrupt(&w->dir, seq, 0, "the segment's head is damaged",
                           after ? s->last_index + 1 : 0, 0, err);
    if (after && (head.prev_end != end || head.prev_chain != s->chain))
        return wal_corrupt(&w->dir, seq, 0, "the head contradicts the segment before",
                           s->last_index + 1, 0, err);
    s->begun = true;
    s->head = head;
    s->at = WAL_SECTOR;
    s->number = head.batch_number;
    s->chain = chain;
    s->last_index = head.last_index;
    return ERR_OK;
}

/* Up to where the segment at `i` holds batches: the next head says so, or the writer knows. */
static enum errc segment_end(const struct wal_writer *w, struct wal_scrub *s, size_t i,
                             uint64_t *ret_end, struct error *err)
{
    if (i + 1 == w->dir.segment_count) {
        *ret_end = w->synced;
        return ERR_OK;
    }
    uint64_t at = s->at, seq = w->dir.segments[i + 1].seq;
    struct wal_head next;
    uint32_t chain;
    s->at = 0;
    enum errc rc = load(w, s, seq, WAL_SECTOR, WAL_SECTOR, err);
    s->at = at;
    if (!rc && (!wal_head_decode(s->data.p, &next, &chain) || next.seq != seq))
        rc = wal_corrupt(&w->dir, seq, 0, "the segment's head is damaged", 0, 0, err);
    if (!rc && (next.prev_end < at || next.prev_end > w->dir.segments[i].bytes))
        rc = wal_corrupt(&w->dir, seq, 0, "the head contradicts the segment before",
                         s->last_index + 1, 0, err);
    if (!rc)
        *ret_end = next.prev_end;
    return rc;
}

static void take_records(struct wal_scrub *s, struct bytes records)
{
    while (records.n > 0) {
        size_t n = WAL_RECORD_HEADER + get_le32(records.p + 4);
        const uint8_t *payload = records.p + WAL_RECORD_HEADER;
        if (get_le32(records.p + 8) == WAL_RECORD_ENTRY && n >= WAL_RECORD_HEADER + WAL_ENTRY_FIXED)
            s->last_index = get_le64(payload + 8);
        records = bytes_of(records.p + n, records.n - n);
    }
}

/* The batches in s->data, which begins at s->at. Only the last one may be there in part. */
static enum errc check_batches(const struct wal_writer *w, struct wal_scrub *s, uint64_t *ret_need,
                               struct error *err)
{
    size_t done = 0;
    *ret_need = 0;
    while (done < s->data.n) {
        struct bytes rest = bytes_of(s->data.p + done, s->data.n - done), records;
        struct wal_batch b;
        uint32_t chain;
        if (rest.n < WAL_SECTOR || !wal_batch_decode(rest.p, &b, &chain))
            return damaged(w, s, s->at, "damage to a batch that had been written and synced", err);
        uint64_t whole = wal_round_up((uint64_t)WAL_BATCH_HEADER + b.length);
        if (whole > rest.n) {
            *ret_need = whole;
            return ERR_OK;
        }
        if (!wal_batch_check(rest, &s->head, s->at, s->number, s->chain, &b, &records, &chain))
            return damaged(w, s, s->at, "damage to a batch that had been written and synced", err);
        take_records(s, records);
        s->number = b.number;
        s->chain = chain;
        s->at += whole;
        done += whole;
    }
    return ERR_OK;
}

/* A slice within the segment at `i`, which ends at `end`. */
static enum errc read_on(const struct wal_writer *w, struct wal_scrub *s, size_t i, uint64_t end,
                         struct error *err)
{
    uint64_t seq = w->dir.segments[i].seq, need, from = s->at;
    enum errc rc = load(w, s, seq, WAL_SCRUB_BYTES, end, err);
    if (!rc)
        rc = check_batches(w, s, &need, err);
    if (rc || need == 0 || s->at > from)
        return rc;
    /* One batch that is longer than a slice. */
    if (need > end - s->at)
        return damaged(w, s, s->at, "damage to a batch that had been written and synced", err);
    rc = load(w, s, seq, need, end, err);
    return rc ? rc : check_batches(w, s, &need, err);
}

enum errc wal_scrub_slice(struct wal_writer *w, struct wal_scrub *s, struct error *err)
{
    assert(w->dir.segment_count > 0);
    size_t i = 0;
    while (s->begun && i < w->dir.segment_count && w->dir.segments[i].seq != s->head.seq)
        i++;
    bool dropped = i == w->dir.segment_count; /* meanwhile: begin with what is left */
    i = dropped ? 0 : i;
    enum errc rc = ERR_OK;
    if (!s->begun || dropped)
        rc = enter(w, s, w->dir.segments[i].seq, false, err);
    uint64_t end = 0;
    if (!rc)
        rc = segment_end(w, s, i, &end, err);
    if (!rc && s->at < end)
        rc = read_on(w, s, i, end, err);
    if (!rc && s->at == end && i + 1 < w->dir.segment_count) {
        rc = enter(w, s, w->dir.segments[i + 1].seq, true, err);
    } else if (!rc && s->at == end) {
        s->begun = false;
        s->passes++;
    }
    if (s->data.cap > 4 * WAL_SCRUB_BYTES) /* one huge entry does not keep its memory */
        buf_free(&s->data);
    return rc;
}
