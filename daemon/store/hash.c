/* HashKV, as etcd 3.4 computes it (mvcc/kvstore.go, hashByRev): members with the same history have the
 * same hash, and it is the same as an etcd's with that history.
 *
 * Rows above the compaction revision count as they are. At or below it only what a compaction at the
 * hashed revision would keep counts, so that members may differ in how far their deletions have come;
 * but if that keeps nothing at all, etcd looks at no row's fate and hashes all there are. Which rows
 * that are is settled here by running in the queue of compactions: those before have come to an end. */
#include <stdlib.h>

#include "daemon/store/internal.h"
#include "lib/base/crc32c.h"

#define HASH_ROWS 5000 /* a slice on the worker: some 5 ms */
#define HASH_BYTES (4u * 1024 * 1024)

struct hash {
    struct op op;   /* first */
    enum errc code; /* known at the call: nothing is to be done */
    int64_t revision, compacted;
    struct buf from; /* the key to go on with */
    struct rev_list kept;
    uint64_t live;
    bool collected, sorted, scanned;

    struct db *db;
    uint64_t next_id;
    size_t kept_at;
    uint32_t crc;
    struct buf bytes;

    void (*done)(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                 int64_t hash_revision);
    void *ctx;
};

/* ---- What etcd stores for a revision --------------------------------------------------------------- */

static void add_varint(struct buf *b, uint64_t v)
{
    uint8_t p[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    buf_append(b, p, n);
}

static void add_int(struct buf *b, uint8_t field, int64_t v)
{
    if (v == 0)
        return;
    add_varint(b, (uint64_t)field << 3);
    add_varint(b, (uint64_t)v);
}

static void add_bytes(struct buf *b, uint8_t field, struct bytes v)
{
    if (v.n == 0)
        return;
    add_varint(b, (uint64_t)field << 3 | 2);
    add_varint(b, v.n);
    buf_append(b, v.p, v.n);
}

/* The revision as etcd's bucket key (main and sub big-endian, 't' behind a tombstone's), then the
 * mvccpb.KeyValue: of a tombstone the key alone. */
static void etcd_row(struct buf *b, const struct row *row)
{
    uint8_t key[18];
    put_be64(key, (uint64_t)rev_main(row->id));
    key[8] = '_';
    put_be64(key + 9, (uint64_t)rev_sub(row->id));
    key[17] = 't';
    b->n = 0;
    buf_append(b, key, row->tombstone ? 18 : 17);
    add_bytes(b, 1, row->key);
    if (row->tombstone)
        return;
    add_int(b, 2, row->facts.create_revision);
    add_int(b, 3, rev_main(row->id));
    add_int(b, 4, row->facts.version);
    add_bytes(b, 5, row->value);
    add_int(b, 6, row->facts.lease);
}

/* ---- On the worker --------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static bool counts(struct hash *h, const struct row *row)
{
    if (rev_main(row->id) > h->compacted)
        return true;
    if (row->tombstone)
        return false; /* etcd has removed it, see keyindex_compact for why it is still here */
    if (h->live == 0)
        return true;
    while (h->kept_at < h->kept.n && h->kept.ids[h->kept_at] < row->id)
        h->kept_at++;
    return h->kept_at < h->kept.n && h->kept.ids[h->kept_at] == row->id;
}

static enum errc work(struct store_job *j, struct error *err)
{
    struct hash *h = (struct hash *)j;
    if (!h->sorted && h->kept.n > 1)
        qsort(h->kept.ids, h->kept.n, sizeof(*h->kept.ids), by_id);
    h->sorted = true;
    sqlite3_stmt *s;
    enum errc code = db_statement(h->db, DB_ROWS_FROM, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)h->next_id);
    sqlite3_bind_int64(s, 2, (int64_t)rev_id(h->revision, REV_SUB_MAX));
    size_t rows = 0, bytes = 0;
    int rc = SQLITE_ROW;
    while (rows < HASH_ROWS && bytes < HASH_BYTES && (rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct row row;
        code = row_take(h->db, s, true, &row, err);
        if (code != ERR_OK)
            break;
        h->next_id = row.id + 1;
        rows++;
        bytes += row.key.n + row.value.n;
        if (!counts(h, &row))
            continue;
        etcd_row(&h->bytes, &row);
        h->crc = crc32c(h->crc, h->bytes.p, h->bytes.n);
    }
    if (code == ERR_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
        code = db_error(h->db, "hash", err);
    h->scanned = rc == SQLITE_DONE;
    sqlite3_reset(s);
    return code;
}

/* ---- On the loop thread ---------------------------------------------------------------------------- */

static void step(struct mvcc *m, struct op *op)
{
    struct hash *h = (struct hash *)op;
    h->db = m->writer;
    if (h->code != ERR_OK) {
        op_submit(m, op, NULL);
        return;
    }
    if (h->collected) {
        op_submit(m, op, work);
        return;
    }
    /* Without a compaction every row counts. */
    h->collected = h->compacted <= 0 || !keyindex_keep(&m->index, h->revision, h->compacted,
                                                       SLICE_KEYS, &h->from, &h->kept, &h->live);
    op_submit(m, op, NULL);
}

static void after(struct mvcc *m, struct op *op)
{
    struct hash *h = (struct hash *)op;
    if (h->code == ERR_OK)
        h->code = op->sj.code;
    if (h->code != ERR_OK || h->scanned)
        op_finish(m, op, h->code);
}

static void answer(struct op *op, enum errc code)
{
    struct hash *h = (struct hash *)op;
    h->done(h->ctx, code, code == ERR_OK ? h->crc : 0, h->compacted, h->revision);
}

static void destroy(struct op *op)
{
    struct hash *h = (struct hash *)op;
    buf_free(&h->from);
    buf_free(&h->bytes);
    rev_list_free(&h->kept);
    free(h);
}

void mvcc_hash_kv(struct mvcc *m, int64_t revision,
                  void (*done)(void *ctx, enum errc code, uint32_t hash, int64_t compact_revision,
                               int64_t hash_revision),
                  void *ctx)
{
    struct hash *h = xcalloc(1, sizeof(*h));
    int64_t now = m->applied.revision;
    h->compacted = m->applied.compact_revision;
    if (revision > 0 && revision <= h->compacted)
        h->code = ERR_COMPACTED;
    else if (revision > now)
        h->code = ERR_FUTURE_REV;
    h->revision = revision > 0 ? revision : now;
    h->crc = crc32c(0, "key", 3);
    h->op.index = m->applied.applied;
    h->op.step = step;
    h->op.after = after;
    h->op.answer = answer;
    h->op.destroy = destroy;
    h->done = done;
    h->ctx = ctx;
    ops_add(m, &h->op);
}
