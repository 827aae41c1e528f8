#include <assert.h>
#include <stdlib.h>

#include "fuse/state.h"
#include "lib/base/log.h"

/* Reading the whole prefix, page by page at one revision: at the start, and again when the history that the
 * watch would have gone on with is compacted. A repeated load is compared with what the mirror has, so that the
 * difference becomes events like any other change. */

#define LOAD_PAGE_BYTES (4 << 20) /* aimed at, by the average size of what came before */
#define LOAD_PAGE_KEYS 256        /* the first page */
#define LOAD_PAGE_KEYS_MAX 8192

struct load {
    struct core *c;
    struct buf next; /* the first key that was not read */
    int64_t revision;
    size_t page, keys, bytes;
    void (*done)(void *ctx, enum errc code, const char *text);
    void *ctx;
};

/* Deletes what a repeated load did not meet. */
static void sweep(struct core *c, int64_t revision)
{
    struct key_list keys = {0};
    tree_keys(c->root, &keys);
    for (size_t i = 0; i < keys.count; i++)
        if (keys.keys[i].generation != c->generation && keys.keys[i].mod_revision <= revision)
            mirror_apply(c, keys.keys[i].key, NULL, NULL, revision);
    key_list_free(&keys);
}

static void load_finish(struct load *l, enum errc code, const char *text)
{
    struct core *c = l->c;
    c->loading = false;
    c->load = NULL;
    if (code == ERR_OK) {
        c->remote = c->generation > 1;
        if (c->remote)
            sweep(c, l->revision);
        c->remote = false;
        c->loaded = true;
        c->revision = l->revision > c->revision ? l->revision : c->revision;
        c->backend->watch(c->backend, buf_bytes(&c->prefix), buf_bytes(&c->prefix_end),
                          l->revision + 1, &mirror_watch, c);
    } else if (!l->done) /* the first load: its caller tells */
        log_warn("mirror", "reading the prefix failed: %s", text ? text : errc_text(code));
    if (l->done)
        l->done(l->ctx, code, text);
    buf_free(&l->next);
    free(l);
    while (!list_empty(&c->load_waiters)) {
        struct op *op = CONTAINER_OF(c->load_waiters.next, struct op, link);
        list_remove(&op->link);
        if (code == ERR_OK)
            mirror_sync(op);
        else {
            op->code = c->options.stale_allow ? ERR_OK : code;
            op->run(op);
        }
    }
}

static void load_page(struct load *l);

static void load_answer(void *ctx, const struct store_range_result *r)
{
    struct load *l = ctx;
    struct core *c = l->c;
    if (r->code != ERR_OK) {
        load_finish(l, r->code, r->text);
        return;
    }
    if (!l->revision)
        l->revision = r->revision;
    c->remote = c->generation > 1; /* the first load is news to nobody */
    for (size_t i = 0; i < r->count; i++) {
        const struct store_kv *kv = &r->kvs[i];
        l->keys++;
        l->bytes += kv->key.n + kv->value.n + 64;
        if (bytes_starts_with(kv->key, buf_bytes(&c->prefix)))
            mirror_apply(c, below_prefix(c, kv->key), kv, NULL, kv->mod_revision);
    }
    c->remote = false;
    if (!r->more || r->count == 0) {
        load_finish(l, ERR_OK, NULL);
        return;
    }
    l->next.n = 0;
    buf_append(&l->next, r->kvs[r->count - 1].key.p, r->kvs[r->count - 1].key.n);
    buf_append(&l->next, "", 1);
    size_t average = l->bytes / l->keys;
    l->page = LOAD_PAGE_BYTES / average;
    if (l->page > LOAD_PAGE_KEYS_MAX)
        l->page = LOAD_PAGE_KEYS_MAX;
    if (l->page < 4)
        l->page = 4;
    load_page(l);
}

static void load_page(struct load *l)
{
    struct core *c = l->c;
    struct store_range range = {.key = buf_bytes(&l->next),
                                .end = buf_bytes(&c->prefix_end),
                                .limit = (int64_t)l->page,
                                .revision = l->revision};
    c->backend->range(c->backend, &range, c->options.timeout_ms, load_answer, l);
}

void mirror_start(struct core *c, void (*done)(void *ctx, enum errc code, const char *text),
                  void *ctx)
{
    assert(!c->loading);
    struct load *l = xcalloc(1, sizeof *l);
    *l = (struct load){.c = c, .page = LOAD_PAGE_KEYS, .done = done, .ctx = ctx};
    buf_append(&l->next, c->prefix.p, c->prefix.n);
    if (!c->prefix.n)
        buf_append(&l->next, "", 1);
    c->loading = true;
    c->load = l;
    c->generation++;
    load_page(l);
}

void mirror_tick(struct core *c)
{
    if (!c->loaded && !c->loading && c->generation > 0)
        mirror_start(c, NULL, NULL);
}
