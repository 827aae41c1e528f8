#include "daemon/store/salvage.h"

#include <stdio.h>
#include <stdlib.h>

#include "daemon/store/files.h"
#include "daemon/store/import.h"
#include "daemon/store/internal.h"

#define COPY "damaged.db"
#define PAGE 4096
#define COPY_BYTES (1024u * 1024)
/* Reads that fail while damaged spans are narrowed down: some seconds. What is left then counts as lost. */
#define FAILURES_MAX 200000
#define MAIN_MAX_UNKNOWN (INT64_C(1) << 32) /* where no state says which revision is the last */

struct salvage {
    struct disk *disk;
    char *to;
    struct db *source, *target;
    struct buf *report;
    struct db_state state;
    bool has_state;
    uint64_t rows, digest; /* read */
    int64_t last_main;
    int64_t lost_from, lost_to; /* a span of main revisions, not yet reported; to 0: none */
    size_t failures, losses;
};

/* ---- The copy ---------------------------------------------------------------------------------- */

static enum errc copy_file(struct disk *disk, const char *from, const char *to, struct error *err)
{
    struct disk_file *in = NULL, *out = NULL;
    uint8_t *p = xmalloc(COPY_BYTES);
    enum errc code = disk->open(disk, from, DISK_READ, &in, err);
    if (code == ERR_OK)
        code = disk->open(disk, to, DISK_WRITE | DISK_CREATE, &out, err);
    size_t n = COPY_BYTES;
    for (uint64_t at = 0; code == ERR_OK && n == COPY_BYTES; at += n) {
        code = disk->read(disk, in, at, p, COPY_BYTES, &n, err);
        if (code == ERR_OK && n > 0)
            code = disk->write(disk, out, at, p, n, err);
    }
    if (in)
        disk->close(disk, in);
    if (out)
        disk->close(disk, out);
    free(p);
    return code;
}

static enum errc copy_beside(struct salvage *s, const char *from, const char *name,
                             const char *suffix, struct error *err)
{
    char *source = xasprintf("%s/%s%s", from, name, suffix);
    char *copy = xasprintf("%s/%s%s", s->to, COPY, suffix);
    enum errc code = copy_file(s->disk, source, copy, err);
    free(source);
    free(copy);
    return code;
}

/* The first page of a new store has the same tables at the same pages; only the file's length differs. */
static enum errc replace_first_page(struct salvage *s, const char *copy, struct error *err)
{
    uint8_t page[PAGE];
    struct disk_file *f;
    size_t n = 0;
    uint64_t size = 0;
    char *fresh = files_path(s->to, STORE_FILE_FIRST);
    enum errc code = s->disk->open(s->disk, fresh, DISK_READ, &f, err);
    free(fresh);
    if (code != ERR_OK)
        return code;
    code = s->disk->read(s->disk, f, 0, page, PAGE, &n, err);
    s->disk->close(s->disk, f);
    if (code == ERR_OK)
        code = s->disk->open(s->disk, copy, DISK_WRITE, &f, err);
    if (code != ERR_OK)
        return code;
    code = s->disk->size(s->disk, f, &size, err);
    put_be64(page + 28, (size / PAGE) << 32); /* pages; and no list of free ones */
    put_be64(page + 32, 0);
    if (code == ERR_OK)
        code = s->disk->write(s->disk, f, 0, page, PAGE, err);
    s->disk->close(s->disk, f);
    return code;
}

static bool can_read(struct db *db)
{
    sqlite3_stmt *stmt;
    struct error why;
    return db_statement(db, DB_ROWS_FROM, &stmt, &why) == ERR_OK &&
           db_statement(db, DB_BUCKETS_ALL, &stmt, &why) == ERR_OK;
}

static enum errc open_copy(struct salvage *s, struct error *err)
{
    char *path = files_path(s->to, COPY);
    struct error why;
    bool bad_header = db_check_header(s->disk, path, &why) != ERR_OK;
    enum errc code = ERR_OK;
    for (int attempt = 0; code == ERR_OK && !s->source && attempt < 2; attempt++) {
        if (bad_header || attempt > 0) {
            buf_printf(s->report, "store: its first page was made anew\n");
            code = replace_first_page(s, path, err);
            attempt = 1;
        }
        if (code == ERR_OK)
            code = db_open(path, NULL, DB_SALVAGE, &s->source, err);
        if (code == ERR_OK && !can_read(s->source)) {
            db_close(s->source, true);
            s->source = NULL;
        }
    }
    free(path);
    if (code == ERR_OK && !s->source)
        code = error_set(err, ERR_CORRUPT, "nothing of the store can be read");
    return code;
}

/* ---- Rows -------------------------------------------------------------------------------------- */

static void tell_lost_span(struct salvage *s)
{
    if (s->lost_to == 0)
        return;
    buf_printf(s->report, "store: what was in revisions %lld to %lld can't be read\n",
               (long long)s->lost_from, (long long)s->lost_to);
    s->losses++;
    s->lost_to = 0;
}

static void lose_span(struct salvage *s, uint64_t lo, uint64_t hi)
{
    if (s->lost_to == 0 || rev_main(lo) > s->lost_to + 1) {
        tell_lost_span(s);
        s->lost_from = rev_main(lo);
    }
    s->lost_to = rev_main(hi);
}

static enum errc keep_row(struct salvage *s, sqlite3_stmt *stmt, struct error *err)
{
    struct row row;
    struct error why;
    if (row_take(s->source, stmt, true, &row, &why) != ERR_OK) {
        char *end = strchr(why.message, ';');
        char *begin = strstr(why.message, ".db: ");
        buf_printf(s->report, "store: lost: %.*s\n",
                   (int)((end ? end : why.message + strlen(why.message)) -
                         (begin ? begin + 5 : why.message)),
                   begin ? begin + 5 : why.message);
        s->losses++;
        return ERR_OK;
    }
    s->rows++;
    s->digest += row_digest(row.id, row.crc);
    s->last_main = rev_main(row.id) > s->last_main ? rev_main(row.id) : s->last_main;
    return row_insert(s->target, &row, err);
}

/* Reads [*lo, *hi] from one end to where SQLite can't go on; what is left is the new [*lo, *hi], empty if
 * nothing is. */
static enum errc read_span(struct salvage *s, uint64_t *lo, uint64_t *hi, bool back,
                           struct error *err)
{
    sqlite3_stmt *stmt;
    enum errc code = db_statement(s->source, back ? DB_ROWS_BACK : DB_ROWS_FROM, &stmt, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(stmt, 1, (int64_t)*lo);
    sqlite3_bind_int64(stmt, 2, (int64_t)*hi);
    int rc = SQLITE_ROW;
    while (code == ERR_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        uint64_t id = (uint64_t)sqlite3_column_int64(stmt, 0);
        if (id < *lo || id > *hi)
            continue; /* of a page that is not where it belongs */
        code = keep_row(s, stmt, err);
        if (back)
            *hi = id - 1;
        else
            *lo = id + 1;
    }
    if (code == ERR_OK && rc == SQLITE_DONE)
        *lo = *hi + 1;
    sqlite3_reset(stmt);
    return code;
}

/* Narrows down what can't be read. Any id on a damaged page fails, whether there is a row of it or not: so
 * it is cut between main revisions, and one of them is only read from both its ends. */
static enum errc salvage_span(struct salvage *s, uint64_t lo, uint64_t hi, struct error *err)
{
    enum errc code = read_span(s, &lo, &hi, false, err);
    if (code != ERR_OK || lo > hi)
        return code;
    if (rev_main(lo) >= rev_main(hi))
        code = read_span(s, &lo, &hi, true, err);
    if (code != ERR_OK || lo > hi)
        return code;
    if (rev_main(lo) >= rev_main(hi) || s->failures++ >= FAILURES_MAX) {
        lose_span(s, lo, hi);
        return ERR_OK;
    }
    uint64_t middle = rev_id((rev_main(lo) + rev_main(hi)) / 2, REV_SUB_MAX);
    code = salvage_span(s, lo, middle, err);
    return code == ERR_OK ? salvage_span(s, middle + 1, hi, err) : code;
}

static enum errc salvage_buckets(struct salvage *s, struct error *err)
{
    sqlite3_stmt *stmt;
    enum errc code = db_statement(s->source, DB_BUCKETS_ALL, &stmt, err);
    int rc = SQLITE_DONE;
    while (code == ERR_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        unsigned bucket;
        struct bytes key, value;
        uint64_t digest;
        struct error why;
        if (bucket_take(s->source, stmt, &bucket, &key, &value, &digest, &why) != ERR_OK) {
            buf_printf(s->report, "store: lost: a row beside the keys (leases, sessions, ...)\n");
            s->losses++;
            continue;
        }
        s->rows++;
        s->digest += digest;
        if (bucket != MVCC_BUCKET_MEMBER && bucket != MVCC_BUCKET_ALARM &&
            bucket < MVCC_BUCKET_COUNT)
            code = bucket_write(s->target, bucket, key, value, err);
    }
    if (code == ERR_OK && rc != SQLITE_DONE) {
        buf_printf(s->report, "store: rows beside the keys (leases, sessions) can't be read\n");
        s->losses++;
    }
    if (code == ERR_OK)
        sqlite3_reset(stmt);
    return code;
}

static enum errc read_all(struct salvage *s, bool *ret_whole, struct error *err)
{
    struct error why;
    s->has_state = db_read_state(s->source, &s->state, &why) == ERR_OK;
    if (!s->has_state) {
        s->state = (struct db_state){.compact_revision = -1};
        buf_printf(s->report, "store: it isn't known which log entry it was at\n");
        s->losses++;
    }
    int64_t top = s->has_state ? s->state.revision : MAIN_MAX_UNKNOWN;
    enum errc code = txn_begin(s->target, err);
    if (code == ERR_OK)
        code = salvage_span(s, 1, rev_id(top, REV_SUB_MAX), err);
    tell_lost_span(s);
    if (code == ERR_OK)
        code = salvage_buckets(s, err);
    if (!s->has_state)
        s->state.revision = s->last_main > 1 ? s->last_main : 1;
    bool whole =
        s->has_state && s->losses == 0 && s->rows == s->state.rows && s->digest == s->state.digest;
    if (!whole) { /* a history with holes is none: what is left counts as of now */
        s->state.compact_revision = s->state.revision;
        buf_printf(s->report, "store: compacted at revision %lld\n", (long long)s->state.revision);
    }
    *ret_whole = whole;
    if (code == ERR_OK && s->has_state && s->rows < s->state.rows)
        buf_printf(s->report, "store: %llu of %llu rows were read\n", (unsigned long long)s->rows,
                   (unsigned long long)s->state.rows);
    return code;
}

/* ---- Life -------------------------------------------------------------------------------------- */

static void remove_copy(struct salvage *s)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    db_close(s->source, true);
    s->source = NULL;
    for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
        char *path = xasprintf("%s/%s%s", s->to, COPY, suffixes[i]);
        s->disk->unlink(s->disk, path, NULL);
        free(path);
    }
}

static void salvage_free(struct salvage *s)
{
    remove_copy(s);
    db_close(s->target, true);
    free(s->to);
    free(s);
}

void salvage_abort(struct salvage *s)
{
    if (!s)
        return;
    db_close(s->target, true);
    s->target = NULL;
    files_clean(s->disk, s->to, NULL, NULL, NULL);
    salvage_free(s);
}

enum errc salvage_begin(struct disk *disk, const char *from, const char *to, struct buf *report,
                        struct salvage **ret_salvage, struct db_state *ret_state, bool *ret_whole,
                        struct error *err)
{
    struct salvage *s = xcalloc(1, sizeof(*s));
    s->disk = disk;
    s->to = xstrdup(to);
    s->report = report;
    char *name = NULL, *path = files_path(to, STORE_FILE_FIRST);
    bool marked, complete;
    struct error why;
    if (files_current(disk, from, &name, &marked, &why) != ERR_OK) {
        buf_printf(report, "store: %s\n", why.message);
        name = xstrdup(STORE_FILE_FIRST);
    }
    enum errc code = db_open(path, NULL, DB_CREATE, &s->target, err);
    if (code == ERR_OK)
        code = db_checkpoint(s->target, true, &complete, err);
    if (code == ERR_OK)
        code = copy_beside(s, from, name, "", err);
    if (code == ERR_OK && copy_beside(s, from, name, "-wal", &why) != ERR_OK)
        why.code = ERR_OK; /* there is none after a close in good order */
    if (code == ERR_OK)
        code = open_copy(s, err);
    if (code == ERR_OK)
        code = read_all(s, ret_whole, err);
    free(name);
    free(path);
    if (code != ERR_OK) {
        salvage_abort(s);
        return code;
    }
    *ret_state = s->state;
    *ret_salvage = s;
    return ERR_OK;
}

enum errc salvage_finish(struct salvage *s, uint64_t applied, uint64_t term,
                         struct bytes member_key, struct bytes member, struct error *err)
{
    enum errc code = bucket_write(s->target, MVCC_BUCKET_MEMBER, member_key, member, err);
    struct db_state state = s->state;
    state.applied = applied;
    state.term = term;
    code = import_complete(s->disk, s->to, s->target, &state, code, err);
    salvage_free(s);
    return code;
}
