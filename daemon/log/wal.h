/* The write-ahead log: Raft's hard state and entries on disk (the paper's Figure 2, "persistent state
 * on all servers: updated on stable storage before responding to RPCs").
 *
 * Segments `%016x.wal` (named by a sequence number) of a fixed size in one folder, preallocated and
 * recycled. Each record has a CRC32C over header and payload, chained to the record before it, so a
 * recycled segment's old records can't be taken for new ones. Records: segment head (format, cluster
 * id, member id, base), entry, hard state, truncation is implied by an entry with a lower index.
 *
 * Group commit: one sync runs on the worker at a time; appends that arrive meanwhile collect and go
 * out together as the next write and sync.
 *
 * A torn tail (records that were never acknowledged, at the end of the last segment) is cut off at
 * opening and reported; damage anywhere else is ERR_CORRUPT with the file, the offset and the way out.
 * Every batch states up to where all was synced before it was written, so something invalid below that
 * is damage and nothing else; wal_internal.h has the format and the rule in full.
 * A full disk is no failure: the log keeps a spare segment, preallocated, beyond the one that it writes. When
 * there is no room for the one after that, appends wait (nothing of them is acknowledged) until a cut has
 * freed a segment or the disk has room again; wal_space_retry() tries. Writes go into space that was
 * allocated before: should one of them find none all the same, that is a failure.
 * A failed write or sync, and damage that the scrub finds, is reported once to `failed` and the log takes no more: the process must end,
 * since the page cache can't be trusted afterwards.
 *
 * All calls are made on the loop thread; blocking work runs on the worker, except in wal_open(),
 * wal_begin() and wal_close().
 *
 * Memory: what has been appended and not yet written is kept here by reference. The log sets no bound
 * of its own: the raft core holds the same entries, and bounds them (uncommitted_bytes_max on a leader,
 * one message's bytes times the messages in flight on a follower); the log only ever adds a pointer an
 * entry. At most WAL_GROUP_BYTES_MAX of it are written between two acknowledgements. */
#ifndef LOG_WAL_H
#define LOG_WAL_H

#include "daemon/raft/raft.h"
#include "lib/base/disk.h"
#include "lib/base/worker.h"

/* Two of them are all that a new log takes, so that a small disk has room for one; a longer request gets a
 * segment of its own size. */
#define WAL_SEGMENT_BYTES_DEFAULT (16u * 1024 * 1024)
/* One group commit takes no further append beyond this: at 100 MB/s a disk needs 80 ms for it, less
 * than a heartbeat interval. */
#define WAL_GROUP_BYTES_MAX (8u * 1024 * 1024)

struct wal;

struct wal_config {
    struct disk *disk;
    struct worker *worker;
    struct env *env;                /* for the segments' nonces; NULL: env_system() */
    const char *dir;                /* made if missing (its parent must be there) */
    uint64_t cluster_id, member_id; /* 0: take what the log says */
    size_t segment_bytes; /* 0: the default; 4 KiB to 1 GiB, for segments made from now on */
    /* Called once, on the loop thread, when a write or sync failed or damage was found: from then on nothing is written,
     * and no `done` is called. It may call wal_close(). */
    void (*failed)(void *ctx, const struct error *err);
    void *ctx;
};

/* What was found. Entries carry one reference each, which the caller drops with wal_recovered_free(). */
struct wal_recovered {
    uint64_t cluster_id, member_id; /* as the log says; 0/0: new, or made without */
    bool created;                   /* there was no log */
    bool has_hard_state;
    struct raft_hard_state hard_state; /* commit within base_index and the last entry */
    uint64_t base_index, base_term;    /* the entry before the first */
    struct raft_entry **entries;       /* consecutive from base_index + 1 */
    size_t entry_count;
    uint64_t cut_bytes;  /* of a torn tail, 0: none */
    char cut_where[256]; /* "FILE at OFFSET", for the log line */
};

/* Opens or creates the log. ERR_INVALID: the log belongs to another cluster or member, or the segment
 * size is out of range; ERR_BUSY: in use by another process; ERR_CORRUPT; ERR_IO; ERR_NO_SPACE. No
 * record is changed on failure. What is recovered is on disk when this returns, also what an earlier
 * process had written without getting round to syncing it. The worker is not used. */
enum errc wal_open(const struct wal_config *config, struct wal **ret_wal,
                   struct wal_recovered *ret_recovered, struct error *err);
void wal_recovered_free(struct wal_recovered *r);

/* A new log's first contents, behind entry base_index of base_term (0: from the first entry on), directly
 * behind wal_open() and before anything is appended: they are on
 * disk when this returns. Blocks, without the worker. What stands beside the log (the store) is written
 * only afterwards, and so is never ahead of a log that a crash left empty. After a failure the log can
 * only be closed. */
enum errc wal_begin(struct wal *w, uint64_t base_index, uint64_t base_term,
                    const struct raft_hard_state *hs, struct raft_entry *const *entries,
                    size_t entry_count, struct error *err);

/* For the rescue of a log that wal_open() refuses: the entries that can be read, as far as they follow each
 * other, without a look at what was cut. Entries up to `from` aren't needed: damage there doesn't end it.
 * Nothing is changed. `report` gets a line for each damage. */
struct wal_salvaged {
    struct raft_entry **entries; /* consecutive from first + 1 */
    size_t count, cap;
    uint64_t first;
    uint64_t term; /* the highest that was promised or logged */
    bool damaged;
};
enum errc wal_salvage(struct disk *disk, const char *dir, uint64_t from,
                      struct wal_salvaged *ret_salvaged, struct buf *report, struct error *err);
void wal_salvaged_free(struct wal_salvaged *s);

/* Appends hard state (may be NULL) and entries (referenced until written); when all of it is synced,
 * `done(ctx, token)` (may be NULL) is called on the loop thread, in the order of the appends, never
 * from within this call. Entries with an index at or below the last one replace the log from there;
 * they are consecutive, not above the last one + 1 and not at or below the base (the caller's duty).
 * A hard state without entries that differs only in `commit`, which is a hint, costs no sync: it is
 * written with the next append or at close. After a failure this does nothing. */
void wal_append(struct wal *w, const struct raft_hard_state *hs, struct raft_entry *const *entries,
                size_t entry_count, void (*done)(void *ctx, uint64_t token), void *ctx,
                uint64_t token);

/* To be called about every 100 ms. When nothing was appended since the last call, and what was is synced,
 * this writes a watermark behind it (wal_internal.h), once: then damage to the last append is known for
 * damage too. An idle log writes nothing more. */
void wal_tick(struct wal *w);

/* To be called as often: reads the log again in slices of about WAL_SCRUB_BYTES, all of it in about
 * `pass_ms` (0: not at all), and only when nothing is being written. Damage ends the log: ERR_CORRUPT
 * through `failed`, while other members still have what it hit. now_ms: a clock that never goes back. */
void wal_scrub_tick(struct wal *w, uint64_t now_ms, uint64_t pass_ms);
uint64_t wal_scrub_passes(const struct wal *w); /* completed */

/* Entries up to and including `index` (whose term is `term`) are not needed any more: segments that
 * hold nothing newer are recycled or removed, after the appends before this call. `index` is committed
 * and at most the last index; at or below the present base it does nothing. Recovery may still hand out
 * entries from before it, if no segment could be freed for it. */
void wal_cut(struct wal *w, uint64_t index, uint64_t term);

/* Empties the log: it continues after `index` of `term` (a snapshot was installed; `index` is above the
 * base). Synced like an append, `done` likewise. The hard state is kept. */
void wal_reset(struct wal *w, uint64_t index, uint64_t term,
               void (*done)(void *ctx, uint64_t token), void *ctx, uint64_t token);

/* No spare could be made, or appends wait: the disk is full. Calls wal_space_retry() every now and then. */
bool wal_lacks_space(const struct wal *w);
bool wal_waits_for_space(const struct wal *w); /* appends wait */
void wal_space_retry(struct wal *w);

uint64_t wal_bytes(const struct wal *w); /* on disk, preallocated space included */

/* Ends the log; no `done` or `failed` is called from here on, and appends that are not being written
 * yet are dropped (they were not acknowledged). If nothing is under way, this marks the log's end as
 * whole, closes and frees. Otherwise the worker's current job finishes, and its completion does the
 * same: so the worker must be stopped after this call (worker_thread_stop() delivers it), and disk and
 * env must outlive it. */
void wal_close(struct wal *w);

#endif
