#include <errno.h>

#include "fuse/state.h"

/* What unlink and rmdir begin with: the place, or NULL with the answer given or to come. */
static struct node *old_place(struct op *op, struct place *p, bool want_dir)
{
    struct core *c = op->c;
    int error = 0;
    struct node *dir = dir_node(c, op->ino, &error);
    if (dir) {
        place_find(c, dir, op->name, p);
        if (!p->node)
            error = ENOENT;
        else if (p->is_dir != want_dir)
            error = want_dir ? ENOTDIR : EISDIR;
    }
    if (error) {
        op_fail(op, error);
        return NULL;
    }
    if (op_waits_for_inode(op, want_dir ? p->node->dir_inode : p->node->file_inode))
        return NULL;
    return p->node;
}

/* The name is gone by our doing: what is unsaved of it is dropped, and its descriptors go on working. */
void forget_name(struct core *c, struct inode *i)
{
    if (!i)
        return;
    inode_view_clear(c, i);
    inode_detach(c, i, true);
}

static void removed(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    bool is_dir = op->mode != 0;
    int error = 0;
    struct place p = {0};
    if (r->code != ERR_OK || !r->succeeded) {
        op_fail(op, r->code != ERR_OK ? core_errno(r->code) : is_dir ? ENOTEMPTY : ENOENT);
        return;
    }
    struct node *dir = dir_node(c, op->ino, &error);
    if (dir)
        place_find(c, dir, op->name, &p);
    if (p.node && p.is_dir == is_dir)
        forget_name(c, is_dir ? p.node->dir_inode : p.node->file_inode);
    mirror_apply_txn(c, &op->txn, r);
    op_ok(op);
}

/* ---- unlink ----------------------------------------------------------------------------------------- */

void txn_delete_meta(struct core *c, struct txn *t, struct bytes key)
{
    struct buf full = {0};
    buf_append(&full, c->prefix.p, c->prefix.n);
    meta_key(key, &full);
    txn_delete(t, buf_bytes(&full));
    buf_free(&full);
}

static void unlink_run(struct op *op)
{
    struct core *c = op->c;
    struct place p;
    struct node *n = old_place(op, &p, false);
    if (!n)
        return;
    if (n->local) {
        reserve_drop_all(c, n->file_inode);
        if (!n->file || !n->local->pending) {
            forget_name(c, n->file_inode);
            local_file_free(n->local);
            n->local = NULL;
            node_settle(c, n);
            op_ok(op);
            return;
        }
        local_file_free(n->local);
        n->local = NULL;
    }
    struct buf key = {0};
    node_full_key(c, n, false, &key);
    txn_if(&op->txn, buf_bytes(&key), STORE_VERSION, STORE_GREATER, 0);
    txn_delete(&op->txn, buf_bytes(&key));
    if (n->file_meta)
        txn_delete_meta(c, &op->txn, bytes_of(key.p + c->prefix.n, key.n - c->prefix.n));
    buf_free(&key);
    if (!p.self)
        txn_keep_parent(c, &op->txn, n);
    mirror_txn(op, removed);
}

void core_unlink(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 core_done done, void *ctx)
{
    struct inode *dir = inode_find(c, parent);
    if (who->replay) {
        replayed_gone(c, parent, name, done, ctx);
        return;
    }
    if (dir && control_is(dir)) {
        core_fail(done, ctx, control_unlink(c, dir, name));
        return;
    }
    struct op *op = op_new(c, who, done, ctx, unlink_run);
    op->ino = parent;
    op->name = xstrdup(name);
    unlink_run(op);
}

/* ---- rmdir ------------------------------------------------------------------------------------------ */

/* Nothing below the directory but its mark and its own metadata. */
void txn_if_empty_dir(struct txn *t, struct bytes dir_key)
{
    struct buf first = {0}, reserved = {0}, after = {0}, end = {0};
    buf_append(&first, dir_key.p, dir_key.n);
    buf_append(&first, "", 1);
    buf_append(&reserved, dir_key.p, dir_key.n);
    buf_append(&reserved, CODEC_RESERVED "/", strlen(CODEC_RESERVED) + 1);
    range_end_of(buf_bytes(&reserved), &after);
    range_end_of(dir_key, &end);
    txn_if_range(t, buf_bytes(&first), buf_bytes(&reserved), STORE_CREATE, STORE_EQUAL, 0);
    txn_if_range(t, buf_bytes(&after), buf_bytes(&end), STORE_CREATE, STORE_EQUAL, 0);
    buf_free(&first);
    buf_free(&reserved);
    buf_free(&after);
    buf_free(&end);
}

static void rmdir_run(struct op *op)
{
    struct core *c = op->c;
    struct place p;
    struct node *n = old_place(op, &p, true);
    if (!n)
        return;
    if (n->visible_count || node_has_file(n) || node_is_part(n)) {
        op_fail(op, ENOTEMPTY);
        return;
    }
    struct buf key = {0}, end = {0};
    node_full_key(c, n, true, &key);
    range_end_of(buf_bytes(&key), &end);
    txn_if_empty_dir(&op->txn, buf_bytes(&key));
    txn_delete_range(&op->txn, buf_bytes(&key), buf_bytes(&end));
    buf_free(&key);
    buf_free(&end);
    txn_keep_parent(c, &op->txn, n);
    op->mode = S_IFDIR;
    mirror_txn(op, removed);
}

void core_rmdir(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                core_done done, void *ctx)
{
    if (who->replay) {
        replayed_gone(c, parent, name, done, ctx);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, rmdir_run);
    op->ino = parent;
    op->name = xstrdup(name);
    rmdir_run(op);
}
