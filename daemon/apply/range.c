/* Range: etcd's options on top of the store's plain ranges, with etcd's order of doing things (3.5,
 * server/etcdserver/apply.go). */
#include <stdlib.h>

#include "daemon/apply/internal.h"

#define SORT(name) ETCDSERVERPB__RANGE_REQUEST__SORT_##name

static bool has_bounds(const Etcdserverpb__RangeRequest *r)
{
    return r->min_mod_revision || r->max_mod_revision || r->min_create_revision ||
           r->max_create_revision;
}

static bool within_bounds(const Etcdserverpb__RangeRequest *r, const struct mvcc_kv *kv)
{
    return (!r->max_mod_revision || kv->mod_revision <= r->max_mod_revision) &&
           (!r->min_mod_revision || kv->mod_revision >= r->min_mod_revision) &&
           (!r->max_create_revision || kv->create_revision <= r->max_create_revision) &&
           (!r->min_create_revision || kv->create_revision >= r->min_create_revision);
}

static int compare_target(const Etcdserverpb__RangeRequest *r, const struct mvcc_kv *a,
                          const struct mvcc_kv *b)
{
    int64_t x, y;
    switch (r->sort_target) {
    case SORT(TARGET__VERSION):
        x = a->version, y = b->version;
        break;
    case SORT(TARGET__CREATE):
        x = a->create_revision, y = b->create_revision;
        break;
    case SORT(TARGET__MOD):
        x = a->mod_revision, y = b->mod_revision;
        break;
    case SORT(TARGET__VALUE):
        return bytes_compare(a->value, b->value);
    default:
        return bytes_compare(a->key, b->key);
    }
    return x < y ? -1 : x > y;
}

static int compare_kvs(const void *a, const void *b, void *request)
{
    const Etcdserverpb__RangeRequest *r = request;
    const struct mvcc_kv *x = *(struct mvcc_kv *const *)a, *y = *(struct mvcc_kv *const *)b;
    int c = compare_target(r, x, y);
    if (c == 0)
        return bytes_compare(x->key, y->key);
    return r->sort_order == SORT(ORDER__DESCEND) ? -c : c;
}

static void sort(const Etcdserverpb__RangeRequest *r, struct mvcc_kv **kvs, size_t count)
{
    bool by_key = r->sort_target == SORT(TARGET__KEY);
    if (count < 2 || (by_key && r->sort_order != SORT(ORDER__DESCEND)))
        return; /* as the store has it */
    qsort_r(kvs, count, sizeof(struct mvcc_kv *), compare_kvs, (void *)r);
}

enum errc kv_range(struct apply *a, const Etcdserverpb__RangeRequest *r, struct arena *arena,
                   Etcdserverpb__RangeResponse **ret_response, struct error *err)
{
    /* The limit cuts after sorting and filtering; one more than it says whether there is more. etcd
     * fetches no more than the limit for a sort target without an order, and so sorts those only. */
    int64_t limit = r->limit > 0 && r->limit < INT64_MAX ? r->limit : 0;
    bool all = limit == 0 || r->sort_order != SORT(ORDER__NONE) || has_bounds(r);
    struct mvcc_query q = {
        .range = message_range(r->key, r->range_end),
        .revision = r->revision > 0 ? r->revision : 0,
        .limit = all ? 0 : limit + 1,
        .count_only = r->count_only,
        .keys_only = r->keys_only && r->sort_target != SORT(TARGET__VALUE),
    };
    struct mvcc_result found = {0};
    enum errc code = apply_query(a, &q, &found, err);
    if (code != ERR_OK)
        return code;
    struct mvcc_kv **kept = arena_alloc(arena, (found.count + 1) * sizeof(struct mvcc_kv *));
    size_t n = 0;
    for (size_t i = 0; i < found.count; i++) {
        if (within_bounds(r, found.kvs[i]))
            kept[n++] = found.kvs[i];
    }
    sort(r, kept, n);

    Etcdserverpb__RangeResponse *m =
        MESSAGE_NEW(arena, Etcdserverpb__RangeResponse, etcdserverpb__range_response__descriptor);
    m->header = message_header(arena, apply_revision(a));
    m->count = found.total;
    if (limit && n > (size_t)limit) {
        n = (size_t)limit;
        m->more = true;
    }
    m->n_kvs = n;
    m->kvs = arena_alloc(arena, (n + 1) * sizeof(Mvccpb__KeyValue *));
    for (size_t i = 0; i < n; i++)
        m->kvs[i] = message_kv(arena, kept[i], !r->keys_only);
    mvcc_result_free(&found);
    *ret_response = m;
    return ERR_OK;
}
