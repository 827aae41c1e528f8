/* Loads a cluster, records what every client saw, and checks that it is linearizable.
 *
 *     history URL[,URL...] CLIENTS KEYS [SEED]        until standard input ends
 *
 * Each client has one request under way at a time, with a pause between: a put of a value never used before, a get,
 * a delete, or a compare-and-swap on what it read last. Timed-out writes are recorded as of unknown outcome. At the
 * end, when all are done, each key is read once more: a lost last write shows. Prints
 *     ok=N failed=N unknown=N gap_ms=N reads_min=N
 * (gap: the longest time without any acknowledged write; reads_min: see below) and, per key, a violation if there is one. Exit code 0:
 * linearizable; 1: not; 2: usage. Every second client names its writes, and so can repeat them after a lost answer;
 * with HISTORY_NAMED in the environment all do. With HISTORY_EVERYWHERE half of the clients ask one member only, each
 * member one of them at least, and reads_min is the number of reads that the least busy member answered them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"
#include "lib/client/client.h"
#include "tests/sim/linear.h"

#define CALL_TIMEOUT_MS 3000
#define PAUSE_MS 5
#define CHECK_BYTES_MAX                                                                            \
    (1ull << 30) /* that the check of a key may remember: a place for each step */
#define CLIENTS_MAX 64
#define KEYS_MAX 64
#define FINAL_TRIES_MAX                                                                            \
    10 /* of a final read; a cluster that can't answer it is found by its test */

enum kind { PUT, GET, DELETE, SWAP };

/* An operation on one key: what was asked and what came back. Values are numbers, 0: no key. */
struct access {
    enum kind kind;
    int key;
    int64_t value;         /* written; read */
    int64_t expected;      /* SWAP: the value that it was conditional on */
    bool known, succeeded; /* SWAP: whether the compare held; DELETE: whether there was something */
    int64_t revision;      /* in the answer's header; of a write: the one that it made */
};

struct history {
    uv_loop_t loop;
    uv_pipe_t input;
    struct linear_op *ops;
    struct access **accesses;
    size_t count, cap;
    int clients_running, keys;
    bool ending;
    int64_t last_value;
    int64_t *revisions; /* by value: at which it was written, if a read has told so */
    size_t revision_cap;
    uint64_t random, ok, failed, unknown, last_write_ns, gap_ns;
    size_t member_count, staying;         /* clients that ask one member only */
    uint64_t reads[CLIENT_ENDPOINTS_MAX]; /* answered to these by each member */
};

struct worker {
    struct history *h;
    struct client *client;
    uv_timer_t pause;
    struct access *current;
    int member; /* the only one that it asks; -1: it asks any */
    uint64_t called;
    int64_t last_read[KEYS_MAX];
    bool reads_finally; /* one worker does */
    int final_key, final_tries;
};

static uint64_t now_ns(void)
{
    return env_system()->mono_ns(env_system());
}

static uint64_t next_random(struct history *h)
{
    h->random = h->random * 6364136223846793005u + 1442695040888963407u;
    return h->random >> 33;
}

static void record(struct history *h, struct access *a, uint64_t called, uint64_t returned)
{
    if (h->count == h->cap) {
        h->cap = h->cap ? 2 * h->cap : 4096;
        h->ops = xrealloc(h->ops, h->cap * sizeof(*h->ops));
        h->accesses = xrealloc(h->accesses, h->cap * sizeof(struct access *));
    }
    h->ops[h->count] = (struct linear_op){called, returned, a};
    h->accesses[h->count++] = a;
}

static void note_revision(struct history *h, int64_t value, int64_t revision)
{
    size_t before = h->revision_cap;
    while (h->revision_cap <= (size_t)value)
        h->revision_cap = h->revision_cap ? 2 * h->revision_cap : 4096;
    if (h->revision_cap > before) {
        h->revisions = xrealloc(h->revisions, h->revision_cap * sizeof(h->revisions[0]));
        memset(h->revisions + before, 0, (h->revision_cap - before) * sizeof(h->revisions[0]));
    }
    h->revisions[value] = revision;
}

static int64_t value_of(struct history *h, const Etcdserverpb__RangeResponse *r)
{
    if (r->n_kvs == 0)
        return 0;
    char text[32] = "";
    size_t n = r->kvs[0]->value.len < sizeof(text) - 1 ? r->kvs[0]->value.len : sizeof(text) - 1;
    memcpy(text, r->kvs[0]->value.data, n);
    int64_t value = strtoll(text, NULL, 10);
    if (value > 0 && value <= h->last_value)
        note_revision(h, value, r->kvs[0]->mod_revision);
    return value;
}

static int64_t revision_of(const struct access *a, const ProtobufCMessage *m)
{
    const Etcdserverpb__ResponseHeader *header =
        a->kind == GET      ? ((const Etcdserverpb__RangeResponse *)m)->header
        : a->kind == PUT    ? ((const Etcdserverpb__PutResponse *)m)->header
        : a->kind == DELETE ? ((const Etcdserverpb__DeleteRangeResponse *)m)->header
                            : ((const Etcdserverpb__TxnResponse *)m)->header;
    return header ? header->revision : 0;
}

static void note_write(struct history *h)
{
    uint64_t now = now_ns();
    if (h->last_write_ns && now - h->last_write_ns > h->gap_ns)
        h->gap_ns = now - h->last_write_ns;
    h->last_write_ns = now;
}

static void next_operation(uv_timer_t *timer);

static void answered(void *ctx, const struct client_result *result)
{
    struct worker *w = ctx;
    struct history *h = w->h;
    struct access *a = w->current;
    w->current = NULL;
    if (w->final_tries > 0 && (result->code == ERR_OK || w->final_tries == FINAL_TRIES_MAX)) {
        w->final_key++;
        w->final_tries = 0;
    }
    if (result->code == ERR_OK) {
        a->known = true;
        a->revision = revision_of(a, result->message);
        h->ok++;
        if (a->kind != GET)
            note_write(h);
        else
            a->value = w->last_read[a->key] = value_of(h, (const void *)result->message);
        if (a->kind == GET && w->member >= 0)
            h->reads[w->member]++;
        if (a->kind == SWAP)
            a->succeeded = ((const Etcdserverpb__TxnResponse *)result->message)->succeeded;
        if (a->kind == DELETE)
            a->succeeded =
                ((const Etcdserverpb__DeleteRangeResponse *)result->message)->deleted > 0;
        record(h, a, w->called, now_ns());
    } else if (a->kind != GET && result->unknown) {
        h->unknown++;
        record(h, a, w->called, LINEAR_PENDING);
    } else {
        h->failed++;
        free(a);
    }
    uv_timer_start(&w->pause, next_operation, PAUSE_MS, 0);
}

static ProtobufCBinaryData text_field(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

static void send_swap(struct worker *w, char *key, char *value)
{
    char expected[32];
    snprintf(expected, sizeof(expected), "%" PRId64, w->current->expected);
    Etcdserverpb__Compare compare = ETCDSERVERPB__COMPARE__INIT, *compares = &compare;
    compare.key = text_field(key);
    compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VALUE;
    compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VALUE;
    compare.value = text_field(expected);
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = text_field(key);
    put.value = text_field(value);
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT, *ops = &op;
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &put;
    Etcdserverpb__TxnRequest txn = ETCDSERVERPB__TXN_REQUEST__INIT;
    txn.n_compare = txn.n_success = 1;
    txn.compare = &compares;
    txn.success = &ops;
    client_txn(w->client, &txn, CALL_TIMEOUT_MS, answered, w);
}

static void send_one(struct worker *w)
{
    struct access *a = w->current;
    char key[32], value[32];
    snprintf(key, sizeof(key), "/history/%d", a->key);
    snprintf(value, sizeof(value), "%" PRId64, a->value);
    w->called = now_ns();
    if (a->kind == SWAP) {
        send_swap(w, key, value);
    } else if (a->kind == PUT) {
        Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
        r.key = text_field(key);
        r.value = text_field(value);
        client_put(w->client, &r, CALL_TIMEOUT_MS, answered, w);
    } else if (a->kind == DELETE) {
        Etcdserverpb__DeleteRangeRequest r = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
        r.key = text_field(key);
        client_delete(w->client, &r, CALL_TIMEOUT_MS, answered, w);
    } else {
        Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
        r.key = text_field(key);
        client_range(w->client, &r, CALL_TIMEOUT_MS, answered, w);
    }
}

static void read_finally(struct worker *w)
{
    if (w->h->clients_running > 1) {
        uv_timer_start(&w->pause, next_operation, PAUSE_MS, 0);
        return;
    }
    w->current = xcalloc(1, sizeof(*w->current));
    *w->current = (struct access){.kind = GET, .key = w->final_key};
    w->final_tries++;
    send_one(w);
}

static void next_operation(uv_timer_t *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, pause);
    struct history *h = w->h;
    if (h->ending && w->reads_finally && w->final_key < h->keys) {
        read_finally(w);
        return;
    }
    if (h->ending) {
        uv_close((uv_handle_t *)timer, NULL);
        client_free(w->client);
        h->clients_running--;
        return;
    }
    struct access *a = w->current = xcalloc(1, sizeof(*a));
    a->key = (int)(next_random(h) % (uint64_t)h->keys);
    uint64_t draw = next_random(h) % 100;
    a->kind = draw < 40 ? PUT : draw < 75 ? GET : draw < 80 ? DELETE : SWAP;
    a->value = a->kind == PUT || a->kind == SWAP ? ++h->last_value : 0;
    a->expected = w->last_read[a->key];
    send_one(w);
}

/* ---- The model: one key ------------------------------------------------------------------------ */

static void init_key(void *state)
{
    memset(state, 0, sizeof(int64_t));
}

static bool step_key(void *state, const struct linear_op *op)
{
    const struct access *a = op->op;
    int64_t value;
    memcpy(&value, state, sizeof(value));
    if (a->kind == GET)
        return value == a->value;
    if (a->kind == SWAP) {
        bool holds = value != 0 && value == a->expected; /* a missing key equals no value */
        if (a->known && holds != a->succeeded)
            return false;
        if (!holds)
            return true;
    }
    memcpy(state, &a->value, sizeof(a->value));
    return true;
}

/* An unknown deletion happened just before the first read that found nothing, if at all: there it can't be wrong. */
static uint64_t hint_of_deletion(const struct linear_op *ops, size_t count, uint64_t called)
{
    uint64_t hint = LINEAR_LAST;
    for (size_t i = 0; i < count; i++) {
        const struct access *a = ops[i].op;
        if (a->kind == GET && a->value == 0 && ops[i].returned > called &&
            2 * (uint64_t)a->revision < hint)
            hint = 2 * (uint64_t)a->revision;
    }
    return hint;
}

/* The order that the cluster says; whether it is right is the check's to find out. What changed nothing comes behind the
 * write of its revision. A write of unknown outcome has a revision if its value was ever read. */
static uint64_t hint_of(const struct history *h, const struct linear_op *ops, size_t count,
                        size_t i)
{
    const struct access *a = ops[i].op;
    bool wrote = a->kind == PUT || (a->kind != GET && a->succeeded);
    if (a->known)
        return 2 * (uint64_t)a->revision + !wrote;
    if (a->kind == DELETE)
        return hint_of_deletion(ops, count, ops[i].called);
    bool seen = (size_t)a->value < h->revision_cap && h->revisions[a->value];
    return seen ? 2 * (uint64_t)h->revisions[a->value] : LINEAR_LAST;
}

static bool check_key(const struct history *h, int key)
{
    const struct linear_model model = {sizeof(int64_t), init_key, step_key};
    struct linear_op *ops = xmalloc((h->count + 1) * sizeof(*ops));
    size_t count = 0, stuck = 0;
    for (size_t i = 0; i < h->count; i++) {
        if (h->accesses[i]->key == key)
            ops[count++] = h->ops[i];
    }
    for (size_t i = 0; i < count; i++)
        ops[i].hint = hint_of(h, ops, count, i);
    uint64_t steps_max = CHECK_BYTES_MAX / (count / 8 + 64);
    enum linear_verdict verdict = linear_check(&model, ops, count, steps_max, &stuck);
    if (verdict != LINEAR_YES) {
        printf("key %d: %s after %zu operations; stuck near:\n", key,
               verdict == LINEAR_NO ? "NOT LINEARIZABLE" : "not decided", count);
        for (size_t i = stuck > 8 ? stuck - 8 : 0; i < count && i < stuck + 9; i++) {
            const struct access *a = ops[i].op;
            printf("  %c %" PRIu64 "..%" PRIu64 " %s value=%" PRId64 " expected=%" PRId64 " %s\n",
                   i == stuck ? '*' : ' ', ops[i].called, ops[i].returned,
                   (const char *[]){"put", "get", "delete", "swap"}[a->kind], a->value, a->expected,
                   a->known ? a->succeeded ? "held" : "" : "unknown");
        }
    }
    free(ops);
    return verdict == LINEAR_YES;
}

/* ---- Start and end ----------------------------------------------------------------------------- */

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret_buf)
{
    static char ignored[256];
    (void)handle, (void)size;
    *ret_buf = uv_buf_init(ignored, sizeof(ignored));
}

static void input_read(uv_stream_t *input, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    if (n >= 0)
        return;
    ((struct history *)input->data)->ending = true;
    uv_close((uv_handle_t *)input, NULL);
}

/* Each client begins at another member; some stay there. */
static bool start_worker(struct history *h, struct worker *w, int i, const char *const *urls)
{
    const char *order[CLIENT_ENDPOINTS_MAX];
    for (size_t k = 0; k < h->member_count; k++)
        order[k] = urls[((size_t)i + k) % h->member_count];
    bool stays = getenv("HISTORY_EVERYWHERE") && i % 4 >= 2;
    w->member = stays ? (int)(h->staying++ % h->member_count) : -1;
    struct client_config config = {.endpoints = stays ? &urls[w->member] : order,
                                   .endpoint_count = stays ? 1 : h->member_count,
                                   .timeout_ms = CALL_TIMEOUT_MS,
                                   .request_ids = i % 2 == 0 || getenv("HISTORY_NAMED")};
    struct error err;
    w->h = h;
    w->reads_finally = i == 0;
    if (client_new(&h->loop, &config, &w->client, &err) != ERR_OK) {
        fprintf(stderr, "history: %s\n", err.message);
        return false;
    }
    uv_timer_init(&h->loop, &w->pause);
    uv_timer_start(&w->pause, next_operation, 0, 0);
    h->clients_running++;
    return true;
}

static bool start_workers(struct history *h, struct worker *workers, int count, char *list)
{
    const char *urls[CLIENT_ENDPOINTS_MAX];
    char *save = NULL;
    for (char *u = strtok_r(list, ",", &save); u && h->member_count < CLIENT_ENDPOINTS_MAX;
         u = strtok_r(NULL, ",", &save))
        urls[h->member_count++] = u;
    for (int i = 0; i < count; i++) {
        if (!start_worker(h, &workers[i], i, urls))
            return false;
    }
    return true;
}

static void print_counts(const struct history *h)
{
    uint64_t reads_min = h->staying ? UINT64_MAX : 0;
    for (size_t i = 0; i < h->member_count && h->staying; i++)
        reads_min = h->reads[i] < reads_min ? h->reads[i] : reads_min;
    printf("ok=%" PRIu64 " failed=%" PRIu64 " unknown=%" PRIu64 " gap_ms=%" PRIu64
           " reads_min=%" PRIu64 "\n",
           h->ok, h->failed, h->unknown, h->gap_ns / 1000000, reads_min);
}

int main(int argc, char **argv)
{
    int clients = argc >= 4 ? atoi(argv[2]) : 0, keys = argc >= 4 ? atoi(argv[3]) : 0;
    if (clients < 1 || clients > CLIENTS_MAX || keys < 1 || keys > KEYS_MAX) {
        fprintf(stderr, "usage: history URL[,URL...] CLIENTS KEYS [SEED]\n");
        return 2;
    }
    struct history h = {.keys = keys, .random = argc > 4 ? strtoull(argv[4], NULL, 0) : now_ns()};
    static struct worker workers[CLIENTS_MAX];
    uv_loop_init(&h.loop);
    uv_pipe_init(&h.loop, &h.input, 0);
    h.input.data = &h;
    uv_pipe_open(&h.input, 0);
    uv_read_start((uv_stream_t *)&h.input, give_buffer, input_read);
    if (!start_workers(&h, workers, clients, argv[1]))
        return 2;
    uv_run(&h.loop, UV_RUN_DEFAULT);
    uv_loop_close(&h.loop);
    print_counts(&h);
    bool good = h.ok > 0;
    for (int key = 0; key < keys; key++)
        good = check_key(&h, key) && good;
    for (size_t i = 0; i < h.count; i++)
        free(h.accesses[i]);
    free(h.accesses);
    free(h.revisions);
    free(h.ops);
    return good ? 0 : 1;
}
