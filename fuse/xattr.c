#include <errno.h>
#include <sys/xattr.h>

#include "fuse/state.h"

#define OURS "user.quorumfs."

static const char *const our_names[] = {OURS "key", OURS "create_revision", OURS "mod_revision",
                                        OURS "version", OURS "lease"};

/* The value of one of ours; false if it has none. */
static bool our_value(struct core *c, const struct inode *i, const char *name, struct buf *out)
{
    const struct node *n = i->node;
    const struct kv *kv = i->is_dir ? n->marker : node_kv(n);
    const char *what = name + strlen(OURS);
    if (strcmp(what, "key") == 0) {
        if (i->is_dir || kv)
            node_full_key(c, n, i->is_dir, out);
        return i->is_dir || kv;
    }
    if (!kv)
        return false;
    if (strcmp(what, "create_revision") == 0)
        buf_printf(out, "%lld", (long long)kv->create_revision);
    else if (strcmp(what, "mod_revision") == 0)
        buf_printf(out, "%lld", (long long)kv->mod_revision);
    else if (strcmp(what, "version") == 0)
        buf_printf(out, "%lld", (long long)kv->version);
    else if (strcmp(what, "lease") == 0)
        buf_printf(out, "%llx", (unsigned long long)kv->lease);
    else
        return false;
    return true;
}

static bool is_ours(const char *name)
{
    return strncmp(name, OURS, strlen(OURS)) == 0;
}

static const struct meta *meta_of(const struct inode *i)
{
    return i->is_dir ? node_meta_dir(i->node) : node_meta_file(i->node);
}

/* ---- get, list -------------------------------------------------------------------------------------- */

static void getxattr_run(struct op *op)
{
    struct inode *i = inode_find(op->c, op->ino);
    if (op->code != ERR_OK || !i || !i->node) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    if (is_ours(op->name)) {
        if (our_value(op->c, i, op->name, &op->data))
            op_reply(op, &(struct core_reply){.data = buf_bytes(&op->data)});
        else
            op_fail(op, ENODATA);
        return;
    }
    const struct meta_xattr *x = meta_xattr_find(meta_of(i), op->name);
    if (x)
        op_reply(op, &(struct core_reply){.data = buf_bytes(&x->value)});
    else
        op_fail(op, ENODATA);
}

void core_getxattr(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                   core_done done, void *ctx)
{
    struct inode *i = inode_find(c, ino);
    /* The kernel asks for security.capability before every write: no reason to ask the cluster. */
    if (who->replay || strncmp(name, "user.", 5) != 0 || (i && control_is(i))) {
        core_fail(done, ctx, strncmp(name, "system.", 7) == 0 ? EOPNOTSUPP : ENODATA);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, getxattr_run);
    op->ino = ino;
    op->name = xstrdup(name);
    mirror_sync(op);
}

static void listxattr_run(struct op *op)
{
    struct inode *i = inode_find(op->c, op->ino);
    if (op->code != ERR_OK || !i || !i->node) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    for (size_t k = 0; k < ARRAY_LEN(our_names); k++) {
        struct buf value = {0};
        if (our_value(op->c, i, our_names[k], &value))
            buf_append(&op->data, our_names[k], strlen(our_names[k]) + 1);
        buf_free(&value);
    }
    const struct meta *m = meta_of(i);
    for (size_t k = 0; k < m->xattr_count; k++)
        buf_append(&op->data, m->xattrs[k].name, strlen(m->xattrs[k].name) + 1);
    op_reply(op, &(struct core_reply){.data = buf_bytes(&op->data)});
}

void core_listxattr(struct core *c, const struct caller *who, uint64_t ino, core_done done,
                    void *ctx)
{
    struct inode *i = inode_find(c, ino);
    if (i && control_is(i)) {
        core_fail(done, ctx, 0);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, listxattr_run);
    op->ino = ino;
    mirror_sync(op);
}

/* ---- set, remove ------------------------------------------------------------------------------------ */

static void change_run(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    bool removes = op->extra == NULL;
    if (op->code != ERR_OK || !i || !i->node) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    bool exists = meta_xattr_find(meta_of(i), op->name) != NULL;
    if (exists ? !removes && (op->flags & XATTR_CREATE) : removes || (op->flags & XATTR_REPLACE)) {
        op_fail(op, exists ? EEXIST : ENODATA);
        return;
    }
    struct meta m;
    struct bytes value = buf_bytes(&op->data);
    node_meta_copy(i->node, i->is_dir, &m);
    if (!meta_xattr_set(&m, op->name, removes ? NULL : &value))
        op_fail(op, ENOSPC);
    else if (!i->is_dir && i->node->local && !node_kv(i->node)) {
        meta_xattr_set(&i->node->local->meta, op->name, removes ? NULL : &value);
        op_ok(op);
    } else
        attr_save(op, i, &m);
    meta_free(&m);
}

static void change(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                   const struct bytes *value, int flags, core_done done, void *ctx)
{
    struct inode *i = inode_find(c, ino);
    if (strncmp(name, "user.", 5) != 0 || is_ours(name) || (i && control_is(i))) {
        core_fail(done, ctx, is_ours(name) || strncmp(name, "user.", 5) == 0 ? EPERM : EOPNOTSUPP);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, change_run);
    op->ino = ino;
    op->name = xstrdup(name);
    op->flags = (unsigned)flags;
    if (value) {
        buf_append(&op->data, value->p, value->n);
        op->extra = op;
    }
    mirror_sync(op);
}

void core_setxattr(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                   struct bytes value, int flags, core_done done, void *ctx)
{
    change(c, who, ino, name, &value, flags, done, ctx);
}

void core_removexattr(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                      core_done done, void *ctx)
{
    change(c, who, ino, name, NULL, 0, done, ctx);
}
