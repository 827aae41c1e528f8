#include "daemon/store/partial.h"

#include "daemon/store/internal.h"
#include "lib/base/crc32c.h"

#define NUMBERS 14
#define RECORD (8 * NUMBERS + 4)
#define HAS_HEAD 1u
#define HAS_TAIL 2u
#define HAS_MORE 4u

enum errc partial_create(struct db *db, struct error *err)
{
    return db_exec(db, "CREATE TABLE partial (id INTEGER PRIMARY KEY, progress BLOB)", err);
}

enum errc partial_forget(struct db *db, struct error *err)
{
    if (sqlite3_table_column_metadata(db->handle, "main", "partial", NULL, NULL, NULL, NULL, NULL,
                                      NULL) != SQLITE_OK)
        return ERR_OK;
    enum errc code = txn_begin(db, err);
    if (code == ERR_OK)
        code = txn_end(db, db_exec(db, "DROP TABLE partial", err), err);
    return code == ERR_NO_SPACE ? ERR_OK : code;
}

enum errc partial_write(struct db *db, const struct partial *p, struct error *err)
{
    const uint64_t numbers[NUMBERS] = {
        p->id.index,
        p->id.term,
        p->id.maker,
        p->id.serial,
        p->at.offset,
        p->at.sum,
        (uint64_t)p->seq << 8 | (p->order.has_head ? HAS_HEAD : 0) |
            (p->order.has_tail ? HAS_TAIL : 0) | (p->order.rows.more ? HAS_MORE : 0),
        p->order.rows.last,
        (uint64_t)p->order.rows.floor,
        p->order.head.applied,
        p->order.head.term,
        p->order.head.stamp,
        (uint64_t)p->order.head.revision,
        (uint64_t)p->order.head.compact_revision,
    };
    uint8_t record[RECORD];
    for (size_t i = 0; i < NUMBERS; i++)
        put_le64(record + 8 * i, numbers[i]);
    put_le32(record + 8 * NUMBERS, crc32c(0, record, 8 * NUMBERS));
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_PARTIAL_WRITE, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_blob64(s, 1, record, sizeof(record), SQLITE_STATIC);
    code = db_run(db, s, "write how far the snapshot is", err);
    sqlite3_clear_bindings(s);
    return code;
}

static bool take_record(struct bytes record, struct partial *p)
{
    if (record.n != RECORD || get_le32(record.p + 8 * NUMBERS) != crc32c(0, record.p, 8 * NUMBERS))
        return false;
    uint64_t numbers[NUMBERS];
    for (size_t i = 0; i < NUMBERS; i++)
        numbers[i] = get_le64(record.p + 8 * i);
    *p = (struct partial){
        .id = {numbers[0], numbers[1], numbers[2], numbers[3]},
        .at = {numbers[4], (uint32_t)numbers[5]},
        .seq = (uint32_t)(numbers[6] >> 8),
        .order = {.has_head = numbers[6] & HAS_HEAD,
                  .has_tail = numbers[6] & HAS_TAIL,
                  .rows = {.last = numbers[7],
                           .floor = (int64_t)numbers[8],
                           .more = numbers[6] & HAS_MORE},
                  .head = {.applied = numbers[9],
                           .term = numbers[10],
                           .stamp = numbers[11],
                           .revision = (int64_t)numbers[12],
                           .compact_revision = (int64_t)numbers[13]}},
    };
    return true;
}

static enum errc read_record(struct db *db, struct partial *p, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_PARTIAL_READ, &s, err);
    if (code != ERR_OK)
        return code;
    int rc = sqlite3_step(s);
    if (rc == SQLITE_DONE)
        code = error_set(err, ERR_CORRUPT, "%s doesn't say how far it is", db->path);
    else if (rc != SQLITE_ROW)
        code = db_error(db, "read how far the snapshot is", err);
    else if (!take_record(db_blob(s, 0), p))
        code = error_set(err, ERR_CORRUPT, "%s: how far it is can't be read", db->path);
    sqlite3_reset(s);
    return code;
}

/* Whole rows: what is wrong with a value now would be found by the first who reads it, and far too late. */
static enum errc sum_rows(struct db *db, struct db_sums *sums, uint64_t *ret_last_id,
                          struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_ROWS_FROM, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, 0);
    sqlite3_bind_int64(s, 2, INT64_MAX);
    *ret_last_id = 0;
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct row row;
        code = row_take(db, s, true, &row, err);
        if (code != ERR_OK)
            break;
        *ret_last_id = row.id;
        sums->rows++;
        sums->digest += row_digest(row.id, row.crc);
    }
    if (code == ERR_OK && rc != SQLITE_DONE)
        code = db_error(db, "read the rows of a partial snapshot", err);
    sqlite3_reset(s);
    return code;
}

enum errc partial_read(struct db *db, struct partial *ret_partial, struct error *err)
{
    struct db_sums sums = {0};
    uint64_t last_id;
    enum errc code = read_record(db, ret_partial, err);
    if (code == ERR_OK)
        code = sum_rows(db, &sums, &last_id, err);
    if (code == ERR_OK)
        code = tables_sum_buckets(db, &sums, err);
    if (code != ERR_OK)
        return code;
    if (sums.rows != db->state.rows || sums.digest != db->state.digest ||
        last_id != ret_partial->order.rows.last)
        return error_set(err, ERR_CORRUPT, "%s: %llu rows were found where %llu%s were written",
                         db->path, (unsigned long long)sums.rows,
                         (unsigned long long)db->state.rows,
                         sums.rows == db->state.rows ? " others" : "");
    return ERR_OK;
}
