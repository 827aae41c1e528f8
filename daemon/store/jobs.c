#include "daemon/store/internal.h"

/* A connection whose write failed must not be written to again: SQLite may have rolled back, and what
 * later jobs assume is not there. They all fail with it. */
static void run(struct job *job)
{
    struct store_job *j = (struct store_job *)job;
    j->code = j->work(j, &j->err);
}

static void done(struct job *job)
{
    struct store_job *j = (struct store_job *)job;
    list_remove(&j->link);
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

void mvcc_fail(struct mvcc *m, const struct error *err)
{
    if (m->failed)
        return;
    m->failed = true;
    if (m->failed_cb)
        m->failed_cb(m->ctx, err);
}
