/* What the sources of the write-ahead log share. wal.h is for its users.
 *
 * Format. A segment is a file of whole 512-byte sectors: one head sector, then batches, each beginning
 * at a sector of its own, so that a write never touches a sector that holds something synced. A batch
 * is a header of 64 bytes and its records, written with one write:
 *
 *   head     magic, format, checksum, cluster, member, sequence, nonce, where the segment before ends,
 *            its chain value and batch number, base, last index, hard state
 *   batch    magic, checksum, sequence and nonce of the segment, own offset, batch number, the offset
 *            in this segment up to which all was synced before this was written, length of the
 *            records, chain value before, number of records
 *   record   checksum, length and type, payload
 *
 * All integers are little-endian. The chain: a record's checksum continues the one before it, the
 * first one's its batch header's checksum, and a batch header holds the checksum that the batch before
 * it ended with; so a batch is valid only behind the very bytes that it was written behind. The nonce
 * is drawn when a segment is taken into use: what a recycled file still holds, or what a user's value
 * imitates, never passes for a batch of this segment.
 *
 * The last sector of a segment is kept for a base record: a full disk then can't keep the log from letting
 * go of old segments, one of which becomes the next. The one before it is kept for a watermark (below).
 *
 * Torn or damaged? A batch counts whole or not at all. Behind the last valid batch of the last segment
 * (its *end*), recovery looks at every sector for a header of this segment (sequence, nonce, own
 * offset and checksum match). If one says that more than the end was synced before it was written,
 * then something that had been synced is gone: damage. Otherwise whatever is there was written after
 * the last sync that is known to have finished, was never acknowledged, and is a torn tail. Segments
 * before the last one were synced up to the end that the next head states: anything invalid in them
 * is damage.
 *
 * Watermarks. By this rule alone damage to the very last batch would look like a write that never
 * finished: an acknowledged entry or a vote would be forgotten without a word. So an empty batch follows
 * when the log was idle for a moment after a sync (wal_tick) and when it is closed: its `synced` vouches
 * for all before it, and with it itself nothing is lost. It is not repeated while nothing else is
 * written; where the segment is full, the next one is begun, whose head vouches. What is left: damage to
 * the last batch while the log is busy, within two ticks of its sync, and damage that hits the last
 * batch and its watermark at once. */
#ifndef LOG_WAL_INTERNAL_H
#define LOG_WAL_INTERNAL_H

#include "daemon/log/wal.h"
#include "lib/base/env.h"

#define WAL_SECTOR 512u
#define WAL_BATCH_HEADER 64u
#define WAL_RECORD_HEADER 12u
#define WAL_ENTRY_FIXED 28u            /* of an entry record's payload, before the data */
#define WAL_BATCH_BYTES (1024u * 1024) /* a batch takes no further record beyond this */
#define WAL_SEGMENT_BYTES_MIN 4096u
/* No segment is larger, so that recovery, which reads a segment whole, can say no before it allocates;
 * a record larger than a segment gets a segment of its own size. */
#define WAL_SEGMENT_BYTES_MAX (1024u * 1024 * 1024)
#define WAL_SPARE "spare"
#define WAL_LOCK "lock"
#define WAL_WAY_OUT                                                                                \
    "remove this member from the cluster, delete its data directory and let it join again (a "     \
    "member "                                                                                      \
    "that is alone: quorumd --rescue NEWDIR --data-dir DIR saves what can be read)"

enum wal_record_type {
    WAL_RECORD_ENTRY = 1,  /* term, index, stamp, type, data */
    WAL_RECORD_HARD_STATE, /* term, vote, commit */
    WAL_RECORD_BASE,       /* index, term: entries up to here are not needed */
    WAL_RECORD_RESET,      /* index, term: nothing before counts, the log continues here */
};

/* ---- record.c */

struct wal_head {
    uint64_t cluster_id, member_id;
    uint64_t seq, nonce;
    uint64_t prev_end;     /* of segment seq - 1; 0: there was none */
    uint32_t prev_chain;   /* its last chain value */
    uint64_t batch_number; /* of the last batch before this segment */
    uint64_t base_index, base_term;
    uint64_t last_index; /* of the last entry before this segment; base_index if there is none */
    bool has_hard_state;
    struct raft_hard_state hard_state;
    uint64_t bytes; /* of the file when it was taken into use; 0: written by a version without it */
};

/* The head's own checksum, with which the segment's chain begins, is returned by both. */
uint32_t wal_head_encode(const struct wal_head *h, uint8_t p[WAL_SECTOR]);
bool wal_head_decode(const uint8_t p[WAL_SECTOR], struct wal_head *ret_head, uint32_t *ret_chain);

struct wal_batch {
    uint64_t seq, nonce;
    uint64_t offset;
    uint64_t number;
    uint64_t synced;
    uint32_t length; /* of the records, without padding */
    uint32_t prev_chain;
    uint32_t records;
};

/* Returns the header's checksum. */
uint32_t wal_batch_encode(const struct wal_batch *b, uint8_t p[WAL_BATCH_HEADER]);
/* Whether these bytes are a header at all: magic and checksum. */
bool wal_batch_decode(const uint8_t p[WAL_BATCH_HEADER], struct wal_batch *ret_batch,
                      uint32_t *ret_chain);

struct wal_record {
    enum wal_record_type type;
    struct bytes payload;
};

/* These append a record without its checksum, which wal_records_seal() sets. */
void wal_put_entry(struct buf *b, const struct raft_entry *e);
void wal_put_hard_state(struct buf *b, const struct raft_hard_state *hs);
void wal_put_position(struct buf *b, enum wal_record_type type, uint64_t index, uint64_t term);
static inline size_t wal_entry_bytes(const struct raft_entry *e)
{
    return WAL_RECORD_HEADER + WAL_ENTRY_FIXED + e->size;
}

/* Chains the records in p[0..n) behind `chain`; returns the last one's checksum. */
uint32_t wal_records_seal(uint8_t *p, size_t n, uint32_t chain);
/* Takes the next record off *rest if it is whole and continues *chain. */
bool wal_record_next(struct bytes *rest, uint32_t *chain, struct wal_record *ret_record);
/* NULL if the payload is none of an entry. */
struct raft_entry *wal_entry_decode(struct bytes payload);

/* Whether `data`, which stands at `offset` of the segment, begins with the batch that follows the one of
 * number `number` whose last chain value is `chain`; its records and the chain value behind it then. */
bool wal_batch_check(struct bytes data, const struct wal_head *head, uint64_t offset,
                     uint64_t number, uint32_t chain, struct wal_batch *ret_batch,
                     struct bytes *ret_records, uint32_t *ret_chain);

static inline uint64_t wal_round_up(uint64_t n)
{
    return (n + WAL_SECTOR - 1) / WAL_SECTOR * WAL_SECTOR;
}

/* ---- segment.c */

struct wal_segment {
    uint64_t seq;
    uint64_t bytes;     /* the file's length */
    uint64_t max_index; /* highest index of any entry in it, also one that was replaced; 0: none */
};

/* The log's folder as the worker has it. */
struct wal_dir {
    struct disk *disk;
    struct env *env;
    char *path;
    size_t segment_bytes;
    struct wal_segment *segments; /* oldest first, the last one is being written */
    size_t segment_count, segment_cap;
    bool has_spare;
    uint64_t spare_bytes;
};

char *wal_segment_path(const struct wal_dir *d, uint64_t seq); /* caller frees */
bool wal_segment_parse(const char *name, uint64_t *ret_seq);
void wal_dir_add(struct wal_dir *d, const struct wal_segment *s);
void wal_dir_free(struct wal_dir *d);
/* ERR_CORRUPT with the file, the offset, the entries that are at stake and the way out. first: the lowest
 * of these entries, 0: not known; last: the highest, 0: not known. */
enum errc wal_corrupt(const struct wal_dir *d, uint64_t seq, uint64_t offset, const char *what,
                      uint64_t first, uint64_t last, struct error *err);

/* Makes the segment head->seq, of at least `bytes`, from the spare if there is one: durable, head and
 * name, when this returns ERR_OK. The nonce is drawn here. It is added to d->segments. ERR_NO_SPACE: the log
 * is as it was, and this may be tried again. */
enum errc wal_segment_create(struct wal_dir *d, struct wal_head *head, uint64_t bytes,
                             struct disk_file **ret_file, uint32_t *ret_chain, struct error *err);

/* Makes the spare ahead of its use. ERR_NO_SPACE leaves none and is no failure of the log yet. */
enum errc wal_spare_make(struct wal_dir *d, struct error *err);

/* Lets go of the oldest segments whose entries are all at or below `index`, never of the last one:
 * one becomes the spare if there is none, the others are removed. */
enum errc wal_segments_drop(struct wal_dir *d, uint64_t index, bool *ret_dropped,
                            struct error *err);
bool wal_segments_droppable(const struct wal_dir *d, uint64_t index);

/* ---- write.c: the worker's side */

enum wal_op_kind { WAL_OP_APPEND, WAL_OP_CUT, WAL_OP_RESET };

struct wal_op {
    enum wal_op_kind kind;
    bool has_hard_state;
    struct raft_hard_state hard_state;
    uint64_t index, term;                    /* of a cut or reset */
    void (*done)(void *ctx, uint64_t token); /* may be NULL */
    void *ctx;
    uint64_t token;
    size_t bytes;
    struct wal_op *next;
    /* The worker's: how far it has come, so that what found no space goes on where it was. */
    bool begun, promise, written;
    size_t entries_written;
    size_t entry_count;
    struct raft_entry *entries[]; /* one reference each, held by the loop thread */
};

struct wal_writer {
    struct wal_dir dir;
    struct disk_file *file;
    struct wal_head head; /* of the segment being written */
    uint64_t offset;      /* where the next batch goes */
    uint64_t synced;      /* all before this offset is on disk */
    uint32_t chain;
    uint64_t batch_number; /* of the last batch */
    uint64_t base_index, base_term;
    uint64_t last_index;
    bool has_hard_state;
    struct raft_hard_state hard_state;
    bool hard_state_unwritten; /* a commit index that came alone waits for the next batch */
    bool base_unwritten;       /* likewise a cut that frees no segment */
    bool vouched;              /* the last batch is a watermark, or there is no room for one */
    struct buf batch;          /* being built: header, records */
    uint32_t batch_records;
    bool starved; /* no room for the next segment: nothing is lost, the call may be repeated */
    uint64_t hint_index,
        hint_term; /* a cut that waits behind what starves: it may free a segment */
};

/* Writes and syncs all ops of the list that are not `written`, then drops segments that are not needed any
 * more. ERR_NO_SPACE with w->starved: those that are `written` by now are on disk, the call may be repeated
 * with the others. Any other failure is the log's end. */
enum errc wal_write_ops(struct wal_writer *w, struct wal_op *ops, struct error *err);
/* An empty batch behind what is synced (see above), unless the last one is one. */
enum errc wal_write_watermark(struct wal_writer *w, struct error *err);
/* The same for a close in good order, with what else was not worth a write yet. */
enum errc wal_write_closing(struct wal_writer *w, struct error *err);
void wal_writer_free(struct wal_writer *w); /* closes the file */

/* ---- scrub.c: reading the log again, to find damage while others still have what it hit */

struct wal_scrub {
    bool begun;           /* in a segment: */
    struct wal_head head; /* its */
    uint64_t at;          /* the next batch */
    uint64_t number;
    uint32_t chain;
    uint64_t last_index; /* of the last entry read */
    struct buf data;
    uint64_t passes; /* times that the end was reached */
};

/* Reads about WAL_SCRUB_BYTES, at most up to what is synced. On the worker, between writes. */
#define WAL_SCRUB_BYTES (256u * 1024)
enum errc wal_scrub_slice(struct wal_writer *w, struct wal_scrub *s, struct error *err);

/* ---- recover.c */

/* Reads everything without changing anything, then makes the log ready for writing: the tail cut off,
 * what may be only in the page cache synced, leftovers removed, a new log's first segment made.
 * `w->dir` is set except for its segments. */
enum errc wal_recover(struct wal_writer *w, const struct wal_config *config,
                      struct wal_recovered *ret_recovered, struct error *err);

#endif
