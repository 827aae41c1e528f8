#include <assert.h>
#include <stdlib.h>

#include "fuse/state.h"

static struct inode *find(struct core *c, uint64_t ino)
{
    for (struct hash_link *l = hash_chain(&c->inodes, ino); l; l = l->next)
        if (l->hash == ino)
            return CONTAINER_OF(l, struct inode, link);
    return NULL;
}

/* Whether the file has become a link, or a link a file: somebody has replaced it. */
static bool other_type(const struct inode *i)
{
    return i->node && !i->is_dir && i->is_link != node_meta_file(i->node)->symlink;
}

struct inode *inode_find(struct core *c, uint64_t ino)
{
    struct inode *i = find(c, ino);
    if (!i || !other_type(i))
        return i;
    inode_detach(c, i, false);
    return find(c, ino);
}

/* Stable over mounts of the same source at the same place, and unlike those of other mounts: holders.h tells
 * our files from theirs by the number. A number that is taken (a renamed file has kept it) is passed over. */
uint64_t inode_number(struct core *c, const void *identity, size_t n)
{
    uint64_t ino = hash_bytes(c->identity_hash, identity, n);
    for (;;) {
        ino &= INT64_MAX;
        if (ino > CORE_ROOT_INO && !find(c, ino))
            return ino;
        ino = hash_bytes(ino, "next", 4);
    }
}

struct inode *inode_new(struct core *c, bool is_dir, const void *identity, size_t n)
{
    struct inode *i = xcalloc(1, sizeof *i);
    i->is_dir = is_dir;
    i->ino = n ? inode_number(c, identity, n) : CORE_ROOT_INO;
    list_init(&i->handles);
    list_init(&i->waiters);
    hash_add(&c->inodes, &i->link, i->ino);
    return i;
}

void inode_attach(struct core *c, struct inode *i, struct node *n)
{
    struct inode **slot = i->is_dir ? &n->dir_inode : &n->file_inode;
    if (*slot == i)
        return;
    if (*slot)
        inode_detach(c, *slot, false);
    if (i->node) {
        struct inode **old = i->is_dir ? &i->node->dir_inode : &i->node->file_inode;
        assert(*old == i);
        *old = NULL;
    }
    *slot = i;
    i->node = n;
    i->unlinked = false;
}

struct inode *inode_of(struct core *c, struct node *n, bool is_dir)
{
    struct inode *i = is_dir ? n->dir_inode : n->file_inode;
    if (i && !other_type(i))
        return i;
    if (i)
        inode_detach(c, i, false);
    struct buf path = {0};
    node_path(n, is_dir, &path);
    buf_append(&path, is_dir ? "/" : "", is_dir ? 1 : 0);
    i = inode_new(c, is_dir, path.p, path.n);
    buf_free(&path);
    i->is_link = !is_dir && node_meta_file(n)->symlink;
    inode_attach(c, i, n);
    return i;
}

/* A file that is not saved yet is its handles' matter alone once it has lost its place. The caller settles the
 * node. */
static void leave_pending(struct inode *i, struct node *n)
{
    LIST_FOR_EACH_SAFE(it, next, &i->handles)
    {
        struct handle *h = CONTAINER_OF(it, struct handle, link);
        if (!h->meta)
            meta_copy(&n->local->meta, handle_meta(h));
    }
    local_file_free(n->local);
    n->local = NULL;
}

void inode_detach(struct core *c, struct inode *i, bool unlinked)
{
    struct node *n = i->node;
    if (!n)
        return;
    inode_stat(c, i, &i->last);
    i->last.st_nlink = 0;
    i->gone_key.n = 0;
    node_key(n, i->is_dir, &i->gone_key);
    i->unlinked = unlinked;
    i->node = NULL;
    *(i->is_dir ? &n->dir_inode : &n->file_inode) = NULL;
    if (!i->is_dir && n->local && n->local->pending)
        leave_pending(i, n);
    inode_release(c, i);
}

static uint64_t view_hash(uint64_t parent, const char *name)
{
    return hash_bytes(parent, name, strlen(name));
}

struct inode *inode_viewed(struct core *c, uint64_t parent, const char *name)
{
    uint64_t hash = view_hash(parent, name);
    for (struct hash_link *l = hash_chain(&c->views, hash); l; l = l->next) {
        struct inode *i = CONTAINER_OF(l, struct inode, view_link);
        if (l->hash == hash && i->view_parent == parent && strcmp(i->view_name, name) == 0)
            return i;
    }
    return NULL;
}

void inode_view_clear(struct core *c, struct inode *i)
{
    if (!i->view_parent)
        return;
    hash_remove(&c->views, &i->view_link);
    free(i->view_name);
    i->view_name = NULL;
    i->view_parent = 0;
}

void inode_view_set(struct core *c, struct inode *i, uint64_t parent, const char *name)
{
    struct inode *other = inode_viewed(c, parent, name);
    if (other == i)
        return;
    if (other)
        inode_view_clear(c, other);
    inode_view_clear(c, i);
    i->view_parent = parent;
    i->view_name = xstrdup(name);
    hash_add(&c->views, &i->view_link, view_hash(parent, name));
}

bool inode_known(const struct inode *i)
{
    return i && (i->lookups > 0 || i->ino == CORE_ROOT_INO);
}

void inode_release(struct core *c, struct inode *i)
{
    if (inode_known(i) || !list_empty(&i->handles) || i->commits || !list_empty(&i->waiters))
        return;
    inode_view_clear(c, i);
    struct node *n = i->node;
    if (n) {
        *(i->is_dir ? &n->dir_inode : &n->file_inode) = NULL;
        i->node = NULL;
    }
    hash_remove(&c->inodes, &i->link);
    buf_free(&i->gone_key);
    free(i->control_name);
    free(i);
    if (n)
        node_settle(c, n);
}

void core_forget(struct core *c, uint64_t ino, uint64_t count)
{
    struct inode *i = inode_find(c, ino);
    if (!i)
        return;
    i->lookups -= count < i->lookups ? count : i->lookups;
    inode_release(c, i);
}

/* ---- Attributes ------------------------------------------------------------------------------------- */

static const struct meta no_meta;

const struct meta *node_meta_file(const struct node *n)
{
    const struct kv *kv = node_kv(n);
    if (!kv && n->local)
        return &n->local->meta;
    if (!n->file_meta || (kv && n->file_meta->mod_revision < kv->create_revision))
        return &no_meta;
    return &n->file_meta->m;
}

const struct meta *node_meta_dir(const struct node *n)
{
    if (!n->dir_meta || (n->marker && n->dir_meta->mod_revision < n->marker->create_revision))
        return &no_meta;
    return &n->dir_meta->m;
}

void node_meta_copy(const struct node *n, bool is_dir, struct meta *ret_meta)
{
    const struct meta *m = is_dir ? node_meta_dir(n) : node_meta_file(n);
    const struct kv *kv = is_dir ? NULL : node_kv(n);
    meta_copy(m, ret_meta);
    if (kv && m->has_mtime && n->file_meta->mod_revision < kv->mod_revision)
        ret_meta->has_mtime = false;
}

static void set_times(struct stat *st, uint64_t ns)
{
    st->st_mtim.tv_sec = (time_t)(ns / 1000000000);
    st->st_mtim.tv_nsec = (long)(ns % 1000000000);
    st->st_atim = st->st_ctim = st->st_mtim;
}

/* Times set by hand hold until the file changes. */
static uint64_t file_mtime(const struct node *n, const struct meta *m)
{
    const struct kv *kv = node_kv(n);
    if (m->has_mtime && (!kv || (n->file_meta && n->file_meta->mod_revision >= kv->mod_revision)))
        return m->mtime_ns;
    if (kv)
        return kv->mtime_ns;
    return n->local ? n->local->mtime_ns : 0;
}

/* What a file that is not saved yet holds: its creator's buffer. */
static size_t pending_size(const struct inode *i)
{
    LIST_FOR_EACH_SAFE(it, next, &i->handles)
    {
        struct handle *h = CONTAINER_OF(it, struct handle, link);
        if (h->loaded)
            return h->data.n;
    }
    return 0;
}

void inode_stat(struct core *c, const struct inode *i, struct stat *ret_st)
{
    if (control_is(i)) {
        control_stat(c, i, ret_st);
        return;
    }
    if (!i->node) {
        *ret_st = i->last;
        ret_st->st_ino = i->ino;
        return;
    }
    struct node *n = i->node;
    const struct meta *m = i->is_dir ? node_meta_dir(n) : node_meta_file(n);
    const struct kv *kv = node_kv(n);
    struct stat st = {.st_ino = i->ino, .st_nlink = i->is_dir ? 2 : 1, .st_blksize = 4096};
    st.st_uid = m->has_uid ? m->uid : c->options.uid;
    st.st_gid = m->has_gid ? m->gid : c->options.gid;
    if (i->is_dir) {
        st.st_mode = S_IFDIR | (m->has_mode ? m->mode : c->options.dir_mode);
        st.st_size = 4096;
        set_times(&st, m->has_mtime ? m->mtime_ns : n->dir_mtime_ns);
    } else {
        st.st_mode = i->is_link    ? S_IFLNK | 0777
                     : m->has_mode ? S_IFREG | m->mode
                                   : S_IFREG | c->options.file_mode;
        if (kv)
            st.st_size = (off_t)kv->size;
        else if (n->local)
            st.st_size =
                (off_t)(n->local->pending ? pending_size(i) : value_bytes(n->local->value).n);
        set_times(&st, file_mtime(n, m));
    }
    st.st_blocks = (st.st_size + 511) / 512;
    *ret_st = st;
}
