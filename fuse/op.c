#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "fuse/state.h"

struct op *op_new(struct core *c, const struct caller *who, core_done done, void *ctx,
                  void (*run)(struct op *op))
{
    struct op *op = xcalloc(1, sizeof *op);
    op->c = c;
    op->who = *who;
    op->done = done;
    op->ctx = ctx;
    op->run = run;
    list_init(&op->link);
    c->waiting++;
    return op;
}

void op_free(struct op *op)
{
    op->c->waiting--;
    free(op->name);
    free(op->name2);
    buf_free(&op->data);
    buf_free(&op->key);
    txn_free(&op->txn);
    value_unref(op->value);
    free(op);
}

void op_reply(struct op *op, const struct core_reply *reply)
{
    op->done(op->ctx, reply);
    op_free(op);
}

void op_fail(struct op *op, int error)
{
    op_reply(op, &(struct core_reply){.error = error});
}

void op_ok(struct op *op)
{
    op_fail(op, 0);
}

void core_fail(core_done done, void *ctx, int error)
{
    done(ctx, &(struct core_reply){.error = error});
}

int core_errno(enum errc code)
{
    switch (code) {
    case ERR_TOO_MANY_OPS: /* the caller may do it in steps, as mv does between file systems */
        return EXDEV;
    case ERR_CLOSED:
    case ERR_CANCELLED:
        return EAGAIN;
    case ERR_RESOURCE_EXHAUSTED:
        return EFBIG;
    default:
        return errc_errno(code);
    }
}

/* ---- Commits that others wait for ------------------------------------------------------------------- */

void inode_commit_begin(struct inode *i)
{
    i->commits++;
}

void inode_commit_end(struct core *c, struct inode *i)
{
    assert(i->commits > 0);
    if (--i->commits > 0)
        return;
    struct list ready;
    list_init(&ready);
    LIST_FOR_EACH_SAFE(it, next, &i->waiters)
    {
        list_remove(it);
        list_append(&ready, it);
    }
    while (!list_empty(&ready)) {
        struct op *op = CONTAINER_OF(ready.next, struct op, link);
        list_remove(&op->link);
        op->run(op);
    }
    inode_release(c, i);
}

bool op_waits_for_inode(struct op *op, struct inode *i)
{
    if (!i || i->commits == 0)
        return false;
    list_append(&i->waiters, &op->link);
    return true;
}

/* ---- Places ----------------------------------------------------------------------------------------- */

struct node *dir_node(struct core *c, uint64_t ino, int *ret_error)
{
    struct inode *i = inode_find(c, ino);
    if (!i || !i->is_dir || !i->node) {
        /* ESTALE makes the kernel walk the path again. */
        *ret_error = i && control_is(i) ? EPERM : ESTALE;
        return NULL;
    }
    return i->node;
}

void place_find(struct core *c, struct node *dir, const char *name, struct place *ret_place)
{
    struct place p = {.dir = dir};
    if (strcmp(name, CODEC_SELF) == 0) {
        p.self = true;
        if (dir->parent && node_has_file(dir))
            p.node = dir;
    } else {
        struct node *n = node_child(c, dir, bytes_str(name));
        if (n && n->state != NODE_NONE) {
            p.node = n;
            p.is_dir = n->state == NODE_DIR;
        }
    }
    *ret_place = p;
}

int place_name_error(struct core *c, struct node *dir, const char *name, bool is_dir)
{
    struct buf component = {0};
    enum codec_kind kind = codec_decode(bytes_str(name), &component);
    bool reserved = bytes_equal(buf_bytes(&component), bytes_str(CODEC_RESERVED));
    buf_free(&component);
    if (strlen(name) > CODEC_NAME_MAX)
        return ENAMETOOLONG;
    if (reserved || node_is_part(dir))
        return EPERM;
    if (kind == CODEC_SELF_KEY)
        return is_dir || dir == c->root ? EINVAL : 0;
    if (kind != CODEC_PLAIN)
        return EINVAL;
    /* The key of the file `%` is the mark of its directory. */
    return !is_dir && strcmp(name, CODEC_EMPTY) == 0 ? EINVAL : 0;
}

struct inode *place_inode(struct core *c, const struct place *p)
{
    return inode_of(c, p->node, p->is_dir);
}

struct node *place_make(struct core *c, const struct place *p, const char *name)
{
    return p->self ? p->dir : node_child_make(c, p->dir, bytes_str(name));
}

void reply_entry(struct op *op, struct inode *i, uint64_t parent, const char *name)
{
    struct core_reply reply = {0};
    i->lookups++;
    inode_view_set(op->c, i, parent, name);
    inode_stat(op->c, i, &reply.st);
    op_reply(op, &reply);
}

/* ---- Pieces of transactions ------------------------------------------------------------------------- */

void meta_for_new(struct core *c, const struct caller *who, uint32_t mode, bool is_dir,
                  struct meta *ret_meta)
{
    struct meta m = {0};
    mode &= 07777;
    m.has_mode = mode != (is_dir ? c->options.dir_mode : c->options.file_mode);
    m.mode = mode;
    m.has_uid = who->uid != c->options.uid;
    m.uid = who->uid;
    m.has_gid = who->gid != c->options.gid;
    m.gid = who->gid;
    *ret_meta = m;
}

void txn_keep_parent(struct core *c, struct txn *t, struct node *leaving)
{
    struct node *dir = leaving->parent;
    if (!dir || dir->visible_count > 1)
        return;
    while (node_is_part(dir))
        dir = dir->parent;
    if (!dir->parent || dir->marker)
        return;
    struct buf key = {0};
    node_full_key(c, dir, true, &key);
    if (!txn_puts(t, buf_bytes(&key)))
        txn_put(t, buf_bytes(&key), NULL, 0);
    buf_free(&key);
}

void txn_put_meta(struct core *c, struct txn *t, struct bytes key, const struct meta *m,
                  bool was_there)
{
    struct buf full = {0}, text = {0};
    buf_append(&full, c->prefix.p, c->prefix.n);
    meta_key(key, &full);
    if (!meta_is_default(m)) {
        meta_print(m, &text);
        struct value *v = value_new(buf_bytes(&text));
        txn_put(t, buf_bytes(&full), v, 0);
        value_unref(v);
    } else if (was_there)
        txn_delete(t, buf_bytes(&full));
    buf_free(&full);
    buf_free(&text);
}
