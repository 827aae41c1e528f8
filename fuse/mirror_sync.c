/* Sync points, and the contents that the mirror doesn't have. */
#include "fuse/state.h"

/* After a sync point that failed, so long everything is answered from the last known state at once. */
#define STALE_MS 1000

/* ---- Sync points ------------------------------------------------------------------------------------ */

static void note(struct core *c, enum errc code, int64_t revision, uint64_t began_ms)
{
    if (code == ERR_OK && list_empty(&c->held) && revision > c->revision)
        c->revision = revision;
    if (code == ERR_OK && began_ms > c->synced_ms)
        c->synced_ms = began_ms;
    c->sync_failed = code != ERR_OK;
    c->sync_failed_ms = core_now_ms(c);
}

static void sync_done(void *ctx, enum errc code, int64_t revision)
{
    struct op *op = ctx;
    struct core *c = op->c;
    note(c, code, revision, op->began_ms);
    op->code = c->options.stale_allow ? ERR_OK : code;
    if (code == ERR_OK && !list_empty(&c->held)) {
        op->held_mark = c->held_in;
        list_append(&c->held_waiters, &op->link);
        return;
    }
    op->run(op);
}

static void probe_done(void *ctx, enum errc code, int64_t revision)
{
    struct core *c = ctx;
    c->probing = false;
    note(c, code, revision, 0);
}

/* With stale=allow: is there no quorum, as far as is known? Each call of a path (lookup, open, read, its end)
 * would wait for its own timeout else. One question at a time is under way meanwhile, so that the first answer
 * of a new leader ends it; without any for a moment, the next call waits again. */
static bool is_stale(struct core *c)
{
    if (!c->options.stale_allow || !c->sync_failed)
        return false;
    if (c->probing)
        return true;
    if (core_now_ms(c) - c->sync_failed_ms >= STALE_MS)
        return false;
    c->probing = true;
    c->backend->sync(c->backend, c->options.timeout_ms, probe_done, c);
    return true;
}

void mirror_sync(struct op *op)
{
    struct core *c = op->c;
    if (!c->loaded && !c->options.cached && !op->who.replay) {
        list_append(&c->load_waiters, &op->link);
        return;
    }
    if (c->options.cached || op->who.replay || is_stale(c)) {
        op->code = ERR_OK;
        op->run(op);
        return;
    }
    op->began_ms = core_now_ms(c);
    c->backend->sync(c->backend, c->options.timeout_ms, sync_done, op);
}

/* ---- Contents --------------------------------------------------------------------------------------- */

static void fetch(struct op *op, int64_t revision);

static void fetched(void *ctx, const struct store_range_result *r)
{
    struct op *op = ctx;
    struct core *c = op->c;
    if (r->code == ERR_COMPACTED && op->tries++ < 3) {
        fetch(op, 0);
        return;
    }
    op->code = r->code;
    if (r->code == ERR_OK && r->count == 1) {
        op->value = value_new(r->kvs[0].value);
        op->value_revision = r->kvs[0].mod_revision;
        struct buf path = {0};
        codec_key_to_path(below_prefix(c, buf_bytes(&op->key)), &path);
        struct node *n = node_at(c, buf_bytes(&path), false);
        if (n && n->file && n->file->mod_revision == op->value_revision)
            value_cache_put(&c->cache, &n->file->cached, value_ref(op->value));
        buf_free(&path);
    } else if (r->code == ERR_OK)
        op->code = ERR_NOT_FOUND;
    op->run(op);
}

static void fetch(struct op *op, int64_t revision)
{
    struct store_range range = {.key = buf_bytes(&op->key), .revision = revision};
    op->c->backend->range(op->c->backend, &range, op->c->options.timeout_ms, fetched, op);
}

void mirror_value(struct op *op, struct node *n)
{
    struct core *c = op->c;
    struct kv *kv = node_kv(n);
    struct value *v = kv ? value_cache_get(&c->cache, &kv->cached) : NULL;
    value_unref(op->value);
    op->value = NULL;
    op->code = ERR_OK;
    op->value_revision = kv ? kv->mod_revision : 0;
    if (kv && !v) {
        op->key.n = 0;
        node_full_key(c, n, false, &op->key);
        fetch(op, kv->mod_revision);
        return;
    }
    if (kv)
        op->value = value_ref(v);
    else
        op->value =
            n->local && n->local->value ? value_ref(n->local->value) : value_new(BYTES_EMPTY);
    op->run(op);
}
