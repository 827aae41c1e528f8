#include <stdlib.h>

#include "fuse/state.h"
#include "lib/base/log.h"

/* Bytes that could not be saved. They live as long as the mount; the oldest go when there are too many. */

static char *name_of(const char *path, uint64_t number)
{
    struct buf name = {0};
    for (const char *p = path; *p && name.n < CODEC_NAME_MAX - 30; p++)
        buf_append(&name, *p == '/' ? "%" : p, 1);
    buf_printf(&name, ".%llu", (unsigned long long)number);
    buf_append(&name, "", 1);
    return (char *)name.p;
}

void unsaved_drop(struct core *c, struct unsaved *u)
{
    list_remove(&u->link);
    c->unsaved_count--;
    value_unref(u->value);
    free(u->name);
    free(u);
}

void unsaved_keep(struct core *c, const char *path, struct bytes content, const char *why)
{
    struct unsaved *u = xcalloc(1, sizeof *u);
    u->number = ++c->unsaved_number;
    u->name = name_of(path, u->number);
    u->value = value_new(content);
    u->mtime_ns = core_wall_ns(c);
    list_append(&c->unsaved, &u->link);
    if (++c->unsaved_count > CORE_UNSAVED_MAX)
        unsaved_drop(c, CONTAINER_OF(c->unsaved.next, struct unsaved, link));
    log_error("mount", "%s was not saved: %s; its %zu bytes are in .quorumfs/unsaved/%s", path, why,
              content.n, u->name);
}

struct unsaved *unsaved_find(struct core *c, const char *name)
{
    for (struct list *it = c->unsaved.next; it != &c->unsaved; it = it->next) {
        struct unsaved *u = CONTAINER_OF(it, struct unsaved, link);
        if (strcmp(u->name, name) == 0)
            return u;
    }
    return NULL;
}

void unsaved_free(struct core *c)
{
    while (!list_empty(&c->unsaved))
        unsaved_drop(c, CONTAINER_OF(c->unsaved.next, struct unsaved, link));
}
