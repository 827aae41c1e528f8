#include <errno.h>
#include <fcntl.h>

#include "fuse/state.h"

/* Permission bits, owner and times as asked for; false: nothing of it is ours to remember. */
static bool change_meta(struct core *c, struct meta *m, unsigned set, const struct stat *st,
                        bool is_dir)
{
    bool changes = false;
    if ((set & CORE_SET_MODE) && !m->symlink) {
        m->mode = st->st_mode & 07777;
        m->has_mode = m->mode != (is_dir ? c->options.dir_mode : c->options.file_mode);
        changes = true;
    }
    if (set & CORE_SET_UID) {
        m->uid = st->st_uid;
        m->has_uid = m->uid != c->options.uid;
        changes = true;
    }
    if (set & CORE_SET_GID) {
        m->gid = st->st_gid;
        m->has_gid = m->gid != c->options.gid;
        changes = true;
    }
    if (set & (CORE_SET_MTIME | CORE_SET_MTIME_NOW)) {
        m->has_mtime = true;
        m->mtime_ns = set & CORE_SET_MTIME_NOW ? core_wall_ns(c)
                      : st->st_mtim.tv_sec < 0 ? 0
                                               : (uint64_t)st->st_mtim.tv_sec * 1000000000 +
                                                     (uint64_t)st->st_mtim.tv_nsec;
        changes = true;
    }
    return changes; /* times of access are not kept */
}

/* ---- Metadata of what the cluster has --------------------------------------------------------------- */

static void attr_saved(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (r->code != ERR_OK || !r->succeeded || !i) {
        op_fail(op, r->code != ERR_OK ? core_errno(r->code) : ESTALE);
        return;
    }
    mirror_apply_txn(c, &op->txn, r);
    i = inode_find(c, op->ino);
    if (i)
        reply_attr(op, i);
    else
        op_fail(op, ESTALE);
}

/* Saves the metadata in one transaction that holds if the file still exists. */
void attr_save(struct op *op, struct inode *i, const struct meta *m)
{
    struct core *c = op->c;
    struct node *n = i->node;
    struct buf key = {0};
    node_full_key(c, n, i->is_dir, &key);
    txn_free(&op->txn);
    if (!i->is_dir)
        txn_if(&op->txn, buf_bytes(&key), STORE_VERSION, STORE_GREATER, 0);
    key.n = 0;
    node_key(n, i->is_dir, &key);
    txn_put_meta(c, &op->txn, buf_bytes(&key), m, (i->is_dir ? n->dir_meta : n->file_meta) != NULL);
    buf_free(&key);
    if (op->txn.op_count == 0) {
        reply_attr(op, i);
        return;
    }
    mirror_txn(op, attr_saved);
}

/* ---- truncate(2) ------------------------------------------------------------------------------------ */

static void truncate_run(struct op *op);

static void truncate_saved(struct op *op, const struct store_txn_result *r)
{
    if (r->code == ERR_OK && !r->succeeded && op->tries++ < CORE_RETRIES_MAX) {
        op->run = truncate_run; /* somebody was faster: again with what he wrote */
        mirror_sync(op);
        return;
    }
    attr_saved(op, r);
}

static struct value *resized(struct bytes content, size_t size)
{
    struct buf b = {0};
    buf_append(&b, content.p, content.n < size ? content.n : size);
    if (b.n < size) {
        buf_reserve(&b, size - b.n);
        memset(b.p + b.n, 0, size - b.n);
        b.n = size;
    }
    struct value *v = value_new(buf_bytes(&b));
    buf_free(&b);
    return v;
}

static void truncate_value(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (op->code != ERR_OK || !i || !i->node) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    struct node *n = i->node;
    struct value *v = resized(value_bytes(op->value), op->size);
    if (!node_kv(n)) {
        value_unref(n->local->value);
        n->local->value = v;
        n->local->mtime_ns = core_wall_ns(c);
        reply_attr(op, i);
        return;
    }
    struct buf key = {0};
    node_full_key(c, n, false, &key);
    txn_free(&op->txn);
    txn_if(&op->txn, buf_bytes(&key), STORE_MOD, STORE_EQUAL, op->value_revision);
    txn_put(&op->txn, buf_bytes(&key), v, node_kv(n)->lease);
    txn_get(&op->txn, buf_bytes(&key), true);
    buf_free(&key);
    value_unref(v);
    mirror_txn(op, truncate_saved);
}

static void truncate_run(struct op *op)
{
    struct inode *i = inode_find(op->c, op->ino);
    if (op->code != ERR_OK || !i || !i->node || i->is_dir) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    if (op->size > CORE_FILE_SIZE_MAX) {
        op_fail(op, EFBIG);
        return;
    }
    if (op_waits_for_inode(op, i))
        return;
    op->run = truncate_value;
    mirror_value(op, i->node);
}

/* ---- setattr ---------------------------------------------------------------------------------------- */

static void setattr_run(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (op->code != ERR_OK || !i || !i->node) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    if (op_waits_for_inode(op, i))
        return;
    struct node *n = i->node;
    struct handle *h = i->is_dir ? NULL : handle_dirty_of(i, &op->who);
    if (!i->is_dir && n->local && !node_kv(n)) {
        change_meta(c, &n->local->meta, op->flags, &op->st, false);
        reply_attr(op, i);
        return;
    }
    if (h) { /* cp -p: content, times, close; saved together */
        if (!h->meta)
            node_meta_copy(n, false, handle_meta(h));
        change_meta(c, h->meta, op->flags, &op->st, false);
        if (op->flags & CORE_SET_MTIME_NOW)
            h->meta->has_mtime = false;
        reply_attr(op, i);
        return;
    }
    struct meta m;
    node_meta_copy(n, i->is_dir, &m);
    if (change_meta(c, &m, op->flags, &op->st, i->is_dir))
        attr_save(op, i, &m);
    else
        reply_attr(op, i);
    meta_free(&m);
}

void core_setattr(struct core *c, const struct caller *who, uint64_t ino, uint64_t fh, unsigned set,
                  const struct stat *st, core_done done, void *ctx)
{
    struct inode *i = inode_find(c, ino);
    if (who->replay) {
        replayed_attr(c, ino, done, ctx);
        return;
    }
    if (!i || control_is(i)) {
        core_fail(done, ctx, i ? EPERM : ESTALE);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, setattr_run);
    op->ino = ino;
    op->flags = set;
    op->st = *st;
    if (set & CORE_SET_SIZE) {
        op->size = st->st_size < 0 ? 0 : (size_t)st->st_size;
        if (fh != CORE_NO_HANDLE && fh != CORE_FH_REPLAY && handle_writes(handle_of(fh))) {
            op->h = handle_of(fh);
            op->run = handle_resize_run;
            handle_resize_run(op);
            return;
        }
        op->run = truncate_run;
    }
    mirror_sync(op);
}
