/* The store's rows and state as records of a snapshot (lib/snapfile/frame.h), and what makes a row of
 * records a whole snapshot. */
#ifndef STORE_FRAME_H
#define STORE_FRAME_H

#include "daemon/store/tables.h"
#include "lib/snapfile/frame.h"

void record_head(struct buf *b, const struct db_state *state);
void record_bucket(struct buf *b, unsigned bucket, struct bytes key, struct bytes value);
void record_row(struct buf *b, const struct row *row);
void record_tail(struct buf *b, uint64_t rows, uint64_t digest);

/* What came so far. (struct record_order){0} is the begin. */
struct record_order {
    bool has_head, has_tail;
    struct db_state head; /* what the snapshot says of itself */
    struct row_order rows;
};

/* Whether `record` may come next: the head first, ids ascending, without a gap and not above the head's
 * revision, nothing after the tail; and whether a row's sums are right. *ret_row is filled for a row. The tail's count and
 * digest are the caller's to compare. ERR_CORRUPT. */
enum errc record_check(struct record_order *order, const struct record *record, struct row *ret_row,
                       struct error *err);

#endif
