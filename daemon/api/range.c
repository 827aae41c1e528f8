/* Ranges of many keys: read in slices at one revision and packed as they come, a slice a turn of the loop, so
 * that nobody waits long for somebody else's listing. What fits into one slice is answered at once. */
#include "daemon/api/call.h"
#include "daemon/api/encode.h"

#include <stdlib.h>

/* A slice is what takes well below a millisecond: so many keys, fewer if their values are large. */
#define SLICE_KEYS_MAX 500
#define SLICE_KEYS_MIN 4
#define SLICE_BYTES 262144

#define RANGE_MORE 0x18
#define RANGE_COUNT 0x20

struct range_job {
    struct list link; /* in api.slicing, or alone */
    struct unary *u;
    struct buf out;      /* the answer so far */
    struct buf next_key; /* where the next slice begins; empty: at the request's key */
    int64_t revision;    /* that all slices read */
    int64_t left;        /* of the request's limit; INT64_MAX: none */
    int64_t slice_keys;
    int64_t count; /* keys in the range; -1: not known yet */
    int64_t sent;
};

bool range_is_plain(const Etcdserverpb__RangeRequest *r)
{
    /* Another target than the key sorts even without an order: etcd takes it for ascending. */
    return r->range_end.len > 0 && !r->count_only &&
           r->sort_target == ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__KEY &&
           r->sort_order != ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND &&
           r->min_mod_revision == 0 && r->max_mod_revision == 0 && r->min_create_revision == 0 &&
           r->max_create_revision == 0;
}

void range_drop(struct range_job *job)
{
    job->u->range = NULL;
    list_remove(&job->link);
    buf_free(&job->out);
    buf_free(&job->next_key);
    free(job);
}

static void begin(struct range_job *job)
{
    struct api *api = job->u->api;
    const Etcdserverpb__RangeRequest *r = (const Etcdserverpb__RangeRequest *)job->u->request;
    int64_t now = mvcc_revision(replica_store(api->config.replica));
    Etcdserverpb__ResponseHeader header = ETCDSERVERPB__RESPONSE_HEADER__INIT;
    api_header(api, &header, now);
    job->out.n = 0;
    job->next_key.n = 0;
    encode_watch_head(&job->out, &header, 0, false); /* a header is field 1 of every response */
    job->revision = r->revision > 0 ? r->revision : now;
    job->left = r->limit > 0 ? r->limit : INT64_MAX;
    job->slice_keys = SLICE_KEYS_MAX;
    job->count = -1;
    job->sent = 0;
}

static void append_number(struct buf *b, uint8_t tag, uint64_t v)
{
    uint8_t field[11] = {tag};
    size_t n = 1;
    if (v == 0)
        return;
    for (; v >= 0x80; v >>= 7)
        field[n++] = (uint8_t)(v | 0x80);
    field[n++] = (uint8_t)v;
    buf_append(b, field, n);
}

static void answer(struct range_job *job)
{
    struct unary *u = job->u;
    append_number(&job->out, RANGE_MORE, job->count > job->sent);
    append_number(&job->out, RANGE_COUNT, (uint64_t)job->count);
    u->answered = true;
    rpc_call_reply(u->call, buf_bytes(&job->out));
    range_drop(job);
}

/* Values of unlike sizes: the next slice has as many keys as would have filled this one. */
static void adapt(struct range_job *job, int64_t keys, size_t bytes)
{
    if (keys == 0 || bytes == 0)
        return;
    int64_t fit = (int64_t)((uint64_t)keys * SLICE_BYTES / bytes);
    job->slice_keys = fit < SLICE_KEYS_MIN   ? SLICE_KEYS_MIN
                      : fit > SLICE_KEYS_MAX ? SLICE_KEYS_MAX
                                             : fit;
}

static void take_result(struct range_job *job, const struct mvcc_result *result)
{
    size_t before = job->out.n;
    for (size_t i = 0; i < result->count; i++)
        encode_range_kv(&job->out, result->kvs[i]);
    if (job->count < 0)
        job->count = result->total;
    job->sent += (int64_t)result->count;
    if (job->left != INT64_MAX)
        job->left -= (int64_t)result->count;
    if (result->count > 0) {
        struct bytes last = result->kvs[result->count - 1]->key;
        job->next_key.n = 0;
        buf_append(&job->next_key, last.p, last.n);
        buf_append(&job->next_key, "", 1); /* the smallest key behind it */
    }
    adapt(job, (int64_t)result->count, job->out.n - before);
}

static enum errc read_slice(struct range_job *job, bool *ret_end, struct error *err)
{
    const Etcdserverpb__RangeRequest *r = (const Etcdserverpb__RangeRequest *)job->u->request;
    struct mvcc_query q = {
        .range = {job->next_key.n ? buf_bytes(&job->next_key) : bytes_of(r->key.data, r->key.len),
                  bytes_of(r->range_end.data, r->range_end.len)},
        .revision = job->revision,
        .limit = job->left < job->slice_keys ? job->left : job->slice_keys,
        .keys_only = r->keys_only,
        .no_total = job->count >= 0,
    };
    struct mvcc_result result;
    enum errc e = mvcc_range(replica_store(job->u->api->config.replica), &q, &result, err);
    if (e)
        return e;
    take_result(job, &result);
    *ret_end = (int64_t)result.count < q.limit || job->left == 0 || job->sent >= job->count;
    mvcc_result_free(&result);
    return ERR_OK;
}

static void wait_for_turn(struct range_job *job)
{
    list_remove(&job->link);
    list_append(&job->u->api->slicing, &job->link);
}

static void run_slice(struct range_job *job)
{
    struct unary *u = job->u;
    struct error err = {0};
    bool end = false;
    enum errc e = read_slice(job, &end, &err);
    if (e == ERR_COMPACTED && job->count >= 0 &&
        ((const Etcdserverpb__RangeRequest *)u->request)->revision <= 0) {
        begin(job); /* a compaction came between two slices of "now": later is now as well */
        wait_for_turn(job);
    } else if (e) {
        api_check_damage(u->api, &err);
        range_drop(job);
        unary_fail(u, e);
    } else if (end) {
        answer(job);
    } else {
        wait_for_turn(job);
    }
}

void range_start(struct unary *u)
{
    struct range_job *job = xcalloc(1, sizeof(*job));
    job->u = u;
    u->range = job;
    list_init(&job->link);
    begin(job);
    run_slice(job);
}

/* One slice in all, of the job that has waited longest: with many of them a turn stays as short. */
void range_poll(struct api *api)
{
    if (!list_empty(&api->slicing))
        run_slice(CONTAINER_OF(api->slicing.next, struct range_job, link));
}
