#include "daemon/store/frame.h"

void record_head(struct buf *b, const struct db_state *state)
{
    record_add_head(b, &(struct record_head){
                           .applied = state->applied,
                           .term = state->term,
                           .stamp = state->stamp,
                           .revision = state->revision,
                           .compact_revision = state->compact_revision,
                       });
}

void record_bucket(struct buf *b, unsigned bucket, struct bytes key, struct bytes value)
{
    record_add_bucket(b, bucket, key, value);
}

void record_row(struct buf *b, const struct row *row)
{
    record_add_row(b, &(struct record_row){
                          .id = row->id,
                          .marks = row_marks(row),
                          .create_revision = row->facts.create_revision,
                          .version = row->facts.version,
                          .lease = row->facts.lease,
                          .stamp = row->facts.stamp,
                          .value_crc = row->value_crc,
                          .crc = row->crc,
                          .key = row->key,
                          .value = row->value,
                      });
}

void record_tail(struct buf *b, uint64_t rows, uint64_t digest)
{
    record_add_tail(b, rows, digest);
}

/* ---- Reading ------------------------------------------------------------------------------------- */

/* False: it has marks that nobody knows. */
static bool to_row(const struct record_row *r, struct row *ret_row)
{
    *ret_row = (struct row){
        .id = r->id,
        .facts = {r->create_revision, r->version, r->lease, r->stamp},
        .key = r->key,
        .value = r->value,
        .value_n = r->value.n,
        .value_crc = r->value_crc,
        .crc = r->crc,
    };
    return row_take_marks(ret_row, r->marks);
}

static void to_state(const struct record_head *h, struct db_state *ret_state)
{
    *ret_state = (struct db_state){
        .applied = h->applied,
        .term = h->term,
        .stamp = h->stamp,
        .revision = h->revision,
        .compact_revision = h->compact_revision,
    };
}

static enum errc damaged(struct error *err, const char *what)
{
    return error_set(err, ERR_CORRUPT, "the snapshot is damaged: %s", what);
}

enum errc record_check(struct record_order *order, const struct record *record, struct row *ret_row,
                       struct error *err)
{
    if (order->has_head == (record->type == RECORD_HEAD) || order->has_tail)
        return damaged(err, "a record is out of place");
    switch (record->type) {
    case RECORD_HEAD:
        if (record->head.revision > REV_MAIN_MAX)
            return damaged(err, "its revision is out of range");
        to_state(&record->head, &order->head);
        order->rows.floor = order->head.compact_revision > 1 ? order->head.compact_revision : 1;
        order->has_head = true;
        return ERR_OK;
    case RECORD_BUCKET:
        return record->bucket < MVCC_BUCKET_COUNT
                   ? ERR_OK
                   : error_set(err, ERR_UNIMPLEMENTED,
                               "the snapshot has rows of a kind that this version doesn't know "
                               "(bucket %u): it was made by a newer quorumd",
                               record->bucket);
    case RECORD_ROW:
        if (!to_row(&record->row, ret_row) || !row_is_sound(ret_row))
            return damaged(err, "a row's checksum is wrong");
        if (ret_row->id <= order->rows.last || rev_main(ret_row->id) > order->head.revision)
            return damaged(err, "a revision is out of order");
        return row_order_take(&order->rows, ret_row) ? ERR_OK : damaged(err, "a change is missing");
    case RECORD_TAIL:
        order->has_tail = true;
        return row_order_ends(&order->rows, order->head.revision)
                   ? ERR_OK
                   : damaged(err, "the last changes are missing");
    }
    return damaged(err, "a record is of no known type");
}
