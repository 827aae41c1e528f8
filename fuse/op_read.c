#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "fuse/state.h"

/* ---- Open ------------------------------------------------------------------------------------------- */

void handle_truncate_all(struct handle *h)
{
    h->refused = 0;
    h->append = false;
    h->loaded = h->dirty = true;
    h->whole = h->reservation.n == 0; /* a name that was reserved is not taken from others */
    h->data.n = 0;
}

static void reply_open(struct op *op, struct handle *h)
{
    op_reply(op, &(struct core_reply){.fh = (uintptr_t)h, .noflush = !handle_writes(h)});
}

static void open_value(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (op->code != ERR_OK || !i) {
        bool gone = op->code == ERR_OK || op->code == ERR_NOT_FOUND;
        op_fail(op, gone ? ESTALE : core_errno(op->code));
        return;
    }
    struct handle *h = handle_new(c, i, (int)op->flags, &op->who);
    h->pin = value_ref(op->value);
    h->pin_revision = op->value_revision;
    reply_open(op, h);
}

static void open_run(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (op->code != ERR_OK || !i || !i->node || i->is_dir) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    if (op_waits_for_inode(op, i))
        return;
    bool reads = (op->flags & O_ACCMODE) != O_WRONLY;
    if (reads && !(op->flags & O_TRUNC)) {
        /* Pinned at once: the file may be deleted before its first read. */
        op->run = open_value;
        mirror_value(op, i->node);
        return;
    }
    struct handle *h = handle_new(c, i, (int)op->flags, &op->who);
    if (op->flags & O_TRUNC)
        handle_truncate_all(h);
    if (i->node->local && !i->node->local->pending)
        h->checked = true;
    reply_open(op, h);
}

void core_open(struct core *c, const struct caller *who, uint64_t ino, int flags, core_done done,
               void *ctx)
{
    struct inode *i = inode_find(c, ino);
    if (who->replay) {
        done(ctx, &(struct core_reply){.fh = CORE_FH_REPLAY});
        return;
    }
    struct op *op = op_new(c, who, done, ctx, open_run);
    op->ino = ino;
    op->flags = (unsigned)flags;
    if (i && control_is(i))
        control_open(op, i);
    else
        mirror_sync(op);
}

/* ---- Read ------------------------------------------------------------------------------------------- */

static void reply_slice(struct op *op, struct bytes content)
{
    struct core_reply reply = {0};
    if (op->offset < content.n) {
        size_t left = content.n - op->offset;
        reply.data = bytes_of(content.p + op->offset, op->size < left ? op->size : left);
    }
    op_reply(op, &reply);
}

static void pin(struct op *op)
{
    struct handle *h = op->h;
    value_unref(h->pin);
    h->pin = value_ref(op->value);
    h->pin_revision = op->value_revision;
}

/* The newest version at hand: a read from the start goes on with it. */
static void read_newest(struct op *op)
{
    if (op->code != ERR_OK && !(op->code == ERR_NOT_FOUND && op->h->pin)) {
        op_fail(op, core_errno(op->code));
        return;
    }
    if (op->code == ERR_OK)
        pin(op);
    reply_slice(op, value_bytes(op->h->pin));
}

static void read_from_start(struct op *op)
{
    struct handle *h = op->h;
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    if (!h->inode->node) {
        reply_slice(op, value_bytes(h->pin));
        return;
    }
    if (!h->was_read && op_waits_for_inode(op, h->inode))
        return;
    h->was_read = true;
    op->run = read_newest;
    mirror_value(op, h->inode->node);
}

/* At the end of the pinned version: the newest one goes on if it begins with it (tail -f). */
static void read_more(struct op *op)
{
    struct bytes old = value_bytes(op->h->pin), new = value_bytes(op->value);
    if (op->code == ERR_OK && new.n > old.n && bytes_starts_with(new, old))
        pin(op);
    reply_slice(op, value_bytes(op->h->pin));
}

/* A handle that appends reads what the key holds and then what it has not saved. */
static void read_appending(struct op *op)
{
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    struct bytes content = value_bytes(op->value);
    op->data.n = 0;
    buf_append(&op->data, content.p, content.n);
    buf_append(&op->data, op->h->data.p, op->h->data.n);
    reply_slice(op, buf_bytes(&op->data));
}

void core_read(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset, size_t size,
               core_done done, void *ctx)
{
    if (fh == CORE_FH_REPLAY) {
        core_fail(done, ctx, 0);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, read_from_start);
    struct handle *h = op->h = handle_of(fh);
    op->offset = offset;
    op->size = size;
    struct node *n = h->inode->node;
    struct kv *kv = n ? node_kv(n) : NULL;
    if (control_is(h->inode) || h->inode->control_name)
        reply_slice(op, value_bytes(h->pin));
    else if (h->loaded && h->append && n) {
        op->run = read_appending;
        mirror_value(op, n);
    } else if (h->loaded)
        reply_slice(op, buf_bytes(&h->data));
    else if (offset == 0)
        mirror_sync(op);
    else if (offset < value_bytes(h->pin).n || !n || (kv && kv->mod_revision == h->pin_revision))
        reply_slice(op, value_bytes(h->pin));
    else {
        op->run = read_more;
        mirror_value(op, n);
    }
}

/* ---- Seek ------------------------------------------------------------------------------------------- */

void core_lseek(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset, int whence,
                core_done done, void *ctx)
{
    (void)who;
    struct handle *h = handle_of(fh);
    struct stat st = {0};
    if (fh == CORE_FH_REPLAY) {
        core_fail(done, ctx, EINVAL);
        return;
    }
    inode_stat(c, h->inode, &st);
    uint64_t size = h->loaded && !h->append ? h->data.n : (uint64_t)st.st_size;
    if (offset >= size)
        core_fail(done, ctx, ENXIO);
    else if (whence == SEEK_DATA)
        done(ctx, &(struct core_reply){.count = offset});
    else if (whence == SEEK_HOLE)
        done(ctx, &(struct core_reply){.count = size});
    else
        core_fail(done, ctx, EINVAL);
}
