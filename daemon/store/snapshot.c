/* Sending a snapshot. The rows up to the revision of its begin can't change while compaction waits, so
 * they are read in slices, each its own short transaction, and the WAL stays short. The buckets do
 * change; they are copied by one job right at the begin, behind the batch that ends with it.
 *
 * So each chunk follows from the place where it begins, which is remembered: it can be read again, for a
 * receiver whose stream broke. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/store/frame.h"
#include "daemon/store/internal.h"
#include "lib/base/crc32c.h"
#include "lib/base/mutant.h"

#define TAIL_ROOM 64    /* what rows may not fill */
#define ROW_OVERHEAD 58 /* of record_row */

enum stage { STAGE_HEAD, STAGE_BUCKETS, STAGE_ROWS, STAGE_DONE };

/* Between two chunks. */
struct place {
    enum stage stage;
    size_t buckets_at;
    uint64_t next_id, rows, digest;
    struct mvcc_snapshot_at at;
};

struct mvcc_snapshot {
    struct store_job copy; /* first: of the buckets */
    struct store_job chunk;
    struct list link;
    struct mvcc *m;        /* NULL: the store is closed */
    bool copying, reading; /* jobs are under way */
    bool ended;
    enum errc cancelled;
    void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last);
    void *ctx;

    /* The worker's: */
    struct db *db;
    struct db_state state;
    struct buf buckets; /* records */
    struct place now;
    uint64_t rows_expected, digest_expected; /* as the store has counted them */
    struct place *places;                    /* where the chunks begin that have been read so far */
    size_t place_count, place_cap;
    uint32_t seq; /* of the next chunk */
    size_t room;
    struct buf out;
};

#define OF_COPY(j_) CONTAINER_OF(j_, struct mvcc_snapshot, copy)
#define OF_CHUNK(j_) CONTAINER_OF(j_, struct mvcc_snapshot, chunk)

static void free_if_idle(struct mvcc_snapshot *s)
{
    if (!s->ended || s->copying || s->reading)
        return;
    buf_free(&s->buckets);
    buf_free(&s->out);
    free(s->places);
    free(s);
}

/* ---- On the worker ------------------------------------------------------------------------------- */

static enum errc copy_work(struct store_job *j, struct error *err)
{
    struct mvcc_snapshot *s = OF_COPY(j);
    if (s->db->failed)
        return error_set(err, ERR_IO, "%s: a write failed before", s->db->path);
    if (s->db->state.applied != s->state.applied)
        return error_set(err, ERR_NO_SPACE, "%s: no space to write what the snapshot is to hold",
                         s->db->path);
    s->rows_expected = s->db->state.rows;
    s->digest_expected = s->db->state.digest;
    sqlite3_stmt *stmt;
    enum errc code = db_statement(s->db, DB_BUCKETS_ALL, &stmt, err);
    if (code != ERR_OK)
        return code;
    int rc;
    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        unsigned bucket;
        struct bytes key, value;
        uint64_t digest;
        code = bucket_take(s->db, stmt, &bucket, &key, &value, &digest, err);
        if (code != ERR_OK)
            break;
        record_bucket(&s->buckets, bucket, key, value);
        s->now.rows++;
        s->now.digest += digest;
    }
    if (code == ERR_OK && rc != SQLITE_DONE)
        code = db_error(s->db, "copy the buckets", err);
    sqlite3_reset(stmt);
    return code;
}

static bool is_full(const struct mvcc_snapshot *s)
{
    return s->out.n >= s->room;
}

/* Copies whole records from the buckets until the chunk is full. */
static void add_buckets(struct mvcc_snapshot *s)
{
    size_t at = s->now.buckets_at;
    struct bytes rest = bytes_of(s->buckets.p + at, s->buckets.n - at);
    while (rest.n > 0) {
        size_t n = 13 + (size_t)get_le32(rest.p + 5) + get_le32(rest.p + 9);
        if (s->out.n > FRAME_HEADER && s->out.n + n > s->room)
            return;
        buf_append(&s->out, rest.p, n);
        rest = bytes_of(rest.p + n, rest.n - n);
        s->now.buckets_at += n;
    }
    s->now.stage = STAGE_ROWS;
}

/* Rows until the next one does not fit; the chunk's first may be as long as it is. */
static enum errc add_rows(struct mvcc_snapshot *s, struct error *err)
{
    sqlite3_stmt *stmt;
    enum errc code = db_statement(s->db, DB_ROWS_FROM, &stmt, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(stmt, 1, (int64_t)s->now.next_id);
    sqlite3_bind_int64(stmt, 2, (int64_t)rev_id(s->state.revision, REV_SUB_MAX));
    int rc = SQLITE_ROW;
    while (!is_full(s) && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct row row;
        code = row_take(s->db, stmt, true, &row, err);
        if (code != ERR_OK)
            break;
        size_t n = ROW_OVERHEAD + row.key.n + row.value.n;
        if (s->out.n > FRAME_HEADER && s->out.n + n > s->room)
            break;
        record_row(&s->out, &row);
        s->now.next_id = row.id + 1;
        s->now.rows++;
        s->now.digest += row_digest(row.id, row.crc);
    }
    if (code == ERR_OK && rc != SQLITE_ROW && rc != SQLITE_DONE)
        code = db_error(s->db, "read a snapshot", err);
    /* Rows that are gone must not be gone on the other member too. */
    if (code == ERR_OK && rc == SQLITE_DONE &&
        (s->now.rows != s->rows_expected || s->now.digest != s->digest_expected))
        code = tables_differ(s->db, s->now.rows, s->rows_expected, err);
    if (code == ERR_OK && rc == SQLITE_DONE) {
        record_tail(&s->out, s->now.rows, s->now.digest);
        s->now.stage = STAGE_DONE;
    }
    sqlite3_reset(stmt);
    return code;
}

static void remember(struct mvcc_snapshot *s)
{
    if (s->seq < s->place_count)
        return;
    if (s->place_count == s->place_cap) {
        s->place_cap = s->place_cap ? 2 * s->place_cap : 64;
        s->places = xrealloc(s->places, s->place_cap * sizeof(*s->places));
    }
    s->places[s->place_count++] = s->now;
}

static enum errc chunk_work(struct store_job *j, struct error *err)
{
    struct mvcc_snapshot *s = OF_CHUNK(j);
    enum errc code = s->copy.code;
    if (code != ERR_OK)
        return error_set(err, code, "%s", s->copy.err.message);
    s->out.n = 0;
    remember(s);
    if (s->now.stage == STAGE_DONE)
        return ERR_OK; /* the receiver has all of it, and only that isn't known to it */
    frame_begin(&s->out);
    if (s->now.stage == STAGE_HEAD) {
        record_head(&s->out, &s->state);
        s->now.stage = STAGE_BUCKETS;
    }
    if (s->now.stage == STAGE_BUCKETS)
        add_buckets(s);
    if (s->now.stage == STAGE_ROWS)
        code = add_rows(s, err);
    frame_end(&s->out, s->seq++);
    s->now.at.offset += s->out.n;
    s->now.at.sum = crc32c(s->now.at.sum, s->out.p, s->out.n);
    return code;
}

/* ---- On the loop thread -------------------------------------------------------------------------- */

static void copy_finish(struct store_job *j)
{
    struct mvcc_snapshot *s = OF_COPY(j);
    s->copying = false;
    free_if_idle(s);
}

static void answer(struct mvcc_snapshot *s, enum errc code)
{
    void (*done)(void *, enum errc, struct bytes, bool) = s->done;
    s->done = NULL;
    bool last = code == ERR_OK && s->now.stage == STAGE_DONE;
    done(s->ctx, code, code == ERR_OK ? buf_bytes(&s->out) : BYTES_EMPTY, last);
}

static void chunk_finish(struct store_job *j)
{
    struct mvcc_snapshot *s = OF_CHUNK(j);
    s->reading = false;
    if (s->ended || !s->done) {
        free_if_idle(s);
        return;
    }
    answer(s, j->code); /* may end it */
}

struct mvcc_snapshot *mvcc_snapshot_begin(struct mvcc *m, uint64_t *ret_index, uint64_t *ret_term)
{
    assert(!m->in_entry && !m->installing);
    struct mvcc_snapshot *s = xcalloc(1, sizeof(*s));
    writer_flush_all(m);
    s->m = m;
    s->db = m->writer;
    s->state = m->applied;
    s->room = m->snapshot_chunk - TAIL_ROOM;
    s->copy.work = copy_work;
    s->copy.finish = copy_finish;
    s->chunk.work = chunk_work;
    s->chunk.finish = chunk_finish;
    list_append(&m->snapshots, &s->link);
    s->copying = true;
    *ret_index = s->state.applied;
    *ret_term = s->state.term;
    job_submit(m, &s->copy);
    return s;
}

void mvcc_snapshot_next(struct mvcc_snapshot *s,
                        void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                        void *ctx)
{
    if (!s->m) {
        done(ctx, s->cancelled, BYTES_EMPTY, false);
        return;
    }
    assert(!s->reading && !s->ended);
    s->done = done;
    s->ctx = ctx;
    s->reading = true;
    job_submit(s->m, &s->chunk);
}

struct mvcc_snapshot_at mvcc_snapshot_at(const struct mvcc_snapshot *s)
{
    assert(!s->reading);
    return s->now.at;
}

static bool is_at(const struct place *p, const struct mvcc_snapshot_at *at)
{
    return p->at.offset == at->offset && p->at.sum == at->sum;
}

enum errc mvcc_snapshot_seek(struct mvcc_snapshot *s, const struct mvcc_snapshot_at *at)
{
    assert(!s->reading && !s->ended);
    if (MUTANT(snapshot_resume_wrong_offset) && s->place_count > 0) {
        s->seq = (uint32_t)s->place_count - 1; /* what was sent last, whether it arrived or not */
        s->now = s->places[s->seq];
        return ERR_OK;
    }
    if (is_at(&s->now, at))
        return ERR_OK;
    for (size_t i = s->place_count; i-- > 0;) {
        if (!is_at(&s->places[i], at))
            continue;
        remember(s); /* what is behind the last chunk is a place as well */
        s->now = s->places[i];
        s->seq = (uint32_t)i;
        return ERR_OK;
    }
    return ERR_INVALID;
}

void mvcc_snapshot_end(struct mvcc_snapshot *s)
{
    if (!s)
        return;
    struct mvcc *m = s->m;
    list_remove(&s->link);
    s->ended = true;
    free_if_idle(s);
    if (m)
        ops_run(m); /* compaction may go on */
}

/* The store is closed or gets another content: what is open answers with `code` from now on. */
void snapshots_cancel(struct mvcc *m, enum errc code)
{
    while (!list_empty(&m->snapshots)) {
        struct mvcc_snapshot *s = CONTAINER_OF(m->snapshots.next, struct mvcc_snapshot, link);
        list_remove(&s->link);
        s->m = NULL;
        s->cancelled = code == ERR_OK ? ERR_CLOSED : code;
        if (code == ERR_OK)
            s->done = NULL;
        else if (s->reading && s->done)
            answer(s, code);
    }
}
