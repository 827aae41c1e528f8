/* What the cluster holds, revision by revision, as the first member that applied each one saw it.
 *
 * Raft's promise is that all members apply the same; so the first one defines a revision, every other
 * must show exactly the same, and every answer, whoever gives it, is compared with this. Keys are
 * "k000" .. and values decimal numbers, none of which is ever written by two requests. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "daemon/store/mvcc.h"
#include "tests/sim/world.h"

#define MODEL_KEYS 64
#define MODEL_KEY_BYTES 4

struct modelkv {
    uint32_t key;
    int32_t sub;
    bool tombstone;
    uint64_t value, stamp;
    int64_t create_revision, mod_revision, version, lease;
};

struct model_history { /* of a key: places in model.kvs */
    size_t *at;
    size_t count, cap;
};

struct model {
    struct world *world;
    uint32_t key_limit;  /* numbers of keys are below it */
    struct modelkv *kvs; /* in order of (mod_revision, sub) */
    size_t count, cap;
    size_t *begins; /* begins[r]: the first of revision r; begins[last + 1]: the end */
    size_t begins_cap;
    int64_t last;
    uint64_t *seen_at; /* when revision r was first applied */
    struct model_history keys[MODEL_KEYS];
    bool (*lease_is_over)(void *ctx, int64_t lease); /* NULL: nobody knows */
    void *ctx;
    uint64_t *values; /* an open hash set of those that were written */
    size_t values_count, values_cap;
};

void model_init(struct model *m, struct world *w);
void model_free(struct model *m);

struct bytes model_key(uint32_t key, char text[MODEL_KEY_BYTES + 1]);
uint32_t model_key_number(struct model *m, struct bytes key);
uint64_t model_value_number(struct bytes value);
/* A request may write three values, one after the other; the first names it (clients_new_value()). */
static inline uint64_t model_request_of(uint64_t value)
{
    return value - value % 3;
}
void model_take(struct model *m, const struct mvcc_kv *kv, struct modelkv *ret_kv);
bool modelkv_equal(const struct modelkv *a, const struct modelkv *b);

/* Member `node` has applied revision `revision` with these changes. */
void model_observe(struct model *m, uint64_t node, int64_t revision, const struct modelkv *kvs,
                   size_t count);

/* A write of this value was refused for good: it must not have taken place, and never will. */
void model_refuse(struct model *m, uint64_t value);

/* What came after `revision` never was: the cluster was restored from a backup. */
void model_cut(struct model *m, int64_t revision);

/* A key's state as of a revision; NULL: not there. `revision` must not be above the last. */
const struct modelkv *model_at(const struct model *m, uint32_t key, int64_t revision);
/* The newest change of a key at or below `revision`, a tombstone as well; NULL: none. */
const struct modelkv *model_change_at(const struct model *m, uint32_t key, int64_t revision);
/* The changes of one revision. */
const struct modelkv *model_changes(const struct model *m, int64_t revision, size_t *ret_count);

/* Compares the whole store with the model, as of `revision`: what it holds of the keys, and how. Returns what
 * the store says instead, if it can't be read: ERR_COMPACTED, ERR_IO or ERR_CORRUPT. */
enum errc model_compare(struct model *m, uint64_t node, struct mvcc *store, int64_t revision);

#endif
