#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fuse/state.h"
#include "lib/base/log.h"

/* Saves: the content of one handle becomes one transaction.
 *
 * What guards it (DESIGN, Saving): a handle that truncated or created writes whatever the key holds; one that
 * changed what was there only if it still is what it read; one that appends adds to whatever is there now and
 * tries again if somebody was faster. After its first commit a handle knows what is there, and is guarded. */

struct commit {
    struct handle *h;
    bool keep;
    struct value *bytes; /* of the handle: all of the content, or what is appended */
    struct value *whole; /* what is put */
    bool append, unguarded;
    bool no_lease;      /* the lease of the key is gone */
    bool loaded_newest; /* op->value is the newest content, from a failed try */
    int64_t base;
    void (*then)(void *ctx, int error);
    void *ctx;
};

static void commit_build(struct op *op);

static void drop_pending(struct core *c, struct inode *i)
{
    struct node *n = i->node;
    if (!n || !n->local || !n->local->pending)
        return;
    local_file_free(n->local);
    n->local = NULL;
    node_settle(c, n);
}

static void log_failure(struct core *c, struct handle *h, struct bytes content, int error)
{
    struct buf path = {0};
    if (h->inode->node)
        node_path(h->inode->node, false, &path);
    else
        codec_key_to_path(buf_bytes(&h->inode->gone_key), &path);
    buf_append(&path, "", 1);
    unsaved_keep(c, (const char *)path.p, content, strerror(error));
    buf_free(&path);
}

/* What was taken from the handle goes back to it. */
static void give_back(struct commit *m)
{
    struct handle *h = m->h;
    if (m->append) {
        struct buf joined = {0};
        struct bytes tail = value_bytes(m->bytes);
        buf_append(&joined, tail.p, tail.n);
        buf_append(&joined, h->data.p, h->data.n);
        buf_free(&h->data);
        h->data = joined;
    }
    h->dirty = true;
}

static void commit_end(struct op *op, int error)
{
    struct core *c = op->c;
    struct commit *m = op->extra;
    struct handle *h = m->h;
    struct inode *i = h->inode;
    h->committing = false;
    if (error && m->keep)
        give_back(m);
    else if (error) {
        log_failure(c, h, value_bytes(m->bytes), error);
        drop_pending(c, i);
    }
    struct list ready;
    list_init(&ready);
    LIST_FOR_EACH_SAFE(it, next, &h->waiters)
    {
        list_remove(it);
        list_append(&ready, it);
    }
    m->then(m->ctx, error);
    while (!list_empty(&ready)) {
        struct op *waiter = CONTAINER_OF(ready.next, struct op, link);
        list_remove(&waiter->link);
        waiter->run(waiter);
    }
    value_unref(m->bytes);
    value_unref(m->whole);
    free(m);
    op_free(op);
    inode_commit_end(c, i);
}

/* The node of the handle's file; a file that was deleted elsewhere is made again. */
static bool commit_key(struct core *c, const struct inode *i, struct buf *key)
{
    if (i->node)
        node_full_key(c, i->node, false, key);
    else if (i->gone_key.n) {
        buf_append(key, c->prefix.p, c->prefix.n);
        buf_append(key, i->gone_key.p, i->gone_key.n);
    }
    return key->n > 0;
}

static void committed(struct op *op, int64_t revision)
{
    struct core *c = op->c;
    struct commit *m = op->extra;
    struct handle *h = m->h;
    struct inode *i = h->inode;
    value_unref(h->pin);
    h->pin = value_ref(m->whole);
    h->pin_revision = h->base_revision = revision;
    h->whole = false;
    h->reservation.n = 0;
    if (h->meta) {
        meta_free(h->meta);
        free(h->meta);
        h->meta = NULL;
    }
    drop_pending(c, i);
    if (!i->node) { /* deleted elsewhere, and made again by this */
        struct buf path = {0};
        codec_key_to_path(buf_bytes(&i->gone_key), &path);
        struct node *n = node_at(c, buf_bytes(&path), false);
        if (n && !n->file_inode && node_has_file(n))
            inode_attach(c, i, n);
        buf_free(&path);
    }
    commit_end(op, 0);
}

/* Nobody knows whether it took effect: the key's content tells, once we know the newest. */
static void commit_verify(struct op *op)
{
    struct core *c = op->c;
    struct commit *m = op->extra;
    struct node *n = m->h->inode->node;
    const struct kv *kv = n ? n->file : NULL;
    bool ours = op->code == ERR_OK && kv && kv->mod_revision > m->base && kv->cached.value &&
                bytes_equal(value_bytes(kv->cached.value), value_bytes(m->whole));
    if (ours)
        committed(op, kv->mod_revision);
    else
        commit_end(op, op->code == ERR_OK ? EIO : core_errno(op->code));
    (void)c;
}

static void commit_answer(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    struct commit *m = op->extra;
    if (r->code == ERR_OK && r->succeeded) {
        mirror_apply_txn(c, &op->txn, r);
        committed(op, r->revision);
    } else if (r->code == ERR_OK && m->append && op->tries++ < CORE_RETRIES_MAX) {
        value_unref(op->value);
        op->value = value_new(r->count ? r->kvs[0].value : BYTES_EMPTY);
        op->value_revision = r->count ? r->kvs[0].mod_revision : 0;
        m->loaded_newest = true;
        commit_build(op);
    } else if (r->code == ERR_OK)
        commit_end(op, ESTALE);
    else if (r->code == ERR_LEASE_NOT_FOUND && !m->no_lease) {
        m->no_lease = true;
        commit_build(op);
    } else if (r->unknown && !m->append) {
        op->run = commit_verify;
        mirror_sync(op);
    } else {
        if (r->code == ERR_NO_SPACE) {
            c->no_space = true;
            c->status_ms = core_now_ms(c);
        }
        commit_end(op, core_errno(r->code));
    }
}

/* Metadata that goes with the content. */
static void add_meta(struct op *op, struct bytes key)
{
    struct core *c = op->c;
    struct commit *m = op->extra;
    struct node *n = m->h->inode->node;
    struct bytes below = bytes_of(key.p + c->prefix.n, key.n - c->prefix.n);
    if (n && n->local && n->local->pending && !node_kv(n))
        txn_put_meta(c, &op->txn, below, &n->local->meta, n->file_meta != NULL);
    else if (m->h->meta)
        txn_put_meta(c, &op->txn, below, m->h->meta, n && n->file_meta);
}

static void commit_put(struct op *op)
{
    struct core *c = op->c;
    struct commit *m = op->extra;
    struct inode *i = m->h->inode;
    struct buf key = {0};
    if (m->whole->n > CORE_FILE_SIZE_MAX) {
        commit_end(op, EFBIG);
        return;
    }
    if (!commit_key(c, i, &key)) {
        commit_end(op, ESTALE);
        return;
    }
    const struct kv *kv = i->node ? node_kv(i->node) : NULL;
    txn_free(&op->txn);
    if (!m->unguarded) {
        bool exists = m->base != 0;
        txn_if(&op->txn, buf_bytes(&key), exists ? STORE_MOD : STORE_CREATE, STORE_EQUAL, m->base);
    }
    txn_put(&op->txn, buf_bytes(&key), m->whole, kv && !m->no_lease ? kv->lease : 0);
    txn_get(&op->txn, buf_bytes(&key), true);
    if (m->h->reservation.n)
        txn_delete(&op->txn, buf_bytes(&m->h->reservation));
    if (m->append)
        txn_else_get(&op->txn, buf_bytes(&key));
    add_meta(op, buf_bytes(&key));
    buf_free(&key);
    mirror_txn(op, commit_answer);
}

static void commit_append(struct op *op)
{
    struct commit *m = op->extra;
    struct buf joined = {0};
    if (op->code != ERR_OK && op->code != ERR_NOT_FOUND) {
        commit_end(op, core_errno(op->code));
        return;
    }
    struct bytes old = value_bytes(op->value), tail = value_bytes(m->bytes);
    m->base = op->code == ERR_OK ? op->value_revision : 0;
    buf_append(&joined, old.p, old.n);
    buf_append(&joined, tail.p, tail.n);
    value_unref(m->whole);
    m->whole = value_new(buf_bytes(&joined));
    buf_free(&joined);
    commit_put(op);
}

/* A dropping: saving it is a matter of this mount's memory. */
static void commit_local(struct op *op, struct local_file *l)
{
    struct commit *m = op->extra;
    if (m->append) {
        struct buf joined = {0};
        struct bytes old = value_bytes(l->value), tail = value_bytes(m->bytes);
        buf_append(&joined, old.p, old.n);
        buf_append(&joined, tail.p, tail.n);
        value_unref(m->whole);
        m->whole = value_new(buf_bytes(&joined));
        buf_free(&joined);
    }
    value_unref(l->value);
    l->value = value_ref(m->whole);
    l->mtime_ns = core_wall_ns(op->c);
    committed(op, 0);
}

static void commit_build(struct op *op)
{
    struct commit *m = op->extra;
    struct inode *i = m->h->inode;
    struct node *n = i->node;
    op->code = ERR_OK;
    if (!n && i->unlinked)
        commit_end(op, 0); /* nobody can ever see it */
    else if (!n && !m->append && !m->unguarded)
        commit_end(op, ESTALE);
    else if (n && n->local && !n->local->pending)
        commit_local(op, n->local);
    else if (!m->append)
        commit_put(op);
    else if (m->loaded_newest)
        commit_append(op);
    else if (n && node_kv(n)) {
        op->run = commit_append;
        mirror_value(op, n);
    } else {
        op->code = ERR_NOT_FOUND;
        commit_append(op);
    }
}

/* ---- Who waits for a commit under way ----------------------------------------------------------------- */

static void commit_again(struct op *op)
{
    struct commit *m = op->extra;
    struct core *c = op->c;
    op_free(op);
    save_commit(c, m->h, m->keep, m->then, m->ctx);
    free(m);
}

void save_commit(struct core *c, struct handle *h, bool keep, void (*then)(void *ctx, int error),
                 void *ctx)
{
    static const struct caller nobody;
    if (!h->dirty && !h->committing) {
        then(ctx, 0);
        return;
    }
    if (h->refused && !h->committing) {
        if (!keep) {
            log_failure(c, h, buf_bytes(&h->data), h->refused);
            drop_pending(c, h->inode);
            h->dirty = false;
        }
        then(ctx, h->refused);
        return;
    }
    struct op *op = op_new(c, &nobody, NULL, NULL, h->committing ? commit_again : commit_build);
    struct commit *m = xcalloc(1, sizeof *m);
    *m = (struct commit){.h = h, .keep = keep, .then = then, .ctx = ctx};
    op->extra = m;
    if (h->committing) {
        list_append(&h->waiters, &op->link);
        return;
    }
    m->bytes = value_new(buf_bytes(&h->data));
    m->append = h->append;
    m->unguarded = h->whole;
    m->base = h->base_revision;
    if (h->append)
        h->data.n = 0;
    else
        m->whole = value_ref(m->bytes);
    h->dirty = false;
    h->committing = true;
    list_remove(&h->append_link);
    inode_commit_begin(h->inode);
    commit_build(op);
}

/* ---- Release ---------------------------------------------------------------------------------------- */

struct release {
    struct core *c;
    struct handle *h;
};

static void released(void *ctx, int error)
{
    struct release *r = ctx;
    (void)error; /* its bytes are kept, and logged */
    struct inode *i = r->h->inode;
    reserve_drop(r->c, r->h);
    handle_free(r->c, r->h);
    if (i->commits == 0)
        inode_release(r->c, i);
    free(r);
}

void save_release(struct core *c, struct handle *h)
{
    struct inode *i = h->inode;
    h->released = true;
    if (h->abandoned && h->dirty) {
        if (!i->unlinked && !(i->node && i->node->local && !i->node->local->pending)) {
            struct buf path = {0};
            if (i->node)
                node_path(i->node, false, &path);
            else
                codec_key_to_path(buf_bytes(&i->gone_key), &path);
            buf_append(&path, "", 1);
            unsaved_keep(c, (const char *)path.p, buf_bytes(&h->data),
                         "its writer was killed by a signal");
            buf_free(&path);
            drop_pending(c, i);
        }
        h->dirty = false;
    }
    struct release *r = xcalloc(1, sizeof *r);
    *r = (struct release){c, h};
    save_commit(c, h, false, released, r);
}

/* ---- Logs that stay open ---------------------------------------------------------------------------- */

static void idle_committed(void *ctx, int error)
{
    (void)ctx;
    (void)error; /* kept dirty: the next idle time or the close tries again */
}

void save_tick(struct core *c)
{
    uint64_t now = core_now_ms(c);
    struct list due;
    list_init(&due);
    LIST_FOR_EACH_SAFE(it, next, &c->appending)
    {
        struct handle *h = CONTAINER_OF(it, struct handle, append_link);
        if (h->committing || now - h->written_ms < c->options.append_idle_ms)
            continue;
        list_remove(it);
        list_append(&due, it);
    }
    while (!list_empty(&due)) {
        struct handle *h = CONTAINER_OF(due.next, struct handle, append_link);
        list_remove(&h->append_link);
        h->written_ms = now;
        save_commit(c, h, true, idle_committed, NULL);
        if (h->dirty && list_empty(&h->append_link))
            list_append(&c->appending, &h->append_link);
    }
}
