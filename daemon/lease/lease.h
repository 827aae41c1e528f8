/* Leases: grants with a time to live, the keys attached to them, and who may say that they are over.
 *
 * What is replicated: grant, revoke, attached keys (through the keys' own lease field) and checkpoints of
 * the remaining time. When a lease ends is the leader's decision alone: it keeps deadlines on its monotonic
 * clock, and proposes a revoke for those that passed; keep-alives only move the leader's deadline. A new
 * leader starts every lease with its checkpointed remaining time, else its whole TTL (etcd's rule: a lease
 * lives at least its TTL, never less). That is why a renewal may be answered only when no checkpoint is
 * committed, or may still be: it is first taken back through the log, by a checkpoint with remaining 0.
 *
 * Loop thread only. */
#ifndef LEASE_LEASE_H
#define LEASE_LEASE_H

#include "lib/base/bytes.h"
#include "lib/base/error.h"

#define LEASE_TTL_MAX 9000000000 /* seconds; etcd's */
#define LEASE_EXPIRE_BATCH_MAX                                                                     \
    500 /* revokes proposed a tick, so that expiry can't starve writes (e#8097) */

struct lessor;

struct lessor *lessor_new(void);
void lessor_free(struct lessor *l);
void lessor_clear(struct lessor *l); /* forgets every lease (a snapshot replaces the state) */

/* ---- replicated: called by apply with the entries' contents ---- */
enum errc lessor_grant(struct lessor *l, int64_t id, int64_t ttl, uint64_t now_ms);
/* Removes the lease; *ret_keys: its keys in order, owned by the caller (free each p, then the array). */
enum errc lessor_revoke(struct lessor *l, int64_t id, struct bytes **ret_keys, size_t *ret_count);
enum errc lessor_checkpoint(struct lessor *l, int64_t id, int64_t remaining_ttl);
bool lessor_exists(const struct lessor *l, int64_t id);
void lessor_attach(struct lessor *l, int64_t id, struct bytes key);
void lessor_detach(struct lessor *l, int64_t id, struct bytes key);

/* ---- the leader's clock ---- */
void lessor_promote(struct lessor *l,
                    uint64_t now_ms); /* becomes the judge; deadlines start anew */
void lessor_demote(struct lessor *l);
bool lessor_is_primary(const struct lessor *l);
/* ERR_BUSY: it has a checkpoint, or one is under way; a lessor_checkpoint() with 0 must be committed before
 * it can be renewed. ERR_NOT_LEADER when not the primary. ERR_LEASE_NOT_FOUND also for one that is past its
 * deadline and waits for its revoke. */
enum errc lessor_renew(struct lessor *l, int64_t id, uint64_t now_ms, int64_t *ret_ttl);
/* Up to `max` ids whose deadline has passed and whose revoke is not under way; each is given again only
 * after `retry_ms`, if it still exists. */
size_t lessor_expired(struct lessor *l, uint64_t now_ms, uint64_t retry_ms, int64_t *ids,
                      size_t max);
/* It could not be proposed: it is given again with the next call. */
void lessor_revoke_unsent(struct lessor *l, int64_t id);
/* Up to `max` leases that are due for a checkpoint of their remaining TTL (long ones, every
 * `interval_ms`). They count as under way until lessor_checkpoint(), or until they are given back because
 * they could not be proposed: then they are due again with the next call. */
size_t lessor_checkpoints_due(struct lessor *l, uint64_t now_ms, uint64_t interval_ms, int64_t *ids,
                              int64_t *remaining, size_t max);
void lessor_checkpoints_unsent(struct lessor *l, const int64_t *ids, size_t count);

struct lease_info {
    int64_t id;
    int64_t granted_ttl;   /* s */
    int64_t remaining_ttl; /* s, on the primary; else the granted one */
    size_t key_count;
};
enum errc lessor_info(const struct lessor *l, int64_t id, uint64_t now_ms,
                      struct lease_info *ret_info);
/* The checkpointed remaining time, 0: none (the whole TTL counts). */
int64_t lessor_stored_remaining(const struct lessor *l, int64_t id);
void lessor_each(const struct lessor *l, void (*each)(void *ctx, int64_t id), void *ctx);
void lessor_each_key(const struct lessor *l, int64_t id, void (*each)(void *ctx, struct bytes key),
                     void *ctx);
size_t lessor_count(const struct lessor *l);

#endif
