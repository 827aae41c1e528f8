#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "fuse/state.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

/* Both ends of a rename, found anew at each step: while a transaction is under way anything may go. */
struct ends {
    struct place from, to;
};

/* False: the answer is given, or to come. */
static bool find_ends(struct op *op, struct ends *e)
{
    struct core *c = op->c;
    int error = 0;
    struct node *from = dir_node(c, op->ino, &error), *to = dir_node(c, op->ino2, &error);
    if (from && to) {
        place_find(c, from, op->name, &e->from);
        place_find(c, to, op->name2, &e->to);
        if (!e->from.node)
            error = ENOENT;
        else if (!e->to.node && (op->flags & RENAME_EXCHANGE))
            error = ENOENT;
        else if (e->to.node && (op->flags & RENAME_NOREPLACE))
            error = EEXIST;
        else if (!e->to.node)
            error = place_name_error(c, to, op->name2, e->from.is_dir);
        else if (op->flags & RENAME_EXCHANGE)
            error = 0;
        else if (e->to.is_dir != e->from.is_dir)
            error = e->to.is_dir ? EISDIR : ENOTDIR;
        else if (e->to.is_dir && e->to.node != e->from.node && e->to.node->visible_count)
            error = ENOTEMPTY;
    }
    if (error) {
        op_fail(op, error);
        return false;
    }
    struct node *n[2] = {e->from.node, e->to.node};
    for (int k = 0; k < 2; k++)
        if (n[k] &&
            (op_waits_for_inode(op, n[k]->file_inode) || op_waits_for_inode(op, n[k]->dir_inode)))
            return false;
    return true;
}

/* The inode goes with the name; what stood at the new name is gone. */
static void move_inode(struct core *c, struct inode *i, struct node *to, uint64_t parent,
                       const char *name)
{
    struct inode *there = to->file_inode;
    if (there && there != i)
        forget_name(c, there);
    if (!i)
        return;
    inode_attach(c, i, to);
    inode_view_set(c, i, parent, name);
}

static bool answered(struct op *op, const struct store_txn_result *r, void (*again)(struct op *op))
{
    if (r->code == ERR_OK && r->succeeded)
        return false;
    if (r->code == ERR_OK && op->tries++ < CORE_RETRIES_MAX) {
        op->run = again; /* something changed meanwhile: again with what is there now */
        mirror_sync(op);
    } else
        op_fail(op, r->code != ERR_OK ? core_errno(r->code) : EAGAIN);
    return true;
}

static void rename_run(struct op *op);

static void rename_start(struct op *op)
{
    if (op->code != ERR_OK)
        op_fail(op, core_errno(op->code));
    else
        rename_run(op);
}

/* ---- Files ------------------------------------------------------------------------------------------ */

static void file_renamed(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    struct ends e;
    int error = 0;
    if (answered(op, r, rename_start))
        return;
    struct node *from = dir_node(c, op->ino, &error), *to = dir_node(c, op->ino2, &error);
    if (!from || !to) { /* a directory on the way went meanwhile; the keys are moved all the same */
        mirror_apply_txn(c, &op->txn, r);
        op_ok(op);
        return;
    }
    place_find(c, from, op->name, &e.from);
    place_find(c, to, op->name2, &e.to);
    struct node *source = e.from.node;
    struct node *target = e.to.node ? e.to.node : place_make(c, &e.to, op->name2);
    struct inode *moving = source ? source->file_inode : NULL;
    if ((op->flags & RENAME_EXCHANGE) && source) {
        struct inode *other = target->file_inode;
        source->file_inode = target->file_inode = NULL; /* taken off both, then put on crosswise */
        if (moving)
            moving->node = NULL;
        if (other)
            other->node = NULL;
        if (other)
            move_inode(c, other, source, op->ino, op->name);
        if (moving)
            move_inode(c, moving, target, op->ino2, op->name2);
    } else
        move_inode(c, moving, target, op->ino2, op->name2);
    /* A dropping or an unsaved file under the new name has been replaced; one under the old name moved. */
    if (target->local) {
        local_file_free(target->local);
        target->local = NULL;
    }
    if (source && source->local && !(op->flags & RENAME_EXCHANGE)) {
        local_file_free(source->local);
        source->local = NULL;
    }
    mirror_apply_txn(c, &op->txn, r);
    struct node *n = node_child(c, from, bytes_str(op->name));
    if (n)
        node_settle(c, n);
    op_ok(op);
}

static void put_moved(struct op *op, struct node *n, const struct place *to, const char *name,
                      struct value *v, struct buf *ret_key)
{
    struct core *c = op->c;
    struct meta m;
    ret_key->n = 0;
    node_full_key(c, to->dir, true, ret_key);
    if (to->self)
        ret_key->n--;
    else
        codec_decode(bytes_str(name), ret_key);
    const struct kv *kv = node_kv(n);
    txn_put(&op->txn, buf_bytes(ret_key), v, kv ? kv->lease : 0);
    node_meta_copy(n, false, &m);
    struct bytes below = bytes_of(ret_key->p + c->prefix.n, ret_key->n - c->prefix.n);
    txn_put_meta(c, &op->txn, below, &m, to->node && to->node->file_meta);
    meta_free(&m);
}

/* Nothing stands at the new name that a file may not replace. */
static void guard_target(struct op *op, const struct place *to, struct bytes key)
{
    struct buf dir = {0}, end = {0};
    if (op->flags & RENAME_NOREPLACE)
        txn_if(&op->txn, key, STORE_CREATE, STORE_EQUAL, 0);
    if (!to->self) {
        buf_append(&dir, key.p, key.n);
        buf_append(&dir, "/", 1);
        range_end_of(buf_bytes(&dir), &end);
        txn_if_range(&op->txn, buf_bytes(&dir), buf_bytes(&end), STORE_CREATE, STORE_EQUAL, 0);
    }
    buf_free(&dir);
    buf_free(&end);
}

/* The content of the old name has come, or hasn't: then the operation has failed. The names are looked up anew,
 * since they may have changed meanwhile. */
static bool has_value(struct op *op, struct ends *ret_ends)
{
    if (op->code != ERR_OK) {
        op_fail(op, op->code == ERR_NOT_FOUND ? ENOENT : core_errno(op->code));
        return false;
    }
    op->run = rename_start;
    return find_ends(op, ret_ends);
}

/* With the content of the old name at hand. */
static void file_value(struct op *op)
{
    struct core *c = op->c;
    struct ends e;
    if (!has_value(op, &e))
        return;
    struct node *n = e.from.node;
    if (e.from.is_dir) {
        rename_run(op);
        return;
    }
    struct buf key = {0}, target = {0};
    node_full_key(c, n, false, &key);
    txn_free(&op->txn);
    if (node_kv(n)) {
        txn_if(&op->txn, buf_bytes(&key), STORE_MOD, STORE_EQUAL, op->value_revision);
        txn_delete(&op->txn, buf_bytes(&key));
        if (n->file_meta)
            txn_delete_meta(c, &op->txn, bytes_of(key.p + c->prefix.n, key.n - c->prefix.n));
        if (!e.from.self && e.from.dir != e.to.dir)
            txn_keep_parent(c, &op->txn, n);
    }
    put_moved(op, n, &e.to, op->name2, op->value, &target);
    guard_target(op, &e.to, buf_bytes(&target));
    buf_free(&key);
    buf_free(&target);
    mirror_txn(op, file_renamed);
}

static void exchange_both(struct op *op)
{
    struct core *c = op->c;
    struct ends e;
    struct value *first = op->extra;
    if (op->code != ERR_OK) {
        value_unref(first);
        op_fail(op, core_errno(op->code));
        return;
    }
    op->run = rename_start;
    if (!find_ends(op, &e)) {
        value_unref(first);
        return;
    }
    struct buf key = {0};
    struct node *n[2] = {e.from.node, e.to.node};
    int64_t revisions[2] = {(int64_t)op->offset, op->value_revision};
    txn_free(&op->txn);
    for (int k = 0; k < 2; k++) {
        key.n = 0;
        node_full_key(c, n[k], false, &key);
        txn_if(&op->txn, buf_bytes(&key), STORE_MOD, STORE_EQUAL, revisions[k]);
    }
    put_moved(op, n[0], &e.to, op->name2, first, &key);
    put_moved(op, n[1], &e.from, op->name, op->value, &key);
    buf_free(&key);
    value_unref(first);
    op->extra = NULL;
    mirror_txn(op, file_renamed);
}

static void exchange_value(struct op *op)
{
    struct ends e;
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    op->run = rename_start;
    if (!find_ends(op, &e))
        return;
    op->extra = value_ref(op->value);
    op->offset = (uint64_t)op->value_revision;
    op->run = exchange_both;
    mirror_value(op, e.to.node);
}

/* ---- Files that only this mount has ----------------------------------------------------------------- */

/* Moves a local file to another place of this mount's memory; replaces what only this mount has there. */
static void move_local(struct op *op, const struct ends *e)
{
    struct core *c = op->c;
    struct node *from = e->from.node, *to = place_make(c, &e->to, op->name2);
    struct inode *i = from->file_inode;
    local_file_free(to->local);
    to->local = from->local;
    from->local = NULL;
    to->local->pending = !local_name(c, op->name2);
    /* A rename replaces what is there: the save under the new name is not guarded. */
    reserve_drop_all(c, i);
    for (struct list *it = i ? i->handles.next : NULL; i && it != &i->handles; it = it->next) {
        struct handle *h = CONTAINER_OF(it, struct handle, link);
        h->whole = h->loaded && !h->append;
    }
    move_inode(c, i, to, op->ino2, op->name2);
    node_settle(c, to);
    node_settle(c, from);
    op_ok(op);
}

static bool has_open_writer(const struct inode *i)
{
    if (i)
        for (struct list *it = i->handles.next; it != &i->handles; it = it->next)
            if (CONTAINER_OF(it, struct handle, link)->dirty)
                return true;
    return false;
}

/* A file of the cluster that takes a local name: an editor's backup, whose place the next save takes. The
 * cluster hears nothing until then (or until CORE_MASK_MS have passed), and the save is one put. */
static void backup_value(struct op *op)
{
    struct core *c = op->c;
    struct ends e;
    if (!has_value(op, &e))
        return;
    struct node *from = e.from.node, *to = place_make(c, &e.to, op->name2);
    struct local_file *l = local_make(c, to, false);
    value_unref(l->value);
    l->value = value_ref(op->value);
    meta_free(&l->meta);
    node_meta_copy(from, false, &l->meta);
    l->mtime_ns = node_kv(from) ? node_kv(from)->mtime_ns : core_wall_ns(c);
    move_inode(c, from->file_inode, to, op->ino2, op->name2);
    node_settle(c, to);
    local_mask(c, from);
    op_ok(op);
}

/* ---- Directories ------------------------------------------------------------------------------------ */

/* What moved with the directory and is not in the transaction had been deleted elsewhere before it: the event
 * of that is still to come, and names the old place. */
static void drop_older(struct core *c, struct op *op, int64_t revision)
{
    int error = 0;
    struct node *dir = dir_node(c, op->ino2, &error);
    struct node *moved = dir ? node_child(c, dir, bytes_str(op->name2)) : NULL;
    struct key_list keys = {0};
    if (moved)
        tree_keys(moved, &keys);
    for (size_t i = 0; i < keys.count; i++)
        if (keys.keys[i].mod_revision < revision)
            mirror_apply(c, keys.keys[i].key, NULL, NULL, revision);
    key_list_free(&keys);
}

static void dir_renamed(struct op *op, const struct store_txn_result *r)
{
    struct core *c = op->c;
    struct ends e;
    int error = 0;
    if (answered(op, r, rename_start))
        return;
    struct node *from = dir_node(c, op->ino, &error), *to = dir_node(c, op->ino2, &error);
    if (from && to) {
        place_find(c, from, op->name, &e.from);
        place_find(c, to, op->name2, &e.to);
        struct inode *i = e.from.node ? e.from.node->dir_inode : NULL;
        struct kv *marker = NULL;
        if (e.to.node) { /* an empty directory, which is replaced */
            marker = e.to.node->marker;
            e.to.node->marker = NULL;
            forget_name(c, e.to.node->dir_inode);
            node_settle(c, e.to.node);
        }
        struct node *left = node_child(c, to, bytes_str(op->name2));
        if (e.from.node && !left) {
            node_move(c, e.from.node, to, bytes_str(op->name2));
            struct node *moved = node_child(c, to, bytes_str(op->name2));
            if (marker && moved && !moved->marker) {
                moved->marker = marker;
                marker = NULL;
            }
        }
        mirror_kv_free(c, marker);
        if (i)
            inode_view_set(c, i, op->ino2, op->name2);
    }
    mirror_apply_txn(c, &op->txn, r);
    drop_older(c, op, r->revision);
    /* Nothing older brings the old keys back: they are in the guards. */
    for (size_t k = 0; k < op->txn.compare_count; k++) {
        struct store_compare *guard = &op->txn.compares[k];
        if (guard->target == STORE_MOD && guard->relation == STORE_EQUAL)
            mirror_bury(c, bytes_of(guard->key.p + c->prefix.n, guard->key.n - c->prefix.n),
                        r->revision);
    }
    op_ok(op);
}

/* Every key below the old directory moves; the guards say that none changed, came or went since it was
 * read. */
static void dir_content(void *ctx, const struct store_range_result *r)
{
    struct op *op = ctx;
    struct core *c = op->c;
    struct ends e;
    if (r->code != ERR_OK || r->more) {
        op_fail(op, r->more ? EXDEV : core_errno(r->code));
        return;
    }
    op->run = rename_start;
    if (!find_ends(op, &e))
        return;
    if (!e.from.is_dir) {
        rename_run(op);
        return;
    }
    struct buf old = {0}, old_end = {0}, new = {0}, key = {0};
    node_full_key(c, e.from.node, true, &old);
    range_end_of(buf_bytes(&old), &old_end);
    node_full_key(c, e.to.dir, true, &new);
    codec_decode(bytes_str(op->name2), &new);
    txn_free(&op->txn);
    txn_if(&op->txn, buf_bytes(&new), STORE_CREATE, STORE_EQUAL, 0); /* no file of the new name */
    buf_append(&new, "/", 1);
    txn_if_empty_dir(&op->txn, buf_bytes(&new));
    txn_if_range(&op->txn, buf_bytes(&old), buf_bytes(&old_end), STORE_MOD, STORE_LESS,
                 r->revision + 1);
    for (size_t i = 0; i < r->count; i++) {
        const struct store_kv *kv = &r->kvs[i];
        txn_if(&op->txn, kv->key, STORE_MOD, STORE_EQUAL, kv->mod_revision);
        key.n = 0;
        buf_append(&key, new.p, new.n);
        buf_append(&key, kv->key.p + old.n, kv->key.n - old.n);
        struct value *v = value_new(kv->value);
        txn_put(&op->txn, buf_bytes(&key), v, kv->lease);
        value_unref(v);
    }
    if (e.to.node && e.to.node->dir_meta && !e.from.node->dir_meta)
        txn_delete_meta(c, &op->txn, bytes_of(new.p + c->prefix.n, new.n - c->prefix.n));
    txn_delete_range(&op->txn, buf_bytes(&old), buf_bytes(&old_end));
    if (e.from.dir != e.to.dir)
        txn_keep_parent(c, &op->txn, e.from.node);
    buf_free(&old);
    buf_free(&old_end);
    buf_free(&new);
    buf_free(&key);
    mirror_txn(op, dir_renamed);
}

#define RENAME_KEYS_MAX                                                                            \
    4096 /* of one directory; a foreign server's own limit is found out by trying */

static void rename_dir(struct op *op, const struct ends *e)
{
    struct core *c = op->c;
    struct buf end = {0};
    for (struct node *n = e->to.dir; n; n = n->parent)
        if (n == e->from.node) {
            op_fail(op, EINVAL);
            return;
        }
    if (node_is_part(e->from.node) || node_has_file(e->from.node)) {
        op_fail(op, EXDEV); /* its own key would have to move as well: mv does it in steps */
        return;
    }
    op->key.n = 0;
    node_full_key(c, e->from.node, true, &op->key);
    range_end_of(buf_bytes(&op->key), &end);
    struct store_range range = {
        .key = buf_bytes(&op->key), .end = buf_bytes(&end), .limit = RENAME_KEYS_MAX};
    c->backend->range(c->backend, &range, c->options.timeout_ms, dir_content, op);
    buf_free(&end);
}

/* ---- The operation ---------------------------------------------------------------------------------- */

static void rename_run(struct op *op)
{
    struct core *c = op->c;
    struct ends e;
    op->run = rename_start;
    if (!find_ends(op, &e))
        return;
    struct node *n = e.from.node;
    bool same = n == e.to.node && e.from.is_dir == e.to.is_dir;
    bool local_from = !e.from.is_dir && !node_kv(n), local_to = local_name(c, op->name2);
    bool local_target = e.to.node && !e.to.is_dir && !node_kv(e.to.node);
    if (same)
        op_ok(op);
    else if (op->flags & RENAME_EXCHANGE) {
        if (e.from.is_dir || e.to.is_dir || local_from || local_target) {
            op_fail(op, EINVAL);
            return;
        }
        op->run = exchange_value;
        mirror_value(op, n);
    } else if (e.from.is_dir)
        rename_dir(op, &e);
    else if (local_from && (local_to || has_open_writer(n->file_inode) || n->local->pending))
        move_local(op, &e); /* a file that is still written to is saved under its new name */
    else if (!local_from && local_to && !e.from.self) {
        op->run = backup_value;
        mirror_value(op, n);
    } else {
        op->run = file_value;
        mirror_value(op, n);
    }
}

void core_rename(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 uint64_t new_parent, const char *new_name, unsigned flags, core_done done,
                 void *ctx)
{
    if (who->replay) {
        replayed_rename(c, parent, name, new_parent, new_name, done, ctx);
        return;
    }
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE)) {
        core_fail(done, ctx, EINVAL);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, rename_start);
    op->ino = parent;
    op->name = xstrdup(name);
    op->ino2 = new_parent;
    op->name2 = xstrdup(new_name);
    op->flags = flags;
    rename_run(op);
}
