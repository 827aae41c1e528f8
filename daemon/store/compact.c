/* Compaction: which revisions go is decided slice by slice from the index, on the loop thread; the rows
 * go on the worker. The compaction revision is committed with the entry that asked for it, and
 * compact_done with the last slice, so that a restart goes on with what is left.
 *
 * The index walks in the order of keys, in which the rows of a slice are strewn over the whole file, a
 * page each. So ids are collected first, sorted, and deleted in their own order: that is some fifty
 * times cheaper. */
#include <stdlib.h>

#include "daemon/store/internal.h"
#include "lib/base/mutant.h"

#define COLLECT_MAX (1024u * 1024) /* ids at a time, 8 MiB; more rows go in several rounds */

struct compaction {
    struct op op; /* first */
    int64_t revision;
    struct buf from; /* the key to go on with */
    bool walked;     /* the whole index */
    bool collected;  /* this round's ids: now they are deleted */
    struct rev_list removed;
    bool sorted;
    size_t deleted; /* of the ids */
    struct db *db;
    size_t checkpoint_pages;
    struct written written;
};

/* ---- On the worker ------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool is_last(const struct compaction *c)
{
    return c->walked && c->deleted == c->removed.n;
}

static enum errc delete_slice(struct compaction *c, struct error *err)
{
    enum errc code = txn_begin(c->db, err);
    if (code != ERR_OK)
        return code;
    size_t before = c->deleted;
    for (size_t i = 0; code == ERR_OK && i < SLICE_ROWS && c->deleted < c->removed.n; i++)
        code = row_delete(c->db, c->removed.ids[c->deleted++], err);
    if (is_last(c))
        c->db->state.compact_done = c->revision;
    if (MUTANT(compaction_lowers_revision)) /* e#17780 */
        c->db->state.revision = c->revision;
    code = txn_end(c->db, code, err);
    if (code != ERR_OK)
        c->deleted = before;
    return code;
}

static enum errc work(struct store_job *j, struct error *err)
{
    struct compaction *c = (struct compaction *)j;
    if (!c->sorted && c->removed.n > 1)
        qsort(c->removed.ids, c->removed.n, sizeof(*c->removed.ids), by_id);
    c->sorted = true;
    enum errc code = delete_slice(c, err);
    if (code == ERR_NO_SPACE && reserve_use(c->db))
        code = delete_slice(c, err);
    if (code == ERR_OK)
        code = after_write(c->db, c->checkpoint_pages, false, &c->written, err);
    return code;
}

/* ---- On the loop thread -------------------------------------------------------------------------- */

static void collect(struct mvcc *m, struct compaction *c)
{
    size_t before = c->removed.n;
    c->walked = !keyindex_compact(&m->index, c->revision, SLICE_KEYS, before + SLICE_ROWS, &c->from,
                                  &c->removed);
    for (size_t i = before; i < c->removed.n; i++)
        cache_remove(&m->cache, c->removed.ids[i]);
    c->collected = c->walked || c->removed.n >= COLLECT_MAX;
}

static void step(struct mvcc *m, struct op *op)
{
    struct compaction *c = (struct compaction *)op;
    if (m->compaction == op)
        m->compaction = NULL; /* begun: a later one can't join it any more */
    c->db = m->writer;
    c->checkpoint_pages = m->checkpoint_pages;
    if (!c->collected) {
        collect(m, c);
        op_submit(m, op, NULL);
    } else {
        op_submit(m, op, work);
    }
}

static void after(struct mvcc *m, struct op *op)
{
    struct compaction *c = (struct compaction *)op;
    if (op->sj.code != ERR_OK) {
        mvcc_fail(m, &op->sj.err);
        return;
    }
    if (!c->sorted)
        return; /* still collecting */
    take_written(m, &c->written);
    if (is_last(c)) {
        op_finish(m, op, ERR_OK);
        vacuum_start(m);
    } else if (c->deleted == c->removed.n) {
        c->removed.n = c->deleted = 0;
        c->collected = c->sorted = false;
    }
}

static void destroy(struct op *op)
{
    struct compaction *c = (struct compaction *)op;
    buf_free(&c->from);
    rev_list_free(&c->removed);
    free(c);
}

void compact_start(struct mvcc *m, int64_t revision, uint64_t index)
{
    /* One that waits takes this one in, but only as the last in the queue: a hash behind it must find
     * the rows that it was promised. */
    if (m->compaction && m->ops.prev == &m->compaction->link) {
        struct compaction *c = (struct compaction *)m->compaction;
        c->revision = revision;
        c->op.index = index;
        return;
    }
    struct compaction *c = xcalloc(1, sizeof(*c));
    c->op.index = index;
    c->op.fenced = true;
    c->op.step = step;
    c->op.after = after;
    c->op.destroy = destroy;
    c->revision = revision;
    m->compaction = &c->op;
    ops_add(m, &c->op);
}

/* ---- Waiting for it ------------------------------------------------------------------------------ */

struct waiting {
    struct op op; /* first */
    void (*done)(void *ctx);
    void *ctx;
};

static void wait_step(struct mvcc *m, struct op *op)
{
    op_submit(m, op, NULL);
}

static void wait_after(struct mvcc *m, struct op *op)
{
    op_finish(m, op, ERR_OK);
}

static void wait_answer(struct op *op, enum errc code)
{
    (void)code;
    struct waiting *w = (struct waiting *)op;
    w->done(w->ctx);
}

static void wait_destroy(struct op *op)
{
    free(op);
}

void mvcc_compact_wait(struct mvcc *m, void (*done)(void *ctx), void *ctx)
{
    struct waiting *w = xcalloc(1, sizeof(*w));
    w->op.step = wait_step;
    w->op.after = wait_after;
    w->op.answer = wait_answer;
    w->op.destroy = wait_destroy;
    w->done = done;
    w->ctx = ctx;
    ops_add(m, &w->op);
}
