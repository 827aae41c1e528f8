#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>

#include "fuse/state.h"

/* ---- Before the first write: could this be saved? ----------------------------------------------------- */

/* Many writers close all the same: what they wrote so far is not published then (save_commit). */
static void refuse(struct op *op, int error)
{
    if (!op->h->append) /* what was appended before is whole in itself */
        op->h->refused = error;
    op_fail(op, error);
}

static void check_part(struct op *op)
{
    if (--op->pending > 0)
        return;
    if (op->code != ERR_OK)
        refuse(op, op->code == ERR_PERMISSION_DENIED ? EACCES : EROFS);
    else if (op->c->no_space)
        refuse(op, ENOSPC);
    else {
        op->h->checked = true;
        op->h->refused = 0; /* nothing was written before, so nothing is missing */
        op->run(op);
    }
}

static void check_sync(void *ctx, enum errc code, int64_t revision)
{
    (void)revision;
    struct op *op = ctx;
    op->code = code;
    if (code == ERR_OK && op->began_ms > op->c->synced_ms)
        op->c->synced_ms = op->began_ms;
    check_part(op);
}

static void check_status(void *ctx, const struct store_status *s)
{
    struct op *op = ctx;
    struct core *c = op->c;
    if (s->code == ERR_OK) {
        c->no_space = s->no_space;
        c->db_size = s->db_size;
        c->db_quota = s->db_quota;
        c->status_ms = core_now_ms(c);
    }
    check_part(op);
}

/* Shells ignore what close says: what can't be saved has to fail at the first write. Goes on with op->run. */
static void check_first(struct op *op)
{
    struct core *c = op->c;
    uint64_t now = core_now_ms(c);
    bool synced = c->synced_ms && now - c->synced_ms < CORE_FRESH_MS;
    bool known = c->status_ms && now - c->status_ms < CORE_STATUS_FRESH_MS;
    op->code = ERR_OK;
    op->pending = 1 + (synced ? 0 : 1) + (known ? 0 : 1);
    op->began_ms = now;
    if (!synced)
        c->backend->sync(c->backend, c->options.timeout_ms, check_sync, op);
    if (!known)
        c->backend->status(c->backend, c->options.timeout_ms, check_status, op);
    check_part(op);
}

/* ---- The buffer of a handle ------------------------------------------------------------------------- */

static void resize(struct buf *b, size_t n)
{
    if (n > b->n) {
        buf_reserve(b, n - b->n);
        memset(b->p + b->n, 0, n - b->n);
    }
    b->n = n;
}

static void base_loaded(struct op *op);

/* Has the handle hold the content that it is about to change. True: op->run will be called again. */
static bool loads_base(struct op *op)
{
    struct handle *h = op->h;
    struct node *n = h->inode->node;
    if (h->loaded)
        return false;
    if (h->append) { /* holds only what is appended */
        h->loaded = true;
        h->data.n = 0;
        return false;
    }
    if (n && !(h->pin && h->was_read)) {
        op->extra = (void *)op->run;
        op->run = base_loaded;
        mirror_value(op, n);
        return true;
    }
    struct bytes content = value_bytes(h->pin);
    buf_append(&h->data, content.p, content.n);
    h->base_revision = h->pin_revision;
    h->loaded = true;
    return false;
}

static void base_loaded(struct op *op)
{
    struct handle *h = op->h;
    op->run = (void (*)(struct op *))op->extra;
    if (op->code != ERR_OK) {
        op_fail(op, op->code == ERR_NOT_FOUND ? ESTALE : core_errno(op->code));
        return;
    }
    if (!h->loaded) {
        struct bytes content = value_bytes(op->value);
        buf_append(&h->data, content.p, content.n);
        h->base_revision = op->value_revision;
        h->loaded = true;
    }
    op->run(op);
}

static void touched(struct op *op)
{
    struct handle *h = op->h;
    h->dirty = true;
    h->writer = op->who.pid ? op->who.pid : h->writer;
    h->written_ms = core_now_ms(op->c);
    if (h->append && list_empty(&h->append_link))
        list_append(&op->c->appending, &h->append_link);
}

/* ---- Write ------------------------------------------------------------------------------------------ */

static void write_run(struct op *op)
{
    struct handle *h = op->h;
    if (!h->checked) {
        check_first(op);
        return;
    }
    if (loads_base(op))
        return;
    /* The offset of an appending write is the kernel's idea of the size: not ours to trust. */
    bool at_end = (h->flags & O_APPEND) != 0;
    const struct kv *kv = h->append && h->inode->node ? node_kv(h->inode->node) : NULL;
    uint64_t end = at_end ? h->data.n + (kv ? kv->size : 0) : op->offset;
    if (end > CORE_FILE_SIZE_MAX || op->data.n > CORE_FILE_SIZE_MAX - end) {
        refuse(op, EFBIG);
        return;
    }
    if (at_end)
        buf_append(&h->data, op->data.p, op->data.n);
    else {
        size_t needed = op->offset + op->data.n;
        if (needed > h->data.n)
            resize(&h->data, needed);
        if (op->data.n)
            memcpy(h->data.p + op->offset, op->data.p, op->data.n);
    }
    touched(op);
    op_reply(op, &(struct core_reply){.count = op->data.n});
}

void core_write(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset,
                struct bytes data, core_done done, void *ctx)
{
    if (fh == CORE_FH_REPLAY) {
        done(ctx, &(struct core_reply){.count = data.n});
        return;
    }
    struct handle *h = handle_of(fh);
    if (!handle_writes(h)) {
        core_fail(done, ctx, EBADF);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, write_run);
    op->h = h;
    op->offset = offset;
    buf_append(&op->data, data.p, data.n);
    write_run(op);
}

/* ---- Sizes ------------------------------------------------------------------------------------------ */

static void fallocate_run(struct op *op)
{
    struct handle *h = op->h;
    if (!h->checked) {
        check_first(op);
        return;
    }
    if (loads_base(op))
        return;
    if (op->offset > h->data.n && !(op->flags & FALLOC_FL_KEEP_SIZE)) {
        resize(&h->data, op->offset);
        touched(op);
    }
    op_ok(op);
}

void core_fallocate(struct core *c, const struct caller *who, uint64_t fh, int mode,
                    uint64_t offset, uint64_t length, core_done done, void *ctx)
{
    struct handle *h = handle_of(fh);
    if ((mode & ~FALLOC_FL_KEEP_SIZE) || fh == CORE_FH_REPLAY || h->append) {
        core_fail(done, ctx, EOPNOTSUPP);
        return;
    }
    if (offset > CORE_FILE_SIZE_MAX || length > CORE_FILE_SIZE_MAX - offset) {
        core_fail(done, ctx, EFBIG);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, fallocate_run);
    op->h = h;
    op->flags = (unsigned)mode;
    op->offset = offset + length;
    fallocate_run(op);
}

/* ftruncate(2): op->size is the new size. Emptying through a handle is O_TRUNC. */
void handle_resize_run(struct op *op)
{
    struct handle *h = op->h;
    if (op->size > CORE_FILE_SIZE_MAX) {
        op_fail(op, EFBIG);
        return;
    }
    if (!h->checked) {
        check_first(op);
        return;
    }
    if (op->size == 0) {
        handle_truncate_all(h);
    } else {
        if (loads_base(op))
            return;
        if (h->append) {
            op_fail(op, EOPNOTSUPP);
            return;
        }
        resize(&h->data, op->size);
    }
    touched(op);
    reply_attr(op, h->inode);
}
