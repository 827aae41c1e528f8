#include <assert.h>
#include <stdlib.h>

#include "fuse/state.h"
#include "lib/base/log.h"

/* An own transaction that has no answer yet. */
struct flight {
    struct list link;
    struct op *op;
    void (*then)(struct op *op, const struct store_txn_result *r);
};

/* An own deletion, until the watch has passed it: events that are older must not bring the key back. */
struct tombstone {
    struct list link;
    struct bytes key; /* below the prefix; owned */
    int64_t revision;
};

struct own_revision {
    struct list link;
    int64_t revision;
};

uint64_t core_now_ms(const struct core *c)
{
    return env_mono_ms(c->host.env);
}

uint64_t core_wall_ns(const struct core *c)
{
    return c->host.env->wall_ns(c->host.env);
}

/* ---- Applying changes ------------------------------------------------------------------------------- */

static void fill_kv(struct core *c, struct kv *kv, const struct store_kv *from, struct value *value)
{
    bool new_content = kv->mod_revision != from->mod_revision;
    kv->create_revision = from->create_revision;
    kv->version = from->version;
    kv->lease = from->lease;
    if (from->stamp_ns)
        kv->mtime_ns = from->stamp_ns;
    else if (new_content) /* etcd doesn't say when: the time when we saw it */
        kv->mtime_ns = c->stamp_ns;
    kv->generation = c->generation;
    if (!new_content)
        return;
    kv->mod_revision = from->mod_revision;
    kv->size = value ? value->n : from->value.n;
    value_cache_put(&c->cache, &kv->cached, value ? value_ref(value) : value_new(from->value));
}

static void apply_file(struct core *c, struct node *n, const struct store_kv *from,
                       struct value *value, int64_t revision)
{
    if (n->file && n->file->mod_revision > revision) {
        node_settle(c, n);
        return;
    }
    bool had = node_has_file(n);
    if (!from) {
        if (n->file)
            local_unmask(c, n);
        mirror_kv_free(c, n->file);
        n->file = NULL;
        node_settle(c, n);
        return;
    }
    bool echo = n->file && n->file->mod_revision == revision;
    if (!echo)
        local_unmask(c, n);
    if (!n->file)
        n->file = mirror_kv_new();
    fill_kv(c, n->file, from, value);
    enum node_state before = n->state;
    node_settle(c, n);
    if (had && before == n->state && !echo)
        events_content(c, n);
}

static void apply_marker(struct core *c, struct node *n, const struct store_kv *from,
                         int64_t revision)
{
    if (n->marker && n->marker->mod_revision > revision) {
        node_settle(c, n);
        return;
    }
    if (!from) {
        mirror_kv_free(c, n->marker);
        n->marker = NULL;
    } else {
        if (!n->marker)
            n->marker = mirror_kv_new();
        fill_kv(c, n->marker, from, NULL);
    }
    node_settle(c, n);
}

/* A key that ends with '/' is the mark of a directory if its value is empty, and else the file `%`. */
static void apply_slash(struct core *c, struct bytes path, const struct store_kv *from,
                        struct value *value, int64_t revision)
{
    struct node *file = node_at(c, path, true);
    size_t parent_n = path.n - 1; /* without `%` */
    if (parent_n && path.p[parent_n - 1] == '/')
        parent_n--;
    bool is_mark = from && (value ? value->n : from->value.n) == 0;
    if (is_mark) {
        apply_marker(c, file->parent, from, revision);
        apply_file(c, node_at(c, path, true), NULL, NULL, revision);
        node_settle(c, node_at(c, path, true));
        return;
    }
    apply_file(c, file, from, value, revision);
    apply_marker(c, node_at(c, bytes_of(path.p, parent_n), true), NULL, revision);
    node_settle(c, node_at(c, path, true));
}

static void apply_meta(struct core *c, struct bytes owner, const struct store_kv *from,
                       struct value *value, int64_t revision)
{
    struct buf path = {0};
    bool is_dir = owner.n == 0 || owner.p[owner.n - 1] == '/';
    if (owner.n)
        codec_key_to_path(is_dir ? bytes_of(owner.p, owner.n - 1) : owner, &path);
    struct node *n = node_at(c, buf_bytes(&path), true);
    buf_free(&path);
    struct node_meta **slot = is_dir ? &n->dir_meta : &n->file_meta;
    if (*slot && (*slot)->mod_revision >= revision) {
        (*slot)->generation = c->generation;
        node_settle(c, n);
        return;
    }
    if (*slot) {
        meta_free(&(*slot)->m);
        free(*slot);
        *slot = NULL;
    }
    if (from) {
        *slot = xcalloc(1, sizeof **slot);
        meta_parse(value ? value_bytes(value) : from->value, &(*slot)->m);
        (*slot)->mod_revision = revision;
        (*slot)->generation = c->generation;
    }
    if (n->state == NODE_DIR ? is_dir : !is_dir)
        events_attrib(c, n, is_dir);
    node_settle(c, n);
}

static bool buried(struct core *c, struct bytes key, int64_t revision)
{
    LIST_FOR_EACH_SAFE(it, next, &c->tombstones)
    {
        struct tombstone *t = CONTAINER_OF(it, struct tombstone, link);
        if (t->revision > revision && bytes_equal(t->key, key))
            return true;
    }
    return false;
}

void mirror_apply(struct core *c, struct bytes key, const struct store_kv *kv, struct value *value,
                  int64_t revision)
{
    if (kv && buried(c, key, revision))
        return;
    c->stamp_ns = kv && kv->stamp_ns ? kv->stamp_ns : core_wall_ns(c);
    struct buf owner = {0}, path = {0};
    if (meta_key_owner(key, &owner))
        apply_meta(c, buf_bytes(&owner), kv, value, revision);
    else if (!meta_key_reserved(key)) {
        codec_key_to_path(key, &path);
        if (key.n == 0 || key.p[key.n - 1] == '/')
            apply_slash(c, buf_bytes(&path), kv, value, revision);
        else
            apply_file(c, node_at(c, buf_bytes(&path), true), kv, value, revision);
    }
    buf_free(&owner);
    buf_free(&path);
    c->stamp_ns = 0;
}

/* ---- The watch -------------------------------------------------------------------------------------- */

static void forget_passed(struct core *c)
{
    LIST_FOR_EACH_SAFE(it, next, &c->tombstones)
    {
        struct tombstone *t = CONTAINER_OF(it, struct tombstone, link);
        if (t->revision <= c->revision) {
            list_remove(&t->link);
            free((void *)t->key.p);
            free(t);
        }
    }
    LIST_FOR_EACH_SAFE(it2, next2, &c->own_revisions)
    {
        struct own_revision *o = CONTAINER_OF(it2, struct own_revision, link);
        if (o->revision <= c->revision) {
            list_remove(&o->link);
            free(o);
        }
    }
}

static bool is_own(struct core *c, int64_t revision)
{
    LIST_FOR_EACH_SAFE(it, next, &c->own_revisions)
    {
        if (CONTAINER_OF(it, struct own_revision, link)->revision == revision)
            return true;
    }
    return false;
}

struct bytes below_prefix(const struct core *c, struct bytes key)
{
    return bytes_of(key.p + c->prefix.n, key.n - c->prefix.n);
}

/* The events of one revision. */
static void apply_revision(struct core *c, const struct store_event *events, size_t count)
{
    struct remote_rename rename = {0};
    c->remote = !is_own(c, events[0].kv.mod_revision);
    if (c->remote)
        events_find_rename(c, events, count, &rename);
    c->suppress = rename.found;
    /* What comes goes before what leaves, so that a directory in which a file changes its name is never
     * empty; and metadata around its files: in force when they are announced, gone unheard with them. */
    for (int pass = 0; pass < 4; pass++)
        for (size_t i = 0; i < count; i++) {
            const struct store_event *e = &events[i];
            if (!bytes_starts_with(e->kv.key, buf_bytes(&c->prefix)))
                continue;
            struct bytes key = below_prefix(c, e->kv.key);
            int turn = meta_key_reserved(key) ? (e->deletion ? 3 : 0) : (e->deletion ? 2 : 1);
            if (turn == pass)
                mirror_apply(c, key, e->deletion ? NULL : &e->kv, NULL, e->kv.mod_revision);
        }
    c->suppress = c->remote = false;
    if (rename.found)
        events_renamed(c, &rename);
    buf_free(&rename.from);
    buf_free(&rename.to);
}

static void apply_batch(struct core *c, const struct store_event *events, size_t count,
                        int64_t revision)
{
    for (size_t i = 0; i < count;) {
        size_t n = 1;
        while (i + n < count && events[i + n].kv.mod_revision == events[i].kv.mod_revision)
            n++;
        apply_revision(c, events + i, n);
        i += n;
    }
    if (revision > c->revision)
        c->revision = revision;
    forget_passed(c);
}

static bool touches_flight(struct core *c, const struct store_event *events, size_t count)
{
    LIST_FOR_EACH_SAFE(it, next, &c->inflight)
    {
        struct flight *f = CONTAINER_OF(it, struct flight, link);
        for (size_t i = 0; i < count; i++)
            if (txn_touches(&f->op->txn, events[i].kv.key))
                return true;
    }
    return false;
}

static struct bytes keep(struct arena *a, struct bytes s)
{
    uint8_t *p = arena_alloc(a, s.n + 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    return bytes_of(p, s.n);
}

static void hold(struct core *c, const struct store_event *events, size_t count, int64_t revision)
{
    struct held_batch *b = xcalloc(1, sizeof *b);
    b->revision = revision;
    b->count = count;
    b->events = arena_alloc(&b->arena, (count + 1) * sizeof *events);
    for (size_t i = 0; i < count; i++) {
        b->events[i] = events[i];
        b->events[i].kv.key = keep(&b->arena, events[i].kv.key);
        b->events[i].kv.value = keep(&b->arena, events[i].kv.value);
    }
    list_append(&c->held, &b->link);
    c->held_in++;
}

static void drain_held(struct core *c)
{
    while (!list_empty(&c->held)) {
        struct held_batch *b = CONTAINER_OF(c->held.next, struct held_batch, link);
        if (touches_flight(c, b->events, b->count) &&
            c->held_in - c->held_out < CORE_HELD_BATCHES_MAX)
            return;
        list_remove(&b->link);
        apply_batch(c, b->events, b->count, b->revision);
        arena_free(&b->arena);
        free(b);
        c->held_out++;
    }
    while (!list_empty(&c->held_waiters)) {
        struct op *op = CONTAINER_OF(c->held_waiters.next, struct op, link);
        if (op->held_mark > c->held_out)
            return;
        list_remove(&op->link);
        op->run(op);
    }
}

static void on_events(void *ctx, const struct store_event *events, size_t count, int64_t revision)
{
    struct core *c = ctx;
    if (!list_empty(&c->held) || touches_flight(c, events, count)) {
        hold(c, events, count, revision);
        drain_held(c);
    } else
        apply_batch(c, events, count, revision);
}

static void on_compacted(void *ctx)
{
    struct core *c = ctx;
    log_warn("mirror", "the history since revision %lld is compacted: reading everything again",
             (long long)c->revision);
    c->loaded = false;
    mirror_tick(c);
}

static void on_state(void *ctx, bool up, const char *text)
{
    struct core *c = ctx;
    if (c->up != up)
        log_info("mirror", "watch %s: %s", up ? "follows" : "lost", text ? text : "");
    c->up = up;
}

const struct store_watch_handler mirror_watch = {on_events, on_compacted, on_state};

void mirror_free(struct core *c)
{
    c->revision = INT64_MAX;
    forget_passed(c);
    LIST_FOR_EACH_SAFE(it, next, &c->held)
    {
        struct held_batch *b = CONTAINER_OF(it, struct held_batch, link);
        arena_free(&b->arena);
        free(b);
    }
}

/* ---- Own transactions ------------------------------------------------------------------------------- */

void mirror_bury(struct core *c, struct bytes key, int64_t revision)
{
    if (revision <= c->revision)
        return;
    struct tombstone *t = xcalloc(1, sizeof *t);
    t->key = bytes_of(bytes_dup(key), key.n);
    t->revision = revision;
    list_append(&c->tombstones, &t->link);
}

static void apply_delete(struct core *c, const struct store_op *op, int64_t revision)
{
    struct bytes key = below_prefix(c, op->key);
    if (op->end.n == 0) {
        mirror_bury(c, key, revision);
        mirror_apply(c, key, NULL, NULL, revision);
        return;
    }
    /* The only ranges that are deleted are directories: "DIR/" up to "DIR0". */
    assert(key.n && key.p[key.n - 1] == '/');
    struct buf path = {0};
    codec_key_to_path(bytes_of(key.p, key.n - 1), &path);
    struct node *n = node_at(c, buf_bytes(&path), false);
    buf_free(&path);
    if (!n)
        return;
    struct key_list keys = {0};
    tree_keys(n, &keys);
    for (size_t i = 0; i < keys.count; i++) {
        if (!bytes_starts_with(keys.keys[i].key, key))
            continue; /* the directory's own key, and its metadata */
        mirror_bury(c, keys.keys[i].key, revision);
        mirror_apply(c, keys.keys[i].key, NULL, NULL, revision);
    }
    key_list_free(&keys);
}

static void apply_put(struct core *c, const struct txn_op *t, const struct store_txn_result *r)
{
    struct bytes key = below_prefix(c, t->op.key);
    struct store_kv kv = {.key = t->op.key,
                          .value = t->op.value,
                          .create_revision = r->revision,
                          .mod_revision = r->revision,
                          .version = 1,
                          .lease = t->op.lease};
    for (size_t i = 0; i < r->count; i++)
        if (bytes_equal(r->kvs[i].key, t->op.key)) {
            struct bytes value = kv.value;
            kv = r->kvs[i];
            kv.value = value;
        }
    mirror_apply(c, key, &kv, t->value, r->revision);
}

void mirror_apply_txn(struct core *c, const struct txn *t, const struct store_txn_result *r)
{
    bool remote = c->remote;
    c->remote = false;
    if (r->revision > c->revision) {
        struct own_revision *o = xcalloc(1, sizeof *o);
        o->revision = r->revision;
        list_append(&c->own_revisions, &o->link);
    }
    /* Puts first: a directory that only changes its place is never gone in between. */
    for (size_t i = 0; i < t->op_count; i++)
        if (t->ops[i].op.kind == STORE_PUT)
            apply_put(c, &t->ops[i], r);
    for (size_t i = 0; i < t->op_count; i++)
        if (t->ops[i].op.kind == STORE_DELETE && !txn_puts(t, t->ops[i].op.key))
            apply_delete(c, &t->ops[i].op, r->revision);
    c->remote = remote;
}

static void flight_done(void *ctx, const struct store_txn_result *r)
{
    struct flight *f = ctx;
    struct core *c = f->op->c;
    struct op *op = f->op;
    list_remove(&f->link);
    op->code = r->code;
    f->then(op, r);
    free(f);
    drain_held(c);
}

void mirror_txn(struct op *op, void (*then)(struct op *op, const struct store_txn_result *r))
{
    struct core *c = op->c;
    struct flight *f = xcalloc(1, sizeof *f);
    f->op = op;
    f->then = then;
    list_append(&c->inflight, &f->link);
    struct arena scratch = {0};
    struct store_op *ops = arena_alloc(&scratch, (op->txn.op_count + 1) * sizeof *ops);
    for (size_t i = 0; i < op->txn.op_count; i++)
        ops[i] = op->txn.ops[i].op;
    struct store_txn t = {.compares = op->txn.compares,
                          .compare_count = op->txn.compare_count,
                          .ops = ops,
                          .op_count = op->txn.op_count,
                          .otherwise = &op->txn.otherwise,
                          .otherwise_count = op->txn.has_otherwise ? 1 : 0};
    c->backend->txn(c->backend, &t, c->options.timeout_ms, flight_done, f);
    arena_free(&scratch);
}
