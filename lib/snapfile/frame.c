#include "lib/snapfile/frame.h"

#include "lib/base/crc32c.h"

#define MAGIC 0x4e534651 /* "QFSN" */
#define FORMAT 1

static void add8(struct buf *b, uint8_t v)
{
    buf_append(b, &v, 1);
}

static void add32(struct buf *b, uint32_t v)
{
    uint8_t p[4];
    put_le32(p, v);
    buf_append(b, p, sizeof(p));
}

static void add64(struct buf *b, uint64_t v)
{
    uint8_t p[8];
    put_le64(p, v);
    buf_append(b, p, sizeof(p));
}

static uint32_t frame_crc(const uint8_t *frame, size_t payload_n)
{
    return crc32c(crc32c(0, frame, 12), frame + FRAME_HEADER, payload_n);
}

void frame_begin(struct buf *b)
{
    static const uint8_t room[FRAME_HEADER];
    buf_append(b, room, sizeof(room));
}

void frame_end(struct buf *b, uint32_t seq)
{
    size_t n = b->n - FRAME_HEADER;
    put_le32(b->p, MAGIC);
    put_le32(b->p + 4, (uint32_t)n);
    put_le32(b->p + 8, seq);
    put_le32(b->p + 12, frame_crc(b->p, n));
}

void record_add_head(struct buf *b, const struct record_head *head)
{
    add8(b, RECORD_HEAD);
    add32(b, FORMAT);
    add64(b, head->applied);
    add64(b, head->term);
    add64(b, head->stamp);
    add64(b, (uint64_t)head->revision);
    add64(b, (uint64_t)head->compact_revision);
}

static void add_pair(struct buf *b, struct bytes key, struct bytes value)
{
    add32(b, (uint32_t)key.n);
    add32(b, (uint32_t)value.n);
    buf_append(b, key.p, key.n);
    buf_append(b, value.p, value.n);
}

void record_add_bucket(struct buf *b, uint32_t bucket, struct bytes key, struct bytes value)
{
    add8(b, RECORD_BUCKET);
    add32(b, bucket);
    add_pair(b, key, value);
}

void record_add_row(struct buf *b, const struct record_row *row)
{
    add8(b, RECORD_ROW);
    add64(b, row->id);
    add8(b, row->marks);
    add64(b, (uint64_t)row->create_revision);
    add64(b, (uint64_t)row->version);
    add64(b, (uint64_t)row->lease);
    add64(b, row->stamp);
    add32(b, row->value_crc);
    add32(b, row->crc);
    add_pair(b, row->key, row->value);
}

void record_add_tail(struct buf *b, uint64_t rows, uint64_t digest)
{
    add8(b, RECORD_TAIL);
    add64(b, rows);
    add64(b, digest);
}

/* ---- Reading ------------------------------------------------------------------------------------- */

bool frame_has_magic(struct bytes in)
{
    return in.n >= 4 && get_le32(in.p) == MAGIC;
}

enum errc frame_take(struct bytes in, uint32_t seq, size_t *ret_n, struct bytes *ret_payload,
                     struct error *err)
{
    *ret_n = 0;
    if (in.n < FRAME_HEADER)
        return ERR_OK;
    size_t n = get_le32(in.p + 4);
    if (get_le32(in.p) != MAGIC || n > FRAME_PAYLOAD_MAX)
        return error_set(err, ERR_CORRUPT, "the snapshot is damaged: chunk %u has no header", seq);
    if (in.n - FRAME_HEADER < n)
        return ERR_OK;
    if (get_le32(in.p + 12) != frame_crc(in.p, n))
        return error_set(err, ERR_CORRUPT, "the snapshot is damaged: chunk %u has a wrong checksum",
                         seq);
    if (get_le32(in.p + 8) != seq)
        return error_set(err, ERR_CORRUPT, "the snapshot is damaged: chunk %u came where %u is due",
                         get_le32(in.p + 8), seq);
    *ret_n = FRAME_HEADER + n;
    *ret_payload = bytes_of(in.p + FRAME_HEADER, n);
    return ERR_OK;
}

/* Reads on after the end give 0 and are found by `short_of`. */
struct reader {
    struct bytes in;
    bool short_of;
};

static struct bytes take(struct reader *r, size_t n)
{
    if (r->in.n < n) {
        r->short_of = true;
        return BYTES_EMPTY;
    }
    struct bytes b = bytes_of(r->in.p, n);
    r->in.p += n;
    r->in.n -= n;
    return b;
}

static uint8_t take8(struct reader *r)
{
    struct bytes b = take(r, 1);
    return b.p ? b.p[0] : 0;
}

static uint32_t take32(struct reader *r)
{
    struct bytes b = take(r, 4);
    return b.p ? get_le32(b.p) : 0;
}

static uint64_t take64(struct reader *r)
{
    struct bytes b = take(r, 8);
    return b.p ? get_le64(b.p) : 0;
}

static void take_pair(struct reader *r, struct bytes *key, struct bytes *value)
{
    size_t key_n = take32(r), value_n = take32(r);
    *key = take(r, key_n);
    *value = take(r, value_n);
}

static bool take_head(struct reader *r, struct record_head *head)
{
    bool known = take32(r) == FORMAT;
    head->applied = take64(r);
    head->term = take64(r);
    head->stamp = take64(r);
    head->revision = (int64_t)take64(r);
    head->compact_revision = (int64_t)take64(r);
    return known && head->revision >= 1 && head->compact_revision >= -1 &&
           head->compact_revision <= head->revision;
}

static void take_row(struct reader *r, struct record_row *row)
{
    row->id = take64(r);
    row->marks = take8(r);
    row->create_revision = (int64_t)take64(r);
    row->version = (int64_t)take64(r);
    row->lease = (int64_t)take64(r);
    row->stamp = take64(r);
    row->value_crc = take32(r);
    row->crc = take32(r);
    take_pair(r, &row->key, &row->value);
}

enum errc record_take(struct bytes *payload, struct record *ret_record, struct error *err)
{
    struct reader r = {.in = *payload};
    struct record record = {.type = (enum record_type)take8(&r)};
    bool good = true;
    switch (record.type) {
    case RECORD_HEAD:
        good = take_head(&r, &record.head);
        break;
    case RECORD_BUCKET:
        record.bucket = take32(&r);
        take_pair(&r, &record.key, &record.value);
        break;
    case RECORD_ROW:
        take_row(&r, &record.row);
        break;
    case RECORD_TAIL:
        record.rows = take64(&r);
        record.digest = take64(&r);
        break;
    default:
        good = false;
    }
    if (!good || r.short_of)
        return error_set(err, ERR_CORRUPT, "the snapshot is damaged: a record of type %d is wrong",
                         (int)record.type);
    *payload = r.in;
    *ret_record = record;
    return ERR_OK;
}
