/* Life of a store: opening, closing, and the numbers that it is asked for. */
#include "daemon/store/mvcc.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "daemon/store/internal.h"
#include "daemon/store/partial.h"

/* ---- Opening ------------------------------------------------------------------------------------- */

static struct mvcc *mvcc_new(const struct mvcc_config *config)
{
    struct mvcc *m = xcalloc(1, sizeof(*m));
    m->disk = config->disk;
    m->dir = xstrdup(config->dir);
    m->vfs = config->sqlite_vfs ? xstrdup(config->sqlite_vfs) : NULL;
    m->worker = config->worker;
    m->checkpoint_pages =
        config->checkpoint_pages ? config->checkpoint_pages : CHECKPOINT_PAGES_DEFAULT;
    m->snapshot_chunk =
        config->snapshot_chunk_bytes ? config->snapshot_chunk_bytes : MVCC_SNAPSHOT_CHUNK;
    m->reserve = (struct reserve){.disk = m->disk, .path = files_path(m->dir, RESERVE_FILE)};
    m->reserve.bytes =
        config->reserve_bytes ? config->reserve_bytes : RESERVE_BYTES(m->checkpoint_pages);
    m->durable_cb = config->durable;
    m->failed_cb = config->failed;
    m->ctx = config->ctx;
    cache_init(&m->cache, config->cache_bytes_max ? config->cache_bytes_max : CACHE_BYTES_DEFAULT);
    list_init(&m->unwritten);
    list_init(&m->jobs);
    list_init(&m->ops);
    list_init(&m->snapshots);
    return m;
}

static void mvcc_free(struct mvcc *m, bool crash)
{
    apply_reset(m);
    db_close(m->reader, crash);
    db_close(m->writer, crash);
    keyindex_free(&m->index);
    cache_free(&m->cache);
    if (m->lock)
        m->disk->close(m->disk, m->lock);
    free(m->reserve.path);
    free(m->kept);
    free(m->file);
    free(m->vfs);
    free(m->dir);
    free(m);
}

/* A store that was there before must not come back empty because its file is gone. */
static enum errc check_exists(struct mvcc *m, struct error *err)
{
    bool exists = false;
    enum errc code = files_exists(m->disk, m->dir, m->file, &exists, err);
    if (code == ERR_OK && !exists)
        code = error_set(err, ERR_CORRUPT,
                         "%s/%s is missing; remove the member's data directory and let it rejoin "
                         "(a member that is alone: quorumd --rescue saves what is in the log)",
                         m->dir, m->file);
    return code;
}

/* Makes true what the page cache shows of a process that ended on a failed sync: a checkpoint of such a WAL
 * would leave a half of it in the file after a power failure. The file itself needs it only before its first
 * checkpoint was whole, since a WAL whose checkpoint failed still has all of it. */
static enum errc write_again(struct mvcc *m, const char *path, bool marked, struct error *err)
{
    char *wal = xasprintf("%s-wal", path);
    enum errc code = files_write_again(m->disk, wal, err);
    if (code == ERR_OK && !marked)
        code = files_write_again(m->disk, path, err);
    if (code == ERR_OK)
        code = m->disk->sync_dir(m->disk, m->dir, err); /* the WAL's name, too */
    free(wal);
    return code;
}

/* A store becomes one when store.current names it, which is after everything in it is durable, and only
 * then anything is applied to it. So what is there without the mark and can't be opened is what a crash
 * left of a first start: it goes. (If it was the mark that got lost, the log replays all, or says that
 * it can't.) The header is looked at first: beside a WAL file SQLite also opens a database whose switch to
 * WAL mode a power failure undid, and would never make up for it. */
static enum errc open_writer(struct mvcc *m, const char *path, bool marked, struct error *err)
{
    enum errc code = db_check_header(m->disk, path, err);
    if (marked)
        return code == ERR_OK ? db_open(path, m->vfs, DB_WRITE, &m->writer, err) : code;
    if (code == ERR_OK || code == ERR_NOT_FOUND)
        code = db_open(path, m->vfs, DB_CREATE, &m->writer, err);
    if (code != ERR_CORRUPT)
        return code;
    code = files_clean(m->disk, m->dir, NULL, NULL, err);
    return code == ERR_OK ? db_open(path, m->vfs, DB_CREATE, &m->writer, err) : code;
}

/* What a checkpoint would do for the WAL, to which opening may have written, without the file's growth. */
static enum errc sync_wal(struct mvcc *m, const char *path, struct error *err)
{
    char *wal = xasprintf("%s-wal", path);
    struct disk_file *file;
    enum errc code = m->disk->open(m->disk, wal, DISK_WRITE, &file, err);
    if (code == ERR_OK) {
        code = m->disk->sync(m->disk, file, err);
        m->disk->close(m->disk, file);
    }
    free(wal);
    return code;
}

/* tight: there is no reserve left whose space might do. */
static enum errc open_database(struct mvcc *m, bool marked, bool tight, struct error *err)
{
    char *path = files_path(m->dir, m->file);
    enum errc code = write_again(m, path, marked, err);
    bool complete = false;
    if (code == ERR_OK)
        code = open_writer(m, path, marked, err);
    /* The WAL of a killed process may never have been synced: what is read below must be durable. */
    if (code == ERR_OK)
        code = db_checkpoint(m->writer, true, &complete, err);
    if (code == ERR_NO_SPACE && tight && m->writer) {
        code = sync_wal(m, path, err);
        complete = code == ERR_OK;
    }
    if (code == ERR_OK && !complete)
        code = error_set(err, ERR_BUSY, "%s: another process uses it", path);
    if (code == ERR_OK && !marked)
        code = files_announce(m->disk, m->dir, m->file, err);
    if (code == ERR_OK && !marked)
        code = files_switch(m->disk, m->dir, err);
    if (code == ERR_OK)
        code = db_open(path, m->vfs, DB_READ, &m->reader, err);
    free(path);
    if (code == ERR_OK)
        code = tables_load(m->reader, &m->index, err);
    if (code == ERR_OK)
        code = db_measure(m->reader, &m->sizes, err);
    return code;
}

/* With the reserve's space if there is no other. It is made when all is open: a store that opens without it
 * only lacks space. */
static enum errc open_with_reserve(struct mvcc *m, bool marked, struct error *err)
{
    enum errc code = open_database(m, marked, false, err);
    if (code == ERR_NO_SPACE) {
        db_close(m->writer, true);
        db_close(m->reader, true);
        m->writer = m->reader = NULL;
        reserve_release(&m->reserve);
        code = open_database(m, marked, true, err);
    }
    if (code != ERR_OK)
        return code;
    m->reserve_there = reserve_make(&m->reserve, NULL) == ERR_OK;
    m->writer->reserve = &m->reserve;
    return ERR_OK;
}

static enum errc open_locked(struct mvcc *m, struct error *err)
{
    bool marked = false;
    enum errc code = files_current(m->disk, m->dir, &m->file, &marked, err);
    if (code == ERR_OK && marked)
        code = files_last_begun(m->disk, m->dir, m->file, &m->kept, &m->restores, err);
    if (code == ERR_OK)
        code = files_clean(m->disk, m->dir, m->file, m->kept, err);
    if (code == ERR_OK && marked)
        code = check_exists(m, err);
    if (code == ERR_OK)
        code = open_with_reserve(m, marked, err);
    if (code != ERR_OK)
        return code;
    m->writer->state = m->reader->state;
    code = partial_forget(m->writer, err);
    if (code != ERR_OK)
        return code;
    m->applied = m->committed = m->entry = m->writer->state;
    m->submitted = m->durable_index = m->last_checkpoint_asked = m->applied.applied;
    return ERR_OK;
}

enum errc mvcc_open(const struct mvcc_config *config, struct mvcc **ret_store, struct error *err)
{
    struct mvcc *m = mvcc_new(config);
    char *path = files_path(m->dir, "store.lock");
    enum errc code = m->disk->lock(m->disk, path, &m->lock, err);
    free(path);
    if (code == ERR_OK)
        code = open_locked(m, err);
    if (code != ERR_OK) {
        mvcc_free(m, true);
        return code;
    }
    if (m->applied.compact_done < m->applied.compact_revision)
        compact_start(m, m->applied.compact_revision, m->applied.applied);
    *ret_store = m;
    return ERR_OK;
}

/* ---- Closing ------------------------------------------------------------------------------------- */

/* The worker delivers what it has done on the loop, which the caller of mvcc_close holds up. So the
 * end is waited for with a lock of its own, and the job outlives the store until it is delivered. */
struct closing {
    struct store_job sj; /* first */
    struct db *db;
    bool crash;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool ran;    /* guarded by lock */
    bool waited; /* the loop thread's, as is: */
    bool delivered;
};

static enum errc close_work(struct store_job *j, struct error *err)
{
    struct closing *c = (struct closing *)j;
    enum errc code = ERR_OK;
    bool complete;
    if (!c->crash && !c->db->failed)
        code = db_checkpoint(c->db, true, &complete, err);
    db_close(c->db, c->crash || code != ERR_OK);
    pthread_mutex_lock(&c->lock);
    c->ran = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    return code;
}

static void closing_free(struct closing *c)
{
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
    free(c);
}

static void close_finish(struct store_job *j)
{
    struct closing *c = (struct closing *)j;
    c->delivered = true;
    if (c->waited)
        closing_free(c);
}

static void close_writer(struct mvcc *m)
{
    struct closing *c = xcalloc(1, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
    c->sj.work = close_work;
    c->sj.finish = close_finish;
    c->db = m->writer;
    c->crash = m->failed;
    m->writer = NULL;
    job_submit(m, &c->sj);
    pthread_mutex_lock(&c->lock);
    while (!c->ran)
        pthread_cond_wait(&c->wake, &c->lock);
    pthread_mutex_unlock(&c->lock);
    c->waited = true;
    if (c->delivered)
        closing_free(c);
}

/* Nobody is told of what the jobs under way found: their delivery only frees them. */
static void forget_jobs(struct mvcc *m)
{
    LIST_FOR_EACH_SAFE(link, next, &m->jobs)
    {
        CONTAINER_OF(link, struct store_job, link)->m = NULL;
        list_remove(link);
    }
}

void mvcc_close(struct mvcc *m)
{
    if (!m)
        return;
    assert(!m->in_entry && !m->installing);
    ops_cancel(m, ERR_CLOSED);
    snapshots_cancel(m, ERR_CLOSED);
    writer_flush_all(m);
    m->installing = true; /* what is delivered meanwhile must not begin anything new */
    db_close(m->reader, false);
    m->reader = NULL;
    close_writer(m);
    restore_forget(m);
    forget_jobs(m);
    mvcc_free(m, false);
}

void mvcc_abandon(struct mvcc *m)
{
    if (!m)
        return;
    ops_cancel(m, ERR_OK);
    snapshots_cancel(m, ERR_OK);
    restore_forget(m);
    /* Jobs that the worker threw away, as the simulator's does at a crash, are freed here. */
    LIST_FOR_EACH_SAFE(link, next, &m->jobs)
    {
        struct store_job *j = CONTAINER_OF(link, struct store_job, link);
        list_remove(link);
        j->m = NULL;
        j->finish(j);
    }
    mvcc_free(m, true);
}

/* ---- Numbers ------------------------------------------------------------------------------------- */

int64_t mvcc_revision(const struct mvcc *m)
{
    return m->applied.revision;
}

int64_t mvcc_compact_revision(const struct mvcc *m)
{
    return m->in_entry ? m->entry.compact_revision : m->applied.compact_revision;
}

uint64_t mvcc_applied_index(const struct mvcc *m)
{
    return m->applied.applied;
}

uint64_t mvcc_applied_term(const struct mvcc *m)
{
    return m->applied.term;
}

uint64_t mvcc_durable_index(const struct mvcc *m)
{
    return m->durable_index;
}

uint64_t mvcc_last_stamp(const struct mvcc *m)
{
    return m->applied.stamp;
}

uint64_t mvcc_size(const struct mvcc *m)
{
    return m->sizes.file;
}

uint64_t mvcc_size_in_use(const struct mvcc *m)
{
    return m->sizes.in_use;
}

uint64_t mvcc_backlog_bytes(const struct mvcc *m)
{
    return m->unwritten_bytes;
}
