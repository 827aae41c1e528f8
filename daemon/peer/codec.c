#include "daemon/peer/codec.h"

#include <stdlib.h>

#include "lib/base/crc32c.h"

/* Field headers of raftpb.MessageBatch: number << 3 | wire type. */
#define TAG_CLUSTER_ID 0x08
#define TAG_FROM 0x10
#define TAG_MESSAGES 0x1a
#define TAG_CRC 0x25
#define CRC_FIELD_BYTES 5

static size_t put_varint(uint8_t *p, uint64_t v)
{
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

static void append_varint(struct buf *b, uint8_t tag, uint64_t v)
{
    uint8_t field[11] = {tag};
    buf_append(b, field, 1 + put_varint(field + 1, v));
}

static void entries_to_wire(const struct raft_message *m, struct arena *arena,
                            Raftpb__Message *wire)
{
    if (m->entry_count == 0)
        return;
    Raftpb__Entry *entries = arena_alloc(arena, m->entry_count * sizeof(*entries));
    wire->entries = arena_alloc(arena, m->entry_count * sizeof(*wire->entries));
    wire->n_entries = m->entry_count;
    for (size_t i = 0; i < m->entry_count; i++) {
        struct raft_entry *e = m->entries[i];
        raftpb__entry__init(&entries[i]);
        entries[i].term = e->term;
        entries[i].index = e->index;
        entries[i].type = (uint32_t)e->type;
        entries[i].stamp = e->stamp;
        entries[i].data = (ProtobufCBinaryData){e->size, e->data};
        wire->entries[i] = &entries[i];
    }
}

void codec_to_wire(const struct raft_message *m, struct arena *arena, Raftpb__Message *ret_wire)
{
    raftpb__message__init(ret_wire);
    ret_wire->type = (uint32_t)m->type;
    ret_wire->to = m->to;
    ret_wire->from = m->from;
    ret_wire->term = m->term;
    ret_wire->log_term = m->log_term;
    ret_wire->index = m->index;
    ret_wire->commit = m->commit;
    ret_wire->reject = m->reject;
    ret_wire->force = m->force;
    ret_wire->reject_hint = m->reject_hint;
    ret_wire->hint_term = m->hint_term;
    ret_wire->context = m->context;
    ret_wire->origin = m->origin;
    ret_wire->reason = (uint32_t)m->reason;
    ret_wire->snapshot_index = m->snapshot_index;
    ret_wire->snapshot_term = m->snapshot_term;
    entries_to_wire(m, arena, ret_wire);
    if (m->type == RAFT_MSG_SNAPSHOT) {
        ret_wire->n_voters = m->snapshot_conf.voter_count;
        ret_wire->voters = (uint64_t *)m->snapshot_conf.voters;
        ret_wire->n_learners = m->snapshot_conf.learner_count;
        ret_wire->learners = (uint64_t *)m->snapshot_conf.learners;
    }
}

static enum errc entries_from_wire(const Raftpb__Message *wire, struct raft_message *m)
{
    if (wire->n_entries == 0)
        return ERR_OK;
    m->entries = xcalloc(wire->n_entries, sizeof(*m->entries));
    for (size_t i = 0; i < wire->n_entries; i++) {
        const Raftpb__Entry *e = wire->entries[i];
        if (e->type > RAFT_ENTRY_CONF)
            return ERR_INVALID;
        if (m->type == RAFT_MSG_APPEND && e->index != wire->index + 1 + i)
            return ERR_INVALID;
        m->entries[m->entry_count++] =
            raft_entry_new(e->term, e->index, (enum raft_entry_type)e->type, e->stamp,
                           bytes_of(e->data.data, e->data.len));
    }
    return ERR_OK;
}

/* Sorted and without duplicates, as struct raft_conf promises. */
static enum errc ids_from_wire(const uint64_t *from, size_t count, uint64_t *to, size_t *ret_count)
{
    if (count > RAFT_MEMBERS_MAX)
        return ERR_INVALID;
    for (size_t i = 0; i < count; i++) {
        if (from[i] == 0 || (i > 0 && from[i] <= from[i - 1]))
            return ERR_INVALID;
        to[i] = from[i];
    }
    *ret_count = count;
    return ERR_OK;
}

enum errc codec_from_wire(const Raftpb__Message *wire, struct raft_message *ret_message)
{
    if (wire->type == 0 || wire->type > RAFT_MSG_TYPE_MAX || wire->reason > RAFT_REFUSED_MAX)
        return ERR_INVALID;
    struct raft_message m = {
        .type = (enum raft_message_type)wire->type,
        .from = wire->from,
        .to = wire->to,
        .term = wire->term,
        .log_term = wire->log_term,
        .index = wire->index,
        .commit = wire->commit,
        .reject = wire->reject,
        .force = wire->force,
        .reject_hint = wire->reject_hint,
        .hint_term = wire->hint_term,
        .context = wire->context,
        .origin = wire->origin,
        .reason = (enum raft_refusal_reason)wire->reason,
        .snapshot_index = wire->snapshot_index,
        .snapshot_term = wire->snapshot_term,
    };
    struct raft_conf *conf = &m.snapshot_conf;
    enum errc e = ids_from_wire(wire->voters, wire->n_voters, conf->voters, &conf->voter_count);
    if (!e)
        e = ids_from_wire(wire->learners, wire->n_learners, conf->learners, &conf->learner_count);
    if (!e)
        e = entries_from_wire(wire, &m);
    if (e) {
        codec_message_free(&m);
        return e;
    }
    *ret_message = m;
    return ERR_OK;
}

void codec_message_free(struct raft_message *m)
{
    for (size_t i = 0; i < m->entry_count; i++)
        raft_entry_unref(m->entries[i]);
    free(m->entries);
    m->entries = NULL;
    m->entry_count = 0;
}

void codec_batch_begin(struct buf *b, uint64_t cluster_id, uint64_t from)
{
    append_varint(b, TAG_CLUSTER_ID, cluster_id);
    append_varint(b, TAG_FROM, from);
}

void codec_batch_add(struct buf *b, const struct raft_message *m)
{
    struct arena arena = {0};
    Raftpb__Message wire;
    codec_to_wire(m, &arena, &wire);
    size_t size = raftpb__message__get_packed_size(&wire);
    append_varint(b, TAG_MESSAGES, size);
    buf_reserve(b, size);
    b->n += raftpb__message__pack(&wire, b->p + b->n);
    arena_free(&arena);
}

void codec_batch_end(struct buf *b)
{
    uint8_t field[CRC_FIELD_BYTES] = {TAG_CRC};
    put_le32(field + 1, crc32c(0, b->p, b->n));
    buf_append(b, field, sizeof(field));
}

Raftpb__MessageBatch *codec_batch_unpack(struct bytes batch)
{
    if (batch.n < CRC_FIELD_BYTES)
        return NULL;
    const uint8_t *field = batch.p + batch.n - CRC_FIELD_BYTES;
    if (field[0] != TAG_CRC || get_le32(field + 1) != crc32c(0, batch.p, batch.n - CRC_FIELD_BYTES))
        return NULL;
    return raftpb__message_batch__unpack(NULL, batch.n, batch.p);
}
