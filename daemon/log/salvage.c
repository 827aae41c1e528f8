/* What can still be read of a log that recovery refuses: whole batches in their chain, up to the first
 * damage that matters. Nothing is changed. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/memory.h"

struct reader {
    struct disk *disk;
    const char *dir;
    struct wal_salvaged *out;
    struct buf *report;
    struct wal_dir names; /* for paths */
    uint64_t *seqs;
    size_t seq_count;
    struct buf data;
    bool begun;
    uint64_t last, number;
    uint32_t chain;
};

static void collect(void *ctx, const char *name)
{
    struct reader *r = ctx;
    uint64_t seq;
    if (!wal_segment_parse(name, &seq))
        return;
    r->seqs = xrealloc(r->seqs, (r->seq_count + 1) * sizeof(*r->seqs));
    r->seqs[r->seq_count++] = seq;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool load(struct reader *r, uint64_t seq)
{
    char *path = wal_segment_path(&r->names, seq);
    struct disk_file *file;
    struct error why = {0};
    enum errc rc = r->disk->open(r->disk, path, DISK_READ, &file, &why);
    free(path);
    uint64_t size = 0;
    size_t got = 0;
    r->data.n = 0;
    if (!rc) {
        rc = r->disk->size(r->disk, file, &size, &why);
        if (!rc && size <= WAL_SEGMENT_BYTES_MAX) {
            buf_reserve(&r->data, size + WAL_SECTOR);
            rc = r->disk->read(r->disk, file, 0, r->data.p, (size_t)size, &got, &why);
        }
        r->disk->close(r->disk, file);
    }
    r->data.n = rc ? 0 : got - got % WAL_SECTOR;
    if (rc)
        buf_printf(r->report, "log: %s\n", why.message);
    return r->data.n >= WAL_SECTOR;
}

static void drop_from(struct wal_salvaged *out, uint64_t index)
{
    while (out->count > 0 && out->entries[out->count - 1]->index >= index)
        raft_entry_unref(out->entries[--out->count]);
    if (out->count == 0)
        out->first = index - 1;
}

static void take(struct reader *r, const struct wal_record *record)
{
    struct wal_salvaged *out = r->out;
    const uint8_t *p = record->payload.p;
    if (record->type == WAL_RECORD_HARD_STATE && record->payload.n == 24) {
        out->term = get_le64(p) > out->term ? get_le64(p) : out->term;
    } else if (record->type == WAL_RECORD_RESET && record->payload.n == 16) {
        drop_from(out, 1);
        out->first = r->last = get_le64(p);
    } else if (record->type == WAL_RECORD_ENTRY) {
        struct raft_entry *e = wal_entry_decode(record->payload);
        if (!e || e->index > r->last + 1) {
            raft_entry_unref(e);
            return;
        }
        drop_from(out, e->index);
        if (out->count == out->cap) {
            out->cap = out->cap ? out->cap * 2 : 256;
            out->entries = xrealloc(out->entries, out->cap * sizeof(*out->entries));
        }
        out->entries[out->count++] = e;
        out->term = e->term > out->term ? e->term : out->term;
        r->last = e->index;
    }
}

/* A batch behind `end` that says that more was synced: what is at `end` was damaged. */
static bool more_was_synced(const struct reader *r, const struct wal_head *head, uint64_t end)
{
    for (uint64_t at = end; at + WAL_SECTOR <= r->data.n; at += WAL_SECTOR) {
        struct wal_batch b;
        uint32_t chain;
        if (wal_batch_decode(r->data.p + at, &b, &chain) && b.seq == head->seq &&
            b.nonce == head->nonce && b.offset == at && b.synced > end)
            return true;
    }
    return false;
}

/* The segment's batches as far as they are whole; false: and no further, though there was more. */
static bool read_batches(struct reader *r, const struct wal_head *head)
{
    uint64_t at = WAL_SECTOR;
    struct bytes records;
    struct wal_batch b;
    uint32_t chain;
    while (at < r->data.n && wal_batch_check(bytes_of(r->data.p + at, r->data.n - at), head, at,
                                             r->number, r->chain, &b, &records, &chain)) {
        uint32_t inner;
        (void)wal_batch_decode(r->data.p + at, &b, &inner);
        struct wal_record record;
        while (records.n > 0 && wal_record_next(&records, &inner, &record))
            take(r, &record);
        r->number = b.number;
        r->chain = chain;
        at += wal_round_up((uint64_t)WAL_BATCH_HEADER + b.length);
    }
    if (!more_was_synced(r, head, at))
        return true;
    buf_printf(r->report, "log: %s/%016llx.wal at %llu is damaged, behind entry %llu\n", r->dir,
               (unsigned long long)head->seq, (unsigned long long)at, (unsigned long long)r->last);
    return false;
}

/* Begins with a segment, or goes on with it, or begins anew with it if nothing is missing in between that
 * is needed. False: entries are missing. */
static bool enter(struct reader *r, const struct wal_head *head, uint32_t chain, uint64_t from)
{
    bool follows = r->begun && head->prev_chain == r->chain && head->last_index == r->last &&
                   head->batch_number == r->number;
    if (r->begun && !follows && head->last_index > from) {
        buf_printf(r->report, "log: entries %llu to %llu are damaged; what follows is no use\n",
                   (unsigned long long)r->last + 1, (unsigned long long)head->last_index);
        return false;
    }
    if (!follows) {
        r->out->damaged = r->out->damaged || r->begun;
        drop_from(r->out, 1);
        r->out->first = r->last = head->last_index;
    }
    if (head->has_hard_state && head->hard_state.term > r->out->term)
        r->out->term = head->hard_state.term;
    r->begun = true;
    r->number = head->batch_number;
    r->chain = chain;
    return true;
}

static void read_segments(struct reader *r, uint64_t from)
{
    for (size_t i = 0; i < r->seq_count; i++) {
        struct wal_head head;
        uint32_t chain;
        if (!load(r, r->seqs[i]) || !wal_head_decode(r->data.p, &head, &chain)) {
            buf_printf(r->report, "log: the head of %s/%016llx.wal is damaged\n", r->dir,
                       (unsigned long long)r->seqs[i]);
            r->out->damaged = true;
            r->chain++; /* nothing follows on what was there */
            continue;
        }
        if (!enter(r, &head, chain, from)) {
            r->out->damaged = true;
            return;
        }
        if (!read_batches(r, &head)) {
            r->out->damaged = true;
            r->chain++;
        }
    }
}

enum errc wal_salvage(struct disk *disk, const char *dir, uint64_t from,
                      struct wal_salvaged *ret_salvaged, struct buf *report, struct error *err)
{
    struct wal_salvaged out = {0};
    struct reader r = {.disk = disk, .dir = dir, .out = &out, .report = report};
    r.names.path = xstrdup(dir);
    enum errc rc = disk->list(disk, dir, collect, &r, err);
    if (rc == ERR_NOT_FOUND || (!rc && r.seq_count == 0)) {
        buf_printf(report, "log: there is none in %s\n", dir);
        out.damaged = true;
        rc = ERR_OK;
    }
    if (!rc && r.seq_count > 0) {
        qsort(r.seqs, r.seq_count, sizeof(*r.seqs), compare);
        read_segments(&r, from);
    }
    free(r.seqs);
    free(r.names.path);
    buf_free(&r.data);
    *ret_salvaged = out;
    return rc;
}

void wal_salvaged_free(struct wal_salvaged *s)
{
    for (size_t i = 0; i < s->count; i++)
        raft_entry_unref(s->entries[i]);
    free(s->entries);
    *s = (struct wal_salvaged){0};
}
