#include <assert.h>

#include "daemon/store/internal.h"

#define OP_OF(link_) CONTAINER_OF(link_, struct op, link)

void ops_add(struct mvcc *m, struct op *op)
{
    list_append(&m->ops, &op->link);
    ops_run(m);
}

void ops_cancel(struct mvcc *m, enum errc code)
{
    m->compaction = NULL;
    while (!list_empty(&m->ops)) {
        struct op *op = OP_OF(m->ops.next);
        list_remove(&op->link);
        if (op->answer && code != ERR_OK)
            op->answer(op, code);
        op->cancelled = true;
        if (!op->busy)
            op->destroy(op);
    }
}

void op_finish(struct mvcc *m, struct op *op, enum errc code)
{
    assert(m->ops.next == &op->link && !op->busy);
    list_remove(&op->link);
    if (op->answer)
        op->answer(op, code);
    op->destroy(op);
}

static enum errc no_work(struct store_job *j, struct error *err)
{
    (void)j, (void)err;
    return ERR_OK;
}

static void step_done(struct store_job *j)
{
    struct op *op = (struct op *)j;
    struct mvcc *m = j->m;
    op->busy = false;
    if (!m || op->cancelled) {
        op->destroy(op);
        return;
    }
    if (op->sj.code == ERR_NO_SPACE)
        mvcc_wait_for_space(m, &op->sj.err); /* then the same step again */
    else
        op->after(m, op);
    ops_run(m);
}

void op_submit(struct mvcc *m, struct op *op,
               enum errc (*work)(struct store_job *j, struct error *err))
{
    assert(!op->busy);
    op->busy = true;
    op->sj.work = work ? work : no_work;
    op->sj.finish = step_done;
    job_submit(m, &op->sj);
}

/* The first operation's next step, if nothing stands in its way. */
static bool run_first(struct mvcc *m)
{
    struct op *op = OP_OF(m->ops.next);
    if (op->busy)
        return false;
    if (m->committed.applied < op->index) {
        writer_flush(m); /* the end of that batch comes back here */
        return m->committed.applied >= op->index;
    }
    if (op->fenced && !list_empty(&m->snapshots))
        return false;
    op->step(m, op);
    return true;
}

/* Not recursive: a worker that answers at once would otherwise nest one call for each slice. */
void ops_run(struct mvcc *m)
{
    if (m->ops_running)
        return;
    m->ops_running = true;
    while (!list_empty(&m->ops) && !m->failed && !m->installing && !m->in_entry && !m->waits)
        if (!run_first(m))
            break;
    m->ops_running = false;
}
