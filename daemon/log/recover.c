/* Recovery: reads the segments, replays their records, tells a torn tail from damage (the rule stands in
 * wal_internal.h), and only then makes the log ready for writing. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

struct found {
    struct wal_segment segment;
    struct wal_head head;
    uint32_t chain; /* the head's */
};

struct scan {
    struct disk *disk;
    struct wal_dir *dir;
    struct error *err;
    uint64_t *seqs; /* every segment's name */
    size_t seq_count;
    size_t leftover_count; /* of them, at the front: before a gap, dropped but not all durably */
    struct found *found;   /* the others */
    size_t found_count;
    struct wal_recovered *out;
    size_t entry_cap;
    uint64_t start; /* index before out->entries[0]; above the base: entries are missing so far */
    uint64_t last;
    bool replaying; /* `last` says something */
    /* The last segment. */
    struct buf data;
    uint64_t end;      /* of the last valid batch */
    uint64_t redo;     /* from here on, nothing says that it was synced */
    uint64_t torn_end; /* behind the last batch that was never acknowledged, at least `end` */
    uint32_t chain;
    uint64_t batch_number;
    bool vouched;
};

/* `seq` is the segment being read: its entries begin behind the last one replayed, and the next head, if
 * there is one, says where they end. */
static enum errc corrupt(const struct scan *s, uint64_t seq, uint64_t offset, const char *what)
{
    uint64_t first = s->replaying ? s->last + 1 : 0, last = 0;
    for (size_t i = 0; i < s->found_count; i++) {
        const struct wal_head *h = &s->found[i].head;
        if (h->seq <= seq && h->last_index >= first)
            first = h->last_index + 1;
        if (h->seq == seq + 1)
            last = h->last_index;
    }
    return wal_corrupt(s->dir, seq, offset, what, first, last, s->err);
}

static void collect_name(void *ctx, const char *name)
{
    struct scan *s = ctx;
    uint64_t seq;
    if (!wal_segment_parse(name, &seq))
        return;
    s->seqs = xrealloc(s->seqs, (s->seq_count + 1) * sizeof(*s->seqs));
    s->seqs[s->seq_count++] = seq;
}

static int compare_seqs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Reads the first n bytes of a segment into s->data. */
static enum errc load(struct scan *s, const struct wal_segment *segment, uint64_t n)
{
    char *path = wal_segment_path(s->dir, segment->seq);
    struct disk_file *file;
    enum errc rc = s->disk->open(s->disk, path, DISK_READ, &file, s->err);
    free(path);
    if (rc)
        return rc;
    s->data.n = 0;
    buf_reserve(&s->data, n);
    size_t got = 0;
    rc = s->disk->read(s->disk, file, 0, s->data.p, n, &got, s->err);
    s->disk->close(s->disk, file);
    if (rc)
        return rc;
    s->data.n = got;
    return got == n ? ERR_OK : corrupt(s, segment->seq, got, "the file is shorter than it was");
}

static enum errc segment_size(struct scan *s, struct wal_segment *segment)
{
    char *path = wal_segment_path(s->dir, segment->seq);
    struct disk_file *file;
    enum errc rc = s->disk->open(s->disk, path, DISK_READ, &file, s->err);
    free(path);
    if (rc)
        return rc;
    rc = s->disk->size(s->disk, file, &segment->bytes, s->err);
    s->disk->close(s->disk, file);
    if (rc)
        return rc;
    if (segment->bytes < WAL_SECTOR || segment->bytes > WAL_SEGMENT_BYTES_MAX ||
        segment->bytes % WAL_SECTOR != 0)
        return corrupt(s, segment->seq, 0, "this can't be the length of a segment");
    return ERR_OK;
}

static enum errc check_owner(struct scan *s, const struct wal_config *config,
                             const struct wal_head *h)
{
    bool cluster = config->cluster_id && h->cluster_id && config->cluster_id != h->cluster_id;
    bool member = config->member_id && h->member_id && config->member_id != h->member_id;
    if (!cluster && !member)
        return ERR_OK;
    return error_set(
        s->err, ERR_INVALID,
        "%s belongs to member %llx of cluster %llx, not to member %llx of cluster %llx",
        s->dir->path, (unsigned long long)h->member_id, (unsigned long long)h->cluster_id,
        (unsigned long long)config->member_id, (unsigned long long)config->cluster_id);
}

static enum errc read_head(struct scan *s, const struct wal_config *config, uint64_t seq)
{
    struct found f = {.segment.seq = seq};
    enum errc rc = segment_size(s, &f.segment);
    if (!rc)
        rc = load(s, &f.segment, WAL_SECTOR);
    if (rc)
        return rc;
    if (!wal_head_decode(s->data.p, &f.head, &f.chain) || f.head.seq != seq)
        return corrupt(s, seq, 0, "the segment's head is damaged");
    if (f.segment.bytes < f.head.bytes)
        return corrupt(s, seq, f.segment.bytes, "the file is shorter than it was");
    rc = check_owner(s, config, &f.head);
    if (rc)
        return rc;
    if (s->found_count > 0) {
        const struct wal_segment *before = &s->found[s->found_count - 1].segment;
        if (f.head.prev_end < WAL_SECTOR || f.head.prev_end > before->bytes ||
            f.head.prev_end % WAL_SECTOR != 0)
            return corrupt(s, seq, 0, "the head contradicts the segment before");
    }
    s->found[s->found_count++] = f;
    return ERR_OK;
}

/* Segments are dropped oldest first, but a crash may undo one removal and not the next: only the run
 * that ends with the newest counts. Whether it holds all that is needed shows the replay. */
static enum errc read_heads(struct scan *s, const struct wal_config *config)
{
    enum errc rc = s->disk->list(s->disk, s->dir->path, collect_name, s, s->err);
    if (rc || s->seq_count == 0)
        return rc;
    qsort(s->seqs, s->seq_count, sizeof(*s->seqs), compare_seqs);
    s->leftover_count = s->seq_count - 1;
    while (s->leftover_count > 0 &&
           s->seqs[s->leftover_count - 1] + 1 == s->seqs[s->leftover_count])
        s->leftover_count--;
    s->found = xcalloc(s->seq_count - s->leftover_count, sizeof(*s->found));
    for (size_t i = s->leftover_count; !rc && i < s->seq_count; i++)
        rc = read_head(s, config, s->seqs[i]);
    return rc;
}

static void drop_entries_from(struct scan *s, uint64_t index)
{
    struct wal_recovered *out = s->out;
    while (out->entry_count > 0 && out->entries[out->entry_count - 1]->index >= index)
        raft_entry_unref(out->entries[--out->entry_count]);
    s->start = index - 1 < s->start ? index - 1 : s->start;
    s->last = index - 1;
}

static bool replay_entry(struct scan *s, struct wal_segment *segment, struct raft_entry *e)
{
    struct wal_recovered *out = s->out;
    if (e->index <= out->base_index || e->index > s->last + 1)
        return false;
    size_t behind = (size_t)(s->last - e->index);
    if (MUTANT(truncation_not_recovered) && e->index <= s->last && behind < out->entry_count) {
        struct raft_entry **at = &out->entries[out->entry_count - 1 - behind]; /* baidu/braft#119 */
        raft_entry_unref(*at);
        *at = e;
        return true;
    }
    drop_entries_from(s, e->index);
    if (out->entry_count == s->entry_cap) {
        s->entry_cap = s->entry_cap ? s->entry_cap * 2 : 256;
        out->entries = xrealloc(out->entries, s->entry_cap * sizeof(*out->entries));
    }
    out->entries[out->entry_count++] = e;
    s->last = e->index;
    segment->max_index = e->index > segment->max_index ? e->index : segment->max_index;
    return true;
}

static bool replay_base(struct scan *s, uint64_t index, uint64_t term)
{
    struct wal_recovered *out = s->out;
    if (index < out->base_index || index > s->last)
        return false;
    size_t n = 0;
    while (n < out->entry_count && out->entries[n]->index <= index)
        raft_entry_unref(out->entries[n++]);
    out->entry_count -= n;
    if (n > 0)
        memmove(out->entries, out->entries + n, out->entry_count * sizeof(*out->entries));
    s->start = index > s->start ? index : s->start;
    out->base_index = index;
    out->base_term = term;
    return true;
}

static bool replay_reset(struct scan *s, uint64_t index, uint64_t term)
{
    if (index < s->out->base_index)
        return false;
    drop_entries_from(s, 1);
    s->start = s->last = index;
    s->out->base_index = index;
    s->out->base_term = term;
    for (size_t i = 0; i < s->found_count; i++)
        s->found[i].segment.max_index = 0;
    return true;
}

/* False: the record is whole, but can't stand here. */
static bool replay(struct scan *s, struct wal_segment *segment, const struct wal_record *r)
{
    const uint8_t *p = r->payload.p;
    switch (r->type) {
    case WAL_RECORD_ENTRY: {
        struct raft_entry *e = wal_entry_decode(r->payload);
        if (e && replay_entry(s, segment, e))
            return true;
        raft_entry_unref(e);
        return false;
    }
    case WAL_RECORD_HARD_STATE:
        if (r->payload.n != 24)
            return false;
        s->out->has_hard_state = true;
        s->out->hard_state =
            (struct raft_hard_state){get_le64(p), get_le64(p + 8), get_le64(p + 16)};
        return true;
    case WAL_RECORD_BASE:
        return r->payload.n == 16 && replay_base(s, get_le64(p), get_le64(p + 8));
    case WAL_RECORD_RESET:
        return r->payload.n == 16 && replay_reset(s, get_le64(p), get_le64(p + 8));
    }
    return false;
}

/* Whether the batch at s->end is valid within `limit`; *ret_records are its records then. */
static bool batch_valid(const struct scan *s, const struct wal_head *head, uint64_t limit,
                        struct wal_batch *ret_batch, struct bytes *ret_records, uint32_t *ret_chain)
{
    return wal_batch_check(bytes_of(s->data.p + s->end, limit - s->end), head, s->end,
                           s->batch_number, s->chain, ret_batch, ret_records, ret_chain);
}

static enum errc replay_batches(struct scan *s, struct found *f, uint64_t limit)
{
    s->end = s->redo = WAL_SECTOR;
    s->chain = f->chain;
    s->vouched = false;
    struct wal_batch b;
    struct bytes records;
    uint32_t chain, end_chain;
    while (batch_valid(s, &f->head, limit, &b, &records, &end_chain)) {
        (void)wal_batch_decode(s->data.p + s->end, &b, &chain);
        struct wal_record r;
        while (records.n > 0) {
            bool next = wal_record_next(&records, &chain, &r);
            assert(next);
            if (!replay(s, &f->segment, &r))
                return corrupt(s, f->segment.seq, s->end,
                               "a record is whole, but contradicts those before it");
        }
        s->chain = end_chain;
        s->batch_number = b.number;
        s->redo = b.synced;
        s->vouched = b.records == 0;
        s->end += wal_round_up(WAL_BATCH_HEADER + b.length);
    }
    return ERR_OK;
}

static enum errc begin_segment(struct scan *s, const struct found *f, bool first)
{
    const struct wal_head *h = &f->head;
    struct wal_recovered *out = s->out;
    if (first) {
        out->base_index = h->base_index;
        out->base_term = h->base_term;
        s->start = s->last = h->last_index;
        s->batch_number = h->batch_number;
        s->replaying = true;
    } else if (h->last_index != s->last || h->batch_number != s->batch_number ||
               h->prev_chain != s->chain) {
        return corrupt(s, h->seq, 0, "the head contradicts the segment before");
    }
    if (h->base_index > h->last_index ||
        (h->base_index > out->base_index && !replay_base(s, h->base_index, h->base_term)))
        return corrupt(s, h->seq, 0, "the head contradicts itself");
    if (h->has_hard_state) {
        out->has_hard_state = true;
        out->hard_state = h->hard_state;
    }
    out->cluster_id = h->cluster_id ? h->cluster_id : out->cluster_id;
    out->member_id = h->member_id ? h->member_id : out->member_id;
    return ERR_OK;
}

/* Behind the last valid batch: torn or damaged? */
static enum errc judge_tail(struct scan *s, const struct found *f)
{
    s->torn_end = s->end;
    for (uint64_t at = s->end; at + WAL_SECTOR <= f->segment.bytes; at += WAL_SECTOR) {
        struct wal_batch b;
        uint32_t chain;
        if (!wal_batch_decode(s->data.p + at, &b, &chain) || b.seq != f->head.seq ||
            b.nonce != f->head.nonce || b.offset != at)
            continue;
        if (b.synced > s->end && !MUTANT(corrupt_log_cut_as_torn)) /* NuRaft#185 */
            return corrupt(s, f->segment.seq, s->end,
                           "damage to a batch that had been written and synced");
        uint64_t end = at + wal_round_up((uint64_t)WAL_BATCH_HEADER + b.length);
        end = end < f->segment.bytes ? end : f->segment.bytes;
        s->torn_end = end > s->torn_end ? end : s->torn_end;
    }
    if (s->torn_end > s->end) {
        s->out->cut_bytes = s->torn_end - s->end;
        snprintf(s->out->cut_where, sizeof(s->out->cut_where), "%.200s/%016llx.wal at %llu",
                 s->dir->path, (unsigned long long)f->segment.seq, (unsigned long long)s->end);
    }
    return ERR_OK;
}

static enum errc replay_segments(struct scan *s)
{
    for (size_t i = 0; i < s->found_count; i++) {
        struct found *f = &s->found[i];
        bool last = i + 1 == s->found_count;
        uint64_t limit = last ? f->segment.bytes : f[1].head.prev_end;
        enum errc rc = load(s, &f->segment, limit);
        if (!rc)
            rc = begin_segment(s, f, i == 0);
        if (!rc)
            rc = replay_batches(s, f, limit);
        if (!rc && last)
            rc = judge_tail(s, f);
        if (rc)
            return rc;
        if (!last && s->end != limit)
            return corrupt(s, f->segment.seq, s->end, "damage to a batch of a finished segment");
    }
    if (s->found_count > 0 && s->start > s->out->base_index)
        return corrupt(s, s->found[0].segment.seq, 0, "the segment before this one is missing");
    struct raft_hard_state *hs = &s->out->hard_state;
    hs->commit = hs->commit > s->last ? s->last : hs->commit;
    hs->commit = hs->commit < s->out->base_index ? s->out->base_index : hs->commit;
    return ERR_OK;
}

/* Writes again what may be only in the page cache (after a failed sync its pages count as clean, so a
 * sync alone could lie), and zeros over a torn tail, lest a later run takes its batches for its own. */
static enum errc repair_tail(struct scan *s, struct wal_writer *w)
{
    uint64_t end = s->torn_end;
    memset(s->data.p + s->end, 0, end - s->end);
    enum errc rc = ERR_OK;
    if (end > s->redo)
        rc = s->disk->write(s->disk, w->file, s->redo, s->data.p + s->redo, end - s->redo, s->err);
    return rc ? rc : s->disk->sync(s->disk, w->file, s->err);
}

static enum errc remove_leftovers(struct scan *s)
{
    for (size_t i = 0; i < s->leftover_count; i++) {
        char *path = wal_segment_path(s->dir, s->seqs[i]);
        enum errc rc = s->disk->unlink(s->disk, path, s->err);
        free(path);
        if (rc)
            return rc;
    }
    return s->disk->sync_dir(s->disk, s->dir->path, s->err);
}

static enum errc continue_log(struct scan *s, struct wal_writer *w)
{
    struct found *f = &s->found[s->found_count - 1];
    char *path = wal_segment_path(s->dir, f->segment.seq);
    enum errc rc = s->disk->open(s->disk, path, DISK_WRITE, &w->file, s->err);
    free(path);
    if (!rc)
        rc = repair_tail(s, w);
    if (!rc)
        rc = remove_leftovers(s);
    if (rc)
        return rc;
    for (size_t i = 0; i < s->found_count; i++)
        wal_dir_add(s->dir, &s->found[i].segment);
    w->head = f->head;
    w->offset = w->synced = s->end;
    w->chain = s->chain;
    w->batch_number = s->batch_number;
    w->vouched = s->vouched;
    return ERR_OK;
}

static enum errc sync_parent(struct scan *s)
{
    char *parent = xstrdup(s->dir->path);
    char *slash = strrchr(parent, '/');
    if (slash && slash > parent)
        *slash = '\0';
    const char *path = !slash ? "." : slash == parent ? "/" : parent;
    enum errc rc = s->disk->sync_dir(s->disk, path, s->err);
    free(parent);
    return rc;
}

static enum errc begin_log(struct scan *s, struct wal_writer *w)
{
    enum errc rc = sync_parent(s);
    if (rc)
        return rc;
    s->out->created = true;
    w->head = (struct wal_head){.seq = 1};
    w->offset = w->synced = WAL_SECTOR;
    return ERR_OK;
}

enum errc wal_recover(struct wal_writer *w, const struct wal_config *config,
                      struct wal_recovered *ret_recovered, struct error *err)
{
    struct wal_recovered out = {0};
    struct scan s = {.disk = w->dir.disk, .dir = &w->dir, .err = err, .out = &out};
    enum errc rc = read_heads(&s, config);
    if (!rc)
        rc = replay_segments(&s);
    if (!rc)
        rc = s.found_count > 0 ? continue_log(&s, w) : begin_log(&s, w);
    if (!rc) {
        w->head.cluster_id = config->cluster_id ? config->cluster_id : out.cluster_id;
        w->head.member_id = config->member_id ? config->member_id : out.member_id;
        w->base_index = out.base_index;
        w->base_term = out.base_term;
        w->last_index = s.last;
        w->has_hard_state = out.has_hard_state;
        w->hard_state = out.hard_state;
        if (out.created)
            rc = wal_segment_create(&w->dir, &w->head, 0, &w->file, &w->chain, err);
    }
    free(s.seqs);
    free(s.found);
    buf_free(&s.data);
    if (rc)
        wal_recovered_free(&out);
    else
        *ret_recovered = out;
    return rc;
}
