#include <stdlib.h>

#include "fuse/state.h"

/* What a change made elsewhere becomes for local watchers: a system call that the replay thread repeats. Only
 * for what the kernel knows: nobody can watch a directory that was never looked up. */

static void expected_free(struct expected *e)
{
    list_remove(&e->link);
    free(e->name);
    free(e->name2);
    free(e);
}

void core_replayed(struct core *c, uint64_t token)
{
    LIST_FOR_EACH_SAFE(it, next, &c->expecting)
    {
        struct expected *e = CONTAINER_OF(it, struct expected, link);
        if (e->token == token) {
            expected_free(e);
            return;
        }
    }
}

void events_free(struct core *c)
{
    while (!list_empty(&c->expecting))
        expected_free(CONTAINER_OF(c->expecting.next, struct expected, link));
}

const struct expected *events_expected(const struct core *c, uint64_t parent, const char *name)
{
    for (struct list *it = c->expecting.next; it != &c->expecting; it = it->next) {
        const struct expected *e = CONTAINER_OF(it, struct expected, link);
        if ((e->parent == parent && strcmp(e->name, name) == 0) ||
            (e->name2 && e->parent2 == parent && strcmp(e->name2, name) == 0))
            return e;
    }
    return NULL;
}

/* The kernel's inode of the directory in which the node's name stands, 0 if it knows none. */
static uint64_t known_parent(const struct node *n)
{
    return n->parent && inode_known(n->parent->dir_inode) ? n->parent->dir_inode->ino : 0;
}

static void emit(struct core *c, struct core_change *change, uint64_t parent, const char *name,
                 bool is_dir)
{
    struct expected *e = NULL;
    if (!c->host.replay)
        return;
    change->token = ++c->token;
    if (change->kind != CHANGE_OVERWRITE && change->kind != CHANGE_ATTRIB) {
        e = xcalloc(1, sizeof *e);
        *e = (struct expected){.token = change->token,
                               .kind = change->kind,
                               .is_dir = is_dir,
                               .parent = parent,
                               .name = xstrdup(name)};
        list_append(&c->expecting, &e->link);
    }
    if (!c->host.replay(c->host.ctx, change) && e)
        expected_free(e);
}

static char *text_path(const struct node *n, bool as_dir)
{
    struct buf path = {0};
    node_path(n, as_dir, &path);
    buf_append(&path, "", 1);
    return (char *)path.p;
}

static void emit_gone(struct core *c, struct node *n, bool is_dir, uint64_t parent)
{
    char *path = text_path(n, true);
    struct core_change change = {.kind = is_dir ? CHANGE_RMDIR : CHANGE_DELETE, .path = path};
    emit(c, &change, parent, n->name, is_dir);
    free(path);
}

static void emit_new(struct core *c, struct node *n, bool is_dir, uint64_t parent)
{
    char *path = text_path(n, true), *target = NULL;
    const struct meta *m = is_dir ? node_meta_dir(n) : node_meta_file(n);
    struct core_change change = {.kind = is_dir ? CHANGE_MKDIR : CHANGE_CREATE, .path = path};
    change.mode = m->has_mode ? m->mode : is_dir ? c->options.dir_mode : c->options.file_mode;
    change.content = !is_dir && n->file && n->file->size > 0;
    if (!is_dir && m->symlink) {
        struct bytes value = n->file ? value_bytes(n->file->cached.value) : BYTES_EMPTY;
        change.kind = CHANGE_SYMLINK;
        change.path2 = target = (char *)bytes_dup(value.n ? value : bytes_str("?"));
    }
    emit(c, &change, parent, n->name, is_dir);
    free(path);
    free(target);
}

void events_state(struct core *c, struct node *n, enum node_state before)
{
    uint64_t parent = known_parent(n);
    if (!c->remote || c->suppress || !parent)
        return;
    if (before != NODE_NONE)
        emit_gone(c, n, before == NODE_DIR, parent);
    if (n->state != NODE_NONE)
        emit_new(c, n, n->state == NODE_DIR, parent);
}

void events_content(struct core *c, struct node *n)
{
    uint64_t parent =
        n->state == NODE_DIR ? n->dir_inode && inode_known(n->dir_inode) : known_parent(n);
    bool known = inode_known(n->file_inode);
    if (!c->remote || c->suppress || (!parent && !known))
        return;
    if (node_meta_file(n)->symlink) { /* a link isn't written to: it is replaced */
        emit_gone(c, n, false, parent);
        emit_new(c, n, false, parent);
        return;
    }
    char *path = text_path(n, false);
    struct core_change change = {.kind = CHANGE_OVERWRITE, .path = path};
    change.ino = known ? n->file_inode->ino : 0;
    emit(c, &change, parent, n->name, false);
    free(path);
}

void events_attrib(struct core *c, struct node *n, bool is_dir)
{
    struct inode *i = is_dir ? n->dir_inode : n->file_inode;
    const struct node_meta *m = is_dir ? n->dir_meta : n->file_meta;
    bool known = inode_known(i);
    if (!c->remote || c->suppress || n->state == NODE_NONE || (!known_parent(n) && !known))
        return;
    if (!is_dir && (!n->file || (m && m->m.symlink)))
        return;
    char *path = text_path(n, is_dir);
    struct core_change change = {.kind = CHANGE_ATTRIB, .path = path, .ino = known ? i->ino : 0};
    const struct meta *now = is_dir ? node_meta_dir(n) : node_meta_file(n);
    change.mode = now->has_mode ? now->mode : is_dir ? c->options.dir_mode : c->options.file_mode;
    emit(c, &change, 0, n->name, is_dir);
    free(path);
}

/* ---- Renames ---------------------------------------------------------------------------------------- */

/* A revision that deletes one set of keys and puts the same contents under another prefix is a rename, if
 * everything in it pairs up: what was mkdir's mark for an emptied directory aside. */

static bool is_mark(const struct store_event *e)
{
    return !e->deletion && e->kv.value.n == 0 && e->kv.key.n && e->kv.key.p[e->kv.key.n - 1] == '/';
}

static struct kv *kv_of_key(struct core *c, struct bytes key, struct node **ret_node)
{
    struct buf path = {0};
    codec_key_to_path(key, &path);
    struct node *n = node_at(c, buf_bytes(&path), false);
    buf_free(&path);
    *ret_node = n;
    return n ? n->file : NULL;
}

static struct bytes relative(const struct core *c, const struct store_event *e)
{
    return bytes_of(e->kv.key.p + c->prefix.n, e->kv.key.n - c->prefix.n);
}

static bool has_old_value(struct core *c, const struct store_event *deleted, struct bytes value)
{
    struct node *n;
    struct kv *kv = kv_of_key(c, relative(c, deleted), &n);
    return kv && kv->cached.value && bytes_equal(value_bytes(kv->cached.value), value);
}

/* The one put that may be where `deleted` went; NULL if there are none or several. */
static const struct store_event *partner(struct core *c, const struct store_event *events,
                                         size_t count, const struct store_event *deleted,
                                         size_t *ret_deletions)
{
    const struct store_event *found = NULL;
    size_t deletions = 0;
    for (size_t i = 0; i < count; i++) {
        const struct store_event *e = &events[i];
        if (meta_key_reserved(relative(c, e)) || is_mark(e))
            continue;
        if (e->deletion) {
            deletions++;
            continue;
        }
        if (!has_old_value(c, deleted, e->kv.value))
            continue;
        if (found)
            return NULL;
        found = e;
    }
    *ret_deletions = deletions;
    return found;
}

/* What two keys end with in common, in whole components. */
static size_t common_suffix(struct bytes a, struct bytes b)
{
    size_t n = 0, whole = 0;
    while (n < a.n && n < b.n && a.p[a.n - 1 - n] == b.p[b.n - 1 - n]) {
        n++;
        if (a.p[a.n - n] == '/')
            whole = n;
    }
    return whole;
}

/* Every deletion under `from` has its put under `to`, and there is nothing else. */
static bool all_pair_up(struct core *c, const struct store_event *events, size_t count,
                        struct bytes from, struct bytes to)
{
    size_t pairs = 0, deletions = 0;
    for (size_t i = 0; i < count; i++) {
        const struct store_event *d = &events[i];
        struct bytes old = relative(c, d);
        if (!d->deletion || meta_key_reserved(old))
            continue;
        if (!bytes_starts_with(old, from))
            return false;
        deletions++;
        for (size_t k = 0; k < count; k++) {
            struct bytes new = relative(c, &events[k]);
            if (!events[k].deletion && bytes_starts_with(new, to) &&
                new.n - to.n ==
                    old.n - from.n &&memcmp(new.p + to.n, old.p + from.n, new.n - to.n) == 0)
                pairs++;
        }
    }
    return pairs == deletions;
}

static void find_dir_rename(struct core *c, const struct store_event *events, size_t count,
                            struct bytes old, struct bytes new, struct remote_rename *ret)
{
    size_t suffix = common_suffix(old, new);
    struct bytes from = bytes_of(old.p, old.n - suffix), to = bytes_of(new.p, new.n - suffix);
    if (suffix == 0 || from.n == 0 || to.n == 0)
        return;
    struct bytes from_dir = bytes_of(from.p, from.n + 1), to_dir = bytes_of(to.p, to.n + 1);
    if (!all_pair_up(c, events, count, from_dir, to_dir))
        return;
    codec_key_to_path(from, &ret->from);
    codec_key_to_path(to, &ret->to);
    struct node *n = node_at(c, buf_bytes(&ret->from), false);
    struct node *target = node_at(c, buf_bytes(&ret->to), false);
    struct key_list keys = {0};
    if (n)
        tree_keys(n, &keys);
    ret->found =
        n && n->state == NODE_DIR && keys.count <= count && (!target || target->state == NODE_NONE);
    ret->is_dir = true;
    key_list_free(&keys);
}

void events_find_rename(struct core *c, const struct store_event *events, size_t count,
                        struct remote_rename *ret)
{
    const struct store_event *deleted = NULL;
    size_t deletions = 0;
    *ret = (struct remote_rename){0};
    if (!c->host.replay || count < 2)
        return;
    for (size_t i = 0; i < count; i++) {
        if (!bytes_starts_with(events[i].kv.key, buf_bytes(&c->prefix)))
            return;
        struct bytes key = relative(c, &events[i]);
        bool mark = key.n && key.p[key.n - 1] == '/';
        if (!deleted && events[i].deletion && !meta_key_reserved(key) && !mark)
            deleted = &events[i];
    }
    const struct store_event *put = deleted ? partner(c, events, count, deleted, &deletions) : NULL;
    if (!put)
        return;
    struct bytes old = relative(c, deleted), new = relative(c, put);
    struct node *from, *to;
    kv_of_key(c, old, &from);
    kv_of_key(c, new, &to);
    if (deletions == 1 && from && from->state == NODE_FILE && (!to || to->state != NODE_DIR)) {
        codec_key_to_path(old, &ret->from);
        codec_key_to_path(new, &ret->to);
        ret->found = true;
        return;
    }
    find_dir_rename(c, events, count, old, new, ret);
}

/* The mirror has the new state; the kernel still has the old names. */
void events_renamed(struct core *c, struct remote_rename *r)
{
    buf_append(&r->from, "", 1);
    buf_append(&r->to, "", 1);
    struct bytes paths[2] = {bytes_of(r->from.p, r->from.n - 1), bytes_of(r->to.p, r->to.n - 1)};
    uint64_t parents[2] = {0, 0};
    const char *names[2];
    for (int k = 0; k < 2; k++) {
        const char *slash = memrchr(paths[k].p, '/', paths[k].n);
        size_t n = slash ? (size_t)(slash - (const char *)paths[k].p) : 0;
        names[k] = slash ? slash + 1 : (const char *)paths[k].p;
        struct node *dir = node_at(c, bytes_of(paths[k].p, n), false);
        parents[k] = dir && inode_known(dir->dir_inode) ? dir->dir_inode->ino : 0;
    }
    if (!parents[0] && !parents[1])
        return;
    struct core_change change = {.kind = CHANGE_RENAME,
                                 .path = (const char *)r->from.p,
                                 .path2 = (const char *)r->to.p,
                                 .token = ++c->token};
    struct expected *e = xcalloc(1, sizeof *e);
    *e = (struct expected){.token = change.token,
                           .kind = CHANGE_RENAME,
                           .is_dir = r->is_dir,
                           .parent = parents[0],
                           .name = xstrdup(names[0]),
                           .parent2 = parents[1],
                           .name2 = xstrdup(names[1])};
    list_append(&c->expecting, &e->link);
    if (!c->host.replay(c->host.ctx, &change))
        expected_free(e);
}
