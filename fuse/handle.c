#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/state.h"

/* A descriptor of the process that the thread belongs to, so that its id can't be taken for another's
 * later. pidfd_open(2) wants the id of a process' first thread; any other gives -1, and then the id alone
 * has to do. */
static int open_pidfd(int32_t pid)
{
    if (pid <= 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

struct handle *handle_new(struct core *c, struct inode *i, int flags, const struct caller *who)
{
    struct handle *h = xcalloc(1, sizeof *h);
    h->inode = i;
    h->flags = flags;
    h->append = (flags & O_APPEND) != 0 && handle_writes(h);
    h->opener = h->writer = who->pid;
    h->pidfd = -1;
    if (handle_writes(h) && c->host.holders)
        h->pidfd = open_pidfd(who->pid);
    list_init(&h->waiters);
    list_init(&h->append_link);
    list_append(&i->handles, &h->link);
    return h;
}

struct handle *handle_of(uint64_t fh)
{
    return (struct handle *)(uintptr_t)fh;
}

bool handle_writes(const struct handle *h)
{
    return (h->flags & O_ACCMODE) != O_RDONLY;
}

void handle_free(struct core *c, struct handle *h)
{
    (void)c;
    list_remove(&h->link);
    list_remove(&h->append_link);
    value_unref(h->pin);
    buf_free(&h->data);
    buf_free(&h->reservation);
    if (h->meta) {
        meta_free(h->meta);
        free(h->meta);
    }
    for (size_t i = 0; i < h->entry_count; i++)
        free(h->entries[i].name);
    free(h->entries);
    if (h->pidfd >= 0)
        close(h->pidfd);
    free(h);
}

struct handle *handle_dirty_of(const struct inode *i, const struct caller *who)
{
    LIST_FOR_EACH_SAFE(it, next, &i->handles)
    {
        struct handle *h = CONTAINER_OF(it, struct handle, link);
        if (h->dirty && h->loaded && (h->opener == who->pid || h->writer == who->pid))
            return h;
    }
    return NULL;
}

struct meta *handle_meta(struct handle *h)
{
    if (!h->meta)
        h->meta = xcalloc(1, sizeof *h->meta);
    return h->meta;
}
