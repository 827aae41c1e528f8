#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/simdir.h"

char *simdir_normal(const char *path)
{
    char *normal = xmalloc(strlen(path) + 1);
    size_t n = 0;
    while (*path) {
        size_t part = strcspn(path, "/");
        if (part > 0 && !(part == 1 && path[0] == '.')) {
            if (n > 0)
                normal[n++] = '/';
            memcpy(normal + n, path, part);
            n += part;
        }
        path += part;
        path += *path == '/';
    }
    normal[n] = '\0';
    return normal;
}

char *simdir_parent(const char *path)
{
    char *parent = xstrdup(path);
    char *slash = strrchr(parent, '/');
    if (slash)
        *slash = '\0';
    else
        parent[0] = '\0';
    return parent;
}

void simdir_unref(struct siminode *inode)
{
    assert(inode->refs > 0);
    if (--inode->refs > 0)
        return;
    simfile_free(&inode->file);
    free(inode);
}

static struct simname *table_find(const struct simtable *t, const char *path)
{
    for (size_t i = 0; i < t->count; i++)
        if (strcmp(t->names[i].path, path) == 0)
            return &t->names[i];
    return NULL;
}

static void table_remove(struct simtable *t, const char *path)
{
    struct simname *name = table_find(t, path);
    if (!name)
        return;
    free(name->path);
    simdir_unref(name->inode);
    t->count--;
    size_t at = (size_t)(name - t->names);
    memmove(name, name + 1, (t->count - at) * sizeof(*name));
}

static void table_put(struct simtable *t, const char *path, struct siminode *inode)
{
    inode->refs++;
    table_remove(t, path);
    if (t->count == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 16;
        t->names = xrealloc(t->names, t->cap * sizeof(*t->names));
    }
    t->names[t->count++] = (struct simname){xstrdup(path), inode};
}

static void table_free(struct simtable *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->names[i].path);
        simdir_unref(t->names[i].inode);
    }
    free(t->names);
    *t = (struct simtable){0};
}

static void change_free(struct simchange *c)
{
    free(c->from);
    free(c->to);
    if (c->inode)
        simdir_unref(c->inode);
}

/* A file that is renamed leaves whatever name it has: when a crash kept only the second of two renames,
 * it must not come back under two names. */
static void carry_out(struct simtable *t, const struct simchange *c)
{
    for (size_t i = 0; c->to && i < t->count; i++)
        if (t->names[i].inode == c->inode) {
            char *path = xstrdup(t->names[i].path);
            table_remove(t, path);
            free(path);
            break;
        }
    if (c->to)
        table_put(t, c->to, c->inode);
    if (c->from)
        table_remove(t, c->from);
}

static void add_change(struct simdir *d, const char *from, const char *to, struct siminode *inode)
{
    if (d->change_count == d->change_cap) {
        d->change_cap = d->change_cap ? d->change_cap * 2 : 16;
        d->changes = xrealloc(d->changes, d->change_cap * sizeof(*d->changes));
    }
    if (inode)
        inode->refs++;
    d->changes[d->change_count++] = (struct simchange){
        .from = from ? xstrdup(from) : NULL, .to = to ? xstrdup(to) : NULL, .inode = inode};
}

void simdir_free(struct simdir *d)
{
    for (size_t i = 0; i < d->change_count; i++)
        change_free(&d->changes[i]);
    free(d->changes);
    table_free(&d->live);
    table_free(&d->durable);
    *d = (struct simdir){0};
}

struct siminode *simdir_find(const struct simdir *d, const char *path)
{
    struct simname *name = table_find(&d->live, path);
    return name ? name->inode : NULL;
}

bool simdir_is_folder(const struct simdir *d, const char *path)
{
    struct siminode *inode = simdir_find(d, path);
    return path[0] == '\0' || (inode && inode->is_dir);
}

struct siminode *simdir_make(struct simdir *d, const char *path, bool is_dir)
{
    struct siminode *inode = xcalloc(1, sizeof(*inode));
    inode->is_dir = is_dir;
    inode->named = true;
    table_put(&d->live, path, inode);
    add_change(d, NULL, path, inode);
    return inode;
}

void simdir_unlink(struct simdir *d, const char *path)
{
    simdir_find(d, path)->named = false;
    table_remove(&d->live, path);
    add_change(d, path, NULL, NULL);
}

void simdir_rename(struct simdir *d, const char *from, const char *to)
{
    if (strcmp(from, to) == 0)
        return;
    struct siminode *replaced = simdir_find(d, to);
    if (replaced)
        replaced->named = false;
    add_change(d, from, to, simdir_find(d, from));
    carry_out(&d->live, &d->changes[d->change_count - 1]);
}

static bool is_in(const char *path, const char *folder)
{
    if (!path)
        return false;
    char *parent = simdir_parent(path);
    bool in = strcmp(parent, folder) == 0;
    free(parent);
    return in;
}

void simdir_sync(struct simdir *d, const char *folder)
{
    size_t kept = 0;
    for (size_t i = 0; i < d->change_count; i++) {
        struct simchange c = d->changes[i];
        if (is_in(c.from, folder) || is_in(c.to, folder)) {
            carry_out(&d->durable, &c);
            change_free(&c);
        } else {
            d->changes[kept++] = c;
        }
    }
    d->change_count = kept;
}

/* A name whose folder is gone is gone. */
static void drop_orphans(struct simdir *d)
{
    for (size_t i = 0; i < d->durable.count;) {
        char *parent = simdir_parent(d->durable.names[i].path);
        struct simname *folder = table_find(&d->durable, parent);
        bool stays = parent[0] == '\0' || (folder && folder->inode->is_dir);
        free(parent);
        if (stays) {
            i++;
        } else {
            char *path = xstrdup(d->durable.names[i].path);
            table_remove(&d->durable, path);
            free(path);
            i = 0; /* it may have been a folder itself */
        }
    }
}

void simdir_crash(struct simdir *d, struct simrng *rng)
{
    bool in_order = simrng_chance(rng, 50);
    size_t first = (size_t)simrng_below(rng, d->change_count + 1);
    for (size_t i = 0; i < d->change_count; i++) {
        if (in_order ? i < first : simrng_chance(rng, 50))
            carry_out(&d->durable, &d->changes[i]);
        change_free(&d->changes[i]);
    }
    d->change_count = 0;
    drop_orphans(d);
    for (size_t i = 0; i < d->live.count; i++)
        d->live.names[i].inode->named = false;
    table_free(&d->live);
    for (size_t i = 0; i < d->durable.count; i++) {
        struct simname *name = &d->durable.names[i];
        name->inode->named = true;
        table_put(&d->live, name->path, name->inode);
    }
}
