/* Builds a transaction piece by piece; what it points to lives in its arena until txn_free(). */
#ifndef FUSE_TXN_H
#define FUSE_TXN_H

#include "fuse/backend.h"
#include "fuse/value.h"
#include "lib/base/memory.h"

struct txn_op {
    struct store_op op;
    struct value *value; /* STORE_PUT: the content by reference, so that the mirror can keep it */
};

struct txn {
    struct arena arena;
    struct store_compare *compares;
    size_t compare_count, compare_cap;
    struct txn_op *ops;
    size_t op_count, op_cap;
    struct store_op otherwise;
    bool has_otherwise;
};

void txn_if(struct txn *t, struct bytes key, enum store_target target, enum store_relation relation,
            int64_t operand);
void txn_if_range(struct txn *t, struct bytes key, struct bytes end, enum store_target target,
                  enum store_relation relation, int64_t operand);
/* Takes a reference to the value (NULL: the empty one). */
void txn_put(struct txn *t, struct bytes key, struct value *v, int64_t lease);
void txn_delete(struct txn *t, struct bytes key);
void txn_delete_range(struct txn *t, struct bytes key, struct bytes end);
void txn_get(struct txn *t, struct bytes key, bool keys_only);
void txn_else_get(struct txn *t, struct bytes key);
bool txn_puts(const struct txn *t, struct bytes key);
void txn_free(struct txn *t); /* leaves an empty one */

/* Whether the key is one that the transaction writes or deletes. */
bool txn_touches(const struct txn *t, struct bytes key);
bool range_has(struct bytes start, struct bytes end, struct bytes key);
/* The end of the range of all keys that begin with `prefix`; "\0" if there is none. */
void range_end_of(struct bytes prefix, struct buf *out);

#endif
