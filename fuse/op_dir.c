#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "fuse/state.h"

/* Offsets of directory entries: what comes after it is asked for with the offset of an entry. */
#define OFFSET_DOT 1
#define OFFSET_DOT_DOT 2
#define OFFSET_FIRST 3

/* For entries without an inode yet: readdir(3) skips those with number 0. libfuse uses the same. */
#define INO_UNKNOWN 0xffffffff

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct dir_entry *)a)->name, ((const struct dir_entry *)b)->name);
}

void dir_add_entry(struct handle *h, const char *name, bool is_dir)
{
    h->entries = xrealloc(h->entries, (h->entry_count + 1) * sizeof *h->entries);
    h->entries[h->entry_count++] = (struct dir_entry){xstrdup(name), is_dir};
}

/* The names as of now; a listing that takes several requests is of one moment. */
static void take_names(struct core *c, struct handle *h)
{
    for (size_t i = 0; i < h->entry_count; i++)
        free(h->entries[i].name);
    free(h->entries);
    h->entries = NULL;
    h->entry_count = 0;
    if (control_is(h->inode)) {
        control_list(c, h->inode, h);
        return;
    }
    struct node *n = h->inode->node;
    if (!n)
        return;
    size_t cap = n->visible_count + 1;
    h->entries = xcalloc(cap, sizeof *h->entries);
    for (struct list *it = n->children.next; it != &n->children; it = it->next) {
        const struct node *child = CONTAINER_OF(it, struct node, siblings);
        if (child->state != NODE_NONE && h->entry_count < cap)
            h->entries[h->entry_count++] =
                (struct dir_entry){xstrdup(child->name), child->state == NODE_DIR};
    }
    if (n->parent && node_has_file(n))
        dir_add_entry(h, CODEC_SELF, false);
    qsort(h->entries, h->entry_count, sizeof *h->entries, by_name);
}

static void opendir_run(struct op *op)
{
    struct core *c = op->c;
    struct inode *i = inode_find(c, op->ino);
    if (op->code != ERR_OK || !i || !i->is_dir || (!i->node && !control_is(i))) {
        op_fail(op, op->code != ERR_OK ? core_errno(op->code) : ESTALE);
        return;
    }
    struct handle *h = handle_new(c, i, O_RDONLY, &op->who);
    take_names(c, h);
    op_reply(op, &(struct core_reply){.fh = (uintptr_t)h});
}

void core_opendir(struct core *c, const struct caller *who, uint64_t ino, core_done done, void *ctx)
{
    struct op *op = op_new(c, who, done, ctx, opendir_run);
    op->ino = ino;
    struct inode *i = inode_find(c, ino);
    if (i && control_is(i))
        opendir_run(op);
    else
        mirror_sync(op);
}

static bool list_dots(struct core *c, struct handle *h, uint64_t offset,
                      const struct core_dir_sink *sink)
{
    struct stat st;
    inode_stat(c, h->inode, &st);
    if (offset < OFFSET_DOT && !sink->add(sink->ctx, ".", &st, OFFSET_DOT))
        return false;
    struct inode *parent = inode_find(c, h->inode->view_parent);
    if (parent)
        inode_stat(c, parent, &st);
    return offset >= OFFSET_DOT_DOT || sink->add(sink->ctx, "..", &st, OFFSET_DOT_DOT);
}

/* What stands behind a listed name now; NULL if it went meanwhile. */
static struct inode *entry_inode(struct core *c, struct handle *h, const char *name)
{
    if (!h->inode->node)
        return NULL;
    struct place p;
    place_find(c, h->inode->node, name, &p);
    return p.node ? place_inode(c, &p) : NULL;
}

static void list(struct core *c, struct handle *h, uint64_t offset,
                 const struct core_dir_sink *sink)
{
    bool control = control_is(h->inode);
    if (offset < OFFSET_DOT_DOT && !list_dots(c, h, offset, sink))
        return;
    size_t first = offset < OFFSET_FIRST ? 0 : offset - OFFSET_FIRST + 1;
    for (size_t k = first; k < h->entry_count; k++) {
        struct dir_entry *e = &h->entries[k];
        struct inode *i = control ? NULL : entry_inode(c, h, e->name);
        struct stat st = {.st_ino = INO_UNKNOWN, .st_mode = e->is_dir ? S_IFDIR : S_IFREG};
        if (!control && !i)
            continue;
        if (i)
            inode_stat(c, i, &st);
        bool taken = sink->add(sink->ctx, e->name, &st, OFFSET_FIRST + k);
        if (taken && sink->plus && i) {
            i->lookups++;
            inode_view_set(c, i, h->inode->ino, e->name);
        } else if (i)
            inode_release(c, i);
        if (!taken)
            return;
    }
}

static void readdir_run(struct op *op)
{
    struct handle *h = op->h;
    if (op->code != ERR_OK) {
        op_fail(op, core_errno(op->code));
        return;
    }
    take_names(op->c, h);
    list(op->c, h, 0, op->extra);
    op_ok(op);
}

void core_readdir(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset,
                  const struct core_dir_sink *sink, core_done done, void *ctx)
{
    struct handle *h = handle_of(fh);
    if (offset == 0 && h->rewound) { /* rewinddir(3): what is there now */
        struct op *op = op_new(c, who, done, ctx, readdir_run);
        op->h = h;
        op->extra = (void *)sink;
        mirror_sync(op);
        return;
    }
    h->rewound = true;
    list(c, h, offset, sink);
    core_fail(done, ctx, 0);
}

void core_releasedir(struct core *c, uint64_t fh)
{
    struct handle *h = handle_of(fh);
    struct inode *i = h->inode;
    handle_free(c, h);
    inode_release(c, i);
}
