#include "daemon/store/sqlite.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define APPLICATION_ID 0x51465331 /* "QFS1": file(1) and we know our files by it */
#define FORMAT_VERSION 1
#define PAGE_SIZE 4096
#define BUSY_TIMEOUT_MS 10000 /* only the recovery of a WAL, at open, ever makes the other wait */

static const char *const statement_texts[DB_STATEMENT_COUNT] = {
    [DB_BEGIN_READ] = "BEGIN",
    [DB_BEGIN_WRITE] = "BEGIN IMMEDIATE",
    [DB_COMMIT] = "COMMIT",
    [DB_ROLLBACK] = "ROLLBACK",
    [DB_STATE_READ] =
        "SELECT applied, term, stamp, revision, compact_revision, compact_done, rows, "
        "digest, crc FROM state WHERE id = 1",
    [DB_STATE_WRITE] = "UPDATE state SET applied = ?, term = ?, stamp = ?, revision = ?, "
                       "compact_revision = ?, compact_done = ?, rows = ?, digest = ?, crc = ? "
                       "WHERE id = 1",
    [DB_ROW_INSERT] = "INSERT INTO rev VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    [DB_ROW_DELETE] = "DELETE FROM rev WHERE id = ? RETURNING crc",
    [DB_ROW_READ] = "SELECT id, crc, value_crc, tombstone, created, version, lease, stamp, key, "
                    "value FROM rev WHERE id = ?",
    [DB_ROW_READ_FACTS] = "SELECT id, crc, value_crc, tombstone, created, version, lease, stamp, "
                          "key, length(value) FROM rev WHERE id = ?",
    [DB_ROWS_FROM] = "SELECT id, crc, value_crc, tombstone, created, version, lease, stamp, key, "
                     "value FROM rev WHERE id BETWEEN ? AND ? ORDER BY id",
    [DB_ROWS_BACK] = "SELECT id, crc, value_crc, tombstone, created, version, lease, stamp, key, "
                     "value FROM rev WHERE id BETWEEN ? AND ? ORDER BY id DESC",
    [DB_ROWS_FACTS] = "SELECT id, crc, value_crc, tombstone, created, version, lease, stamp, key, "
                      "length(value) FROM rev ORDER BY id",
    [DB_BUCKET_PUT] = "INSERT INTO bucket VALUES (?, ?, ?, ?)",
    [DB_BUCKET_DELETE] = "DELETE FROM bucket WHERE bucket = ? AND key = ? RETURNING crc",
    [DB_BUCKET_ROWS] = "SELECT bucket, key, crc, value FROM bucket WHERE bucket = ? ORDER BY key",
    [DB_BUCKETS_ALL] = "SELECT bucket, key, crc, value FROM bucket ORDER BY bucket, key",
    [DB_PARTIAL_READ] = "SELECT progress FROM partial WHERE id = 1",
    [DB_PARTIAL_WRITE] = "INSERT OR REPLACE INTO partial VALUES (1, ?)",
    [DB_PAGE_COUNT] = "PRAGMA page_count",
    [DB_FREE_COUNT] = "PRAGMA freelist_count",
};

/* Small columns stand before the value: a scan for the index then reads no overflow pages. */
static const char *const tables[] = {
    "CREATE TABLE rev (id INTEGER PRIMARY KEY, crc INTEGER, value_crc INTEGER, tombstone INTEGER,"
    "  created INTEGER, version INTEGER, lease INTEGER, stamp INTEGER, key BLOB, value BLOB)",
    "CREATE TABLE bucket (bucket INTEGER, key BLOB, crc INTEGER, value BLOB,"
    "  PRIMARY KEY (bucket, key)) WITHOUT ROWID",
    "CREATE TABLE state (id INTEGER PRIMARY KEY, applied INTEGER, term INTEGER, stamp INTEGER,"
    "  revision INTEGER, compact_revision INTEGER, compact_done INTEGER, rows INTEGER,"
    "  digest INTEGER, crc INTEGER)",
};

static enum errc code_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
    case SQLITE_MISMATCH:   /* of a rowid */
    case SQLITE_CONSTRAINT: /* ids are unique unless a page was replaced by another */
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_NOMEM:
        abort(); /* as memory.h does */
    default:
        return ERR_IO;
    }
}

#define ADVICE                                                                                     \
    "remove the member's data directory and let it rejoin (a member that is alone: quorumd "       \
    "--rescue "                                                                                    \
    "NEWDIR --data-dir DIR saves what can be read)"

/* SQLITE_FULL is only what a write(2) says. A sync that finds no space is none of it: nobody knows what it has
 * lost. */
static bool lacks_space(struct db *db, int rc)
{
    int cause = sqlite3_system_errno(db->handle);
    switch (rc) {
    case SQLITE_IOERR_SHMSIZE: /* the file that the WAL's index is in grows by a write */
        return cause != EIO;
    case SQLITE_IOERR_WRITE:
    case SQLITE_IOERR_SHMOPEN:
    case SQLITE_IOERR_SHMMAP:
    case SQLITE_CANTOPEN:
        return cause == ENOSPC || cause == EDQUOT;
    default:
        return false;
    }
}

enum errc db_error(struct db *db, const char *what, struct error *err)
{
    int rc = sqlite3_extended_errcode(db->handle);
    enum errc code = lacks_space(db, rc) ? ERR_NO_SPACE : code_of(rc);
    /* Our statements fit our tables: then these are not ours any more. */
    const char *text = sqlite3_errmsg(db->handle);
    if (rc == SQLITE_ERROR &&
        (strstr(text, "no such ") || strstr(text, "malformed") || strstr(text, "unsupported")))
        code = ERR_CORRUPT;
    return error_set(err, code, "%s: %s: %s (SQLite's %d)%s", db->path, what,
                     sqlite3_errmsg(db->handle), rc, code == ERR_CORRUPT ? "; " ADVICE : "");
}

enum errc db_corrupt(struct db *db, struct error *err, const char *format, ...)
{
    char detail[320];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    return error_set(err, ERR_CORRUPT, "%s: %s; " ADVICE, db->path, detail);
}

enum errc db_exec(struct db *db, const char *sql, struct error *err)
{
    if (sqlite3_exec(db->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
        return db_error(db, sql, err);
    return ERR_OK;
}

enum errc db_statement(struct db *db, enum db_statement which, sqlite3_stmt **ret_s,
                       struct error *err)
{
    sqlite3_stmt **s = &db->statements[which];
    if (*s)
        sqlite3_reset(*s);
    else if (sqlite3_prepare_v3(db->handle, statement_texts[which], -1, SQLITE_PREPARE_PERSISTENT,
                                s, NULL) != SQLITE_OK)
        return db_error(db, statement_texts[which], err);
    *ret_s = *s;
    return ERR_OK;
}

enum errc db_run(struct db *db, sqlite3_stmt *s, const char *what, struct error *err)
{
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW)
        continue;
    enum errc code = rc == SQLITE_DONE ? ERR_OK : db_error(db, what, err);
    sqlite3_reset(s);
    return code;
}

enum errc db_do(struct db *db, enum db_statement which, const char *what, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, which, &s, err);
    return code == ERR_OK ? db_run(db, s, what, err) : code;
}

static enum errc read_int(struct db *db, const char *sql, int64_t *ret_value, struct error *err)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db->handle, sql, -1, &s, NULL) != SQLITE_OK)
        return db_error(db, sql, err);
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        *ret_value = sqlite3_column_int64(s, 0);
    enum errc code = rc == SQLITE_ROW ? ERR_OK : db_error(db, sql, err);
    sqlite3_finalize(s);
    return code;
}

/* ---- Opening ----------------------------------------------------------------------------------- */

/* Anything but WAL (a VFS without shared memory silently stays with a rollback journal) would break
 * the promise that a reader never waits for the writer. */
static enum errc require_wal(struct db *db, struct error *err)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db->handle, "PRAGMA journal_mode = WAL", -1, &s, NULL) != SQLITE_OK)
        return db_error(db, "PRAGMA journal_mode", err);
    int rc = sqlite3_step(s);
    const char *mode = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(s, 0) : NULL;
    enum errc code = ERR_OK;
    if (!mode)
        code = db_error(db, "PRAGMA journal_mode", err);
    else if (strcmp(mode, "wal") != 0)
        code = error_set(err, ERR_IO,
                         "%s: this file system can't do SQLite's WAL mode (it "
                         "stays with %s)",
                         db->path, mode);
    /* The switch is committed when the statement ends, behind its row. */
    if (code == ERR_OK && sqlite3_step(s) != SQLITE_DONE)
        code = db_error(db, "PRAGMA journal_mode", err);
    sqlite3_finalize(s);
    return code;
}

static enum errc create_tables(struct db *db, struct error *err)
{
    enum errc code = db_exec(db, "BEGIN IMMEDIATE", err);
    for (size_t i = 0; code == ERR_OK && i < ARRAY_LEN(tables); i++)
        code = db_exec(db, tables[i], err);
    if (code == ERR_OK)
        code = db_exec(db, "INSERT INTO state (id) VALUES (1)", err);
    if (code != ERR_OK)
        return code;
    db->state = (struct db_state){.revision = 1, .compact_revision = -1};
    code = db_write_state(db, &db->state, err);
    if (code != ERR_OK)
        return code;
    char sql[128];
    snprintf(sql, sizeof(sql), "PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT",
             APPLICATION_ID, FORMAT_VERSION);
    return db_exec(db, sql, err);
}

/* Every table stands there with the very text that it was made with. */
static enum errc check_tables(struct db *db, struct error *err)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db->handle, "SELECT count(*) FROM sqlite_master WHERE sql = ?", -1, &s,
                           NULL) != SQLITE_OK)
        return db_error(db, "read the schema", err);
    enum errc code = ERR_OK;
    for (size_t i = 0; code == ERR_OK && i < ARRAY_LEN(tables); i++) {
        sqlite3_reset(s);
        sqlite3_bind_text(s, 1, tables[i], -1, SQLITE_STATIC);
        if (sqlite3_step(s) != SQLITE_ROW)
            code = db_error(db, "read the schema", err);
        else if (sqlite3_column_int64(s, 0) != 1)
            code = db_corrupt(db, err, "the schema is damaged: %.17s... is not there", tables[i]);
    }
    sqlite3_finalize(s);
    return code;
}

static enum errc check_format(struct db *db, enum db_mode mode, struct error *err)
{
    int64_t application = 0, version = 0, tables = 0, vacuum = 0;
    enum errc code = read_int(db, "PRAGMA application_id", &application, err);
    if (code == ERR_OK)
        code = read_int(db, "PRAGMA user_version", &version, err);
    if (code == ERR_OK)
        code = read_int(db, "SELECT count(*) FROM sqlite_master", &tables, err);
    if (code == ERR_OK && mode == DB_CREATE && application == 0 && tables == 0)
        code = create_tables(db, err);
    else if (code == ERR_OK && application != APPLICATION_ID)
        code = db_corrupt(db, err, "this is not a store of quorumd");
    else if (code == ERR_OK && version != FORMAT_VERSION)
        code = error_set(err, ERR_CORRUPT,
                         "%s: format %lld is not known to this version, which writes format %d: "
                         "install the version that wrote it, or a newer one",
                         db->path, (long long)version, FORMAT_VERSION);
    if (code == ERR_OK)
        code = read_int(db, "PRAGMA auto_vacuum", &vacuum, err);
    if (code == ERR_OK && vacuum != 2)
        code = db_corrupt(db, err, "auto_vacuum is %d where it was made with 2", (int)vacuum);
    return code == ERR_OK ? check_tables(db, err) : code;
}

static int on_commit(void *ctx, sqlite3 *handle, const char *name, int pages)
{
    (void)handle, (void)name;
    struct db *db = ctx;
    if (pages < db->wal_pages)
        db->wal_pages_checkpointed = 0; /* it began again at its start */
    db->wal_pages = pages;
    return SQLITE_OK;
}

static enum errc set_up(struct db *db, enum db_mode mode, struct error *err)
{
    char sql[256];
    sqlite3_busy_timeout(db->handle, BUSY_TIMEOUT_MS);
    /* auto_vacuum works only before the first page is written, so it comes before WAL; later it would be a
     * write all the same, which a full disk has no room for. No mmap: an I/O error would be a SIGBUS.
     * cell_size_check finds damaged pages before they are followed. */
    snprintf(sql, sizeof(sql),
             "PRAGMA page_size = %d; %s PRAGMA mmap_size = 0;"
             "PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON; PRAGMA cache_size = %d",
             PAGE_SIZE, mode == DB_CREATE ? "PRAGMA auto_vacuum = INCREMENTAL;" : "",
             mode == DB_READ ? -8192 : -16384);
    enum errc code = db_exec(db, sql, err);
    if (code == ERR_OK)
        code = require_wal(db, err);
    if (code == ERR_OK) /* the limit cuts a WAL that a burst made long when it begins again */
        code = db_exec(db,
                       "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;"
                       "PRAGMA journal_size_limit = 16777216",
                       err);
    if (code == ERR_OK && MUTANT(store_not_synced)) /* e#16596 */
        code = db_exec(db, "PRAGMA synchronous = OFF", err);
    if (code == ERR_OK)
        code = check_format(db, mode, err);
    if (code == ERR_OK && mode == DB_READ)
        code = db_exec(db, "PRAGMA query_only = ON", err);
    if (code == ERR_OK)
        sqlite3_wal_hook(db->handle, on_commit, db);
    return code;
}

enum errc db_check_header(struct disk *disk, const char *path, struct error *err)
{
    static const struct {
        uint32_t at, n;
        const char *is;
    } fields[] = {
        {0, 16, "SQLite format 3"},
        {16, 2, "\x10\0"}, /* PAGE_SIZE */
        {18, 2, "\2\2"},   /* WAL */
        {20, 4, "\0\x40\x20\x20"},
        {44, 4, "\0\0\0\4"},
        {56, 4, "\0\0\0\1"}, /* fixed; schema; UTF-8 */
    };
    uint8_t header[100] = {0};
    struct disk_file *f;
    size_t n = 0;
    enum errc code = disk->open(disk, path, DISK_READ, &f, err);
    if (code != ERR_OK)
        return code;
    code = disk->read(disk, f, 0, header, sizeof(header), &n, err);
    disk->close(disk, f);
    for (size_t i = 0; code == ERR_OK && i < ARRAY_LEN(fields); i++)
        if (memcmp(header + fields[i].at, fields[i].is, fields[i].n) != 0)
            code = error_set(err, ERR_CORRUPT, "%s at %u: the header is damaged; " ADVICE, path,
                             fields[i].at);
    return code;
}

enum errc db_open(const char *path, const char *vfs, enum db_mode mode, struct db **ret_db,
                  struct error *err)
{
    struct db *db = xcalloc(1, sizeof(*db));
    db->path = xstrdup(path);
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE;
    flags |= mode == DB_CREATE ? SQLITE_OPEN_CREATE : 0;
    enum errc code = ERR_OK;
    if (sqlite3_open_v2(path, &db->handle, flags, vfs) != SQLITE_OK)
        code = db_error(db, "open", err);
    if (code == ERR_OK && mode != DB_SALVAGE)
        code = set_up(db, mode, err);
    if (code == ERR_OK && mode != DB_SALVAGE)
        code = db_read_state(db, &db->state, err);
    if (code != ERR_OK) {
        db_close(db, true);
        return code;
    }
    *ret_db = db;
    return ERR_OK;
}

void db_close(struct db *db, bool crash)
{
    if (!db)
        return;
    for (unsigned i = 0; i < DB_STATEMENT_COUNT; i++)
        sqlite3_finalize(db->statements[i]);
    if (crash && db->handle)
        sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    int rc = sqlite3_close(db->handle);
    assert(rc == SQLITE_OK); /* every statement is finalized above */
    free(db->path);
    free(db);
}

/* ---- The state row ----------------------------------------------------------------------------- */

static uint32_t state_crc(const struct db_state *s)
{
    const uint64_t values[] = {s->applied,
                               s->term,
                               s->stamp,
                               (uint64_t)s->revision,
                               (uint64_t)s->compact_revision,
                               (uint64_t)s->compact_done,
                               s->rows,
                               s->digest};
    uint8_t p[sizeof(values)];
    for (size_t i = 0; i < ARRAY_LEN(values); i++)
        put_le64(p + 8 * i, values[i]);
    return crc32c(0, p, sizeof(p));
}

enum errc db_read_state(struct db *db, struct db_state *ret_state, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_STATE_READ, &s, err);
    if (code != ERR_OK)
        return code;
    int rc = sqlite3_step(s);
    if (rc != SQLITE_ROW) {
        code = rc == SQLITE_DONE ? db_corrupt(db, err, "the state row is missing")
                                 : db_error(db, "read the state", err);
        sqlite3_reset(s);
        return code;
    }
    struct db_state state = {
        .applied = (uint64_t)sqlite3_column_int64(s, 0),
        .term = (uint64_t)sqlite3_column_int64(s, 1),
        .stamp = (uint64_t)sqlite3_column_int64(s, 2),
        .revision = sqlite3_column_int64(s, 3),
        .compact_revision = sqlite3_column_int64(s, 4),
        .compact_done = sqlite3_column_int64(s, 5),
        .rows = (uint64_t)sqlite3_column_int64(s, 6),
        .digest = (uint64_t)sqlite3_column_int64(s, 7),
    };
    bool good = sqlite3_column_int64(s, 8) == (int64_t)state_crc(&state);
    sqlite3_reset(s);
    if (!good)
        return db_corrupt(db, err, "the state row is damaged (its checksum is wrong)");
    *ret_state = state;
    return ERR_OK;
}

enum errc db_write_state(struct db *db, const struct db_state *state, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_STATE_WRITE, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)state->applied);
    sqlite3_bind_int64(s, 2, (int64_t)state->term);
    sqlite3_bind_int64(s, 3, (int64_t)state->stamp);
    sqlite3_bind_int64(s, 4, state->revision);
    sqlite3_bind_int64(s, 5, state->compact_revision);
    sqlite3_bind_int64(s, 6, state->compact_done);
    sqlite3_bind_int64(s, 7, (int64_t)state->rows);
    sqlite3_bind_int64(s, 8, (int64_t)state->digest);
    sqlite3_bind_int64(s, 9, (int64_t)state_crc(state));
    return db_run(db, s, "write the state", err);
}

/* ---- Checkpoints and sizes --------------------------------------------------------------------- */

enum errc db_checkpoint(struct db *db, bool wait, bool *ret_complete, struct error *err)
{
    int log = 0, done = 0;
    int rc = sqlite3_wal_checkpoint_v2(db->handle, "main",
                                       wait ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_PASSIVE,
                                       &log, &done);
    *ret_complete = false;
    if ((rc & 0xff) == SQLITE_BUSY)
        return ERR_OK; /* a reader is in the way: another time */
    if (rc != SQLITE_OK)
        return db_error(db, "checkpoint", err);
    if (log == done) {
        *ret_complete = true;
        db->wal_pages_checkpointed = db->wal_pages;
    }
    return ERR_OK;
}

static enum errc pragma_int(struct db *db, enum db_statement which, int64_t *ret_value,
                            struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, which, &s, err);
    if (code != ERR_OK)
        return code;
    if (sqlite3_step(s) == SQLITE_ROW)
        *ret_value = sqlite3_column_int64(s, 0);
    else
        code = db_error(db, "measure", err);
    sqlite3_reset(s);
    return code;
}

enum errc db_measure(struct db *db, struct db_sizes *ret_sizes, struct error *err)
{
    int64_t pages = 0, unused = 0;
    enum errc code = pragma_int(db, DB_PAGE_COUNT, &pages, err);
    if (code == ERR_OK)
        code = pragma_int(db, DB_FREE_COUNT, &unused, err);
    if (code != ERR_OK)
        return code;
    ret_sizes->file = (uint64_t)pages * PAGE_SIZE;
    ret_sizes->in_use = (uint64_t)(pages - unused) * PAGE_SIZE;
    return ERR_OK;
}
