/* Is an answer right? The model knows what every revision is. */
#include "tests/sim/sim.h"

typedef unsigned long long ull;

bool answer_is_outcome(enum errc code)
{
    switch (code) {
    case ERR_OK:
    case ERR_COMPACTED:
    case ERR_FUTURE_REV:
    case ERR_LEASE_NOT_FOUND:
    case ERR_LEASE_EXISTS:
    case ERR_KEY_NOT_FOUND:
        return true;
    default:
        return false;
    }
}

static bool same(const struct modelkv *have, const struct modelkv *want)
{
    struct modelkv w = *want;
    w.sub = have->sub;
    w.stamp = have->stamp;
    return modelkv_equal(have, &w);
}

static _Noreturn void wrong(struct sim *s, const struct simreq *q, const struct simanswer *a,
                            const char *why)
{
    world_fail_about(&s->world,
                     ABOUT(.value = q->value, .revision = (uint64_t)a->revision, ABOUT_KEY(q->key)),
                     "a wrong answer to request kind %d key k%03u value %llu at revision %lld: %s",
                     q->kind, q->key, (ull)q->value, (long long)a->revision, why);
}

/* The kvs are those of the range [key, end) as of `revision`. */
static void check_kvs(struct sim *s, const struct simreq *q, const struct simanswer *a,
                      uint32_t end, int64_t revision)
{
    size_t at = 0;
    for (uint32_t key = q->key; key < end; key++) {
        const struct modelkv *want = model_at(&s->model, key, revision);
        if (!want)
            continue;
        if (at == a->count)
            wrong(s, q, a, "a key is missing");
        if (!same(&a->kvs[at], want))
            wrong(s, q, a, "a key has another state");
        at++;
    }
    if (at != a->count)
        wrong(s, q, a, "a key that isn't there");
}

static const struct modelkv *change_of(struct sim *s, int64_t revision, uint32_t key)
{
    size_t count;
    const struct modelkv *kvs = model_changes(&s->model, revision, &count);
    for (size_t i = 0; i < count; i++) {
        if (kvs[i].key == key)
            return &kvs[i];
    }
    return NULL;
}

static void check_written(struct sim *s, const struct simreq *q, const struct simanswer *a,
                          uint32_t key, uint64_t value)
{
    const struct modelkv *kv = change_of(s, a->revision, key);
    if (!kv || kv->tombstone || kv->value != value)
        wrong(s, q, a, "an acknowledged write isn't there");
}

static void check_delete(struct sim *s, const struct simreq *q, const struct simanswer *a,
                         uint32_t end)
{
    int64_t deleted = 0, before = a->deleted ? a->revision - 1 : a->revision;
    for (uint32_t key = q->key; key < end; key++)
        deleted += model_at(&s->model, key, before) != NULL;
    if (deleted != a->deleted)
        wrong(s, q, a, "the number of deleted keys");
    for (uint32_t key = q->key; key < end; key++) {
        if (model_at(&s->model, key, a->revision))
            wrong(s, q, a, "a deleted key is there");
    }
}

static void check_cas(struct sim *s, const struct simreq *q, const struct simanswer *a)
{
    const struct modelkv *before =
        model_at(&s->model, q->key, a->succeeded ? a->revision - 1 : a->revision);
    bool holds = before && before->value == q->expected;
    if (holds != a->succeeded)
        wrong(s, q, a, "the comparison");
    if (a->succeeded)
        check_written(s, q, a, q->key, q->value);
    check_kvs(s, q, a, q->key + 1, a->revision);
}

static void check_nested(struct sim *s, const struct simreq *q, const struct simanswer *a)
{
    bool is_there = model_at(&s->model, q->key, a->revision - 1) != NULL;
    if (is_there != a->succeeded)
        wrong(s, q, a, "the comparison");
    check_written(s, q, a, q->key, is_there ? q->value : q->value + 2);
    if (!is_there)
        return;
    if (!model_at(&s->model, q->key2, a->revision - 1))
        check_written(s, q, a, q->key2, q->value + 1);
    else if (model_at(&s->model, q->key2, a->revision))
        wrong(s, q, a, "a key that the nested transaction deleted is there");
}

void answer_check(struct sim *s, const struct simreq *q, const struct simanswer *a, int64_t floor)
{
    bool read = q->kind == REQ_GET || q->kind == REQ_RANGE;
    int64_t as_of = read && q->revision ? q->revision : a->revision;
    uint32_t end = q->kind == REQ_RANGE || q->kind == REQ_DELETE_RANGE ? q->key2 : q->key + 1;
    if (a->revision > s->model.last || as_of > s->model.last)
        wrong(s, q, a, "nobody has applied that revision");
    if (a->revision < floor && !q->serializable)
        world_fail_about(
            &s->world, ABOUT(.value = q->value, .revision = (uint64_t)floor, ABOUT_KEY(q->key)),
            "not linearizable: request kind %d key k%03u value %llu was answered as of "
            "revision %lld, but revision %lld was known before it was asked",
            q->kind, q->key, (ull)q->value, (long long)a->revision, (long long)floor);
    switch (q->kind) {
    case REQ_PUT:
        check_written(s, q, a, q->key, q->value);
        break;
    case REQ_DELETE:
    case REQ_DELETE_RANGE:
        check_delete(s, q, a, end);
        break;
    case REQ_CAS:
        check_cas(s, q, a);
        break;
    case REQ_NESTED:
        check_nested(s, q, a);
        break;
    case REQ_OLD_TXN:
        check_written(s, q, a, q->key, q->value);
        check_kvs(s, q, a, q->key + 1, q->revision);
        break;
    case REQ_GET:
    case REQ_RANGE:
        check_kvs(s, q, a, end, as_of);
        break;
    default:
        break;
    }
}
