/* Receiving a snapshot, into a new database beside the current one, and putting it in its place. All of
 * the new database is the worker's until the end of the installation. It outlives the process: a later life
 * goes on with it (partial.h), unless it is another snapshot that comes then. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/store/frame.h"
#include "daemon/store/internal.h"
#include "daemon/store/partial.h"
#include "lib/base/crc32c.h"

#define RESTORE_CHECKPOINT_PAGES 4000 /* nobody waits for this database: longer ones are cheaper */

struct mvcc_restore {
    struct store_job sj; /* first; one call at a time */
    struct mvcc *m;      /* NULL: the store is closed */
    bool busy, aborted;
    void (*done)(void *ctx, enum errc code);
    void (*finished)(void *ctx, enum errc code, uint64_t index, uint64_t term);
    void (*resumed)(void *ctx, enum errc code, struct mvcc_snapshot_at at);
    void *ctx;

    /* The worker's while busy: */
    struct disk *disk;
    char *dir, *vfs;
    char *keep;      /* the database that isn't ours */
    char *name;      /* ours */
    char *next_name; /* for a new begin, if what is there can't be used */
    bool kept;       /* it is of a former life, and not yet looked at */
    bool resumable;
    struct db *db;
    struct buf in; /* not yet a whole frame */
    struct partial got;
    bool whole;
    bool has_end;                /* the sender has said where it ends */
    struct mvcc_snapshot_at end; /* ... and that is there */
    enum errc broken;            /* an earlier call failed with it: so do all later ones */
    struct keyindex index;
    struct db *old; /* the writer's connection before the installation */
    bool switched;
};

/* ---- Chunks, on the worker ----------------------------------------------------------------------- */

static enum errc damaged(struct error *err, const char *what)
{
    return error_set(err, ERR_CORRUPT, "the snapshot is damaged: %s", what);
}

static enum errc open_new(struct mvcc_restore *r, struct error *err)
{
    char *path = files_path(r->dir, r->name);
    enum errc code = db_open(path, r->vfs, DB_CREATE, &r->db, err);
    free(path);
    if (code == ERR_OK && r->resumable)
        code = txn_begin(r->db, err);
    if (code == ERR_OK && r->resumable)
        code = txn_end(r->db, partial_create(r->db, err), err);
    return code;
}

/* Under another name: after a power failure the removed file could be there again. */
static enum errc begin_anew(struct mvcc_restore *r, struct error *err)
{
    db_close(r->db, true);
    r->db = NULL;
    r->kept = false;
    r->in.n = 0;
    r->got = (struct partial){.id = r->got.id};
    r->broken = ERR_OK;
    free(r->name);
    r->name = r->next_name;
    r->next_name = NULL;
    return files_clean(r->disk, r->dir, r->keep, NULL, err);
}

static bool is_same(const struct mvcc_snapshot_id *a, const struct mvcc_snapshot_id *b)
{
    return a->index == b->index && a->term == b->term && a->maker == b->maker &&
           a->serial == b->serial;
}

static enum errc open_kept(struct mvcc_restore *r, struct error *err)
{
    struct partial found;
    char *path = files_path(r->dir, r->name), *wal = xasprintf("%s-wal", path);
    enum errc code = files_write_again(r->disk, wal, err);
    if (code == ERR_OK)
        code = db_open(path, r->vfs, DB_WRITE, &r->db, err);
    free(wal);
    free(path);
    if (code == ERR_OK)
        code = partial_read(r->db, &found, err);
    if (code != ERR_OK)
        return code;
    if (!is_same(&found.id, &r->got.id))
        return ERR_NOT_FOUND;
    r->got = found;
    return ERR_OK;
}

/* What can't be used is as good as not there, whatever is wrong with it. */
static enum errc resume_work(struct store_job *j, struct error *err)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    if (r->broken != ERR_OK)
        return error_set(err, r->broken, "an earlier chunk of the snapshot was refused");
    r->in.n = 0;
    if (r->kept && (!r->resumable || open_kept(r, NULL) != ERR_OK))
        return begin_anew(r, err);
    r->kept = false;
    return ERR_OK;
}

static enum errc add_record(struct mvcc_restore *r, const struct record *record, struct error *err)
{
    struct row row;
    enum errc code = record_check(&r->got.order, record, &row, err);
    if (code != ERR_OK || record->type == RECORD_HEAD)
        return code;
    if (record->type == RECORD_BUCKET)
        return bucket_write(r->db, record->bucket, record->key,
                            record->value.p ? record->value : bytes_of("", 0), err);
    if (record->type == RECORD_ROW)
        return row_insert(r->db, &row, err);
    if (record->rows != r->db->state.rows || record->digest != r->db->state.digest)
        return damaged(err, "rows are missing");
    return ERR_OK;
}

static enum errc add_frames(struct mvcc_restore *r, struct error *err)
{
    size_t at = 0, n = 0;
    enum errc code;
    do {
        struct bytes payload = BYTES_EMPTY;
        code = frame_take(bytes_of(r->in.p + at, r->in.n - at), r->got.seq, &n, &payload, err);
        while (code == ERR_OK && payload.n > 0) {
            struct record record;
            code = record_take(&payload, &record, err);
            if (code == ERR_OK)
                code = add_record(r, &record, err);
        }
        r->got.at.sum = crc32c(r->got.at.sum, r->in.p + at, n);
        at += n;
        r->got.seq += n > 0;
    } while (code == ERR_OK && n > 0);
    r->got.at.offset += at;
    buf_consume(&r->in, at);
    return code;
}

static enum errc add_chunk(struct mvcc_restore *r, struct error *err)
{
    enum errc code = add_frames(r, err);
    return code == ERR_OK && r->resumable ? partial_write(r->db, &r->got, err) : code;
}

static enum errc chunk_work(struct store_job *j, struct error *err)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    if (r->broken != ERR_OK)
        return error_set(err, r->broken, "an earlier chunk of the snapshot was refused");
    enum errc code = r->kept ? begin_anew(r, err) : ERR_OK;
    if (code == ERR_OK && !r->db)
        code = open_new(r, err);
    if (code == ERR_OK)
        code = txn_begin(r->db, err);
    if (code == ERR_OK)
        code = txn_end(r->db, add_chunk(r, err), err);
    struct written written;
    if (code == ERR_OK)
        code = after_write(r->db, RESTORE_CHECKPOINT_PAGES, false, &written, err);
    r->broken = code;
    return code;
}

/* Everything is durable under its own name when this returns. */
static enum errc finish_work(struct store_job *j, struct error *err)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    if (r->broken != ERR_OK)
        return error_set(err, r->broken, "an earlier chunk of the snapshot was refused");
    r->broken = ERR_CORRUPT;
    const struct partial *got = &r->got;
    if (!r->db || !got->order.has_tail || r->in.n > 0)
        return damaged(err, "it does not end where it should");
    if (r->has_end && (got->at.offset != r->end.offset || got->at.sum != r->end.sum))
        return damaged(err, "the checksum of the whole is wrong");
    enum errc code = txn_begin(r->db, err);
    if (code != ERR_OK)
        return code;
    struct db_state state = got->order.head;
    state.rows = r->db->state.rows;
    state.digest = r->db->state.digest;
    state.compact_done = 0; /* how far the sender's deletions had come is not known */
    r->db->state = state;
    code = txn_end(r->db, ERR_OK, err);
    bool complete = false;
    if (code == ERR_OK)
        code = db_checkpoint(r->db, true, &complete, err);
    if (code == ERR_OK && !complete)
        code = error_set(err, ERR_IO, "%s: its checkpoint is not complete", r->db->path);
    if (code == ERR_OK)
        code = files_announce(r->disk, r->dir, r->name, err); /* the last that takes space */
    r->whole = code == ERR_OK;
    r->broken = code;
    return code;
}

/* ---- Installing, on the worker ------------------------------------------------------------------- */

static enum errc install_work(struct store_job *j, struct error *err)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    enum errc code =
        tables_load(r->db, &r->index, err); /* it reads back what it is going to trust */
    if (code != ERR_OK)
        return code;
    r->switched = true; /* or maybe: after a failure in there nobody knows */
    code = files_switch(r->disk, r->dir, err);
    db_close(r->old, true);
    r->old = NULL;
    return code == ERR_OK ? partial_forget(r->db, err) : code;
}

/* What the store was before goes on the worker: freeing a million keys takes a while. */
static enum errc clean_work(struct store_job *j, struct error *err)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    db_close(r->db, true);
    r->db = NULL;
    keyindex_free(&r->index);
    return files_clean(r->disk, r->dir, r->keep, NULL, err);
}

/* ---- On the loop thread -------------------------------------------------------------------------- */

static void restore_free(struct mvcc_restore *r)
{
    db_close(r->db, true);
    keyindex_free(&r->index);
    buf_free(&r->in);
    free(r->keep);
    free(r->name);
    free(r->next_name);
    free(r->vfs);
    free(r->dir);
    free(r);
}

static void submit(struct mvcc_restore *r, enum errc (*work)(struct store_job *, struct error *),
                   void (*finish)(struct store_job *))
{
    assert(!r->busy && !r->aborted);
    r->busy = true;
    r->sj.work = work;
    r->sj.finish = finish;
    r->sj.foreign = true; /* what is wrong with it is answered to who sends it */
    job_submit(r->m, &r->sj);
}

static void clean_finish(struct store_job *j)
{
    /* Files that could not be removed are removed at the next opening. */
    restore_free((struct mvcc_restore *)j);
}

/* Removes every database but the current one, then frees r. */
static void clean(struct mvcc_restore *r)
{
    free(r->keep);
    r->keep = xstrdup(r->m->file);
    r->m->restore = NULL;
    submit(r, clean_work, clean_finish);
}

/* True: there is nobody to answer, and r is gone or going. */
static bool is_over(struct mvcc_restore *r)
{
    r->busy = false;
    if (!r->aborted)
        return !r->m;
    r->aborted = false;
    if (r->m)
        clean(r);
    else
        restore_free(r);
    return true;
}

static void call_finish(struct store_job *j)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    if (!is_over(r))
        r->done(r->ctx, j->code);
}

static void finish_finish(struct store_job *j)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    if (!is_over(r))
        r->finished(r->ctx, j->code, r->got.order.head.applied, r->got.order.head.term);
}

static void resume_finish(struct store_job *j)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    if (!is_over(r))
        r->resumed(r->ctx, j->code, r->got.at);
}

struct mvcc_restore *mvcc_restore_begin(struct mvcc *m, const struct mvcc_snapshot_id *id)
{
    assert(!m->restore); /* cleaning up after one would take the other's file away */
    struct mvcc_restore *r = xcalloc(1, sizeof(*r));
    m->restore = r;
    r->m = m;
    r->disk = m->disk;
    r->dir = xstrdup(m->dir);
    r->vfs = m->vfs ? xstrdup(m->vfs) : NULL;
    r->keep = xstrdup(m->file);
    r->resumable = id != NULL;
    if (id)
        r->got.id = *id;
    r->kept = m->kept != NULL;
    if (r->kept) {
        r->name = m->kept;
        m->kept = NULL;
        r->next_name = files_next_name(m->file, ++m->restores);
    } else {
        r->name = files_next_name(m->file, ++m->restores);
    }
    return r;
}

void mvcc_restore_resume(struct mvcc_restore *r,
                         void (*done)(void *ctx, enum errc code, struct mvcc_snapshot_at at),
                         void *ctx)
{
    r->resumed = done;
    r->ctx = ctx;
    submit(r, resume_work, resume_finish);
}

bool mvcc_has_partial(const struct mvcc *m)
{
    return m->kept != NULL;
}

void mvcc_drop_partial(struct mvcc *m)
{
    if (m->kept)
        mvcc_restore_abort(mvcc_restore_begin(m, NULL));
}

void mvcc_restore_chunk(struct mvcc_restore *r, struct bytes chunk,
                        void (*done)(void *ctx, enum errc code), void *ctx)
{
    assert(!r->busy);
    buf_append(&r->in, chunk.p, chunk.n);
    r->done = done;
    r->ctx = ctx;
    submit(r, chunk_work, call_finish);
}

void mvcc_restore_finish(struct mvcc_restore *r, const struct mvcc_snapshot_at *whole,
                         void (*done)(void *ctx, enum errc code, uint64_t index, uint64_t term),
                         void *ctx)
{
    r->has_end = whole != NULL;
    if (whole)
        r->end = *whole;
    r->finished = done;
    r->ctx = ctx;
    submit(r, finish_work, finish_finish);
}

/* Everything in memory changes over to the new database at once. */
static enum errc change_over(struct mvcc *m, struct mvcc_restore *r, struct error *err)
{
    char *path = files_path(m->dir, r->name);
    db_close(m->reader, true);
    m->reader = NULL;
    enum errc code = db_open(path, m->vfs, DB_READ, &m->reader, err);
    free(path);
    m->writer = r->db;
    m->writer->reserve = &m->reserve;
    r->db = NULL;
    struct keyindex index = m->index;
    m->index = r->index;
    r->index = index;
    m->waits = m->checkpoint_wanted = false;
    size_t cache_max = m->cache.bytes_max;
    cache_free(&m->cache);
    cache_init(&m->cache, cache_max);
    apply_reset(m);
    m->applied = m->committed = m->entry = m->writer->state;
    m->submitted = m->durable_index = m->last_checkpoint_asked = m->applied.applied;
    free(m->file);
    m->file = xstrdup(r->name);
    m->restores = 0;
    if (code == ERR_OK)
        code = db_measure(m->reader, &m->sizes, err);
    return code;
}

static void install_finish(struct store_job *j)
{
    struct mvcc_restore *r = (struct mvcc_restore *)j;
    struct mvcc *m = j->m;
    r->busy = false;
    if (!m) {
        restore_free(r);
        return;
    }
    enum errc code = j->code;
    m->installing = false;
    if (r->switched) {
        m->writer = NULL; /* closed */
        if (code == ERR_OK)
            code = change_over(m, r, &j->err);
        if (code != ERR_OK)
            mvcc_fail(m, &j->err);
    }
    void (*done)(void *, enum errc) = r->done;
    void *ctx = r->ctx;
    clean(r);
    if (code == ERR_OK && m->applied.compact_done < m->applied.compact_revision)
        compact_start(m, m->applied.compact_revision, m->applied.applied);
    done(ctx, code);
}

void mvcc_restore_install(struct mvcc_restore *r, void (*done)(void *ctx, enum errc code),
                          void *ctx)
{
    struct mvcc *m = r->m;
    assert(m && r->whole && !m->in_entry && !m->installing);
    r->done = done;
    r->ctx = ctx;
    ops_cancel(m, ERR_CANCELLED);
    snapshots_cancel(m, ERR_CANCELLED);
    m->installing = true;
    r->old = m->writer;
    submit(r, install_work, install_finish);
}

void mvcc_restore_abort(struct mvcc_restore *r)
{
    if (!r)
        return;
    if (r->busy)
        r->aborted = true;
    else if (r->m)
        clean(r);
    else
        restore_free(r);
}

/* The store is closed: a call under way is not answered any more; what is left is the caller's to abort,
 * and the new database is removed at the next opening. */
void restore_forget(struct mvcc *m)
{
    if (m->restore)
        m->restore->m = NULL;
    m->restore = NULL;
}
