#include "daemon/store/tables.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/store/kv.h"
#include "lib/base/crc32c.h"
#include "lib/base/mutant.h"

/* Column `tombstone`. */
#define MARK_TOMBSTONE 1u
#define MARK_MORE 2u

/* ---- Sums -------------------------------------------------------------------------------------- */

static uint32_t row_crc(const struct row *row)
{
    uint8_t p[8 * 7 + 5];
    put_le64(p, row->id);
    put_le64(p + 8, (uint64_t)row->facts.create_revision);
    put_le64(p + 16, (uint64_t)row->facts.version);
    put_le64(p + 24, (uint64_t)row->facts.lease);
    put_le64(p + 32, row->facts.stamp);
    put_le64(p + 40, row->value_n);
    put_le64(p + 48, row->key.n);
    put_le32(p + 56, row->value_crc);
    p[60] = row_marks(row);
    return crc32c(crc32c(0, p, sizeof(p)), row->key.p, row->key.n);
}

static uint32_t bucket_crc(unsigned bucket, struct bytes key, struct bytes value)
{
    uint8_t p[20];
    put_le32(p, bucket);
    put_le64(p + 4, key.n);
    put_le64(p + 12, value.n);
    uint32_t crc = crc32c(0, p, sizeof(p));
    return crc32c(crc32c(crc, key.p, key.n), value.p, value.n);
}

/* The finishing steps of splitmix64: every bit of the input changes half of the output's. */
static uint64_t mix(uint64_t v)
{
    v = (v ^ v >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    v = (v ^ v >> 27) * UINT64_C(0x94d049bb133111eb);
    return v ^ v >> 31;
}

uint64_t row_digest(uint64_t id, uint32_t crc)
{
    return mix(mix(id + 1) + crc);
}

static uint64_t bucket_digest(unsigned bucket, uint32_t crc)
{
    return mix(~(uint64_t)bucket ^ (uint64_t)crc << 8);
}

uint64_t bucket_row_digest(unsigned bucket, struct bytes key, struct bytes value)
{
    return bucket_digest(bucket, bucket_crc(bucket, key, value));
}

/* ---- Revisions --------------------------------------------------------------------------------- */

uint8_t row_marks(const struct row *row)
{
    return (uint8_t)((row->tombstone ? MARK_TOMBSTONE : 0) | (row->more ? MARK_MORE : 0));
}

bool row_take_marks(struct row *row, uint64_t marks)
{
    row->tombstone = marks & MARK_TOMBSTONE;
    row->more = marks & MARK_MORE;
    return marks == row_marks(row);
}

void row_of_kv(const struct mvcc_kv *kv, bool more, struct row *ret_row)
{
    *ret_row = (struct row){
        .id = kv_id(kv),
        .tombstone = kv->tombstone,
        .more = more,
        .facts = {kv->create_revision, kv->version, kv->lease, kv->stamp},
        .key = kv->key,
        .value = kv->value,
        .value_n = kv->value.n,
        .value_crc = crc32c(0, kv->value.p, kv->value.n),
    };
    ret_row->crc = row_crc(ret_row);
}

bool row_is_sound(const struct row *row)
{
    return row->value_crc == crc32c(0, row->value.p, row->value.n) && row->crc == row_crc(row);
}

struct mvcc_kv *row_to_kv(const struct row *row)
{
    return kv_new(row->id, row->key, row->value, row->tombstone ? NULL : &row->facts,
                  row->facts.stamp);
}

/* SQLite takes a NULL pointer for NULL: an empty blob needs an address. */
static void bind_bytes(sqlite3_stmt *s, int at, struct bytes b)
{
    sqlite3_bind_blob64(s, at, b.n ? (const void *)b.p : "", b.n, SQLITE_STATIC);
}

enum errc row_insert(struct db *db, const struct row *row, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_ROW_INSERT, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)row->id);
    sqlite3_bind_int64(s, 2, row->crc);
    sqlite3_bind_int64(s, 3, row->value_crc);
    sqlite3_bind_int64(s, 4, row_marks(row));
    sqlite3_bind_int64(s, 5, row->facts.create_revision);
    sqlite3_bind_int64(s, 6, row->facts.version);
    sqlite3_bind_int64(s, 7, row->facts.lease);
    sqlite3_bind_int64(s, 8, (int64_t)row->facts.stamp);
    bind_bytes(s, 9, row->key);
    bind_bytes(s, 10, row->value);
    code = db_run(db, s, "write a revision", err);
    sqlite3_clear_bindings(s);
    if (code != ERR_OK)
        return code;
    db->state.rows++;
    db->state.digest += row_digest(row->id, row->crc);
    if (row->id < db->scrub.next_id) {
        db->scrub.rows++;
        db->scrub.digest += row_digest(row->id, row->crc);
    }
    return ERR_OK;
}

enum errc row_delete(struct db *db, uint64_t id, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_ROW_DELETE, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)id);
    int rc = sqlite3_step(s);
    if (rc == SQLITE_DONE)
        return db_corrupt(db, err, "the row of revision %lld.%d is missing",
                          (long long)rev_main(id), rev_sub(id));
    if (rc != SQLITE_ROW)
        return db_error(db, "remove a revision", err);
    uint32_t crc = (uint32_t)sqlite3_column_int64(s, 0);
    code = db_run(db, s, "remove a revision", err);
    if (code != ERR_OK)
        return code;
    db->state.rows--;
    db->state.digest -= row_digest(id, crc);
    if (id < db->scrub.next_id) {
        db->scrub.rows--;
        db->scrub.digest -= row_digest(id, crc);
    }
    return ERR_OK;
}

/* A key for an error message: short, and nothing that a terminal would act on. */
static void key_text(struct bytes key, char *text, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < key.n && used + 8 < n; i++) {
        bool plain = key.p[i] >= 0x20 && key.p[i] < 0x7f && key.p[i] != '"' && key.p[i] != '\\';
        used += (size_t)snprintf(text + used, n - used, plain ? "%c" : "\\x%02x", key.p[i]);
    }
    text[used] = 0;
}

static enum errc row_damaged(struct db *db, const struct row *row, const char *what,
                             struct error *err)
{
    char key[128];
    key_text(row->key, key, sizeof(key));
    return db_corrupt(db, err,
                      "the %s of revision %lld.%d (key \"%s\") is damaged: its checksum "
                      "is wrong",
                      what, (long long)rev_main(row->id), rev_sub(row->id), key);
}

enum errc row_take(struct db *db, sqlite3_stmt *s, bool whole, struct row *ret_row,
                   struct error *err)
{
    struct row row = {
        .id = (uint64_t)sqlite3_column_int64(s, 0),
        .crc = (uint32_t)sqlite3_column_int64(s, 1),
        .value_crc = (uint32_t)sqlite3_column_int64(s, 2),
        .facts = {sqlite3_column_int64(s, 4), sqlite3_column_int64(s, 5),
                  sqlite3_column_int64(s, 6), (uint64_t)sqlite3_column_int64(s, 7)},
        .key = db_blob(s, 8),
    };
    if (whole)
        row.value = db_blob(s, 9);
    row.value_n = whole ? row.value.n : (uint64_t)sqlite3_column_int64(s, 9);
    if (sqlite3_errcode(sqlite3_db_handle(s)) == SQLITE_NOMEM)
        abort();
    bool known = row_take_marks(&row, (uint64_t)sqlite3_column_int64(s, 3));
    if ((!known || row.crc != row_crc(&row)) && !MUTANT(corrupt_row_served))
        return row_damaged(db, &row, "row", err);
    if (whole && row.value_crc != crc32c(0, row.value.p, row.value.n) &&
        !MUTANT(corrupt_row_served))
        return row_damaged(db, &row, "value", err);
    *ret_row = row;
    return ERR_OK;
}

enum errc row_read_kv(struct db *db, uint64_t id, bool whole, struct mvcc_kv **ret_kv,
                      struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, whole ? DB_ROW_READ : DB_ROW_READ_FACTS, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, (int64_t)id);
    struct row row;
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW)
        code = row_take(db, s, whole, &row, err);
    else if (rc == SQLITE_DONE)
        code = db_corrupt(db, err, "the row of revision %lld.%d is missing",
                          (long long)rev_main(id), rev_sub(id));
    else
        code = db_error(db, "read a revision", err);
    if (code == ERR_OK && row.id != id)
        code = db_corrupt(db, err, "the row of revision %lld.%d is another one",
                          (long long)rev_main(id), rev_sub(id));
    if (code == ERR_OK)
        *ret_kv = row_to_kv(&row);
    sqlite3_reset(s);
    return code;
}

/* ---- Their order ------------------------------------------------------------------------------- */

static int64_t order_at(const struct row_order *o)
{
    int64_t main = rev_main(o->last);
    return main > o->floor ? main : o->floor;
}

/* The revision that was last looked at lacks changes behind it. */
static bool order_is_open(const struct row_order *o)
{
    return o->more && rev_main(o->last) > o->floor && !MUTANT(short_revision_served);
}

bool row_order_take(struct row_order *o, const struct row *row)
{
    int64_t main = rev_main(row->id);
    bool good = main <= o->floor;
    if (!good && main == rev_main(o->last))
        good = rev_sub(row->id) == rev_sub(o->last) + 1;
    else if (!good)
        good = main == order_at(o) + 1 && rev_sub(row->id) == 0 && !order_is_open(o);
    o->last = row->id;
    o->more = row->more;
    return good;
}

bool row_order_ends(const struct row_order *o, int64_t revision)
{
    return order_at(o) >= revision && !order_is_open(o);
}

enum errc row_order_gap(struct db *db, const struct row *row, struct error *err)
{
    return db_corrupt(db, err, "a row before revision %lld.%d is missing",
                      (long long)rev_main(row->id), rev_sub(row->id));
}

enum errc row_order_short(struct db *db, const struct row_order *o, struct error *err)
{
    return db_corrupt(db, err, "the rows behind revision %lld.%d are missing",
                      (long long)order_at(o), rev_sub(o->last));
}

/* ---- Buckets ----------------------------------------------------------------------------------- */

static enum errc bucket_remove(struct db *db, unsigned bucket, struct bytes key, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_BUCKET_DELETE, &s, err);
    if (code != ERR_OK)
        return code;
    sqlite3_bind_int64(s, 1, bucket);
    bind_bytes(s, 2, key);
    int rc = sqlite3_step(s);
    if (rc == SQLITE_ROW) {
        db->state.rows--;
        db->state.digest -= bucket_digest(bucket, (uint32_t)sqlite3_column_int64(s, 0));
        rc = sqlite3_step(s);
    }
    if (rc != SQLITE_DONE)
        code = db_error(db, "remove a row", err);
    sqlite3_reset(s);
    sqlite3_clear_bindings(s);
    return code;
}

enum errc bucket_write(struct db *db, unsigned bucket, struct bytes key, struct bytes value,
                       struct error *err)
{
    enum errc code = bucket_remove(db, bucket, key, err);
    if (code != ERR_OK || !value.p)
        return code;
    sqlite3_stmt *s;
    code = db_statement(db, DB_BUCKET_PUT, &s, err);
    if (code != ERR_OK)
        return code;
    uint32_t crc = bucket_crc(bucket, key, value);
    sqlite3_bind_int64(s, 1, bucket);
    bind_bytes(s, 2, key);
    sqlite3_bind_int64(s, 3, crc);
    bind_bytes(s, 4, value);
    code = db_run(db, s, "write a row", err);
    sqlite3_clear_bindings(s);
    if (code != ERR_OK)
        return code;
    db->state.rows++;
    db->state.digest += bucket_digest(bucket, crc);
    return ERR_OK;
}

enum errc bucket_take(struct db *db, sqlite3_stmt *s, unsigned *ret_bucket, struct bytes *ret_key,
                      struct bytes *ret_value, uint64_t *ret_digest, struct error *err)
{
    unsigned bucket = (unsigned)sqlite3_column_int64(s, 0);
    struct bytes key = db_blob(s, 1), value = db_blob(s, 3);
    uint32_t crc = (uint32_t)sqlite3_column_int64(s, 2);
    if (crc != bucket_crc(bucket, key, value)) {
        char text[64];
        key_text(key, text, sizeof(text));
        return db_corrupt(db, err, "the row \"%s\" of bucket %u is damaged: its checksum is wrong",
                          text, bucket);
    }
    *ret_bucket = bucket;
    *ret_key = key;
    *ret_value = value.p ? value : bytes_of("", 0); /* removed rows only have NULL */
    if (ret_digest)
        *ret_digest = bucket_digest(bucket, crc);
    return ERR_OK;
}

/* ---- Loading ----------------------------------------------------------------------------------- */

static enum errc load_revisions(struct db *db, struct keyindex *index, struct db_sums *sums,
                                struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_ROWS_FACTS, &s, err);
    if (code != ERR_OK)
        return code;
    uint64_t last = 0;
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        struct row row;
        code = row_take(db, s, false, &row, err);
        if (code != ERR_OK)
            break;
        if (row.id <= last || rev_main(row.id) > db->state.revision) {
            code = db_corrupt(db, err, "the row of revision %lld.%d is out of order",
                              (long long)rev_main(row.id), rev_sub(row.id));
            break;
        }
        last = row.id;
        keyindex_add(index, row.key, row.id, row.tombstone, &row.facts);
        sums->rows++;
        sums->digest += row_digest(row.id, row.crc);
    }
    if (code == ERR_OK && rc != SQLITE_DONE)
        code = db_error(db, "read the revisions", err);
    sqlite3_reset(s);
    return code;
}

enum errc tables_sum_buckets(struct db *db, struct db_sums *sums, struct error *err)
{
    sqlite3_stmt *s;
    enum errc code = db_statement(db, DB_BUCKETS_ALL, &s, err);
    if (code != ERR_OK)
        return code;
    int rc;
    while ((rc = sqlite3_step(s)) == SQLITE_ROW) {
        unsigned bucket;
        struct bytes key, value;
        uint64_t digest;
        code = bucket_take(db, s, &bucket, &key, &value, &digest, err);
        if (code != ERR_OK)
            break;
        sums->rows++;
        sums->digest += digest;
    }
    if (code == ERR_OK && rc != SQLITE_DONE)
        code = db_error(db, "read the buckets", err);
    sqlite3_reset(s);
    return code;
}

enum errc tables_differ(struct db *db, uint64_t found, uint64_t expected, struct error *err)
{
    return db_corrupt(db, err, "%llu rows were found where %llu%s were written",
                      (unsigned long long)found, (unsigned long long)expected,
                      found == expected ? " others" : "");
}

enum errc tables_load(struct db *db, struct keyindex *index, struct error *err)
{
    struct db_sums sums = {0};
    enum errc code = db_do(db, DB_BEGIN_READ, "begin", err);
    if (code != ERR_OK)
        return code;
    code = db_read_state(db, &db->state, err);
    if (code == ERR_OK)
        code = load_revisions(db, index, &sums, err);
    if (code == ERR_OK)
        code = tables_sum_buckets(db, &sums, err);
    if (code == ERR_OK && (sums.rows != db->state.rows || sums.digest != db->state.digest))
        code = tables_differ(db, sums.rows, db->state.rows, err);
    enum errc ended = db_do(db, DB_COMMIT, "end", code == ERR_OK ? err : NULL);
    return code != ERR_OK ? code : ended;
}
