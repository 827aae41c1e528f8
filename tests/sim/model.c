#include "tests/sim/model.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"

typedef unsigned long long ull;

void model_init(struct model *m, struct world *w)
{
    *m = (struct model){.world = w, .last = 1, .key_limit = MODEL_KEYS};
    m->begins_cap = 1024;
    m->begins = xcalloc(m->begins_cap, sizeof(*m->begins));
    m->seen_at = xcalloc(m->begins_cap, sizeof(*m->seen_at));
    m->values_cap = 1024;
    m->values = xcalloc(m->values_cap, sizeof(*m->values));
}

void model_free(struct model *m)
{
    for (size_t i = 0; i < MODEL_KEYS; i++)
        free(m->keys[i].at);
    free(m->kvs);
    free(m->begins);
    free(m->seen_at);
    free(m->values);
}

/* ---- keys and values ---------------------------------------------------------------------------- */

struct bytes model_key(uint32_t key, char text[MODEL_KEY_BYTES + 1])
{
    snprintf(text, MODEL_KEY_BYTES + 1, "k%03u", key % 1000);
    return bytes_of(text, MODEL_KEY_BYTES);
}

uint32_t model_key_number(struct model *m, struct bytes key)
{
    uint32_t n = 0;
    bool good = key.n == MODEL_KEY_BYTES && key.p[0] == 'k';
    for (size_t i = 1; good && i < key.n; i++) {
        good = key.p[i] >= '0' && key.p[i] <= '9';
        n = n * 10 + (uint32_t)(key.p[i] - '0');
    }
    if (!good || n >= m->key_limit)
        world_fail(m->world, "a key that nobody wrote: %.*s", (int)key.n, (const char *)key.p);
    return n;
}

uint64_t model_value_number(struct bytes value)
{
    uint64_t n = 0;
    for (size_t i = 0; i < value.n && value.p[i] >= '0' && value.p[i] <= '9'; i++)
        n = n * 10 + (uint64_t)(value.p[i] - '0');
    return n;
}

void model_take(struct model *m, const struct mvcc_kv *kv, struct modelkv *ret_kv)
{
    *ret_kv = (struct modelkv){
        .key = model_key_number(m, kv->key),
        .sub = kv->sub,
        .tombstone = kv->tombstone,
        .value = kv->tombstone ? 0 : model_value_number(kv->value),
        .stamp = kv->stamp,
        .create_revision = kv->create_revision,
        .mod_revision = kv->mod_revision,
        .version = kv->version,
        .lease = kv->lease,
    };
}

bool modelkv_equal(const struct modelkv *a, const struct modelkv *b)
{
    return a->key == b->key && a->sub == b->sub && a->tombstone == b->tombstone &&
           a->value == b->value && a->stamp == b->stamp &&
           a->create_revision == b->create_revision && a->mod_revision == b->mod_revision &&
           a->version == b->version && a->lease == b->lease;
}

/* ---- what was written --------------------------------------------------------------------------- */

static void values_grow(struct model *m)
{
    uint64_t *old = m->values;
    size_t cap = m->values_cap;
    m->values_cap *= 2;
    m->values = xcalloc(m->values_cap, sizeof(*m->values));
    for (size_t i = 0; i < cap; i++) {
        if (!old[i])
            continue;
        size_t k = (old[i] * 0x9e3779b97f4a7c15ull) % m->values_cap;
        while (m->values[k])
            k = (k + 1) % m->values_cap;
        m->values[k] = old[i];
    }
    free(old);
}

/* Where a value is in the set, or has its place. */
static size_t value_slot(struct model *m, uint64_t value)
{
    if (m->values_count * 2 >= m->values_cap)
        values_grow(m);
    size_t k = (value * 0x9e3779b97f4a7c15ull) % m->values_cap;
    while (m->values[k] && m->values[k] != value)
        k = (k + 1) % m->values_cap;
    return k;
}

/* A value belongs to one request: if it comes twice, the request was applied twice. */
static void note_value(struct model *m, const struct modelkv *kv)
{
    size_t k = value_slot(m, kv->value);
    if (m->values[k])
        world_fail_about(
            m->world,
            ABOUT(.value = model_request_of(kv->value), ABOUT_KEY(kv->key),
                  .revision = (uint64_t)kv->mod_revision),
            "a request was applied twice, or after it had been refused: value %llu of key "
            "k%03u at revision %lld",
            (ull)kv->value, kv->key, (long long)kv->mod_revision);
    m->values[k] = kv->value;
    m->values_count++;
}

void model_refuse(struct model *m, uint64_t value)
{
    size_t k = value_slot(m, value);
    if (m->values[k])
        world_fail(m->world, "the write of value %llu was refused, but has taken place",
                   (ull)value);
    m->values[k] = value;
    m->values_count++;
}

#define VALUE_FORGOTTEN UINT64_MAX /* in the place of a value that may come again */

void model_cut(struct model *m, int64_t revision)
{
    if (revision >= m->last)
        return;
    size_t count = m->begins[revision + 1];
    for (size_t i = count; i < m->count; i++) {
        if (!m->kvs[i].tombstone)
            m->values[value_slot(m, m->kvs[i].value)] = VALUE_FORGOTTEN;
        m->keys[m->kvs[i].key].count--;
    }
    m->count = count;
    m->last = revision;
    m->seen_at[revision] = m->world->now;
}

const struct modelkv *model_change_at(const struct model *m, uint32_t key, int64_t revision)
{
    const struct model_history *h = &m->keys[key];
    size_t low = 0, high = h->count; /* the first above `revision` */
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (m->kvs[h->at[mid]].mod_revision <= revision)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? &m->kvs[h->at[low - 1]] : NULL;
}

const struct modelkv *model_at(const struct model *m, uint32_t key, int64_t revision)
{
    const struct modelkv *kv = model_change_at(m, key, revision);
    return kv && !kv->tombstone ? kv : NULL;
}

const struct modelkv *model_changes(const struct model *m, int64_t revision, size_t *ret_count)
{
    if (revision < 2 || revision > m->last) {
        *ret_count = 0;
        return NULL;
    }
    *ret_count = m->begins[revision + 1] - m->begins[revision];
    return &m->kvs[m->begins[revision]];
}

/* ---- what members apply ------------------------------------------------------------------------- */

static void check_numbers(struct model *m, uint64_t node, const struct modelkv *kv,
                          const struct modelkv *before)
{
    bool good = kv->tombstone ? before != NULL
                              : kv->create_revision ==
                                        (before ? before->create_revision : kv->mod_revision) &&
                                    kv->version == (before ? before->version + 1 : 1);
    if (!good)
        world_fail_about(m->world,
                         ABOUT(.member = node, .revision = (uint64_t)kv->mod_revision,
                               .value = model_request_of(kv->value), ABOUT_KEY(kv->key)),
                         "member %llu: k%03u at revision %lld has wrong generation numbers",
                         (ull)node, kv->key, (long long)kv->mod_revision);
}

static void append(struct model *m, uint64_t node, int64_t revision, const struct modelkv *kvs,
                   size_t count)
{
    if ((size_t)revision + 2 >= m->begins_cap) {
        m->begins_cap *= 2;
        m->begins = xrealloc(m->begins, m->begins_cap * sizeof(*m->begins));
        m->seen_at = xrealloc(m->seen_at, m->begins_cap * sizeof(*m->seen_at));
    }
    m->begins[revision] = m->count;
    m->seen_at[revision] = m->world->now;
    for (size_t i = 0; i < count; i++) {
        if (m->count == m->cap) {
            m->cap = m->cap ? 2 * m->cap : 1024;
            m->kvs = xrealloc(m->kvs, m->cap * sizeof(*m->kvs));
        }
        check_numbers(m, node, &kvs[i], model_at(m, kvs[i].key, revision));
        if (kvs[i].lease && m->lease_is_over && m->lease_is_over(m->ctx, kvs[i].lease))
            world_fail_about(m->world,
                             ABOUT(.member = node, .lease = (uint64_t)kvs[i].lease,
                                   .value = model_request_of(kvs[i].value), ABOUT_KEY(kvs[i].key)),
                             "k%03u was put at revision %lld with lease %lld, which had ended",
                             kvs[i].key, (long long)revision, (long long)kvs[i].lease);
        struct model_history *h = &m->keys[kvs[i].key];
        if (h->count == h->cap) {
            h->cap = h->cap ? 2 * h->cap : 64;
            h->at = xrealloc(h->at, h->cap * sizeof(*h->at));
        }
        h->at[h->count++] = m->count;
        m->kvs[m->count++] = kvs[i];
        if (kvs[i].tombstone)
            NOTE3(m->world, "+revision %r, first on %m: %k is deleted", revision, node, kvs[i].key);
        else
            NOTE4(m->world, "+revision %r, first on %m: %k has the value of request %v", revision,
                  node, kvs[i].key, model_request_of(kvs[i].value));
        if (!kvs[i].tombstone)
            note_value(m, &kvs[i]);
    }
    m->last = revision;
    m->begins[revision + 1] = m->count;
}

void model_observe(struct model *m, uint64_t node, int64_t revision, const struct modelkv *kvs,
                   size_t count)
{
    if (revision == m->last + 1) {
        append(m, node, revision, kvs, count);
        return;
    }
    if (revision > m->last)
        world_fail_about(m->world, ABOUT(.member = node, .revision = (uint64_t)m->last + 1),
                         "member %llu applied revision %lld, nobody %lld", (ull)node,
                         (long long)revision, (long long)m->last + 1);
    size_t n;
    const struct modelkv *ours = model_changes(m, revision, &n);
    bool same = n == count;
    for (size_t i = 0; same && i < n; i++)
        same = modelkv_equal(&ours[i], &kvs[i]);
    NOTE2(m->world, "%m has revision %r too", node, revision);
    if (!same)
        world_fail_about(
            m->world, ABOUT(.member = node, .revision = (uint64_t)revision),
            "state machine safety: member %llu applied something else as revision %lld", (ull)node,
            (long long)revision);
}

/* ---- a whole store ------------------------------------------------------------------------------ */

enum errc model_compare(struct model *m, uint64_t node, struct mvcc *store, int64_t revision)
{
    struct mvcc_query q = {
        .range = {.key = bytes_str("k"), .end = bytes_str("l")},
        .revision = revision,
    };
    struct mvcc_result r;
    struct error err = {0};
    enum errc code = mvcc_range(store, &q, &r, &err);
    /* The disk may fail this read as it may any other. */
    if (code == ERR_COMPACTED || code == ERR_IO || code == ERR_CORRUPT)
        return code;
    if (code != ERR_OK)
        world_fail_about(m->world, ABOUT(.member = node, .revision = (uint64_t)revision),
                         "member %llu can't read revision %lld: %s %s", (ull)node,
                         (long long)revision, errc_text(code), err.message);
    size_t at = 0;
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        const struct modelkv *want = model_at(m, key, revision);
        if (!want)
            continue;
        struct modelkv have = {0};
        if (at < r.count)
            model_take(m, r.kvs[at], &have);
        if (at == r.count || !modelkv_equal(want, &have))
            world_fail_about(m->world,
                             ABOUT(.member = node, .revision = (uint64_t)want->mod_revision,
                                   .value = model_request_of(want->value), ABOUT_KEY(key)),
                             "member %llu has k%03u wrong as of revision %lld", (ull)node, key,
                             (long long)revision);
        at++;
    }
    if (at != r.count)
        world_fail_about(m->world, ABOUT(.member = node, .revision = (uint64_t)revision),
                         "member %llu has keys as of revision %lld that aren't there", (ull)node,
                         (long long)revision);
    mvcc_result_free(&r);
    return ERR_OK;
}
