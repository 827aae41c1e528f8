/* A snapshot that is on its way in: how far it has come, as a row of the database that it becomes, written in the
 * transactions that hold its rows. So what a crash leaves is always the snapshot up to some chunk, and says up
 * to which. The table goes when the database is the current one. */
#ifndef STORE_PARTIAL_H
#define STORE_PARTIAL_H

#include "daemon/store/frame.h"
#include "daemon/store/mvcc.h"

struct partial {
    struct mvcc_snapshot_id id;
    struct mvcc_snapshot_at at;
    uint32_t seq;              /* frames taken */
    struct record_order order; /* of the records so far */
};

/* All with the writing connection: the first two inside of a transaction. */
enum errc partial_create(struct db *db, struct error *err);
enum errc partial_write(struct db *db, const struct partial *p, struct error *err);

/* What a former life has left, after all of its rows were read again and compared with their sums, and with the
 * count and digest that were written with *ret_partial. ERR_CORRUPT. */
enum errc partial_read(struct db *db, struct partial *ret_partial, struct error *err);

/* The database has become the store. If there is no space for that now, it is done at a later opening. */
enum errc partial_forget(struct db *db, struct error *err);

#endif
