/* Log entries and the encoding of membership changes in them. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/raft/raft.h"
#include "lib/base/memory.h"

struct raft_entry *raft_entry_new(uint64_t term, uint64_t index, enum raft_entry_type type,
                                  uint64_t stamp, struct bytes data)
{
    struct raft_entry *e = xmalloc(sizeof *e + data.n);
    *e = (struct raft_entry){
        .term = term, .index = index, .stamp = stamp, .type = type, .refs = 1, .size = data.n};
    if (data.n > 0)
        memcpy(e->data, data.p, data.n);
    return e;
}

struct raft_entry *raft_entry_ref(struct raft_entry *e)
{
    assert(e->refs > 0 && e->refs < UINT32_MAX);
    e->refs++;
    return e;
}

void raft_entry_unref(struct raft_entry *e)
{
    if (e == NULL)
        return;
    assert(e->refs > 0);
    if (--e->refs == 0)
        free(e);
}

void raft_conf_change_encode(const struct raft_conf_change *c, uint8_t p[RAFT_CONF_CHANGE_BYTES])
{
    put_le64(p, (uint64_t)c->type);
    put_le64(p + 8, c->id);
}

enum errc raft_conf_change_decode(struct bytes data, struct raft_conf_change *ret_change,
                                  struct bytes *ret_context)
{
    if (data.n < RAFT_CONF_CHANGE_BYTES)
        return ERR_INVALID;
    uint64_t type = get_le64(data.p);
    uint64_t id = get_le64(data.p + 8);
    if (type > RAFT_CONF_UPDATE || id == 0)
        return ERR_INVALID;
    *ret_change = (struct raft_conf_change){.type = (enum raft_conf_change_type)type, .id = id};
    *ret_context = bytes_of(data.p + RAFT_CONF_CHANGE_BYTES, data.n - RAFT_CONF_CHANGE_BYTES);
    return ERR_OK;
}
