/* The bytes of a snapshot: a row of frames, each a chunk with its length, number and CRC32C, so that it
 * may be cut anywhere on its way and damage or loss is known. A frame holds records:
 *
 *     frame   magic u32, payload length u32, sequence u32, CRC32C of all but itself u32, payload
 *     head    1, format u32, applied, term, stamp, revision, compact revision u64; first of all
 *     bucket  2, bucket u32, key length u32, value length u32, key, value
 *     row     3, id u64, marks u8, create revision, version, lease, stamp u64, CRC32C of the value
 *             u32, of the row u32, key length u32, value length u32, key, value; ids ascend
 *     tail    4, rows u64, digest u64; nothing follows
 *
 * Numbers are little-endian. What buckets, ids, marks and the sums of rows mean is the store's
 * (daemon/store/tables.h). A file of them: file.h. */
#ifndef SNAPFILE_FRAME_H
#define SNAPFILE_FRAME_H

#include "lib/base/bytes.h"
#include "lib/base/error.h"

#define FRAME_HEADER 16
/* No payload is longer: a chunk, and at most one row beyond it (a request's limit is far below). */
#define FRAME_PAYLOAD_MAX (64u * 1024 * 1024)

enum record_type { RECORD_HEAD = 1, RECORD_BUCKET, RECORD_ROW, RECORD_TAIL };

struct record_head {
    uint64_t applied, term, stamp;
    int64_t revision, compact_revision;
};

struct record_row {
    uint64_t id;
    uint8_t marks;
    int64_t create_revision, version, lease;
    uint64_t stamp;
    uint32_t value_crc, crc;
    struct bytes key, value;
};

void frame_begin(struct buf *b);             /* at the end of *b, which must be empty */
void frame_end(struct buf *b, uint32_t seq); /* fills in the header */

void record_add_head(struct buf *b, const struct record_head *head);
void record_add_bucket(struct buf *b, uint32_t bucket, struct bytes key, struct bytes value);
void record_add_row(struct buf *b, const struct record_row *row);
void record_add_tail(struct buf *b, uint64_t rows, uint64_t digest);

/* One record; bytes are borrowed from the frame. */
struct record {
    enum record_type type;
    struct record_head head;
    uint32_t bucket;
    struct bytes key, value; /* of a bucket */
    struct record_row row;
    uint64_t rows, digest; /* of a tail */
};

bool frame_has_magic(struct bytes in);
/* Looks for a whole frame with number seq at the begin of `in`. ERR_OK with *ret_n == 0: more bytes are
 * needed; else *ret_n bytes are the frame and *ret_payload its records. ERR_CORRUPT. */
enum errc frame_take(struct bytes in, uint32_t seq, size_t *ret_n, struct bytes *ret_payload,
                     struct error *err);
/* Takes the first record off *payload. ERR_CORRUPT. Whether a row's sums are right is not looked at. */
enum errc record_take(struct bytes *payload, struct record *ret_record, struct error *err);

#endif
