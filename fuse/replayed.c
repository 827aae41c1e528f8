#include <errno.h>

#include "fuse/state.h"

/* Requests of the replay thread. They are answered at once, from memory, and change nothing but the kernel's
 * view: which name stands for which inode. */

static void reply_inode(struct core *c, struct inode *i, bool open, core_done done, void *ctx)
{
    struct core_reply reply = {.fh = open ? CORE_FH_REPLAY : 0};
    inode_stat(c, i, &reply.st);
    if (reply.st.st_nlink == 0)
        reply.st.st_nlink = 1;
    done(ctx, &reply);
}

static void reply_name(struct core *c, struct inode *i, uint64_t parent, const char *name,
                       bool open, core_done done, void *ctx)
{
    i->lookups++;
    inode_view_set(c, i, parent, name);
    reply_inode(c, i, open, done, ctx);
}

/* An inode for a name that is gone from the mirror, or was before the replay came to it. */
static struct inode *ghost(struct core *c, uint64_t parent, const char *name, bool is_dir)
{
    struct buf identity = {0};
    buf_printf(&identity, "ghost %llu/%s", (unsigned long long)parent, name);
    struct inode *i = inode_new(c, is_dir, identity.p, identity.n);
    buf_free(&identity);
    i->last = (struct stat){.st_mode = is_dir ? S_IFDIR | c->options.dir_mode
                                              : S_IFREG | c->options.file_mode,
                            .st_uid = c->options.uid,
                            .st_gid = c->options.gid,
                            .st_nlink = 1,
                            .st_ino = i->ino};
    return i;
}

static struct inode *named_now(struct core *c, uint64_t parent, const char *name)
{
    int error;
    struct node *dir = dir_node(c, parent, &error);
    struct place p = {0};
    if (dir)
        place_find(c, dir, name, &p);
    return p.node ? place_inode(c, &p) : NULL;
}

void replayed_lookup(struct core *c, uint64_t parent, const char *name, core_done done, void *ctx)
{
    const struct expected *e = events_expected(c, parent, name);
    struct inode *i = inode_viewed(c, parent, name);
    bool source =
        e && (e->kind == CHANGE_DELETE || e->kind == CHANGE_RMDIR ||
              (e->kind == CHANGE_RENAME && e->parent == parent && strcmp(e->name, name) == 0));
    if (e && !source && e->kind != CHANGE_RENAME)
        i = NULL; /* about to be made: even if somebody has looked it up already */
    else if (source && (!i || i->is_dir != e->is_dir))
        i = ghost(c, parent, name, e->is_dir);
    else if (!e && !i)
        i = named_now(c, parent, name);
    if (i)
        reply_name(c, i, parent, name, false, done, ctx);
    else
        core_fail(done, ctx, ENOENT);
}

void replayed_create(struct core *c, uint64_t parent, const char *name, bool is_dir, bool open,
                     core_done done, void *ctx)
{
    struct inode *i = named_now(c, parent, name);
    if (!i || i->is_dir != is_dir)
        i = ghost(c, parent, name, is_dir);
    reply_name(c, i, parent, name, open, done, ctx);
}

void replayed_gone(struct core *c, uint64_t parent, const char *name, core_done done, void *ctx)
{
    struct inode *i = inode_viewed(c, parent, name);
    if (i)
        inode_view_clear(c, i);
    core_fail(done, ctx, 0);
}

/* What the kernel has below a directory that has moved goes on as what is there now. */
static void adopt_below(struct core *c, struct inode *dir)
{
    for (size_t b = 0; b < c->views.size; b++)
        for (struct hash_link *l = c->views.buckets[b], *next; l; l = next) {
            struct inode *i = CONTAINER_OF(l, struct inode, view_link);
            struct place p;
            next = l->next;
            if (i->view_parent != dir->ino || i->node)
                continue;
            place_find(c, dir->node, i->view_name, &p);
            if (!p.node || p.is_dir != i->is_dir ||
                (p.is_dir ? p.node->dir_inode : p.node->file_inode))
                continue;
            inode_attach(c, i, p.node);
            if (i->is_dir)
                adopt_below(c, i);
        }
}

void replayed_rename(struct core *c, uint64_t parent, const char *name, uint64_t new_parent,
                     const char *new_name, core_done done, void *ctx)
{
    struct inode *i = inode_viewed(c, parent, name);
    int error;
    if (!i) {
        core_fail(done, ctx, ENOENT);
        return;
    }
    inode_view_set(c, i, new_parent, new_name);
    struct node *dir = dir_node(c, new_parent, &error);
    struct place p = {0};
    if (dir)
        place_find(c, dir, new_name, &p);
    if (p.node && p.is_dir == i->is_dir && !i->node) {
        inode_attach(c, i, p.node);
        if (i->is_dir)
            adopt_below(c, i);
        node_settle(c, p.node);
    }
    core_fail(done, ctx, 0);
}

void replayed_attr(struct core *c, uint64_t ino, core_done done, void *ctx)
{
    struct inode *i = inode_find(c, ino);
    if (i)
        reply_inode(c, i, false, done, ctx);
    else
        core_fail(done, ctx, ESTALE);
}
