#include "daemon/store/internal.h"

/* A connection whose write failed must not be written to again: SQLite may have rolled back, and what
 * later jobs assume is not there. They all fail with it. */
static void run(struct job *job)
{
    struct store_job *j = (struct store_job *)job;
    j->code = j->work(j, &j->err);
}

/* Damage ends the store, whoever came upon it: its member can be built again from the others while they
 * still have everything. */
static void done(struct job *job)
{
    struct store_job *j = (struct store_job *)job;
    list_remove(&j->link);
    if (j->m && j->code == ERR_CORRUPT && !j->foreign)
        mvcc_fail(j->m, &j->err);
    j->finish(j);
}

void job_submit(struct mvcc *m, struct store_job *j)
{
    j->job.run = run;
    j->job.done = done;
    j->m = m;
    list_append(&m->jobs, &j->link);
    m->worker->submit(m->worker, &j->job);
}

enum errc read_failed(struct mvcc *m, enum errc code, const struct error *err)
{
    if (code == ERR_CORRUPT)
        mvcc_fail(m, err);
    return code;
}

void mvcc_fail(struct mvcc *m, const struct error *err)
{
    if (m->failed)
        return;
    m->failed = true;
    if (m->failed_cb)
        m->failed_cb(m->ctx, err);
}
