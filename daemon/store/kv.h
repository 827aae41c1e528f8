/* Making kvs: one allocation each, with the bytes of key and value behind the struct. */
#ifndef STORE_KV_H
#define STORE_KV_H

#include "daemon/store/keyindex.h"
#include "daemon/store/mvcc.h"

/* One reference. facts == NULL: a tombstone, whose stamp is then `stamp`. */
struct mvcc_kv *kv_new(uint64_t id, struct bytes key, struct bytes value,
                       const struct key_facts *facts, uint64_t stamp);

/* What the index knows of a key that lives: all but the value, whose p is NULL (else it never is). */
struct mvcc_kv *kv_of_entry(const struct key_entry *e);

static inline uint64_t kv_id(const struct mvcc_kv *kv)
{
    return rev_id(kv->mod_revision, kv->sub);
}

void result_add(struct mvcc_result *r, size_t *cap, struct mvcc_kv *kv); /* takes the reference */

#endif
