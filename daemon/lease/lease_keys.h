/* The set of keys that are attached to one lease, in order. */
#ifndef LEASE_LEASE_KEYS_H
#define LEASE_LEASE_KEYS_H

#include "lib/base/bytes.h"

struct lease_keys {
    void *root; /* of tsearch(3) */
    size_t count;
};

void lease_keys_add(struct lease_keys *k, struct bytes key);    /* copies; twice is once */
void lease_keys_remove(struct lease_keys *k, struct bytes key); /* no-op if absent */
void lease_keys_each(const struct lease_keys *k, void (*each)(void *ctx, struct bytes key),
                     void *ctx); /* in order */
/* Hands the keys over: each p and then the array are the caller's to free. */
struct bytes *lease_keys_take(struct lease_keys *k, size_t *ret_count);
void lease_keys_free(struct lease_keys *k);

#endif
