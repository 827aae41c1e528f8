/* Checkpoints: when the WAL goes into the database file, and what is durable from then on.
 *
 * They run on the worker, right behind a transaction: from another thread beside a steady writer the
 * WAL never becomes empty and grows for ever. */
#include "daemon/store/internal.h"

enum errc after_write(struct db *db, size_t checkpoint_pages, bool checkpoint_now,
                      struct written *ret_written, struct error *err)
{
    int pages = db->wal_pages - db->wal_pages_checkpointed;
    bool complete = false;
    enum errc code = ERR_OK;
    if (checkpoint_now || (pages > 0 && (size_t)pages >= checkpoint_pages))
        code = db_checkpoint(db, false, &complete, err);
    if (code == ERR_NO_SPACE && reserve_use(db))
        code = db_checkpoint(db, false, &complete, err);
    /* The WAL keeps what the file has no room for. */
    ret_written->no_space = code == ERR_NO_SPACE;
    ret_written->reserve_used = db->reserve && !db->reserve->there;
    if (ret_written->no_space) {
        ret_written->err = *err;
        code = ERR_OK;
    }
    if (code == ERR_OK)
        code = db_measure(db, &ret_written->sizes, err);
    /* Complete: nothing of the WAL is left that is not in the file and synced. */
    ret_written->durable = complete ? db->state.applied : 0;
    if (code != ERR_OK)
        db->failed = true; /* after a failed sync nobody knows what is on disk */
    return code;
}

void take_written(struct mvcc *m, const struct written *w)
{
    m->sizes = w->sizes;
    if (w->reserve_used)
        m->reserve_there = false;
    if (w->no_space)
        mvcc_wait_for_space(m, &w->err);
    if (w->durable <= m->durable_index)
        return;
    m->durable_index = w->durable;
    if (m->durable_cb)
        m->durable_cb(m->ctx, w->durable);
}
