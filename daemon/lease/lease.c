#include "daemon/lease/lease.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/lease/heap.h"
#include "daemon/lease/lease_keys.h"
#include "lib/base/list.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define BUCKETS_MIN 64

struct lease {
    int64_t id;
    int64_t ttl;           /* s, as granted */
    int64_t remaining_ttl; /* s, of the last checkpoint; 0: none, the whole TTL counts */
    uint64_t deadline_ms;  /* on the primary's clock */
    uint32_t under_way; /* on the primary: checkpoints that were proposed and aren't applied yet */
    struct heap_item expiry, checkpoint;
    struct lease_keys keys;
    struct lease *next; /* in its hash bucket */
    struct list link;   /* all, in the order of their grants */
};

struct lessor {
    struct lease **buckets; /* a power of two of them */
    size_t bucket_count, count;
    struct list all;
    bool primary;
    struct heap expiries;    /* on the primary: when to propose the revoke */
    struct heap checkpoints; /* on the primary: when to look at the remaining time */
};

static size_t slot(const struct lessor *l, int64_t id)
{
    uint64_t h = (uint64_t)id * 0x9e3779b97f4a7c15u; /* Knuth's multiplicative hash */
    return (h >> 32) & (l->bucket_count - 1);
}

static struct lease *find(const struct lessor *l, int64_t id)
{
    struct lease *e = l->buckets[slot(l, id)];
    while (e && e->id != id)
        e = e->next;
    return e;
}

static void grow(struct lessor *l)
{
    free(l->buckets);
    l->bucket_count *= 2;
    l->buckets = xcalloc(l->bucket_count, sizeof(*l->buckets));
    LIST_FOR_EACH_SAFE(it, tmp, &l->all)
    {
        struct lease *e = CONTAINER_OF(it, struct lease, link);
        e->next = l->buckets[slot(l, e->id)];
        l->buckets[slot(l, e->id)] = e;
    }
}

struct lessor *lessor_new(void)
{
    struct lessor *l = xcalloc(1, sizeof(*l));
    l->bucket_count = BUCKETS_MIN;
    l->buckets = xcalloc(l->bucket_count, sizeof(*l->buckets));
    list_init(&l->all);
    return l;
}

static void lease_remove(struct lessor *l, struct lease *e)
{
    struct lease **at = &l->buckets[slot(l, e->id)];
    while (*at != e)
        at = &(*at)->next;
    *at = e->next;
    list_remove(&e->link);
    heap_remove(&l->expiries, &e->expiry);
    heap_remove(&l->checkpoints, &e->checkpoint);
    lease_keys_free(&e->keys);
    free(e);
    l->count--;
}

void lessor_clear(struct lessor *l)
{
    LIST_FOR_EACH_SAFE(it, tmp, &l->all)
    lease_remove(l, CONTAINER_OF(it, struct lease, link));
}

void lessor_free(struct lessor *l)
{
    if (!l)
        return;
    lessor_clear(l);
    heap_free(&l->expiries);
    heap_free(&l->checkpoints);
    free(l->buckets);
    free(l);
}

/* ---- the leader's clock ------------------------------------------------------------------------- */

static void start_clock(struct lessor *l, struct lease *e, uint64_t now_ms)
{
    int64_t seconds = e->remaining_ttl > 0 ? e->remaining_ttl : e->ttl;
    if (MUTANT(lease_checkpoint_lost))
        seconds = e->ttl;
    e->deadline_ms = now_ms + (uint64_t)seconds * 1000;
    heap_set(&l->expiries, &e->expiry, e->deadline_ms);
    /* `when` counts from the start; lessor_checkpoints_due() adds the interval. */
    heap_set(&l->checkpoints, &e->checkpoint, now_ms);
}

static void stop_clock(struct lessor *l, struct lease *e)
{
    heap_remove(&l->expiries, &e->expiry);
    heap_remove(&l->checkpoints, &e->checkpoint);
    e->under_way = 0; /* the next primary has applied them, or nobody ever will */
}

void lessor_promote(struct lessor *l, uint64_t now_ms)
{
    l->primary = true;
    LIST_FOR_EACH_SAFE(it, tmp, &l->all)
    start_clock(l, CONTAINER_OF(it, struct lease, link), now_ms);
}

void lessor_demote(struct lessor *l)
{
    l->primary = false;
    LIST_FOR_EACH_SAFE(it, tmp, &l->all)
    stop_clock(l, CONTAINER_OF(it, struct lease, link));
}

bool lessor_is_primary(const struct lessor *l)
{
    return l->primary;
}

static int64_t remaining_s(const struct lease *e, uint64_t now_ms)
{
    if (now_ms >= e->deadline_ms)
        return 0;
    return (int64_t)((e->deadline_ms - now_ms + 999) / 1000);
}

enum errc lessor_renew(struct lessor *l, int64_t id, uint64_t now_ms, int64_t *ret_ttl)
{
    if (!l->primary)
        return ERR_NOT_LEADER;
    struct lease *e = find(l, id);
    if (!e || e->deadline_ms <= now_ms)
        return ERR_LEASE_NOT_FOUND;
    if ((e->remaining_ttl > 0 || e->under_way > 0) && !MUTANT(renewal_before_checkpoint_cleared)) {
        heap_set(&l->checkpoints, &e->checkpoint, now_ms); /* no other one in between */
        return ERR_BUSY;
    }
    start_clock(l, e, now_ms);
    *ret_ttl = e->ttl;
    return ERR_OK;
}

size_t lessor_expired(struct lessor *l, uint64_t now_ms, uint64_t retry_ms, int64_t *ids,
                      size_t max)
{
    size_t n = 0;
    for (struct heap_item *first; n < max && (first = heap_first(&l->expiries)) != NULL;) {
        if (first->when > now_ms)
            break;
        struct lease *e = CONTAINER_OF(first, struct lease, expiry);
        ids[n++] = e->id;
        heap_set(&l->expiries, first, now_ms + (retry_ms ? retry_ms : 1));
    }
    return n;
}

void lessor_revoke_unsent(struct lessor *l, int64_t id)
{
    struct lease *e = find(l, id);
    if (e && l->primary)
        heap_set(&l->expiries, &e->expiry, e->deadline_ms);
}

size_t lessor_checkpoints_due(struct lessor *l, uint64_t now_ms, uint64_t interval_ms, int64_t *ids,
                              int64_t *remaining, size_t max)
{
    size_t n = 0;
    for (struct heap_item *first; n < max && (first = heap_first(&l->checkpoints)) != NULL;) {
        struct lease *e = CONTAINER_OF(first, struct lease, checkpoint);
        if (first->when + interval_ms > now_ms)
            break;
        /* Nothing to gain from a checkpoint of what ends before the next one. */
        if (e->deadline_ms <= now_ms + interval_ms) {
            heap_remove(&l->checkpoints, first);
            continue;
        }
        ids[n] = e->id;
        remaining[n++] = remaining_s(e, now_ms);
        e->under_way++;
        heap_set(&l->checkpoints, first, now_ms);
    }
    return n;
}

void lessor_checkpoints_unsent(struct lessor *l, const int64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct lease *e = find(l, ids[i]);
        if (!e || e->under_way == 0)
            continue;
        e->under_way--;
        heap_set(&l->checkpoints, &e->checkpoint, 0); /* due as before */
    }
}

/* ---- replicated --------------------------------------------------------------------------------- */

enum errc lessor_grant(struct lessor *l, int64_t id, int64_t ttl, uint64_t now_ms)
{
    if (id == 0)
        return ERR_LEASE_NOT_FOUND; /* etcd's answer to its "no lease" */
    if (ttl > LEASE_TTL_MAX)
        return ERR_LEASE_TTL_TOO_LARGE;
    if (find(l, id))
        return ERR_LEASE_EXISTS;
    if (l->count >= l->bucket_count)
        grow(l);
    struct lease *e = xcalloc(1, sizeof(*e));
    e->id = id;
    e->ttl = ttl > 0 ? ttl : 1;
    e->expiry.tie = e->checkpoint.tie = (uint64_t)id;
    list_append(&l->all, &e->link);
    e->next = l->buckets[slot(l, id)];
    l->buckets[slot(l, id)] = e;
    l->count++;
    if (l->primary)
        start_clock(l, e, now_ms);
    return ERR_OK;
}

enum errc lessor_revoke(struct lessor *l, int64_t id, struct bytes **ret_keys, size_t *ret_count)
{
    struct lease *e = find(l, id);
    if (!e)
        return ERR_LEASE_NOT_FOUND;
    *ret_keys = lease_keys_take(&e->keys, ret_count);
    lease_remove(l, e);
    return ERR_OK;
}

enum errc lessor_checkpoint(struct lessor *l, int64_t id, int64_t remaining_ttl)
{
    struct lease *e = find(l, id);
    if (!e)
        return ERR_LEASE_NOT_FOUND;
    e->remaining_ttl = remaining_ttl < 0 ? 0 : remaining_ttl > e->ttl ? e->ttl : remaining_ttl;
    if (remaining_ttl > 0 && e->under_way > 0) /* a primary applies only what it proposed itself */
        e->under_way--;
    return ERR_OK;
}

bool lessor_exists(const struct lessor *l, int64_t id)
{
    return find(l, id) != NULL;
}

void lessor_attach(struct lessor *l, int64_t id, struct bytes key)
{
    struct lease *e = find(l, id);
    if (e)
        lease_keys_add(&e->keys, key);
}

void lessor_detach(struct lessor *l, int64_t id, struct bytes key)
{
    struct lease *e = find(l, id);
    if (e)
        lease_keys_remove(&e->keys, key);
}

/* ---- looking ------------------------------------------------------------------------------------ */

enum errc lessor_info(const struct lessor *l, int64_t id, uint64_t now_ms,
                      struct lease_info *ret_info)
{
    const struct lease *e = find(l, id);
    if (!e)
        return ERR_LEASE_NOT_FOUND;
    *ret_info = (struct lease_info){
        .id = id,
        .granted_ttl = e->ttl,
        .remaining_ttl = l->primary ? remaining_s(e, now_ms) : e->ttl,
        .key_count = e->keys.count,
    };
    return ERR_OK;
}

int64_t lessor_stored_remaining(const struct lessor *l, int64_t id)
{
    const struct lease *e = find(l, id);
    return e ? e->remaining_ttl : 0;
}

void lessor_each(const struct lessor *l, void (*each)(void *ctx, int64_t id), void *ctx)
{
    LIST_FOR_EACH_SAFE(it, tmp, &l->all)
    each(ctx, CONTAINER_OF(it, struct lease, link)->id);
}

void lessor_each_key(const struct lessor *l, int64_t id, void (*each)(void *ctx, struct bytes key),
                     void *ctx)
{
    const struct lease *e = find(l, id);
    if (e)
        lease_keys_each(&e->keys, each, ctx);
}

size_t lessor_count(const struct lessor *l)
{
    return l->count;
}
