#include <assert.h>
#include <stdlib.h>

#include "fuse/state.h"

struct kv *mirror_kv_new(void)
{
    struct kv *kv = xcalloc(1, sizeof *kv);
    list_init(&kv->cached.link);
    return kv;
}

void mirror_kv_free(struct core *c, struct kv *kv)
{
    if (!kv)
        return;
    value_cache_drop(&c->cache, &kv->cached);
    free(kv);
}

void local_file_free(struct local_file *l)
{
    if (!l)
        return;
    value_unref(l->value);
    meta_free(&l->meta);
    free(l);
}

static uint64_t node_hash(const struct node *parent, struct bytes name)
{
    return hash_bytes((uint64_t)(uintptr_t)parent, name.p, name.n);
}

struct node *node_child(struct core *c, struct node *parent, struct bytes name)
{
    uint64_t hash = node_hash(parent, name);
    for (struct hash_link *l = hash_chain(&c->nodes, hash); l; l = l->next) {
        struct node *n = CONTAINER_OF(l, struct node, link);
        if (l->hash == hash && n->parent == parent &&
            bytes_equal(bytes_of(n->name, n->name_n), name))
            return n;
    }
    return NULL;
}

static struct node *node_new(struct core *c, struct node *parent, struct bytes name)
{
    struct node *n = xcalloc(1, sizeof *n + name.n + 1);
    assert(name.n <= CODEC_NAME_MAX);
    n->parent = parent;
    n->name_n = (uint16_t)name.n;
    memcpy(n->name, name.p, name.n);
    list_init(&n->siblings);
    list_init(&n->children);
    list_init(&n->masked_link);
    n->dir_mtime_ns = c->stamp_ns ? c->stamp_ns : c->started_ns;
    if (parent) {
        hash_add(&c->nodes, &n->link, node_hash(parent, name));
        list_append(&parent->children, &n->siblings);
        parent->child_count++;
    }
    return n;
}

struct node *node_child_make(struct core *c, struct node *parent, struct bytes name)
{
    struct node *n = node_child(c, parent, name);
    return n ? n : node_new(c, parent, name);
}

struct node *node_at(struct core *c, struct bytes path, bool make)
{
    if (!c->root) {
        c->root = node_new(c, NULL, bytes_str(""));
        c->root->state = NODE_DIR;
    }
    struct node *n = c->root;
    while (n && path.n) {
        const uint8_t *slash = memchr(path.p, '/', path.n);
        size_t length = slash ? (size_t)(slash - path.p) : path.n;
        struct bytes name = bytes_of(path.p, length);
        n = make ? node_child_make(c, n, name) : node_child(c, n, name);
        length += slash ? 1 : 0;
        path = bytes_of(path.p + length, path.n - length);
    }
    return n;
}

bool node_has_file(const struct node *n)
{
    return n->local || (n->file && !n->masked);
}

struct kv *node_kv(const struct node *n)
{
    if (n->masked || (n->local && !n->local->pending))
        return NULL;
    return n->file;
}

bool node_is_part(const struct node *n)
{
    return n->name_n >= 2 && n->name[0] == '%' && n->name[1] == '~';
}

static enum node_state node_now(const struct node *n)
{
    if (!n->parent || n->marker || n->visible_count)
        return NODE_DIR;
    return node_has_file(n) ? NODE_FILE : NODE_NONE;
}

static void node_unlink(struct core *c, struct node *n)
{
    hash_remove(&c->nodes, &n->link);
    list_remove(&n->siblings);
    n->parent->child_count--;
    if (n->state != NODE_NONE)
        n->parent->visible_count--;
}

static void node_meta_free(struct node_meta *m)
{
    if (m)
        meta_free(&m->m);
    free(m);
}

static void node_free(struct core *c, struct node *n)
{
    list_remove(&n->masked_link);
    mirror_kv_free(c, n->file);
    mirror_kv_free(c, n->marker);
    node_meta_free(n->file_meta);
    node_meta_free(n->dir_meta);
    local_file_free(n->local);
    free(n);
}

/* Nothing in it and nobody refers to it. */
static bool node_is_idle(const struct node *n)
{
    return n->parent && n->child_count == 0 && !n->file && !n->marker && !n->file_meta &&
           !n->dir_meta && !n->local && !n->file_inode && !n->dir_inode;
}

void node_settle(struct core *c, struct node *n)
{
    while (n) {
        struct node *parent = n->parent;
        enum node_state before = n->state, now = node_now(n);
        n->state = now;
        if (parent && (before == NODE_NONE) != (now == NODE_NONE)) {
            if (before == NODE_NONE)
                parent->visible_count++;
            else
                parent->visible_count--;
            parent->dir_mtime_ns = c->stamp_ns ? c->stamp_ns : core_wall_ns(c);
        }
        if (before != now)
            events_state(c, n, before);
        bool renamed = before != now && before != NODE_NONE; /* `a` became `a/%self`, or back */
        if (n->file_inode && (renamed || !node_has_file(n)))
            inode_detach(c, n->file_inode, false);
        if (n->dir_inode && now != NODE_DIR)
            inode_detach(c, n->dir_inode, false);
        if (node_now(n) != now) /* what was not saved yet went with its inode */
            continue;
        if (node_is_idle(n)) {
            node_unlink(c, n);
            node_free(c, n);
        } else if (before == now)
            return;
        n = parent;
    }
}

void node_move(struct core *c, struct node *n, struct node *new_parent, struct bytes new_name)
{
    assert(n->parent && !node_child(c, new_parent, new_name));
    struct node *old_parent = n->parent;
    node_unlink(c, n);
    struct node *moved = xcalloc(1, sizeof *moved + new_name.n + 1);
    memcpy(moved, n, sizeof *n);
    memcpy(moved->name, new_name.p, new_name.n);
    moved->name_n = (uint16_t)new_name.n;
    moved->parent = new_parent;
    list_init(&moved->siblings);
    list_init(&moved->children);
    list_init(&moved->masked_link);
    if (n->masked) {
        list_remove(&n->masked_link);
        list_append(&c->masked, &moved->masked_link);
    }
    if (moved->file_inode)
        moved->file_inode->node = moved;
    if (moved->dir_inode)
        moved->dir_inode->node = moved;
    hash_add(&c->nodes, &moved->link, node_hash(new_parent, new_name));
    list_append(&new_parent->children, &moved->siblings);
    new_parent->child_count++;
    if (moved->state != NODE_NONE)
        new_parent->visible_count++;
    /* Children are found by the address of their parent. */
    LIST_FOR_EACH_SAFE(it, next, &n->children)
    {
        struct node *child = CONTAINER_OF(it, struct node, siblings);
        hash_remove(&c->nodes, &child->link);
        list_remove(&child->siblings);
        child->parent = moved;
        list_append(&moved->children, &child->siblings);
        hash_add(&c->nodes, &child->link, node_hash(moved, bytes_of(child->name, child->name_n)));
    }
    free(n);
    new_parent->dir_mtime_ns = old_parent->dir_mtime_ns = core_wall_ns(c);
    node_settle(c, new_parent);
    node_settle(c, old_parent);
}

void node_key(const struct node *n, bool as_dir, struct buf *out)
{
    if (!n->parent)
        return;
    node_key(n->parent, true, out);
    codec_decode(bytes_of(n->name, n->name_n), out);
    if (as_dir && !node_is_part(n))
        buf_append(out, "/", 1);
}

void node_full_key(const struct core *c, const struct node *n, bool as_dir, struct buf *out)
{
    buf_append(out, c->prefix.p, c->prefix.n);
    node_key(n, as_dir, out);
}

void node_path(const struct node *n, bool as_dir, struct buf *out)
{
    if (!n->parent)
        return;
    if (n->parent->parent) {
        node_path(n->parent, true, out);
        buf_append(out, "/", 1);
    }
    buf_append(out, n->name, n->name_n);
    if (!as_dir && n->state == NODE_DIR)
        buf_append(out, "/" CODEC_SELF, 1 + strlen(CODEC_SELF));
}

static void list_key(struct key_list *list, const struct node *n, bool is_dir, bool meta,
                     int64_t mod_revision, unsigned generation)
{
    struct buf key = {0}, hidden = {0};
    node_key(n, is_dir, &key);
    if (meta)
        meta_key(buf_bytes(&key), &hidden);
    struct bytes found = buf_bytes(meta ? &hidden : &key);
    list->keys = xrealloc(list->keys, (list->count + 1) * sizeof *list->keys);
    list->keys[list->count++] =
        (struct key_entry){bytes_of(bytes_dup(found), found.n), mod_revision, generation};
    buf_free(&key);
    buf_free(&hidden);
}

void tree_keys(const struct node *n, struct key_list *list)
{
    for (struct list *it = n->children.next; it != &n->children; it = it->next)
        tree_keys(CONTAINER_OF(it, struct node, siblings), list);
    if (n->file)
        list_key(list, n, false, false, n->file->mod_revision, n->file->generation);
    if (n->file_meta)
        list_key(list, n, false, true, n->file_meta->mod_revision, n->file_meta->generation);
    if (n->marker)
        list_key(list, n, true, false, n->marker->mod_revision, n->marker->generation);
    if (n->dir_meta)
        list_key(list, n, true, true, n->dir_meta->mod_revision, n->dir_meta->generation);
}

void key_list_free(struct key_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free((void *)list->keys[i].key.p);
    free(list->keys);
    *list = (struct key_list){0};
}

static void free_below(struct core *c, struct node *n)
{
    LIST_FOR_EACH_SAFE(it, next, &n->children)
    {
        struct node *child = CONTAINER_OF(it, struct node, siblings);
        free_below(c, child);
    }
    if (n->file_inode)
        n->file_inode->node = NULL;
    if (n->dir_inode)
        n->dir_inode->node = NULL;
    if (n->parent)
        node_unlink(c, n);
    node_free(c, n);
}

void tree_free(struct core *c)
{
    if (c->root)
        free_below(c, c->root);
    c->root = NULL;
    hash_free(&c->nodes);
}
