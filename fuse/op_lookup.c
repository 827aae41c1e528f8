#include <errno.h>

#include "fuse/state.h"

/* ---- Lookup ----------------------------------------------------------------------------------------- */

static void lookup_run(struct op *op)
{
    struct core *c = op->c;
    int error = 0;
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    struct node *dir = dir_node(c, op->ino, &error);
    if (!dir) {
        op_fail(op, error);
        return;
    }
    struct place p;
    place_find(c, dir, op->name, &p);
    if (!p.node) {
        op_fail(op, ENOENT);
        return;
    }
    if (op_waits_for_inode(op, p.is_dir ? p.node->dir_inode : p.node->file_inode))
        return;
    reply_entry(op, place_inode(c, &p), op->ino, op->name);
}

void core_lookup(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 core_done done, void *ctx)
{
    struct inode *dir = inode_find(c, parent);
    if (who->replay) {
        replayed_lookup(c, parent, name, done, ctx);
        return;
    }
    if (!dir || strlen(name) > CODEC_NAME_MAX) {
        core_fail(done, ctx, dir ? ENAMETOOLONG : ESTALE);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, lookup_run);
    op->ino = parent;
    op->name = xstrdup(name);
    if (control_is(dir))
        control_lookup(op, dir, name);
    else if (parent == CORE_ROOT_INO && strcmp(name, CODEC_RESERVED) == 0)
        control_lookup(op, NULL, name);
    else
        mirror_sync(op);
}

/* ---- Attributes ------------------------------------------------------------------------------------- */

/* What the caller wrote and nobody has saved yet, it sees. */
static void show_unsaved(const struct inode *i, const struct handle *h, struct stat *st)
{
    if (h->dirty && h->loaded) {
        const struct kv *kv = i->node ? node_kv(i->node) : NULL;
        st->st_size = (off_t)(h->data.n + (h->append && kv ? kv->size : 0));
        st->st_blocks = (st->st_size + 511) / 512;
    }
    if (h->meta) {
        if (h->meta->has_mode)
            st->st_mode = (st->st_mode & S_IFMT) | h->meta->mode;
        st->st_uid = h->meta->has_uid ? h->meta->uid : st->st_uid;
        st->st_gid = h->meta->has_gid ? h->meta->gid : st->st_gid;
        if (h->meta->has_mtime) {
            st->st_mtim.tv_sec = (time_t)(h->meta->mtime_ns / 1000000000);
            st->st_mtim.tv_nsec = (long)(h->meta->mtime_ns % 1000000000);
        }
    }
}

void reply_attr(struct op *op, struct inode *i)
{
    struct core_reply reply = {0};
    inode_stat(op->c, i, &reply.st);
    struct handle *h = op->h ? op->h : handle_dirty_of(i, &op->who);
    if (h)
        show_unsaved(i, h, &reply.st);
    op_reply(op, &reply);
}

static void getattr_run(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    /* Gone by another's doing, and the kernel still has a name for it: let it walk the path again. Without
     * a name it is an open file that was removed: its descriptor goes on working. */
    if (!i || (!i->node && !control_is(i) && !op->h && i->view_parent != 0)) {
        op_fail(op, ESTALE);
        return;
    }
    if (!op->h && op_waits_for_inode(op, i))
        return;
    reply_attr(op, i);
}

void core_getattr(struct core *c, const struct caller *who, uint64_t ino, uint64_t fh,
                  core_done done, void *ctx)
{
    struct inode *i = inode_find(c, ino);
    if (who->replay) {
        replayed_attr(c, ino, done, ctx);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, getattr_run);
    op->ino = ino;
    op->h = fh == CORE_NO_HANDLE || fh == CORE_FH_REPLAY ? NULL : handle_of(fh);
    if (!i || control_is(i))
        getattr_run(op);
    else
        mirror_sync(op);
}

/* ---- Symbolic links --------------------------------------------------------------------------------- */

static void readlink_value(struct op *op)
{
    if (op->code != ERR_OK) {
        op_fail(op, op->code == ERR_NOT_FOUND ? ESTALE : core_errno(op->code));
        return;
    }
    op_reply(op, &(struct core_reply){.data = value_bytes(op->value)});
}

static void readlink_run(struct op *op)
{
    struct inode *i = inode_find(op->c, op->ino);
    if (op->code != ERR_OK || !i || !i->node || i->is_dir) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    if (!node_meta_file(i->node)->symlink) {
        op_fail(op, EINVAL);
        return;
    }
    op->run = readlink_value;
    mirror_value(op, i->node);
}

void core_readlink(struct core *c, const struct caller *who, uint64_t ino, core_done done,
                   void *ctx)
{
    struct op *op = op_new(c, who, done, ctx, readlink_run);
    op->ino = ino;
    mirror_sync(op);
}
