/* The log's bytes: segment heads, batch headers and records, and their checksums. */
#include <assert.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/crc32c.h"

#define HEAD_MAGIC 0x6c61772d73666d71ull /* "qmfs-wal" */
#define HEAD_FORMAT 1u
#define HEAD_CHECKED (WAL_SECTOR - 16u) /* all behind magic, format and checksum */
#define BATCH_MAGIC 0x68637462u         /* "btch" */

/* Fields in file order; a cursor keeps encoder and decoder parallel. */
static void out64(uint8_t **p, uint64_t v)
{
    put_le64(*p, v);
    *p += 8;
}

static void out32(uint8_t **p, uint32_t v)
{
    put_le32(*p, v);
    *p += 4;
}

static uint64_t in64(const uint8_t **p)
{
    *p += 8;
    return get_le64(*p - 8);
}

static uint32_t in32(const uint8_t **p)
{
    *p += 4;
    return get_le32(*p - 4);
}

uint32_t wal_head_encode(const struct wal_head *h, uint8_t sector[WAL_SECTOR])
{
    memset(sector, 0, WAL_SECTOR);
    put_le64(sector, HEAD_MAGIC);
    put_le32(sector + 8, HEAD_FORMAT);
    uint8_t *p = sector + 16;
    out64(&p, h->cluster_id);
    out64(&p, h->member_id);
    out64(&p, h->seq);
    out64(&p, h->nonce);
    out64(&p, h->prev_end);
    out32(&p, h->prev_chain);
    out32(&p, h->has_hard_state);
    out64(&p, h->batch_number);
    out64(&p, h->base_index);
    out64(&p, h->base_term);
    out64(&p, h->last_index);
    out64(&p, h->hard_state.term);
    out64(&p, h->hard_state.vote);
    out64(&p, h->hard_state.commit);
    out64(&p, h->bytes);
    uint32_t crc = crc32c(HEAD_FORMAT, sector + 16, HEAD_CHECKED);
    put_le32(sector + 12, crc);
    return crc;
}

bool wal_head_decode(const uint8_t sector[WAL_SECTOR], struct wal_head *ret_head,
                     uint32_t *ret_chain)
{
    uint32_t crc = get_le32(sector + 12);
    if (get_le64(sector) != HEAD_MAGIC || get_le32(sector + 8) != HEAD_FORMAT ||
        crc32c(HEAD_FORMAT, sector + 16, HEAD_CHECKED) != crc)
        return false;
    struct wal_head h;
    const uint8_t *p = sector + 16;
    h.cluster_id = in64(&p);
    h.member_id = in64(&p);
    h.seq = in64(&p);
    h.nonce = in64(&p);
    h.prev_end = in64(&p);
    h.prev_chain = in32(&p);
    h.has_hard_state = in32(&p) != 0;
    h.batch_number = in64(&p);
    h.base_index = in64(&p);
    h.base_term = in64(&p);
    h.last_index = in64(&p);
    h.hard_state.term = in64(&p);
    h.hard_state.vote = in64(&p);
    h.hard_state.commit = in64(&p);
    h.bytes = in64(&p);
    *ret_head = h;
    *ret_chain = crc;
    return true;
}

uint32_t wal_batch_encode(const struct wal_batch *b, uint8_t header[WAL_BATCH_HEADER])
{
    memset(header, 0, WAL_BATCH_HEADER);
    put_le32(header, BATCH_MAGIC);
    uint8_t *p = header + 8;
    out64(&p, b->seq);
    out64(&p, b->nonce);
    out64(&p, b->offset);
    out64(&p, b->number);
    out64(&p, b->synced);
    out32(&p, b->length);
    out32(&p, b->prev_chain);
    out32(&p, b->records);
    uint32_t crc = crc32c(BATCH_MAGIC, header + 8, WAL_BATCH_HEADER - 8);
    put_le32(header + 4, crc);
    return crc;
}

bool wal_batch_decode(const uint8_t header[WAL_BATCH_HEADER], struct wal_batch *ret_batch,
                      uint32_t *ret_chain)
{
    uint32_t crc = get_le32(header + 4);
    if (get_le32(header) != BATCH_MAGIC ||
        crc32c(BATCH_MAGIC, header + 8, WAL_BATCH_HEADER - 8) != crc)
        return false;
    struct wal_batch b;
    const uint8_t *p = header + 8;
    b.seq = in64(&p);
    b.nonce = in64(&p);
    b.offset = in64(&p);
    b.number = in64(&p);
    b.synced = in64(&p);
    b.length = in32(&p);
    b.prev_chain = in32(&p);
    b.records = in32(&p);
    *ret_batch = b;
    *ret_chain = crc;
    return true;
}

/* Room for a record; its checksum stays open. Returns where the payload goes. */
static uint8_t *put_record(struct buf *b, enum wal_record_type type, size_t payload)
{
    assert(payload <= WAL_SEGMENT_BYTES_MAX);
    buf_reserve(b, WAL_RECORD_HEADER + payload);
    uint8_t *p = b->p + b->n;
    put_le32(p, 0);
    put_le32(p + 4, (uint32_t)payload);
    put_le32(p + 8, type);
    b->n += WAL_RECORD_HEADER + payload;
    return p + WAL_RECORD_HEADER;
}

void wal_put_entry(struct buf *b, const struct raft_entry *e)
{
    uint8_t *p = put_record(b, WAL_RECORD_ENTRY, WAL_ENTRY_FIXED + e->size);
    out64(&p, e->term);
    out64(&p, e->index);
    out64(&p, e->stamp);
    out32(&p, e->type);
    if (e->size > 0)
        memcpy(p, e->data, e->size);
}

void wal_put_hard_state(struct buf *b, const struct raft_hard_state *hs)
{
    uint8_t *p = put_record(b, WAL_RECORD_HARD_STATE, 24);
    out64(&p, hs->term);
    out64(&p, hs->vote);
    out64(&p, hs->commit);
}

void wal_put_position(struct buf *b, enum wal_record_type type, uint64_t index, uint64_t term)
{
    uint8_t *p = put_record(b, type, 16);
    out64(&p, index);
    out64(&p, term);
}

uint32_t wal_records_seal(uint8_t *p, size_t n, uint32_t chain)
{
    while (n > 0) {
        size_t size = WAL_RECORD_HEADER + get_le32(p + 4);
        assert(size <= n);
        chain = crc32c(chain, p + 4, size - 4);
        put_le32(p, chain);
        p += size;
        n -= size;
    }
    return chain;
}

bool wal_record_next(struct bytes *rest, uint32_t *chain, struct wal_record *ret_record)
{
    if (rest->n < WAL_RECORD_HEADER)
        return false;
    size_t payload = get_le32(rest->p + 4);
    if (payload > rest->n - WAL_RECORD_HEADER)
        return false;
    uint32_t crc = crc32c(*chain, rest->p + 4, WAL_RECORD_HEADER - 4 + payload);
    if (crc != get_le32(rest->p))
        return false;
    *chain = crc;
    ret_record->type = (enum wal_record_type)get_le32(rest->p + 8);
    ret_record->payload = bytes_of(rest->p + WAL_RECORD_HEADER, payload);
    *rest = bytes_of(rest->p + WAL_RECORD_HEADER + payload, rest->n - WAL_RECORD_HEADER - payload);
    return true;
}

bool wal_batch_check(struct bytes data, const struct wal_head *head, uint64_t offset,
                     uint64_t number, uint32_t chain, struct wal_batch *ret_batch,
                     struct bytes *ret_records, uint32_t *ret_chain)
{
    struct wal_batch b;
    if (data.n < WAL_SECTOR || !wal_batch_decode(data.p, &b, ret_chain))
        return false;
    if (b.seq != head->seq || b.nonce != head->nonce || b.offset != offset ||
        b.number != number + 1 || b.prev_chain != chain || b.synced > offset ||
        b.synced < WAL_SECTOR || b.length > data.n - WAL_BATCH_HEADER)
        return false;
    struct bytes rest = bytes_of(data.p + WAL_BATCH_HEADER, b.length);
    *ret_records = rest;
    struct wal_record r;
    for (uint32_t i = 0; i < b.records; i++)
        if (!wal_record_next(&rest, ret_chain, &r))
            return false;
    *ret_batch = b;
    return rest.n == 0;
}

struct raft_entry *wal_entry_decode(struct bytes payload)
{
    if (payload.n < WAL_ENTRY_FIXED)
        return NULL;
    const uint8_t *p = payload.p;
    uint64_t term = in64(&p);
    uint64_t index = in64(&p);
    uint64_t stamp = in64(&p);
    uint32_t type = in32(&p);
    if (type > RAFT_ENTRY_CONF)
        return NULL;
    return raft_entry_new(term, index, (enum raft_entry_type)type, stamp,
                          bytes_of(p, payload.n - WAL_ENTRY_FIXED));
}
