/* A snapshot's file becomes the store of a member that doesn't run yet.
 *
 * Blocking, without workers and loop; any thread. */
#ifndef STORE_IMPORT_H
#define STORE_IMPORT_H

#include "daemon/store/mvcc.h"
#include "daemon/store/sqlite.h"
#include "lib/snapfile/file.h"

struct import_row { /* to be added to a bucket */
    enum mvcc_bucket bucket;
    struct bytes key, value;
};

struct import_config {
    struct disk *disk;
    const char *sqlite_vfs; /* NULL: SQLite's default */
    const char *file;       /* lib/snapfile/file.h */
    const char *dir;        /* exists and is empty */
    bool keep[MVCC_BUCKET_COUNT];
    const struct import_row *rows;
    size_t row_count;
};

/* Reads all of the file without writing anything: its SHA-256, every row's sums, their order, count and digest.
 * ERR_CORRUPT, ERR_INVALID (no snapshot of quorumd), ERR_UNIMPLEMENTED (of a newer one), and the disk's. */
enum errc import_check(struct disk *disk, const char *file, struct snapfile_info *ret_info,
                       struct error *err);

/* Makes the store, durably; it counts only when all of it is there. *ret_state: what it is as of. All of the
 * file is checked again on the way. */
enum errc import_run(const struct import_config *config, struct db_state *ret_state,
                     struct error *err);

/* The last steps of a new store: `db` is inside a transaction; it gets the state (but rows and digest, which it
 * has counted), is made durable and becomes the one that counts in `dir`. */
enum errc import_complete(struct disk *disk, const char *dir, struct db *db,
                          const struct db_state *state, enum errc code, struct error *err);

#endif
