/* Giving space back. Deleted rows leave free pages, which an incremental vacuum cuts off the file, and
 * half-empty ones, which it can't use: there the surviving rows are written again first, in slices, so
 * that they stand close together. */
#include <stdio.h>
#include <stdlib.h>

#include "daemon/store/internal.h"
#include "lib/base/mutant.h"

#define VACUUM_PAGES 100             /* a slice: 2 ms on the worker, 11 at most */
#define VACUUM_FREE_MIN 1024         /* pages; less is not worth it, the next writes take them */
#define REWRITE_BYTES (1024u * 1024) /* a slice, beside SLICE_ROWS */

struct defragment {
    struct op op;  /* first */
    bool rewrites; /* else only the vacuum, and only while many pages are free */
    bool rewritten, vacuumed;
    uint64_t from;    /* the row to go on with */
    uint64_t applied; /* what was durable when it began: of a mutant */
    struct db *db;
    size_t checkpoint_pages;
    struct written written;
    void (*done)(void *ctx, enum errc code);
    void *ctx;
};

/* Rows of one slice, copied: their statement can't stay open while they are deleted. */
struct slice {
    struct mvcc_kv *kvs[SLICE_ROWS];
    bool more[SLICE_ROWS]; /* struct row */
    size_t n, bytes;
};

static enum errc read_slice(struct defragment *d, struct slice *slice, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(d->db, DB_ROWS_FROM, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)d->from);
    sqlite3_bind_int64(s, 2, INT64_MAX);
    int rc = SQLITE_ROW;
    while (slice->n < SLICE_ROWS && slice->bytes < REWRITE_BYTES &&
           (rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct row row;
        code = row_take(d->db, s, true, &row, err);
        if (code != ERR_OK)
            break;
        slice->more[slice->n] = row.more;
        slice->kvs[slice->n++] = row_to_kv(&row);
        slice->bytes += row.key.n + row.value.n;
    }
    if (code == ERR_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
        code = db_error(d->db, "read rows to move", err);
    d->rewritten = rc == SQLITE_DONE;
    sqlite3_reset(s);
    return code;
}

static enum errc move_slice(struct defragment *d, struct slice *slice, struct error *err)
{
    enum errc code = txn_begin(d->db, err);
    if (code != ERR_OK)
        return code;
    code = read_slice(d, slice, err);
    for (size_t i = 0; code == ERR_OK && i < slice->n; i++)
        code = row_delete(d->db, kv_id(slice->kvs[i]), err);
    for (size_t i = 0; code == ERR_OK && i < slice->n; i++) {
        struct row row;
        row_of_kv(slice->kvs[i], slice->more[i], &row);
        code = row_insert(d->db, &row, err);
    }
    if (MUTANT(defragment_applies_again)) /* e#14685 */
        d->db->state.applied = d->applied;
    code = txn_end(d->db, code, err);
    if (code == ERR_OK && slice->n > 0)
        d->from = kv_id(slice->kvs[slice->n - 1]) + 1;
    else if (code != ERR_OK)
        d->rewritten = false;
    return code;
}

static enum errc rewrite(struct defragment *d, struct error *err)
{
    struct slice *slice = xcalloc(1, sizeof(*slice));
    enum errc code = move_slice(d, slice, err);
    for (size_t i = 0; i < slice->n; i++)
        mvcc_kv_unref(slice->kvs[i]);
    free(slice);
    return code;
}

static enum errc rewrite_work(struct store_job *j, struct error *err)
{
    struct defragment *d = (struct defragment *)j;
    enum errc code = rewrite(d, err);
    if (code == ERR_NO_SPACE && reserve_use(d->db))
        code = rewrite(d, err);
    if (code == ERR_OK)
        code = after_write(d->db, d->checkpoint_pages, false, &d->written, err);
    return code;
}

static bool worth_it(const struct defragment *d, const struct db_sizes *sizes)
{
    uint64_t unused = sizes->file - sizes->in_use;
    if (d->rewrites)
        return unused > 0;
    return unused > sizes->file / 4 && unused > VACUUM_FREE_MIN * UINT64_C(4096);
}

static enum errc vacuum(struct defragment *d, struct error *err)
{
    char sql[64];
    snprintf(sql, sizeof(sql), "PRAGMA incremental_vacuum(%d)", VACUUM_PAGES);
    enum errc code = txn_begin(d->db, err);
    return code == ERR_OK ? txn_end(d->db, db_exec(d->db, sql, err), err) : code;
}

static enum errc vacuum_work(struct store_job *j, struct error *err)
{
    struct defragment *d = (struct defragment *)j;
    uint64_t before = d->written.sizes.file;
    enum errc code = vacuum(d, err);
    if (code == ERR_NO_SPACE && reserve_use(d->db))
        code = vacuum(d, err);
    if (code == ERR_OK)
        code = after_write(d->db, d->checkpoint_pages, false, &d->written, err);
    if (code != ERR_OK)
        return code;
    d->vacuumed = !worth_it(d, &d->written.sizes) || d->written.sizes.file == before;
    if (d->vacuumed) /* the file itself shrinks at a checkpoint */
        code = after_write(d->db, d->checkpoint_pages, true, &d->written, err);
    return code;
}

static void step(struct mvcc *m, struct op *op)
{
    struct defragment *d = (struct defragment *)op;
    d->db = m->writer;
    d->checkpoint_pages = m->checkpoint_pages;
    if (d->rewrites && !d->rewritten)
        op_submit(m, op, rewrite_work);
    else if (d->vacuumed)
        op_submit(m, op, NULL);
    else
        op_submit(m, op, vacuum_work);
}

static void after(struct mvcc *m, struct op *op)
{
    struct defragment *d = (struct defragment *)op;
    if (op->sj.code != ERR_OK)
        mvcc_fail(m, &op->sj.err);
    else
        take_written(m, &d->written);
    if (op->sj.code != ERR_OK || d->vacuumed)
        op_finish(m, op, op->sj.code);
}

static void answer(struct op *op, enum errc code)
{
    struct defragment *d = (struct defragment *)op;
    if (d->done)
        d->done(d->ctx, code);
}

static void destroy(struct op *op)
{
    free(op);
}

static void start(struct mvcc *m, bool rewrites, void (*done)(void *ctx, enum errc code), void *ctx)
{
    struct defragment *d = xcalloc(1, sizeof(*d));
    d->op.fenced = true; /* a snapshot reads the rows in their order */
    d->op.step = step;
    d->op.after = after;
    d->op.answer = answer;
    d->op.destroy = destroy;
    d->rewrites = rewrites;
    d->written.sizes = m->sizes;
    d->applied = m->durable_index;
    d->done = done;
    d->ctx = ctx;
    ops_add(m, &d->op);
}

void vacuum_start(struct mvcc *m)
{
    struct defragment idle = {.rewrites = false};
    if (worth_it(&idle, &m->sizes))
        start(m, false, NULL, NULL);
}

void mvcc_defragment(struct mvcc *m, void (*done)(void *ctx, enum errc code), void *ctx)
{
    start(m, true, done, ctx);
}
