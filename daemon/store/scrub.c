/* Reading everything again, slowly: damage to rows that nobody asks for is found while other members
 * still have them whole.
 *
 * A pass walks `rev` by id in slices. Each slice is a job with a connection of its own, so that it reads
 * the file and not what another connection remembers of it. The sums of what was read stand in the
 * writer's connection, which keeps them up when rows at or below the place are written or removed
 * meanwhile (compaction, rewriting): at the end they must be the state row's. All of it is on the worker, so
 * nothing changes during a slice. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/store/internal.h"

#define READ_BYTES 4096
#define SCRUB_ROWS 1000 /* a slice: about a millisecond of the worker if the file is in memory */
#define SCRUB_BYTES (512u * 1024)
/* SQLite's own check of its pages can't be cut into slices; 64 MiB take it some 100 ms of the worker, for
 * which the apply doesn't wait. Larger stores have their rows checked only. */
#define SCRUB_STRUCTURE_BYTES_MAX (64u * 1024 * 1024)

struct scrub {
    struct store_job sj; /* first */
    struct db *writer;
    char *path, *vfs;
    bool pass_done;
};

/* ---- On the worker ------------------------------------------------------------------------------- */

static enum errc read_rows(struct db *db, struct db *writer, bool *ret_end, struct error *err)
{
    struct db_scrub *at = &writer->scrub;
    struct row_order order = {.floor = writer->state.compact_revision, .more = at->more};
    order.floor = order.floor > 1 ? order.floor : 1;
    order.last =
        at->next_id ? at->next_id - 1 : 0; /* compacted meanwhile: then it is below the floor */
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_ROWS_FROM, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)at->next_id);
    sqlite3_bind_int64(s, 2, INT64_MAX);
    size_t rows = 0, bytes = 0;
    int rc = SQLITE_ROW;
    while (rows < SCRUB_ROWS && bytes < SCRUB_BYTES && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct row row;
        code = row_take(db, s, true, &row, err);
        if (code == ERR_OK && row.id < at->next_id)
            code = db_corrupt(db, err, "the row of revision %lld.%d is out of order",
                              (long long)rev_main(row.id), rev_sub(row.id));
        else if (code == ERR_OK && !row_order_take(&order, &row))
            code = row_order_gap(db, &row, err);
        if (code != ERR_OK)
            break;
        at->next_id = row.id + 1;
        at->more = row.more;
        at->rows++;
        at->digest += row_digest(row.id, row.crc);
        rows++;
        bytes += row.key.n + row.value.n;
    }
    if (code == ERR_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
        code = db_error(db, "scrub", err);
    if (code == ERR_OK && rc == SQLITE_DONE && !row_order_ends(&order, writer->state.revision))
        code = row_order_short(db, &order, err);
    *ret_end = rc == SQLITE_DONE;
    sqlite3_reset(s);
    return code;
}

/* Whether every byte of the database and its WAL can be read. */
static bool is_readable(struct db *db)
{
    static const int files[] = {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER};
    char page[READ_BYTES];
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        sqlite3_file *f = NULL;
        sqlite3_int64 size = 0;
        if (sqlite3_file_control(db->handle, "main", files[i], &f) || !f || !f->pMethods)
            continue;
        if (f->pMethods->xFileSize(f, &size))
            return false;
        for (sqlite3_int64 at = 0; at < size; at += READ_BYTES) {
            int n = size - at < READ_BYTES ? (int)(size - at) : READ_BYTES;
            int rc = f->pMethods->xRead(f, page, n, at);
            if (rc && rc != SQLITE_IOERR_SHORT_READ)
                return false;
        }
    }
    return true;
}

/* *ret_complaint: what quick_check finds wrong first, "" for nothing. */
static enum errc ask_structure(struct db *db, char ret_complaint[256], struct error *err)
{
    sqlite3_stmt *s;
    if (sqlite3_prepare_v2(db->handle, "PRAGMA quick_check(1)", -1, &s, NULL) != SQLITE_OK)
        return db_error(db, "check the structure", err);
    enum errc code = ERR_OK;
    const char *text = NULL;
    if (sqlite3_step(s) == SQLITE_ROW)
        text = (const char *)sqlite3_column_text(s, 0);
    if (!text)
        code = db_error(db, "check the structure", err);
    else
        snprintf(ret_complaint, 256, "%s", strcmp(text, "ok") == 0 ? "" : text);
    sqlite3_finalize(s);
    return code;
}

/* quick_check complains of a page that the disk failed to read as of a wrong one. So a complaint is taken for
 * damage only if all can be read, and it comes again. */
static enum errc check_structure(struct db *db, struct error *err)
{
    char complaint[256];
    enum errc code = ask_structure(db, complaint, err);
    if (code != ERR_OK || !*complaint)
        return code;
    if (!is_readable(db))
        return error_set(err, ERR_IO, "%s: the disk can't read all of it", db->path);
    code = ask_structure(db, complaint, err);
    return code == ERR_OK && *complaint ? db_corrupt(db, err, "%.200s", complaint) : code;
}

static enum errc end_pass(struct db *db, const struct db *writer, struct error *err)
{
    struct db_sums sums = {writer->scrub.rows, writer->scrub.digest};
    struct db_sizes sizes;
    enum errc code = tables_sum_buckets(db, &sums, err);
    if (code == ERR_OK && (sums.rows != writer->state.rows || sums.digest != writer->state.digest))
        code = tables_differ(db, sums.rows, writer->state.rows, err);
    if (code == ERR_OK)
        code = db_measure(db, &sizes, err);
    if (code == ERR_OK && sizes.in_use <= SCRUB_STRUCTURE_BYTES_MAX)
        code = check_structure(db, err);
    return code;
}

static enum errc work(struct store_job *j, struct error *err)
{
    struct scrub *c = (struct scrub *)j;
    if (c->writer->failed)
        return ERR_OK; /* it has been reported, and what the writer counts is worth nothing now */
    struct db *db = NULL;
    enum errc code = db_open(c->path, c->vfs, DB_READ, &db, err);
    bool end = false;
    if (code == ERR_OK)
        code = read_rows(db, c->writer, &end, err);
    if (code == ERR_OK && end) {
        code = end_pass(db, c->writer, err);
        c->writer->scrub = (struct db_scrub){0};
        c->pass_done = true;
    }
    db_close(db, true);
    return code;
}

/* ---- On the loop thread -------------------------------------------------------------------------- */

static void finish(struct store_job *j)
{
    struct scrub *c = (struct scrub *)j;
    struct mvcc *m = j->m;
    if (m) {
        m->scrubbing = false;
        m->scrub_passes += c->pass_done && j->code == ERR_OK;
        if (j->code != ERR_OK)
            mvcc_fail(m, &j->err);
    }
    free(c->path);
    free(c->vfs);
    free(c);
}

void mvcc_scrub_tick(struct mvcc *m, uint64_t now_ms, uint64_t pass_ms)
{
    if (pass_ms == 0 || m->scrubbing || m->failed || m->installing || now_ms < m->scrub_due_ms)
        return;
    uint64_t slices = m->index.revisions / SCRUB_ROWS + m->sizes.in_use / SCRUB_BYTES + 2;
    m->scrub_due_ms = now_ms + pass_ms / slices;
    struct scrub *c = xcalloc(1, sizeof(*c));
    c->sj.work = work;
    c->sj.finish = finish;
    c->writer = m->writer;
    c->path = files_path(m->dir, m->file);
    c->vfs = m->vfs ? xstrdup(m->vfs) : NULL;
    m->scrubbing = true;
    job_submit(m, &c->sj);
}

uint64_t mvcc_scrub_passes(const struct mvcc *m)
{
    return m->scrub_passes;
}
