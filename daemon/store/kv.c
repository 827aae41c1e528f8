#include "daemon/store/kv.h"

#include <assert.h>
#include <stdlib.h>

#include "lib/base/memory.h"

struct mvcc_kv *mvcc_kv_ref(struct mvcc_kv *kv)
{
    assert(kv->refs > 0);
    kv->refs++;
    return kv;
}

void mvcc_kv_unref(struct mvcc_kv *kv)
{
    if (!kv)
        return;
    assert(kv->refs > 0);
    if (--kv->refs == 0)
        free(kv);
}

struct mvcc_kv *kv_new(uint64_t id, struct bytes key, struct bytes value,
                       const struct key_facts *facts, uint64_t stamp)
{
    struct mvcc_kv *kv = xmalloc(sizeof(*kv) + key.n + value.n);
    uint8_t *p = (uint8_t *)(kv + 1);
    if (key.n)
        memcpy(p, key.p, key.n);
    if (value.n)
        memcpy(p + key.n, value.p, value.n);
    *kv = (struct mvcc_kv){
        .refs = 1,
        .tombstone = !facts,
        .sub = rev_sub(id),
        .mod_revision = rev_main(id),
        .stamp = stamp,
        .key = {p, key.n},
        .value = {p + key.n, value.n},
    };
    if (facts) {
        kv->create_revision = facts->create_revision;
        kv->version = facts->version;
        kv->lease = facts->lease;
    }
    return kv;
}

struct mvcc_kv *kv_of_entry(const struct key_entry *e)
{
    struct mvcc_kv *kv =
        kv_new(key_entry_newest(e), btree_key(&e->item), BYTES_EMPTY, &e->facts, e->facts.stamp);
    kv->value.p = NULL;
    return kv;
}

void result_add(struct mvcc_result *r, size_t *cap, struct mvcc_kv *kv)
{
    if (r->count == *cap) {
        *cap = *cap ? *cap * 2 : 16;
        r->kvs = xrealloc(r->kvs, *cap * sizeof(struct mvcc_kv *));
    }
    r->kvs[r->count++] = kv;
}

void mvcc_result_free(struct mvcc_result *r)
{
    for (size_t i = 0; i < r->count; i++)
        mvcc_kv_unref(r->kvs[i]);
    free(r->kvs);
    *r = (struct mvcc_result){0};
}
