#include "daemon/store/import.h"

#include <stdio.h>
#include <stdlib.h>

#include "daemon/store/files.h"
#include "daemon/store/frame.h"
#include "daemon/store/internal.h"

#define CHECKPOINT_PAGES 4000 /* as restore.c's: nobody waits for this database */
#define BATCH_BYTES (4u * 1024 * 1024)

static enum errc damaged(const char *file, struct error *err)
{
    return error_set(err, ERR_CORRUPT, "%s: the snapshot is damaged: rows are missing", file);
}

/* ---- Checking ------------------------------------------------------------------------------------ */

struct check {
    const char *file;
    struct record_order order;
    uint64_t rows, digest;
};

/* Adds a record to what came so far, and compares at the end. */
static enum errc check_record(struct check *c, const struct record *record, struct row *ret_row,
                              struct error *err)
{
    struct error why;
    enum errc code = record_check(&c->order, record, ret_row, &why);
    if (code != ERR_OK)
        return error_set(err, code, "%s: %s", c->file, why.message);
    if (record->type == RECORD_BUCKET) {
        c->rows++;
        c->digest += bucket_row_digest(record->bucket, record->key, record->value);
    } else if (record->type == RECORD_ROW) {
        c->rows++;
        c->digest += row_digest(ret_row->id, ret_row->crc);
    } else if (record->type == RECORD_TAIL &&
               (record->rows != c->rows || record->digest != c->digest)) {
        return damaged(c->file, err);
    }
    return ERR_OK;
}

static enum errc only_check(void *ctx, const struct record *record, struct error *err)
{
    struct row row;
    return check_record(ctx, record, &row, err);
}

enum errc import_check(struct disk *disk, const char *file, struct snapfile_info *ret_info,
                       struct error *err)
{
    struct check c = {.file = file};
    return snapfile_read(disk, file, only_check, &c, ret_info, err);
}

/* ---- Writing ------------------------------------------------------------------------------------- */

struct import {
    const struct import_config *config;
    struct check check;
    struct db *db;
    size_t batch; /* bytes in the transaction */
};

static enum errc next_batch(struct import *m, struct error *err)
{
    struct written written;
    enum errc code = txn_end(m->db, ERR_OK, err);
    if (code == ERR_OK)
        code = after_write(m->db, CHECKPOINT_PAGES, false, &written, err);
    if (code == ERR_OK)
        code = txn_begin(m->db, err);
    m->batch = 0;
    return code;
}

static enum errc write_record(void *ctx, const struct record *record, struct error *err)
{
    struct import *m = ctx;
    struct row row;
    enum errc code = check_record(&m->check, record, &row, err);
    if (code == ERR_OK && record->type == RECORD_BUCKET && m->config->keep[record->bucket])
        code = bucket_write(m->db, record->bucket, record->key,
                            record->value.p ? record->value : bytes_of("", 0), err);
    if (code == ERR_OK && record->type == RECORD_ROW)
        code = row_insert(m->db, &row, err);
    m->batch += record->type == RECORD_ROW ? row.key.n + row.value.n : record->value.n;
    return code == ERR_OK && m->batch >= BATCH_BYTES ? next_batch(m, err) : code;
}

static enum errc write_all(struct import *m, struct error *err)
{
    struct snapfile_info info;
    const struct import_config *c = m->config;
    enum errc code = txn_begin(m->db, err);
    if (code == ERR_OK)
        code = snapfile_read(c->disk, c->file, write_record, m, &info, err);
    for (size_t i = 0; code == ERR_OK && i < c->row_count; i++)
        code = bucket_write(m->db, c->rows[i].bucket, c->rows[i].key, c->rows[i].value, err);
    return code;
}

enum errc import_complete(struct disk *disk, const char *dir, struct db *db,
                          const struct db_state *state, enum errc code, struct error *err)
{
    bool complete = false;
    struct db_state last = *state;
    last.rows = db->state.rows;
    last.digest = db->state.digest;
    db->state = last;
    code = txn_end(db, code, err);
    if (code == ERR_OK)
        code = db_checkpoint(db, true, &complete, err);
    if (code == ERR_OK && !complete)
        code = error_set(err, ERR_IO, "%s: its checkpoint is not complete", db->path);
    if (code == ERR_OK)
        code = files_announce(disk, dir, STORE_FILE_FIRST, err);
    return code == ERR_OK ? files_switch(disk, dir, err) : code;
}

enum errc import_run(const struct import_config *config, struct db_state *ret_state,
                     struct error *err)
{
    struct import m = {.config = config, .check = {.file = config->file}};
    char *path = files_path(config->dir, STORE_FILE_FIRST);
    enum errc code = db_open(path, config->sqlite_vfs, DB_CREATE, &m.db, err);
    free(path);
    if (code != ERR_OK)
        return code;
    code = write_all(&m, err);
    struct db_state state = m.check.order.head;
    /* Of a member that had not applied anything; a log can't begin behind entry 0 with a store. */
    state.applied = state.applied ? state.applied : 1;
    state.term = state.term ? state.term : 1;
    state.compact_done = 0; /* how far the deletions had come is not known */
    code = import_complete(config->disk, config->dir, m.db, &state, code, err);
    db_close(m.db, true);
    if (code == ERR_OK)
        *ret_state = state;
    return code;
}
