#include "daemon/api/encode.h"

/* Field headers: number << 3 | wire type. */
#define WATCH_HEADER 0x0a
#define WATCH_ID 0x10
#define WATCH_FRAGMENT 0x38
#define WATCH_EVENTS 0x5a
#define RANGE_KVS 0x12
#define EVENT_TYPE 0x08
#define EVENT_KV 0x12
#define EVENT_PREV_KV 0x1a
#define KV_KEY 0x0a
#define KV_CREATE_REVISION 0x10
#define KV_MOD_REVISION 0x18
#define KV_VERSION 0x20
#define KV_VALUE 0x2a
#define KV_LEASE 0x30
#define KV_STAMP 80009 /* field 10001, fixed64 */
#define KV_STAMP_BYTES (3 + 8)

static size_t varint_size(uint64_t v)
{
    size_t n = 1;
    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static size_t put_varint(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

static size_t number_size(int64_t v)
{
    return v ? 1 + varint_size((uint64_t)v) : 0;
}

static size_t bytes_size(struct bytes s)
{
    return s.n ? 1 + varint_size(s.n) + s.n : 0;
}

static uint8_t *put_number(uint8_t *p, uint8_t tag, int64_t v)
{
    if (v == 0)
        return p;
    *p++ = tag;
    return p + put_varint(p, (uint64_t)v);
}

static uint8_t *put_bytes(uint8_t *p, uint8_t tag, struct bytes s)
{
    if (s.n == 0)
        return p;
    *p++ = tag;
    p += put_varint(p, s.n);
    memcpy(p, s.p, s.n);
    return p + s.n;
}

static size_t kv_size(const struct mvcc_kv *kv)
{
    return bytes_size(kv->key) + number_size(kv->create_revision) + number_size(kv->mod_revision) +
           number_size(kv->version) + bytes_size(kv->value) + number_size(kv->lease) +
           (kv->stamp ? KV_STAMP_BYTES : 0);
}

static uint8_t *put_kv(uint8_t *p, uint8_t tag, const struct mvcc_kv *kv)
{
    *p++ = tag;
    p += put_varint(p, kv_size(kv));
    p = put_bytes(p, KV_KEY, kv->key);
    p = put_number(p, KV_CREATE_REVISION, kv->create_revision);
    p = put_number(p, KV_MOD_REVISION, kv->mod_revision);
    p = put_number(p, KV_VERSION, kv->version);
    p = put_bytes(p, KV_VALUE, kv->value);
    p = put_number(p, KV_LEASE, kv->lease);
    if (kv->stamp) {
        p += put_varint(p, KV_STAMP);
        put_le64(p, kv->stamp);
        p += 8;
    }
    return p;
}

static size_t kv_field_size(const struct mvcc_kv *kv)
{
    size_t n = kv_size(kv);
    return 1 + varint_size(n) + n;
}

static size_t event_body_size(const struct watch_event *event)
{
    return number_size(event->kv->tombstone) + kv_field_size(event->kv) +
           (event->prev ? kv_field_size(event->prev) : 0);
}

size_t encode_event_size(const struct watch_event *event)
{
    size_t n = event_body_size(event);
    return 1 + varint_size(n) + n;
}

void encode_event(struct buf *b, const struct watch_event *event)
{
    buf_reserve(b, encode_event_size(event));
    uint8_t *p = b->p + b->n;
    *p++ = WATCH_EVENTS;
    p += put_varint(p, event_body_size(event));
    p = put_number(p, EVENT_TYPE, event->kv->tombstone);
    p = put_kv(p, EVENT_KV, event->kv);
    if (event->prev)
        p = put_kv(p, EVENT_PREV_KV, event->prev);
    b->n = (size_t)(p - b->p);
}

void encode_range_kv(struct buf *b, const struct mvcc_kv *kv)
{
    buf_reserve(b, kv_field_size(kv));
    b->n = (size_t)(put_kv(b->p + b->n, RANGE_KVS, kv) - b->p);
}

void encode_watch_head(struct buf *b, const Etcdserverpb__ResponseHeader *header, int64_t watch_id,
                       bool fragment)
{
    size_t header_size = etcdserverpb__response_header__get_packed_size(header);
    buf_reserve(b, header_size + 32);
    uint8_t *p = b->p + b->n;
    *p++ = WATCH_HEADER;
    p += put_varint(p, header_size);
    p += etcdserverpb__response_header__pack(header, p);
    p = put_number(p, WATCH_ID, watch_id);
    p = put_number(p, WATCH_FRAGMENT, fragment);
    b->n = (size_t)(p - b->p);
}
