/* One connection to a database file of the store: opening with every setting checked, statements,
 * transactions, checkpoints, and SQLite's results made into errors.
 *
 * A connection belongs to one thread at a time (it is opened without a mutex). WAL with
 * synchronous=NORMAL: a crash never damages the file but may lose the commits after the last
 * checkpoint; the Raft log replays them. */
#ifndef STORE_SQLITE_H
#define STORE_SQLITE_H

#include <sqlite3.h>

#include "lib/base/bytes.h"
#include "lib/base/disk.h"
#include "lib/base/error.h"

/* What stands in the single row of table `state`, written in each transaction. */
struct db_state {
    uint64_t applied, term, stamp; /* of the last applied log entry */
    int64_t revision;
    int64_t
        compact_revision; /* asked for; -1: never, so that a first compaction at 0 is one, as etcd's */
    int64_t compact_done;  /* rows are gone up to here */
    uint64_t rows, digest; /* of tables rev and bucket together: see tables.h */
};

enum db_statement {
    DB_BEGIN_READ,
    DB_BEGIN_WRITE,
    DB_COMMIT,
    DB_ROLLBACK,
    DB_STATE_READ,
    DB_STATE_WRITE,
    DB_ROW_INSERT,
    DB_ROW_DELETE,
    DB_ROW_READ,
    DB_ROW_READ_FACTS,
    DB_ROWS_FROM,
    DB_ROWS_BACK,
    DB_ROWS_FACTS,
    DB_BUCKET_PUT,
    DB_BUCKET_DELETE,
    DB_BUCKET_ROWS,
    DB_BUCKETS_ALL,
    DB_PARTIAL_READ,
    DB_PARTIAL_WRITE,
    DB_PAGE_COUNT,
    DB_FREE_COUNT,
    DB_STATEMENT_COUNT
};

struct reserve; /* internal.h */

struct db {
    sqlite3 *handle;
    char *path;
    sqlite3_stmt *statements[DB_STATEMENT_COUNT];
    int wal_pages;              /* after the last commit of this connection */
    int wal_pages_checkpointed; /* wal_pages at the last checkpoint that was complete */
    bool failed;                /* a write failed: nothing more may be written */
    struct db_state state; /* writer: as of the last commit, rows and digest of what is under way */
    /* writer: what a pass of the scrub has seen of `rev` below next_id, kept up by changes there. */
    struct db_scrub {
        uint64_t next_id, rows, digest;
        bool more; /* of the row before next_id: struct row */
    } scrub, saved_scrub;
    struct db_state saved;   /* state before the transaction under way */
    struct reserve *reserve; /* the store's writer: what it may give up for space; else NULL */
};

enum db_mode {
    DB_CREATE, /* make the tables if the file is missing or empty, then as DB_WRITE */
    DB_WRITE,
    DB_SALVAGE, /* whatever it is, unchecked: its state may be read with db_read_state() */
    DB_READ, /* a second connection beside a writer: short reads only, so that the WAL can restart */
};

/* What SQLite would take for another kind of file, or another file system's fault: the fixed fields of
 * a database that was made complete. ERR_CORRUPT with the offset. */
enum errc db_check_header(struct disk *disk, const char *path, struct error *err);

enum errc db_open(const char *path, const char *vfs, enum db_mode mode, struct db **ret_db,
                  struct error *err);

/* NULL is fine. crash: without the checkpoint that closing the last connection makes. */
void db_close(struct db *db, bool crash);

/* The error for what SQLite answered: "PATH: WHAT: its message". */
enum errc db_error(struct db *db, const char *what, struct error *err);

/* ERR_CORRUPT: "PATH: DETAIL; remove ...", the one advice that helps. */
enum errc db_corrupt(struct db *db, struct error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum errc db_exec(struct db *db, const char *sql, struct error *err);

/* A prepared statement, reset. */
enum errc db_statement(struct db *db, enum db_statement which, sqlite3_stmt **ret_s,
                       struct error *err);
/* Runs a statement that returns no rows. */
enum errc db_run(struct db *db, sqlite3_stmt *s, const char *what, struct error *err);
/* For statements without parameters. */
enum errc db_do(struct db *db, enum db_statement which, const char *what, struct error *err);

enum errc db_read_state(struct db *db, struct db_state *ret_state, struct error *err);
enum errc db_write_state(struct db *db, const struct db_state *state, struct error *err);

/* Moves the WAL into the file. *ret_complete: all of it, so that everything committed is durable. wait:
 * for readers. The WAL is never truncated: SQLite doesn't sync that, and where a power failure brought
 * back a part of the old WAL, its frames would stand for pages that are newer in the file. */
enum errc db_checkpoint(struct db *db, bool wait, bool *ret_complete, struct error *err);

struct db_sizes {
    uint64_t file, in_use; /* bytes */
};
enum errc db_measure(struct db *db, struct db_sizes *ret_sizes, struct error *err);

/* A column's blob, borrowed until the statement moves on. */
static inline struct bytes db_blob(sqlite3_stmt *s, int column)
{
    const void *p = sqlite3_column_blob(s, column);
    return bytes_of(p, p ? (size_t)sqlite3_column_bytes(s, column) : 0);
}

#endif
