/* Writing behind the apply: what entries changed goes to SQLite in batches, one transaction a batch and
 * one batch at a time; while it is under way the next one collects. That makes batches as long as
 * the load is high, and each put's cost small. */
#include "daemon/store/internal.h"
#include "lib/base/mutant.h"

#include <assert.h>
#include <stdlib.h>

#define ENTRY_OF(link_) CONTAINER_OF(link_, struct entry_write, link)

struct batch {
    struct store_job sj; /* first */
    struct db *db;
    struct entry_write **entries; /* borrowed: m->unwritten has them until the batch is finished */
    size_t entries_n;
    size_t bytes;
    uint64_t after;        /* the applied index that it builds on */
    struct db_state state; /* after the batch; rows, digest and compact_done are the writer's */
    bool checkpoint_due;
    size_t checkpoint_pages;
    struct written written;
};

enum errc txn_begin(struct db *db, struct error *err)
{
    if (db->failed)
        return error_set(err, ERR_IO, "%s: a write failed before", db->path);
    enum errc code = db_do(db, DB_BEGIN_WRITE, "begin", err);
    db->failed = code != ERR_OK && code != ERR_NO_SPACE;
    db->saved = db->state;
    db->saved_scrub = db->scrub;
    return code;
}

enum errc txn_end(struct db *db, enum errc code, struct error *err)
{
    if (code == ERR_OK)
        code = db_write_state(db, &db->state, err);
    if (code == ERR_OK)
        code = db_do(db, DB_COMMIT, "commit", err);
    if (code == ERR_OK)
        return ERR_OK;
    db->failed = code != ERR_NO_SPACE;
    /* SQLite may have rolled back by itself. Either way nothing of it is left. */
    if (!sqlite3_get_autocommit(db->handle) && db_do(db, DB_ROLLBACK, "roll back", NULL) != ERR_OK)
        db->failed = true;
    db->state = db->saved;
    db->scrub = db->saved_scrub;
    return db->failed && code == ERR_NO_SPACE ? ERR_IO : code;
}

void entry_write_free(struct entry_write *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->kvs_n; i++)
        mvcc_kv_unref(w->kvs[i]);
    for (size_t i = 0; i < w->ops_n; i++) {
        free(w->ops[i].key);
        free(w->ops[i].value);
    }
    free(w->kvs);
    free(w->ops);
    free(w);
}

/* ---- On the worker ------------------------------------------------------------------------------- */

static enum errc write_entry(struct db *db, const struct entry_write *w, struct error *err)
{
    enum errc code = ERR_OK;
    for (size_t i = 0; code == ERR_OK && i < w->kvs_n; i++) {
        struct row row;
        row_of_kv(w->kvs[i], i + 1 < w->kvs_n, &row);
        code = row_insert(db, &row, err);
    }
    for (size_t i = 0; code == ERR_OK && i < w->ops_n; i++) {
        const struct bucket_op *op = &w->ops[i];
        code = bucket_write(db, op->bucket, bytes_of(op->key, op->key_n),
                            bytes_of(op->value, op->value_n), err);
    }
    return code;
}

/* What the loop thread decides of the state; the rest is the tables'. */
static void take_state(struct db_state *to, const struct db_state *from)
{
    to->applied = from->applied;
    to->term = from->term;
    to->stamp = from->stamp;
    to->revision = from->revision;
    to->compact_revision = from->compact_revision;
}

static enum errc write_batch(struct batch *b, struct error *err)
{
    struct db *db = b->db;
    if (db->state.applied != b->after)
        return error_set(err, ERR_NO_SPACE, "%s: the batch before this one has found no space",
                         db->path);
    enum errc code = txn_begin(db, err);
    if (code != ERR_OK)
        return code;
    for (size_t i = 0; code == ERR_OK && i < b->entries_n; i++)
        code = write_entry(db, b->entries[i], err);
    if (MUTANT(applied_index_separate_transaction)) { /* e#13766 */
        code = txn_end(db, code, err);
        if (code == ERR_OK)
            code = txn_begin(db, err);
        if (code != ERR_OK)
            return code;
    }
    take_state(&db->state, &b->state);
    return txn_end(db, code, err);
}

static enum errc work(struct store_job *j, struct error *err)
{
    struct batch *b = (struct batch *)j;
    struct db *db = b->db;
    enum errc code = write_batch(b, err);
    if (code == ERR_NO_SPACE && reserve_use(db))
        code = write_batch(b, err);
    if (code != ERR_OK)
        return code;
    return after_write(db, b->checkpoint_pages, b->checkpoint_due, &b->written, err);
}

/* ---- On the loop thread -------------------------------------------------------------------------- */

static void batch_free(struct batch *b)
{
    free(b->entries);
    free(b);
}

static void take_committed(struct mvcc *m, struct batch *b)
{
    for (size_t i = 0; i < b->entries_n; i++) {
        struct entry_write *w = b->entries[i];
        for (size_t k = 0; k < w->kvs_n; k++)
            cache_unpin(&m->cache, kv_id(w->kvs[k]));
        list_remove(&w->link);
        entry_write_free(w);
    }
    m->unwritten_bytes -= b->bytes;
    take_state(&m->committed, &b->state);
}

/* It is written again, whole or in other parts, when there is space. */
static void take_back(struct mvcc *m, struct batch *b)
{
    for (size_t i = 0; i < b->entries_n; i++)
        b->entries[i]->submitted = false;
    m->submitted = m->committed.applied;
    m->checkpoint_wanted |= b->checkpoint_due;
    mvcc_wait_for_space(m, &b->sj.err);
    batch_free(b);
}

static void finish(struct store_job *j)
{
    struct batch *b = (struct batch *)j;
    struct mvcc *m = j->m;
    if (!m) {
        batch_free(b);
        return;
    }
    m->batches--;
    if (j->code == ERR_NO_SPACE) {
        take_back(m, b);
        return;
    }
    if (j->code != ERR_OK) {
        mvcc_fail(m, &j->err);
        batch_free(b);
        return;
    }
    take_committed(m, b);
    struct written written = b->written;
    batch_free(b);
    take_written(m, &written);
    writer_kick(m);
    ops_run(m);
}

/* Takes entries from the first one not submitted until a limit; whole entries, since the applied index
 * goes with them. */
static void collect(struct mvcc *m, struct batch *b, bool all)
{
    size_t rows = 0, cap = 0;
    struct list *link = m->unwritten.next;
    while (link != &m->unwritten && ENTRY_OF(link)->submitted)
        link = link->next;
    for (; link != &m->unwritten; link = link->next) {
        struct entry_write *w = ENTRY_OF(link);
        size_t w_rows = w->kvs_n + w->ops_n;
        if (!all && b->entries_n > 0 &&
            (rows + w_rows > BATCH_ROWS_MAX || b->bytes + w->bytes > BATCH_BYTES_MAX))
            break;
        if (b->entries_n == cap) {
            cap = cap ? cap * 2 : 16;
            b->entries = xrealloc(b->entries, cap * sizeof(struct entry_write *));
        }
        b->entries[b->entries_n++] = w;
        w->submitted = true;
        rows += w_rows;
        b->bytes += w->bytes;
    }
    /* With all entries in it the batch is as of the last one applied, which may have changed nothing. */
    b->state = link == &m->unwritten ? m->applied : b->entries[b->entries_n - 1]->state;
}

static void submit(struct mvcc *m, bool all)
{
    struct batch *b = xcalloc(1, sizeof(*b));
    b->sj.work = work;
    b->sj.finish = finish;
    b->db = m->writer;
    b->checkpoint_pages = m->checkpoint_pages;
    collect(m, b, all);
    b->after = m->submitted;
    if (m->checkpoint_wanted ||
        b->state.applied - m->last_checkpoint_asked >= CHECKPOINT_ENTRIES_MAX) {
        b->checkpoint_due = true;
        m->checkpoint_wanted = false;
        m->last_checkpoint_asked = b->state.applied;
    }
    m->batches++;
    m->submitted = b->state.applied;
    job_submit(m, &b->sj);
}

static bool may_write(const struct mvcc *m)
{
    return m->batches == 0 && !m->failed && !m->installing && !m->in_entry && !m->waits;
}

void writer_kick(struct mvcc *m)
{
    bool waiting = !list_empty(&m->unwritten) && !ENTRY_OF(m->unwritten.prev)->submitted;
    bool idle_long = m->applied.applied - m->committed.applied >= IDLE_ENTRIES_MAX;
    if (may_write(m) && (waiting || idle_long || m->checkpoint_wanted))
        submit(m, false);
}

void mvcc_checkpoint_soon(struct mvcc *m)
{
    if (m->durable_index == m->applied.applied)
        return;
    m->checkpoint_wanted = true;
    writer_kick(m);
}

void writer_flush(struct mvcc *m)
{
    if (may_write(m) && m->committed.applied < m->applied.applied)
        submit(m, false);
}

void writer_flush_all(struct mvcc *m)
{
    assert(!m->in_entry);
    if (!m->failed && !m->installing && !m->waits && m->submitted < m->applied.applied)
        submit(m, true);
}
