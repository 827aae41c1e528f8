#include <errno.h>
#include <fcntl.h>

#include "fuse/state.h"

/* What create, mknod, mkdir and symlink have in common: a key that must not exist yet. */

static void reply_created(struct op *op, struct node *n, bool is_dir, struct handle *h)
{
    struct core *c = op->c;
    struct core_reply reply = {.fh = (uintptr_t)h};
    struct inode *i = inode_of(c, n, is_dir);
    i->lookups++;
    inode_view_set(c, i, op->ino, op->name);
    inode_stat(c, i, &reply.st);
    if ((reply.st.st_mode ^ op->mode) &
        S_IFMT) { /* replaced already: the kernel takes it for an error */
        i->lookups--;
        if (h)
            handle_free(c, h);
        inode_release(c, i);
        op_fail(op, ESTALE);
        return;
    }
    op_reply(op, &reply);
}

/* False: the answer is given. */
static bool new_place(struct op *op, struct place *p, bool is_dir)
{
    int error = 0;
    struct node *dir = dir_node(op->c, op->ino, &error);
    if (dir)
        error = place_name_error(op->c, dir, op->name, is_dir);
    if (dir && !error) {
        place_find(op->c, dir, op->name, p);
        if (p->node)
            error = EEXIST;
    }
    if (error) {
        op_fail(op, error);
        return false;
    }
    return true;
}

bool create_place(struct op *op, struct place *p)
{
    return new_place(op, p, S_ISDIR(op->mode));
}

/* No key of this name, neither as a file nor as a directory. */
void txn_if_free(struct txn *t, struct bytes file_key, struct bytes dir_key)
{
    struct buf end = {0};
    range_end_of(dir_key, &end);
    txn_if(t, file_key, STORE_CREATE, STORE_EQUAL, 0);
    txn_if_range(t, dir_key, buf_bytes(&end), STORE_CREATE, STORE_EQUAL, 0);
    buf_free(&end);
}

void create_keys(struct core *c, const struct place *p, const char *name, struct buf *ret_file,
                 struct buf *ret_dir)
{
    node_full_key(c, p->dir, true, ret_file);
    if (p->self)
        ret_file->n--; /* the directory's key without its '/' */
    else
        codec_decode(bytes_str(name), ret_file);
    buf_append(ret_dir, ret_file->p, ret_file->n);
    buf_append(ret_dir, "/", 1);
}

static void created(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    bool is_dir = S_ISDIR(op->mode);
    int error = 0;
    if (r->code != ERR_OK || !r->succeeded) {
        op_fail(op, r->code != ERR_OK ? core_errno(r->code) : EEXIST);
        return;
    }
    struct node *dir = dir_node(c, op->ino, &error);
    mirror_apply_txn(c, &op->txn, r);
    struct place p = {0};
    if (dir && (dir = dir_node(c, op->ino, &error)))
        place_find(c, dir, op->name, &p);
    if (!p.node || p.is_dir != is_dir) { /* made, and gone again already */
        op_fail(op, ESTALE);
        return;
    }
    reply_created(op, p.node, is_dir, NULL);
}

/* The cluster decides who makes it. op->mode has type and permissions, op->value the content. */
static void create_in_cluster(struct op *op, const struct place *p, const struct meta *m)
{
    struct core *c = op->c;
    bool is_dir = S_ISDIR(op->mode);
    struct buf file = {0}, dir = {0};
    create_keys(c, p, op->name, &file, &dir);
    struct bytes key = buf_bytes(is_dir ? &dir : &file);
    if (p->self)
        txn_if(&op->txn, key, STORE_CREATE, STORE_EQUAL, 0);
    else
        txn_if_free(&op->txn, buf_bytes(&file), buf_bytes(&dir));
    txn_put(&op->txn, key, op->value, 0);
    if (!is_dir)
        txn_get(&op->txn, key, true);
    struct bytes below = bytes_of(key.p + c->prefix.n, key.n - c->prefix.n);
    txn_put_meta(c, &op->txn, below, m, false);
    buf_free(&file);
    buf_free(&dir);
    mirror_txn(op, created);
}

/* ---- create ----------------------------------------------------------------------------------------- */

static void open_existing(struct op *op, const struct place *p)
{
    struct core *c = op->c;
    struct inode *i = p->is_dir ? NULL : place_inode(c, p);
    if (p->is_dir || (op->flags & O_EXCL)) {
        op_fail(op, op->flags & O_EXCL ? EEXIST : EISDIR);
        return;
    }
    if (op_waits_for_inode(op, i))
        return;
    if (node_meta_file(p->node)->symlink) { /* the kernel looks again, and follows it */
        op_fail(op, ESTALE);
        return;
    }
    struct handle *h = handle_new(c, i, (int)op->flags, &op->who);
    if (op->flags & O_TRUNC)
        handle_truncate_all(h);
    h->checked = p->node->local && !p->node->local->pending;
    reply_created(op, p->node, false, h);
}

/* A file that only this mount has, until its handle is closed or, a dropping, as long as it lives. */
static struct handle *create_local(struct op *op, const struct place *p, bool pending)
{
    struct core *c = op->c;
    struct node *n = place_make(c, p, op->name);
    struct local_file *l = local_make(c, n, pending);
    meta_for_new(c, &op->who, op->mode, false, &l->meta);
    struct handle *h = handle_new(c, inode_of(c, n, false), (int)op->flags, &op->who);
    node_settle(c, n);
    handle_truncate_all(h);
    if (pending && (op->flags & (O_APPEND | O_TRUNC)) == O_APPEND) {
        /* Others may make the file as well before this is saved: then it is theirs, and ours added. */
        h->append = true;
        h->whole = false;
    }
    h->checked = !pending;
    return h;
}

/* The name is ours: nobody else can make it until we save. */
void create_reserved(struct op *op)
{
    struct core *c = op->c;
    struct place p;
    if (!create_place(op, &p))
        return;
    struct handle *h = create_local(op, &p, true);
    buf_append(&h->reservation, op->key.p, op->key.n);
    h->whole = false; /* guarded: there must still be no such key */
    h->base_revision = 0;
    place_find(c, p.dir, op->name, &p);
    reply_created(op, p.node, false, h);
}

static void create_run(struct op *op)
{
    struct core *c = op->c;
    struct place p;
    int error = 0;
    struct node *dir = dir_node(c, op->ino, &error);
    if (dir)
        place_find(c, dir, op->name, &p);
    if (dir && p.node) {
        open_existing(op, &p);
        return;
    }
    if (!create_place(op, &p))
        return;
    struct node *hidden = node_child(c, p.dir, bytes_str(op->name));
    bool masked = hidden && hidden->masked, local = local_name(c, op->name);
    if ((op->flags & O_EXCL) && !local && !masked) {
        reserve_name(op);
        return;
    }
    struct handle *h = create_local(op, &p, !local);
    reply_created(op, h->inode->node, false, h);
}

void core_create(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 uint32_t mode, int flags, core_done done, void *ctx)
{
    if (who->replay) {
        replayed_create(c, parent, name, false, true, done, ctx);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, create_run);
    op->ino = parent;
    op->name = xstrdup(name);
    op->mode = S_IFREG | (mode & 07777);
    op->flags = (unsigned)flags;
    create_run(op);
}

/* ---- mknod, mkdir, symlink -------------------------------------------------------------------------- */

static void make_run(struct op *op)
{
    struct core *c = op->c;
    bool is_dir = S_ISDIR(op->mode);
    struct place p;
    struct meta m;
    if (!new_place(op, &p, is_dir))
        return;
    meta_for_new(c, &op->who, op->mode, is_dir, &m);
    if (S_ISLNK(op->mode)) {
        m.symlink = true;
        m.has_mode = false;
    }
    if (is_dir || !local_name(c, op->name)) {
        create_in_cluster(op, &p, &m);
        return;
    }
    struct node *n = place_make(c, &p, op->name);
    struct local_file *l = local_make(c, n, false);
    meta_copy(&m, &l->meta);
    l->value = op->value ? value_ref(op->value) : NULL;
    inode_of(c, n, false);
    node_settle(c, n);
    reply_created(op, n, false, NULL);
}

static void make(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 uint32_t mode, const char *target, core_done done, void *ctx)
{
    struct op *op = op_new(c, who, done, ctx, make_run);
    op->ino = parent;
    op->name = xstrdup(name);
    op->mode = mode;
    op->value = target ? value_new(bytes_str(target)) : NULL;
    make_run(op);
}

void core_mknod(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                uint32_t mode, core_done done, void *ctx)
{
    if (who->replay)
        replayed_create(c, parent, name, false, false, done, ctx);
    else if (!S_ISREG(mode))
        core_fail(done, ctx, EPERM);
    else
        make(c, who, parent, name, mode, NULL, done, ctx);
}

void core_mkdir(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                uint32_t mode, core_done done, void *ctx)
{
    if (who->replay)
        replayed_create(c, parent, name, true, false, done, ctx);
    else
        make(c, who, parent, name, S_IFDIR | (mode & 07777), NULL, done, ctx);
}

void core_symlink(struct core *c, const struct caller *who, const char *target, uint64_t parent,
                  const char *name, core_done done, void *ctx)
{
    if (who->replay)
        replayed_create(c, parent, name, false, false, done, ctx);
    else
        make(c, who, parent, name, S_IFLNK | 0777, target, done, ctx);
}
