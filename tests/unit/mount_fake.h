/* A store in memory for tests of the mount's core: backend.h with answers that wait until fake_run(), so that a
 * test can put anything between a request and its answer. Included by one test program each. */
#ifndef TEST_MOUNT_FAKE_H
#define TEST_MOUNT_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>

#include "fuse/core.h"
#include "lib/base/list.h"
#include "lib/base/log.h"
#include "lib/base/memory.h"

struct fake_kv {
    uint8_t *key, *value;
    size_t key_n, value_n;
    int64_t create_revision, mod_revision, version, lease;
};

/* One answer or batch of events that has not been delivered. */
struct fake_answer {
    struct list link;
    void (*deliver)(struct fake_answer *a);
    void *ctx;
    union {
        store_range_done range;
        store_txn_done txn;
        store_sync_done sync;
        store_status_done status;
        void (*granted)(void *ctx, enum errc code, int64_t id);
    } done;
    enum errc code;
    bool unknown, succeeded, more;
    int64_t revision;
    struct store_kv kvs[64];
    struct store_event events[64];
    size_t count;
    struct arena arena;
};

struct fake {
    struct backend backend;
    struct fake_kv kvs[256];
    size_t count;
    int64_t revision, compacted;
    struct list answers;
    struct list held; /* answers of transactions while hold_txns */
    bool hold_txns;
    enum errc fail_sync, fail_txn; /* what the next ones end with */
    bool fail_unknown;             /* failed transactions took effect all the same */
    bool no_space;
    bool stale_allow; /* as the option; before fake_mount() */
    const struct store_watch_handler *handler;
    void *handler_ctx;
    int64_t watch_from;
    size_t txns, syncs, ranges;
    /* The host of the core. */
    struct core *core;
    uint64_t now_ms;
    struct env env;
    struct core_holders_answer holders;
    size_t asked;
    char changes[64][128]; /* "KIND path[ path2]" */
    size_t change_count;
    uint64_t tokens[64];
    /* The last reply. */
    int error;
    struct core_reply reply;
    char data[4096];
    bool replied;
    char names[1024];
};

static struct bytes fake_keep(struct arena *a, const void *p, size_t n)
{
    uint8_t *copy = arena_alloc(a, n + 1);
    if (n)
        memcpy(copy, p, n);
    return bytes_of(copy, n);
}

static struct fake *fake_of(struct backend *b)
{
    return CONTAINER_OF(b, struct fake, backend);
}

static struct fake_kv *fake_find(struct fake *f, struct bytes key)
{
    for (size_t i = 0; i < f->count; i++)
        if (bytes_equal(bytes_of(f->kvs[i].key, f->kvs[i].key_n), key))
            return &f->kvs[i];
    return NULL;
}

static struct store_kv fake_view(struct arena *a, const struct fake_kv *kv)
{
    return (struct store_kv){.key = fake_keep(a, kv->key, kv->key_n),
                             .value = fake_keep(a, kv->value, kv->value_n),
                             .create_revision = kv->create_revision,
                             .mod_revision = kv->mod_revision,
                             .version = kv->version,
                             .lease = kv->lease};
}

static bool fake_in_range(struct bytes start, struct bytes end, struct bytes key)
{
    if (end.n == 0)
        return bytes_equal(start, key);
    return bytes_compare(key, start) >= 0 &&
           ((end.n == 1 && end.p[0] == 0) || bytes_compare(key, end) < 0);
}

static struct fake_answer *fake_answer(struct fake *f, void (*deliver)(struct fake_answer *a),
                                       void *ctx)
{
    struct fake_answer *a = xcalloc(1, sizeof *a);
    a->deliver = deliver;
    a->ctx = ctx;
    a->revision = f->revision;
    list_append(&f->answers, &a->link);
    return a;
}

/* ---- Changing the store ----------------------------------------------------------------------------- */

static void fake_store_put(struct fake *f, struct bytes key, struct bytes value, int64_t lease,
                           struct fake_answer *events)
{
    struct fake_kv *kv = fake_find(f, key);
    if (!kv) {
        assert_true(f->count < ARRAY_LEN(f->kvs));
        kv = &f->kvs[f->count++];
        *kv = (struct fake_kv){.key = bytes_dup(key), .key_n = key.n};
        kv->create_revision = f->revision;
    }
    free(kv->value);
    kv->value = bytes_dup(value);
    kv->value_n = value.n;
    kv->mod_revision = f->revision;
    kv->version++;
    kv->lease = lease;
    assert_true(events->count < ARRAY_LEN(events->events));
    events->events[events->count++] = (struct store_event){false, fake_view(&events->arena, kv)};
}

static void fake_store_delete(struct fake *f, struct bytes start, struct bytes end,
                              struct fake_answer *events)
{
    for (size_t i = 0; i < f->count;) {
        struct fake_kv *kv = &f->kvs[i];
        struct bytes key = bytes_of(kv->key, kv->key_n);
        if (!fake_in_range(start, end, key)) {
            i++;
            continue;
        }
        struct store_event *e = &events->events[events->count++];
        *e = (struct store_event){.deletion = true};
        e->kv.key = fake_keep(&events->arena, key.p, key.n);
        e->kv.mod_revision = f->revision;
        free(kv->key);
        free(kv->value);
        f->kvs[i] = f->kvs[--f->count];
    }
}

static void fake_deliver_events(struct fake_answer *a)
{
    struct fake *f = a->ctx;
    if (f->handler && a->revision >= f->watch_from)
        f->handler->events(f->handler_ctx, a->events, a->count, a->revision);
}

static struct fake_answer *fake_begin(struct fake *f)
{
    f->revision++;
    return fake_answer(f, fake_deliver_events, f);
}

/* Changes made elsewhere. */
static inline void fake_put(struct fake *f, const char *key, const char *value)
{
    fake_store_put(f, bytes_str(key), bytes_str(value), 0, fake_begin(f));
}

static inline void fake_delete(struct fake *f, const char *key)
{
    fake_store_delete(f, bytes_str(key), BYTES_EMPTY, fake_begin(f));
}

/* In one revision: puts `to` with the content of `from`, and deletes `from`. */
static inline void fake_move(struct fake *f, const char *from, const char *to)
{
    struct fake_answer *events = fake_begin(f);
    struct fake_kv *kv = fake_find(f, bytes_str(from));
    assert_non_null(kv);
    struct bytes value = bytes_of(bytes_dup(bytes_of(kv->value, kv->value_n)), kv->value_n);
    fake_store_delete(f, bytes_str(from), BYTES_EMPTY, events);
    fake_store_put(f, bytes_str(to), value, 0, events);
    free((void *)value.p);
}

/* "-" if there is none. */
static inline const char *fake_get(struct fake *f, const char *key)
{
    struct fake_kv *kv = fake_find(f, bytes_str(key));
    return kv ? (const char *)kv->value : "-";
}

static inline size_t fake_count(const struct fake *f)
{
    return f->count;
}

/* ---- The backend ------------------------------------------------------------------------------------ */

static void fake_deliver_range(struct fake_answer *a)
{
    struct store_range_result r = {.code = a->code,
                                   .kvs = a->kvs,
                                   .count = a->count,
                                   .more = a->more,
                                   .revision = a->revision};
    a->done.range(a->ctx, &r);
}

static int fake_by_key(const void *a, const void *b)
{
    return bytes_compare(((const struct store_kv *)a)->key, ((const struct store_kv *)b)->key);
}

static void fake_range(struct backend *b, const struct store_range *r, uint64_t timeout_ms,
                       store_range_done done, void *ctx)
{
    struct fake *f = fake_of(b);
    struct fake_answer *a = fake_answer(f, fake_deliver_range, ctx);
    (void)timeout_ms;
    f->ranges++;
    a->done.range = done;
    for (size_t i = 0; i < f->count; i++) {
        struct bytes key = bytes_of(f->kvs[i].key, f->kvs[i].key_n);
        if (fake_in_range(r->key, r->end, key)) {
            assert_true(a->count < ARRAY_LEN(a->kvs));
            a->kvs[a->count++] = fake_view(&a->arena, &f->kvs[i]);
        }
    }
    qsort(a->kvs, a->count, sizeof a->kvs[0], fake_by_key);
    if (r->limit && a->count > (size_t)r->limit) {
        a->count = (size_t)r->limit;
        a->more = true;
    }
}

static int64_t fake_target(const struct fake_kv *kv, enum store_target target)
{
    if (!kv)
        return 0;
    return target == STORE_CREATE ? kv->create_revision
           : target == STORE_MOD  ? kv->mod_revision
                                  : kv->version;
}

static bool fake_holds(int64_t have, const struct store_compare *c)
{
    return c->relation == STORE_EQUAL  ? have == c->operand
           : c->relation == STORE_LESS ? have < c->operand
                                       : have > c->operand;
}

static bool fake_compare(struct fake *f, const struct store_compare *c)
{
    if (c->end.n == 0)
        return fake_holds(fake_target(fake_find(f, c->key), c->target), c);
    for (size_t i = 0; i < f->count; i++)
        if (fake_in_range(c->key, c->end, bytes_of(f->kvs[i].key, f->kvs[i].key_n)) &&
            !fake_holds(fake_target(&f->kvs[i], c->target), c))
            return false;
    return true;
}

static void fake_deliver_txn(struct fake_answer *a)
{
    struct store_txn_result r = {.code = a->code,
                                 .unknown = a->unknown,
                                 .succeeded = a->succeeded,
                                 .revision = a->revision,
                                 .kvs = a->kvs,
                                 .count = a->count};
    a->done.txn(a->ctx, &r);
}

static void fake_run_ops(struct fake *f, const struct store_op *ops, size_t count,
                         struct fake_answer *answer)
{
    struct fake_answer *events = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct store_op *op = &ops[i];
        if (op->kind != STORE_GET && !events) {
            events = fake_begin(f);
            list_remove(&events->link); /* behind the answer, unless answers are held */
        }
        if (op->kind == STORE_PUT)
            fake_store_put(f, op->key, op->value, op->lease, events);
        else if (op->kind == STORE_DELETE)
            fake_store_delete(f, op->key, op->end, events);
        else {
            struct fake_kv *kv = fake_find(f, op->key);
            if (kv)
                answer->kvs[answer->count++] = fake_view(&answer->arena, kv);
        }
    }
    if (events)
        list_append(&f->answers, &events->link);
}

static void fake_txn(struct backend *b, const struct store_txn *t, uint64_t timeout_ms,
                     store_txn_done done, void *ctx)
{
    struct fake *f = fake_of(b);
    struct fake_answer *a = fake_answer(f, fake_deliver_txn, ctx);
    (void)timeout_ms;
    f->txns++;
    a->done.txn = done;
    a->code = f->fail_txn;
    a->unknown = f->fail_unknown;
    if (f->hold_txns) {
        list_remove(&a->link);
        list_append(&f->held, &a->link);
    }
    if (a->code != ERR_OK && !a->unknown)
        return;
    a->succeeded = true;
    for (size_t i = 0; i < t->compare_count; i++)
        a->succeeded = a->succeeded && fake_compare(f, &t->compares[i]);
    if (a->succeeded)
        fake_run_ops(f, t->ops, t->op_count, a);
    else
        fake_run_ops(f, t->otherwise, t->otherwise_count, a);
    a->revision = f->revision;
}

static void fake_watch(struct backend *b, struct bytes key, struct bytes end,
                       int64_t start_revision, const struct store_watch_handler *handler, void *ctx)
{
    struct fake *f = fake_of(b);
    (void)key;
    (void)end;
    f->handler = handler;
    f->handler_ctx = ctx;
    f->watch_from = start_revision;
}

static void fake_deliver_sync(struct fake_answer *a)
{
    a->done.sync(a->ctx, a->code, a->revision);
}

static void fake_sync(struct backend *b, uint64_t timeout_ms, store_sync_done done, void *ctx)
{
    struct fake *f = fake_of(b);
    struct fake_answer *a = fake_answer(f, fake_deliver_sync, ctx);
    (void)timeout_ms;
    f->syncs++;
    a->done.sync = done;
    a->code = f->fail_sync;
}

static void fake_deliver_lease(struct fake_answer *a)
{
    a->done.granted(a->ctx, ERR_OK, 77);
}

static void fake_lease(struct backend *b, int64_t ttl_s,
                       void (*granted)(void *ctx, enum errc code, int64_t id),
                       void (*lost)(void *ctx), void *ctx)
{
    (void)ttl_s;
    (void)lost;
    fake_answer(fake_of(b), fake_deliver_lease, ctx)->done.granted = granted;
}

static void fake_deliver_status(struct fake_answer *a)
{
    struct store_status s = {.endpoint = "fake",
                             .version = "3",
                             .leader_id = 1,
                             .member_id = 1,
                             .revision = a->revision,
                             .no_space = a->more,
                             .member_count = 1};
    s.members[0] = (struct store_member){.id = 1, .name = "one", .client_url = "fake"};
    a->done.status(a->ctx, &s);
}

static void fake_status(struct backend *b, uint64_t timeout_ms, store_status_done done, void *ctx)
{
    struct fake *f = fake_of(b);
    struct fake_answer *a = fake_answer(f, fake_deliver_status, ctx);
    (void)timeout_ms;
    a->done.status = done;
    a->more = f->no_space;
}

static void fake_run_one(struct fake_answer *a)
{
    list_remove(&a->link);
    a->deliver(a);
    arena_free(&a->arena);
    free(a);
}

/* Delivers everything that waits, and what comes of it. */
static inline void fake_run(struct fake *f)
{
    while (!list_empty(&f->answers))
        fake_run_one(CONTAINER_OF(f->answers.next, struct fake_answer, link));
}

static inline void fake_release_txns(struct fake *f)
{
    f->hold_txns = false;
    while (!list_empty(&f->held))
        fake_run_one(CONTAINER_OF(f->held.next, struct fake_answer, link));
    fake_run(f);
}

/* ---- The host --------------------------------------------------------------------------------------- */

static uint64_t fake_mono(struct env *e)
{
    return CONTAINER_OF(e, struct fake, env)->now_ms * 1000000;
}

static uint64_t fake_wall(struct env *e)
{
    return 1700000000000000000u + fake_mono(e);
}

static void fake_holders(void *ctx, const struct core_holders_query *q, core_holders_done done,
                         void *done_ctx)
{
    struct fake *f = ctx;
    (void)q;
    f->asked++;
    done(done_ctx, &f->holders);
}

static bool fake_replay(void *ctx, const struct core_change *change)
{
    static const char *const kinds[] = {"CREATE", "MKDIR",  "SYMLINK", "OVERWRITE",
                                        "ATTRIB", "DELETE", "RMDIR",   "RENAME"};
    struct fake *f = ctx;
    assert_true(f->change_count < ARRAY_LEN(f->changes));
    snprintf(f->changes[f->change_count], sizeof f->changes[0], "%s %s%s%s", kinds[change->kind],
             change->path, change->path2 ? " " : "", change->path2 ? change->path2 : "");
    f->tokens[f->change_count++] = change->token;
    return true;
}

static void fake_quiet(void *ctx, const char *line)
{
    (void)ctx;
    (void)line;
}

static void fake_loaded(void *ctx, enum errc code, const char *text)
{
    (void)ctx;
    (void)text;
    assert_int_equal(code, ERR_OK);
}

static inline struct fake *fake_new(void)
{
    struct fake *f = xcalloc(1, sizeof *f);
    f->backend =
        (struct backend){fake_range, fake_txn, fake_watch, fake_sync, fake_lease, fake_status};
    f->env = (struct env){.mono_ns = fake_mono, .wall_ns = fake_wall};
    f->revision = 1;
    f->now_ms = 1000;
    list_init(&f->answers);
    list_init(&f->held);
    log_set_sink(fake_quiet, NULL);
    return f;
}

/* Makes the core over what the store holds, with the prefix "/". */
static inline void fake_mount(struct fake *f, bool cached, bool with_holders)
{
    static const char *const local[] = {"*~", ".*.sw?", "sed??????"};
    struct core_options o = {.prefix = bytes_str("/"),
                             .identity = "test",
                             .timeout_ms = 1000,
                             .cached = cached,
                             .stale_allow = f->stale_allow,
                             .cache_bytes = 1 << 20,
                             .file_mode = 0644,
                             .dir_mode = 0755,
                             .local_patterns = local,
                             .local_pattern_count = ARRAY_LEN(local),
                             .append_idle_ms = 1000};
    struct core_host host = {.ctx = f,
                             .env = &f->env,
                             .holders = with_holders ? fake_holders : NULL,
                             .replay = fake_replay};
    f->core = core_new(&o, &host, &f->backend);
    core_load(f->core, fake_loaded, f);
    fake_run(f);
}

static inline void fake_free(struct fake *f)
{
    fake_run(f);
    assert_int_equal(core_waiting(f->core), 0);
    core_free(f->core);
    for (size_t i = 0; i < f->count; i++) {
        free(f->kvs[i].key);
        free(f->kvs[i].value);
    }
    free(f);
}

#endif
