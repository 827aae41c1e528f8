/* The ballast: a file that does nothing but hold space, given up when the disk is full. */
#include <stdlib.h>

#include "daemon/store/internal.h"

void reserve_release(struct reserve *r)
{
    r->there = false;
    r->disk->unlink(r->disk, r->path, NULL);
}

bool reserve_use(struct db *db)
{
    struct reserve *r = db->reserve;
    if (!r || !r->there)
        return false;
    reserve_release(r);
    return true;
}

enum errc reserve_make(struct reserve *r, struct error *err)
{
    struct disk_file *file;
    enum errc code = r->disk->open(r->disk, r->path, DISK_WRITE | DISK_CREATE, &file, err);
    if (code != ERR_OK)
        return code;
    code = r->disk->allocate(r->disk, file, r->bytes, err);
    r->disk->close(r->disk, file);
    r->there = code == ERR_OK;
    if (code != ERR_OK)
        reserve_release(r); /* with what it got */
    return code;
}

/* ---- Waiting for space, on the loop thread ------------------------------------------------------- */

/* A job of its own: making the reserve again takes as long as the file system does for it. */
struct making {
    struct store_job sj; /* first */
    struct reserve *reserve;
    bool made;
};

static enum errc make_work(struct store_job *j, struct error *err)
{
    struct making *k = (struct making *)j;
    (void)err;
    k->made = reserve_make(k->reserve, NULL) == ERR_OK; /* if not: another time */
    return ERR_OK;
}

static void make_finish(struct store_job *j)
{
    struct making *k = (struct making *)j;
    if (j->m) {
        j->m->reserve_there = k->made;
        j->m->making_reserve = false;
    }
    free(k);
}

static void make_again(struct mvcc *m)
{
    struct making *k = xcalloc(1, sizeof(*k));
    k->sj.work = make_work;
    k->sj.finish = make_finish;
    k->reserve = &m->reserve;
    m->making_reserve = true;
    job_submit(m, &k->sj);
}

bool mvcc_lacks_space(const struct mvcc *m)
{
    return m->waits || !m->reserve_there;
}

bool mvcc_waits_for_space(const struct mvcc *m)
{
    return m->waits;
}

uint64_t mvcc_reserve_bytes(const struct mvcc *m)
{
    return m->reserve.bytes;
}

void mvcc_wait_for_space(struct mvcc *m, const struct error *err)
{
    m->waits = true;
    m->reserve_there = false;
    m->space_err = *err;
}

void mvcc_space_retry(struct mvcc *m, uint64_t free_bytes)
{
    /* Batches that stood behind the one that failed fail like it; only then their entries are free. */
    if (m->failed || m->installing || m->in_entry || m->batches > 0)
        return;
    m->waits = false;
    if (!m->reserve_there && !m->making_reserve && free_bytes >= 2 * m->reserve.bytes)
        make_again(m);
    writer_kick(m);
    ops_run(m);
}
