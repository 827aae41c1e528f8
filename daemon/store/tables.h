/* Rows of the two tables, and the sums that guard them.
 *
 * SQLite hands out flipped bytes without a word. So each row of `rev` has a CRC32C over its id, its
 * small columns, its key and the length and CRC32C of its value: the index can be rebuilt and checked
 * without reading values. Bucket rows have one over everything. Rows that vanish are found by the
 * count and the digest of all rows (a sum, modulo 2^64, of one mixed number a row), which stand in the
 * state row, are kept up by every change and compared when the store is opened. */
#ifndef STORE_TABLES_H
#define STORE_TABLES_H

#include "daemon/store/keyindex.h"
#include "daemon/store/mvcc.h"
#include "daemon/store/sqlite.h"

/* A row of rev. Bytes are borrowed. `more`: another change of the same revision follows. It stands beside the
 * mark of a tombstone, under the sum: where the last changes of a revision are gone, the row before tells. (Rows
 * that were written before this was known never have it.) */
struct row {
    uint64_t id;
    bool tombstone, more;
    struct key_facts facts;
    struct bytes key, value; /* value.p NULL if only the facts were read */
    uint64_t value_n;
    uint32_t value_crc, crc;
};

void row_of_kv(const struct mvcc_kv *kv, bool more, struct row *ret_row); /* computes both sums */
struct mvcc_kv *row_to_kv(const struct row *row);
bool row_is_sound(const struct row *row); /* both sums are right; it is whole */
uint64_t row_digest(uint64_t id, uint32_t crc);
uint64_t bucket_row_digest(unsigned bucket, struct bytes key, struct bytes value);
/* Tombstone and `more` as they are stored, in one number; false: it is none. */
uint8_t row_marks(const struct row *row);
bool row_take_marks(struct row *row, uint64_t marks);

/* Rows in the order of their ids. Revisions have no gaps and their changes are numbered: above `floor`, what was
 * compacted (1: an empty store's revision), none may be missing. A lost write takes rows away without
 * harming any. Start with `last` 0. */
struct row_order {
    int64_t floor;
    uint64_t last; /* id, 0: none yet */
    bool more;     /* of the last one */
};
bool row_order_take(struct row_order *o,
                    const struct row *row); /* false: one before it is missing */
bool row_order_ends(const struct row_order *o, int64_t revision); /* is it complete up to there? */
/* ERR_CORRUPT for the two. */
enum errc row_order_gap(struct db *db, const struct row *row, struct error *err);
enum errc row_order_short(struct db *db, const struct row_order *o, struct error *err);

/* Writing: the writer's connection, inside a transaction. db->state.rows and .digest follow. */
enum errc row_insert(struct db *db, const struct row *row, struct error *err);
enum errc row_delete(struct db *db, uint64_t id,
                     struct error *err); /* ERR_CORRUPT if it is missing */

/* Fills a row from a statement that stands on one, and checks its sums. whole: with the value. */
enum errc row_take(struct db *db, sqlite3_stmt *s, bool whole, struct row *ret_row,
                   struct error *err);

/* One revision. ERR_CORRUPT also if it isn't there. */
enum errc row_read_kv(struct db *db, uint64_t id, bool whole, struct mvcc_kv **ret_kv,
                      struct error *err);

/* Buckets. value.p == NULL removes. */
enum errc bucket_write(struct db *db, unsigned bucket, struct bytes key, struct bytes value,
                       struct error *err);
/* Fills from DB_BUCKET_ROWS or DB_BUCKETS_ALL and checks the sum; *ret_digest may be NULL. */
enum errc bucket_take(struct db *db, sqlite3_stmt *s, unsigned *ret_bucket, struct bytes *ret_key,
                      struct bytes *ret_value, uint64_t *ret_digest, struct error *err);

/* ERR_CORRUPT for a count or digest that is not what it must be. */
enum errc tables_differ(struct db *db, uint64_t found, uint64_t expected, struct error *err);

struct db_sums {
    uint64_t rows, digest;
};
enum errc tables_sum_buckets(struct db *db, struct db_sums *sums, struct error *err); /* adds */

/* Reads all of the tables but values: builds the index and compares count and digest. */
enum errc tables_load(struct db *db, struct keyindex *index, struct error *err);

#endif
