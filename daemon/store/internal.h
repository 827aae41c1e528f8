/* The store's own state, and what its files offer each other. Nobody else includes it.
 *
 * Two sides, never mixed: the loop thread owns `struct mvcc` with the index, the cache, the reader's
 * connection and all queues; the worker owns the writer's connection, and only jobs touch it. What a
 * job needs is copied or borrowed into it when it is submitted, what it found is picked up by its
 * `finish` on the loop thread. Jobs run in the order of their submission.
 *
 *   applied    what mvcc_end has taken: index and cache have it
 *   committed  a transaction holds it: the reader sees it
 *   durable    a checkpoint holds it: it survives a power loss */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include "daemon/store/cache.h"
#include "daemon/store/files.h"
#include "daemon/store/keyindex.h"
#include "daemon/store/kv.h"
#include "daemon/store/mvcc.h"
#include "daemon/store/tables.h"
#include "lib/base/list.h"
#include "lib/base/memory.h"

#define CACHE_BYTES_DEFAULT (64u * 1024 * 1024)
#define CHECKPOINT_PAGES_DEFAULT 500 /* 5-10 ms of the worker, 2 MB of WAL */
/* A transaction takes this much at most: longer ones make the WAL and the worker's answers long. */
#define BATCH_ROWS_MAX 4096
#define BATCH_BYTES_MAX (4u * 1024 * 1024)
/* Entries that change nothing wait for the next batch, but not for ever: the Raft log is cut only
 * behind what is written. For the same reason a checkpoint comes after so many entries at the latest. */
#define IDLE_ENTRIES_MAX 1000
#define CHECKPOINT_ENTRIES_MAX 10000
/* Slices: what holds the loop thread stays below a millisecond, what holds the worker near ten. */
#define SLICE_KEYS 1000
#define SLICE_ROWS 1000

/* ---- Jobs (jobs.c) ------------------------------------------------------------------------------ */

struct store_job {
    struct job job; /* first */
    struct list link;
    struct mvcc *m; /* NULL: the store was closed meanwhile */
    bool foreign;   /* it reads what came from elsewhere: ERR_CORRUPT says nothing of this store */
    enum errc code;
    struct error err;
    /* On the worker; what it returns becomes `code`. */
    enum errc (*work)(struct store_job *j, struct error *err);
    /* On the loop thread; it frees the job. m is NULL if the store is gone: only free then. */
    void (*finish)(struct store_job *j);
};

void job_submit(struct mvcc *m, struct store_job *j);

/* ---- Long operations, one after another (ops.c) -------------------------------------------------- */

/* Compactions, hashes and the like: each consists of several jobs, and what one finds must not be
 * changed by another. Ownership: the queue's, from ops_add to `destroy`. */
struct op {
    struct store_job sj; /* first; of the step under way */
    struct list link;
    uint64_t index; /* what must be committed before it may begin */
    bool fenced;    /* each step waits until no snapshot is open */
    bool busy, cancelled;
    /* Calls op_submit or op_finish once; again if its job found no space (and changed nothing then). */
    void (*step)(struct mvcc *m, struct op *op);
    void (*after)(struct mvcc *m, struct op *op);  /* the job is done, see sj.code; may op_finish */
    void (*answer)(struct op *op, enum errc code); /* tells who asked; NULL: nobody did */
    void (*destroy)(struct op *op);
};

void ops_add(struct mvcc *m, struct op *op); /* runs it if nothing is before it */
void ops_run(struct mvcc *m);
/* work NULL: nothing but to let the loop go on with others before the next step. */
void op_submit(struct mvcc *m, struct op *op,
               enum errc (*work)(struct store_job *j, struct error *err));
void op_finish(struct mvcc *m, struct op *op, enum errc code); /* ends, answers and destroys it */
void ops_cancel(struct mvcc *m, enum errc code);               /* all; ERR_OK: without an answer */

/* ---- Applying ------------------------------------------------------------------------------------ */

struct bucket_op {
    enum mvcc_bucket bucket;
    uint8_t *key, *value; /* value NULL: remove */
    size_t key_n, value_n;
};

/* What one log entry changed, until it is committed. */
struct entry_write {
    struct list link;      /* m->unwritten; the loop thread's */
    struct db_state state; /* after it */
    struct mvcc_kv **kvs;
    size_t kvs_n, kvs_cap;
    struct bucket_op *ops;
    size_t ops_n, ops_cap;
    size_t bytes;
    bool submitted;
};

void entry_write_free(struct entry_write *w);

/* The ballast (reserve.c): on a full disk its space is what deletes, compactions and checkpoints go on with.
 * Two batches and the checkpoints that follow them fit in; a tombstone with its share of WAL and file takes
 * some 200 bytes. The worker's, but for `bytes`. */
#define RESERVE_BYTES(checkpoint_pages) (2 * BATCH_BYTES_MAX + 4 * (checkpoint_pages)*4096)
#define RESERVE_FILE "reserve"
struct reserve {
    struct disk *disk;
    char *path;
    uint64_t bytes;
    bool there;
};

struct mvcc {
    struct disk *disk;
    char *dir, *vfs;
    struct worker *worker;
    size_t checkpoint_pages;
    void (*durable_cb)(void *ctx, uint64_t applied_index);
    void (*failed_cb)(void *ctx, const struct error *err);
    void *ctx;

    struct disk_file *lock;
    char *file;        /* name of the database in dir */
    struct db *writer; /* the worker's */
    struct db *reader;
    struct keyindex index;
    struct cache cache;

    struct db_state applied;
    struct db_state committed;
    uint64_t submitted; /* applied index of the last batch that was given to the worker */
    uint64_t durable_index;
    uint64_t last_checkpoint_asked; /* the applied index at the last checkpoint */

    /* The entry between begin and end. */
    bool in_entry;
    struct db_state entry;
    struct entry_write *entry_write;
    struct mvcc_change *changes;
    size_t changes_n, changes_cap;

    struct list unwritten; /* struct entry_write, in order; those of jobs under way first */
    size_t unwritten_bytes;
    unsigned batches; /* under way */

    struct list jobs; /* under way */
    struct list ops;
    struct op *compaction; /* queued and not begun: a later compaction joins it */
    bool ops_running;
    struct list snapshots; /* open ones */
    size_t snapshot_chunk;
    struct mvcc_restore *restore; /* NULL: none is under way */
    unsigned restores;            /* begun since `file`: each has its own file name */
    char *kept;                   /* what a former life had begun to receive; NULL: nothing */
    bool failed;                  /* a job failed: nothing is written any more */
    bool waits;                   /* for space: nothing is written before mvcc_space_retry() */
    bool checkpoint_wanted;       /* with the next batch, which may be an empty one */
    struct reserve reserve;
    bool reserve_there, making_reserve; /* as the loop thread knows it */
    struct error space_err;             /* what made it wait */
    bool installing;                    /* a snapshot is taking the place of everything */
    struct db_sizes sizes;
    bool scrubbing; /* a slice is under way */
    uint64_t scrub_due_ms, scrub_passes;
};

void mvcc_fail(struct mvcc *m, const struct error *err); /* reports it once */
/* What a read on the loop thread ends with: `code`, after ERR_CORRUPT was reported. */
enum errc read_failed(struct mvcc *m, enum errc code, const struct error *err);

/* Where a revision number of a query leads: ERR_FUTURE_REV, ERR_COMPACTED. */
int64_t mvcc_read_revision(const struct mvcc *m);

/* A revision with (or without) its value, from memory or SQLite. A reference. */
enum errc read_kv(struct mvcc *m, uint64_t id, bool whole, struct mvcc_kv **ret_kv,
                  struct error *err);

/* ---- Writing (writer.c) -------------------------------------------------------------------------- */

void writer_kick(struct mvcc *m);      /* writes what waits, unless a batch is under way */
void writer_flush(struct mvcc *m);     /* as kick, and the applied index even if nothing changed */
void writer_flush_all(struct mvcc *m); /* submits all that waits now, whatever its size */

/* On the worker: frames every change of the tables. Begin, change, then end with the state as it is to
 * be; failure rolls back and leaves the connection unusable for writing, but for ERR_NO_SPACE: then db->state
 * is as before, and the whole may be tried again. */
enum errc txn_begin(struct db *db, struct error *err);
enum errc txn_end(struct db *db, enum errc code, struct error *err);

/* On the worker, after a transaction: a checkpoint if it is due, and the sizes. */
struct written {
    uint64_t durable; /* applied index, 0: no checkpoint was completed */
    struct db_sizes sizes;
    bool no_space;     /* the checkpoint found none; the transaction stands */
    bool reserve_used; /* by now */
    struct error err;
};
enum errc after_write(struct db *db, size_t checkpoint_pages, bool checkpoint_now,
                      struct written *ret_written, struct error *err);
void take_written(struct mvcc *m, const struct written *w); /* on the loop thread */

/* ---- Space (reserve.c) --------------------------------------------------------------------------- */

/* On the worker (or at open). */
enum errc reserve_make(struct reserve *r, struct error *err);
void reserve_release(struct reserve *r);
bool reserve_use(
    struct db *db); /* true: it was there and is given up, what failed may be tried again */

/* On the loop thread: a job came back with ERR_NO_SPACE. */
void mvcc_wait_for_space(struct mvcc *m, const struct error *err);

/* ---- The rest ------------------------------------------------------------------------------------ */

void compact_start(struct mvcc *m, int64_t revision, uint64_t index);
void vacuum_start(struct mvcc *m);                     /* gives free pages back if there are many */
void snapshots_cancel(struct mvcc *m, enum errc code); /* ERR_OK: without an answer */
void restore_forget(struct mvcc *m);
void apply_reset(struct mvcc *m); /* forgets what is not written; nothing is under way */

#endif
