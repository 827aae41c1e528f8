/* Reading changes in the order in which they were made: for watchers that catch up. */
#include "daemon/store/internal.h"

struct walk {
    struct mvcc *m;
    const struct mvcc_range *range;
    size_t rows_max, rows; /* looked at */
    int64_t main;          /* of the last row looked at */
    size_t cap;
    struct mvcc_result result;
};

/* False: enough; the row belongs to the next call. A main revision is never cut in two. */
static bool walk_goes_on(struct walk *w, int64_t main)
{
    if (w->rows >= w->rows_max && w->rows > 0 && main != w->main)
        return false;
    w->main = main;
    w->rows++;
    return true;
}

static enum errc walk_committed(struct walk *w, int64_t from, bool *ret_stopped, struct error *err)
{
    struct db *db = w->m->reader;
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_ROWS_FROM, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)rev_id(from, 0));
    sqlite3_bind_int64(s, 2, (int64_t)rev_id(w->m->committed.revision, REV_SUB_MAX));
    int64_t floor = mvcc_compact_revision(w->m);
    floor = from - 1 > floor ? from - 1 : floor;
    struct row_order order = {.floor = floor > 1 ? floor : 1};
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct row row;
        /* Rows out of the range too: a damaged key must not make a change disappear. */
        code = row_take(db, s, true, &row, err);
        if (code != ERR_OK)
            break;
        if (!row_order_take(&order, &row)) {
            code = row_order_gap(db, &row, err);
            break;
        }
        *ret_stopped = !walk_goes_on(w, rev_main(row.id));
        if (*ret_stopped)
            break;
        if (mvcc_range_has(w->range, row.key))
            result_add(&w->result, &w->cap, row_to_kv(&row));
    }
    if (code == ERR_OK && rc != SQLITE_DONE && rc != SQLITE_ROW)
        code = db_error(db, "read the history", err);
    if (code == ERR_OK && !*ret_stopped && !row_order_ends(&order, w->m->committed.revision))
        code = row_order_short(db, &order, err);
    sqlite3_reset(s);
    return code;
}

static void walk_unwritten(struct walk *w, int64_t from, bool *ret_stopped)
{
    LIST_FOR_EACH_SAFE(link, next, &w->m->unwritten)
    {
        struct entry_write *e = CONTAINER_OF(link, struct entry_write, link);
        for (size_t i = 0; i < e->kvs_n; i++) {
            struct mvcc_kv *kv = e->kvs[i];
            if (kv->mod_revision < from)
                continue;
            *ret_stopped = !walk_goes_on(w, kv->mod_revision);
            if (*ret_stopped)
                return;
            if (mvcc_range_has(w->range, kv->key))
                result_add(&w->result, &w->cap, mvcc_kv_ref(kv));
        }
    }
}

enum errc mvcc_history(struct mvcc *m, const struct mvcc_range *range, int64_t from,
                       size_t rows_max, struct mvcc_result *ret_result, int64_t *ret_next,
                       struct error *err)
{
    if (from < mvcc_compact_revision(m))
        return error_set(err, ERR_COMPACTED, "%s", errc_text(ERR_COMPACTED));
    struct walk w = {.m = m, .range = range, .rows_max = rows_max};
    struct error unseen;
    err = err ? err : &unseen;
    bool stopped = false;
    enum errc code = ERR_OK;
    from = from < 1 ? 1 : from;
    if (from <= m->committed.revision)
        code = walk_committed(&w, from, &stopped, err);
    if (code != ERR_OK) {
        mvcc_result_free(&w.result);
        return read_failed(m, code, err);
    }
    if (!stopped)
        walk_unwritten(&w, from, &stopped);
    int64_t end = m->applied.revision + 1;
    w.result.total = (int64_t)w.result.count;
    *ret_result = w.result;
    *ret_next = stopped ? w.main + 1 : from > end ? from : end;
    return ERR_OK;
}
