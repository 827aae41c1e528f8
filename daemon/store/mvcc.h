/* The multi-version store: every revision of every key since the last compaction.
 *
 * Semantics are etcd's (server/storage/mvcc): a main revision for each log entry that changes keys, a
 * sub revision for each change in it; per key generations with create revision, mod revision and
 * version; tombstones; compaction keeps the newest revision at or below the compaction revision unless
 * it is a tombstone.
 *
 * Shape: an ordered index of all keys in memory (index.h) and the revisions in SQLite (one rowid table;
 * id = main << 23 | sub), written behind the apply on the store's worker in batches. The applied index
 * and term, and the rows of the buckets (leases, members, sessions, ...), go in the same transaction as
 * the revisions that they stand with. Revisions not yet in SQLite, and a bounded cache of others, are
 * in memory; the rest is read from SQLite on demand. Every row carries a CRC32C of its contents and id,
 * checked when it is read.
 *
 * After a restart the store is as of its durable applied index; the log is replayed from there.
 *
 * A full disk is no failure: a transaction that finds no space is rolled back, its entries stay in memory (and
 * in the Raft log, which isn't cut) and are written when mvcc_space_retry() finds room. A reserve file in the
 * folder is given up first, so that deletes and compactions go on for a while; it is made again later.
 *
 * Threading: all calls on the loop thread; SQLite writes, checkpoints, compaction, hashes and snapshots
 * run as jobs on the worker. A failure there is reported once to `failed`, and so is damage
 * (ERR_CORRUPT), whoever comes upon it, a read on the loop thread too: the process must end. */
#ifndef STORE_MVCC_H
#define STORE_MVCC_H

#include "lib/base/bytes.h"
#include "lib/base/disk.h"
#include "lib/base/error.h"
#include "lib/base/worker.h"

struct mvcc;

/* One revision of one key: immutable, reference-counted (loop thread only). The bytes stand in the same
 * allocation. A tombstone has key, mod_revision and stamp only (create_revision 0, version 0). */
struct mvcc_kv {
    uint32_t refs;
    bool tombstone;
    int32_t sub; /* sub revision within mod_revision */
    int64_t create_revision;
    int64_t mod_revision;
    int64_t version;
    int64_t lease;
    uint64_t stamp; /* leader's clock at the proposal, ns */
    struct bytes key, value;
};
struct mvcc_kv *mvcc_kv_ref(struct mvcc_kv *kv);
void mvcc_kv_unref(struct mvcc_kv *kv);

/* Small tables beside the keys: each row a key and a value, both bytes. */
enum mvcc_bucket {
    MVCC_BUCKET_META,    /* replica's own: names are its business */
    MVCC_BUCKET_MEMBER,  /* id (8 bytes LE) -> raftpb.Member */
    MVCC_BUCKET_LEASE,   /* id (8 bytes LE) -> raftpb.LeaseRow */
    MVCC_BUCKET_SESSION, /* client id (8 bytes LE) -> raftpb.SessionRow */
    MVCC_BUCKET_ALARM,
    MVCC_BUCKET_AUTH,
    MVCC_BUCKET_COUNT
};

struct mvcc_config {
    const char *dir;        /* holds store.db and what stands beside it; exists */
    struct disk *disk;      /* for renames and syncs of the folder */
    const char *sqlite_vfs; /* NULL: SQLite's default; the simulator registers its own */
    struct worker *worker;
    size_t cache_bytes_max;  /* of revisions in memory that are in SQLite too; 0: 64 MiB */
    size_t checkpoint_pages; /* WAL pages between checkpoints; 0: 500 */
    uint64_t reserve_bytes;  /* held for a full disk; 0: 16 MiB, more with more checkpoint_pages */
    size_t snapshot_chunk_bytes; /* of what is sent; 0: MVCC_SNAPSHOT_CHUNK */
    /* Everything up to this index survives a power loss now (a checkpoint completed). Loop thread. */
    void (*durable)(void *ctx, uint64_t applied_index);
    void (*failed)(void *ctx, const struct error *err); /* once; loop thread */
    void *ctx;
};

/* Opens or creates the store and rebuilds the index. ERR_CORRUPT names the damage and what can be done;
 * ERR_BUSY: another process has it; ERR_IO, ERR_NO_SPACE. A leftover of an interrupted snapshot
 * installation is finished or removed here. */
enum errc mvcc_open(const struct mvcc_config *config, struct mvcc **ret_store, struct error *err);
/* Writes out what is applied, checkpoints, closes, frees. Waits for the worker: the caller has made sure
 * that the worker still runs (a thread), or drives it meanwhile (the simulator uses mvcc_abandon). */
void mvcc_close(struct mvcc *m);
/* Frees without writing, as a crash would; no job may be under way (ones that the worker has thrown away
 * are freed here). */
void mvcc_abandon(struct mvcc *m);

/* ---- Applying: one log entry between begin and end -------------------------------------------- */

/* index: of the log entry, one more than the last one's; stamp: its clock. */
void mvcc_begin(struct mvcc *m, uint64_t index, uint64_t term, uint64_t stamp);

/* Writes at main revision mvcc_revision() + 1. Reads between begin and end with revision 0 see the
 * writes before them. prev: NULL or gets the key's kv before (with a reference; NULL if there was none).
 * With prev this, and mvcc_delete with prevs, fail if a value before can't be read: an entry can't be
 * undone, so `failed` has been called and the process must end. */
enum errc mvcc_put(struct mvcc *m, struct bytes key, struct bytes value, int64_t lease,
                   struct mvcc_kv **ret_prev);

/* A range of keys: end.p == NULL: the key alone; end "\0": all from key on; else [key, end). */
struct mvcc_range {
    struct bytes key, end;
};
bool mvcc_range_has(const struct mvcc_range *range, struct bytes key);

struct mvcc_result {
    struct mvcc_kv **kvs; /* in key order; references owned by the result */
    size_t count;         /* of kvs */
    int64_t total;        /* keys in the range at that revision, whatever the limit */
};
void mvcc_result_free(struct mvcc_result *r);

/* Deletes every key of the range, one tombstone each; *ret_deleted says how many. prevs: NULL or gets the
 * deleted kvs. */
enum errc mvcc_delete(struct mvcc *m, const struct mvcc_range *range, int64_t *ret_deleted,
                      struct mvcc_result *ret_prevs);

/* Rows of a bucket; value.p == NULL removes. */
void mvcc_bucket_put(struct mvcc *m, enum mvcc_bucket bucket, struct bytes key, struct bytes value);

/* Makes `revision` the compaction revision: earlier states can't be read from now on; the rows go in
 * slices on the worker, and `compaction_done` work may be waited for with mvcc_compact_wait().
 * ERR_COMPACTED if it is at or below the last one, ERR_FUTURE_REV if above the current revision. */
enum errc mvcc_compact(struct mvcc *m, int64_t revision);

/* What one entry changed: kv is the new state (maybe a tombstone), prev the one before or NULL. prev's
 * value may not be in memory (its value.p is NULL then): most who look at changes need only its lease. */
struct mvcc_change {
    struct mvcc_kv *kv, *prev;
};
/* prev with its value, read if need be; borrowed, valid as long as the change. NULL: there was none, or it
 * can't be read (`failed` has been called). */
struct mvcc_kv *mvcc_change_prev(struct mvcc *m, const struct mvcc_change *change);

/* Ends the entry: the revision goes up by one if a key was changed. *ret_changes lists the changes in the
 * order of their sub revisions; the array and its references are valid until the next mvcc_begin(). */
void mvcc_end(struct mvcc *m, const struct mvcc_change **ret_changes, size_t *ret_count);

/* ---- Reading ----------------------------------------------------------------------------------- */

int64_t mvcc_revision(const struct mvcc *m);         /* current; 1 for an empty store, as etcd's */
int64_t mvcc_compact_revision(const struct mvcc *m); /* as the last one asked; -1: none */
uint64_t mvcc_applied_index(const struct mvcc *m);
uint64_t mvcc_applied_term(const struct mvcc *m);
uint64_t mvcc_durable_index(const struct mvcc *m); /* see `durable` above */
uint64_t mvcc_last_stamp(const struct mvcc *m);

struct mvcc_query {
    struct mvcc_range range;
    int64_t revision; /* 0: the current one */
    int64_t limit;    /* of kvs, 0: none */
    bool count_only;  /* no kvs at all, only total */
    bool keys_only;   /* values are left empty (and not read from disk) */
    bool no_total;    /* total need not be right: spares a walk over the rest of the range */
};
/* ERR_COMPACTED, ERR_FUTURE_REV, ERR_CORRUPT (a row's checksum: err names it). */
enum errc mvcc_range(struct mvcc *m, const struct mvcc_query *q, struct mvcc_result *ret_result,
                     struct error *err);

/* The newest kv of a key, or NULL; with a reference; the value may not be in memory: metadata only
 * (value empty) unless `with_value`. */
struct mvcc_kv *mvcc_get(struct mvcc *m, struct bytes key, bool with_value);

/* The history in revision order from main revision `from` on: at most `rows_max` rows are looked at, but
 * always whole main revisions (at least one). Changes within `range` are returned, without prev. *ret_next
 * is where to go on; beyond mvcc_revision() means that all is seen. ERR_COMPACTED if from is below the
 * compaction revision (as etcd's watch: a start at it is allowed, and unlike etcd 3.4's no deletion made
 * at it is lost), ERR_CORRUPT. */
enum errc mvcc_history(struct mvcc *m, const struct mvcc_range *range, int64_t from,
                       size_t rows_max, struct mvcc_result *ret_result, int64_t *ret_next,
                       struct error *err);

/* At start-up: every row of a bucket, and every key that has a lease. */
enum errc mvcc_bucket_each(struct mvcc *m, enum mvcc_bucket bucket,
                           void (*each)(void *ctx, struct bytes key, struct bytes value), void *ctx,
                           struct error *err);
void mvcc_each_leased(struct mvcc *m, void (*each)(void *ctx, struct bytes key, int64_t lease),
                      void *ctx);

/* Sizes in bytes: the database file, and what of it is in use (pages not free). What is applied but not
 * yet written: proposals are held back when it passes MVCC_BACKLOG_MAX. */
#define MVCC_BACKLOG_MAX (64u * 1024 * 1024)
uint64_t mvcc_size(const struct mvcc *m);
uint64_t mvcc_size_in_use(const struct mvcc *m);
uint64_t mvcc_backlog_bytes(const struct mvcc *m);

/* The disk is full: writes wait, or the reserve is used up. Call mvcc_space_retry() every now and then with what
 * is free. */
bool mvcc_lacks_space(const struct mvcc *m);
bool mvcc_waits_for_space(const struct mvcc *m);
void mvcc_space_retry(struct mvcc *m, uint64_t free_bytes);
uint64_t mvcc_reserve_bytes(const struct mvcc *m);
/* Makes what is applied durable before it would be due: the log may be cut then. */
void mvcc_checkpoint_soon(struct mvcc *m);

/* ---- Work on the worker, answered later -------------------------------------------------------- */

/* etcd's HashKV, equal to etcd 3.4's for an equal history: CRC32C over the bucket's name "key" and each revision row as etcd stores it (17-byte
 * revision key, 18 for tombstones, and the marshalled mvccpb.KeyValue) up to main revision `revision` (0:
 * the current one) that compaction keeps. compact_revision is -1 where there was no compaction, as
 * etcd's answer has it. ERR_COMPACTED, ERR_FUTURE_REV, ERR_CORRUPT; ERR_CLOSED or ERR_CANCELLED if the
 * store is closed or replaced meanwhile. */
void mvcc_hash_kv(struct mvcc *m, int64_t revision,
                  void (*done)(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                               int64_t hash_revision),
                  void *ctx);

/* Calls done when all rows that compactions so far removed are gone from SQLite. */
void mvcc_compact_wait(struct mvcc *m, void (*done)(void *ctx), void *ctx);

/* Gives free pages back to the file system, online. */
void mvcc_defragment(struct mvcc *m, void (*done)(void *ctx, enum errc code), void *ctx);

/* To be called about every 100 ms: reads all rows again from the file in slices of SCRUB_ROWS, the whole
 * in about `pass_ms` (0: not at all), and compares sums, count and digest; once a pass also the
 * structure of a store that is small enough. Damage is reported to `failed`. now_ms: a clock that never
 * goes back. */
void mvcc_scrub_tick(struct mvcc *m, uint64_t now_ms, uint64_t pass_ms);
uint64_t mvcc_scrub_passes(const struct mvcc *m); /* completed */

/* ---- Snapshots ---------------------------------------------------------------------------------- */

/* Which snapshot it is, for those who carry it: what they choose; here it is only kept and compared. */
struct mvcc_snapshot_id {
    uint64_t index, term, maker, serial;
};

/* A place between two chunks. */
struct mvcc_snapshot_at {
    uint64_t offset; /* bytes before it */
    uint32_t sum;    /* CRC32C of all of them */
};

/* A snapshot reads the state as of the applied index at its begin, in chunks, beside the writer;
 * compaction waits meanwhile. Chunks are self-describing and checksummed; concatenated they are the
 * snapshot. */
struct mvcc_snapshot;
struct mvcc_snapshot *mvcc_snapshot_begin(struct mvcc *m, uint64_t *ret_index, uint64_t *ret_term);
/* The next chunk of at most MVCC_SNAPSHOT_CHUNK bytes (one row may exceed it); last: nothing follows. */
#define MVCC_SNAPSHOT_CHUNK (256u * 1024)
void mvcc_snapshot_next(struct mvcc_snapshot *s,
                        void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                        void *ctx);
/* Where the next chunk begins; behind the last one, what the whole is. Not while a chunk is under way. */
struct mvcc_snapshot_at mvcc_snapshot_at(const struct mvcc_snapshot *s);
/* Goes back (or forth again) to a place where a chunk began or ended: the same bytes follow it as before. With no
 * chunk under way. ERR_INVALID: there is no such place, or the bytes before it have another sum. */
enum errc mvcc_snapshot_seek(struct mvcc_snapshot *s, const struct mvcc_snapshot_at *at);
void mvcc_snapshot_end(
    struct mvcc_snapshot *s); /* at any time; a chunk under way is not delivered */

/* Receiving: chunks go into a new database beside the current one. finish verifies that it is whole.
 * mvcc_restore_install then replaces the current database (durably) and rebuilds the index: done is
 * called with the store as of the snapshot; buckets must be read again. */
struct mvcc_restore;
/* One at a time; one call on it at a time. The store may be used as before until install; from then on,
 * until done, nothing may be applied or begun, and reads see the state before. Snapshots, hashes and
 * waits that are open at an installation are answered with ERR_CANCELLED. */
/* id: what is to be received, so that it can be gone on with in a later life of the process; NULL: it can't. */
struct mvcc_restore *mvcc_restore_begin(struct mvcc *m, const struct mvcc_snapshot_id *id);
/* Before the first chunk, and whenever the chunks were interrupted: `done` gets the place behind the last one that
 * was taken whole, where the next must begin. After mvcc_restore_begin() that is what a former life left of this
 * very snapshot, if all of it passes its checks; anything else that was left is removed. */
void mvcc_restore_resume(struct mvcc_restore *r,
                         void (*done)(void *ctx, enum errc code, struct mvcc_snapshot_at at),
                         void *ctx);
void mvcc_restore_chunk(struct mvcc_restore *r, struct bytes chunk,
                        void (*done)(void *ctx, enum errc code), void *ctx);
/* whole: where the sender says that it ends, NULL if it doesn't; ERR_CORRUPT if that is not what came. */
void mvcc_restore_finish(struct mvcc_restore *r, const struct mvcc_snapshot_at *whole,
                         void (*done)(void *ctx, enum errc code, uint64_t index, uint64_t term),
                         void *ctx);
void mvcc_restore_install(struct mvcc_restore *r, void (*done)(void *ctx, enum errc code),
                          void *ctx);
/* Instead of install, or if finish failed: removes the new database. A call under way isn't answered.
 * Needed also after the store was closed. */
void mvcc_restore_abort(struct mvcc_restore *r);
/* Whether a former life left a part of a snapshot that nobody has asked for yet, and removing it. */
bool mvcc_has_partial(const struct mvcc *m);
void mvcc_drop_partial(struct mvcc *m);

#endif
