/* Who still holds a descriptor of a file: the question at each FLUSH of a changed file (DESIGN, "When is it
 * the last close?").
 *
 * holders_ask() answers from a thread of libuv's pool, since a look takes from 0.1 ms to tens of ms (proc_fd.h
 * has the figures). It looks, and stops at the first yes:
 *   1. at the caller's process: does it have another descriptor of the file;
 *   2. at the opener's, if it is alive and another one;
 *   3. at all processes, unless nobody else can have one: the caller is the opener, it has no children, and no
 *      other process has ever flushed the handle (`never_shared`). A descriptor gets into another process by
 *      a fork (one over a socket is not found: it commits early), and a process that had one and is gone has
 *      flushed it. Looking at the opener's descendants instead would miss those whose parent has ended.
 * What this process may not read (another user's, seen by a mount without root) counts as holding at 1 and 2,
 * so that RELEASE commits; at 3 it doesn't.
 *
 * Threading: everything on the loop thread; `done` runs there, once, never inside holders_ask(). As many
 * questions can wait as there are threads in close(2) on this mount; there is no further bound. */
#ifndef FUSE_HOLDERS_H
#define FUSE_HOLDERS_H

#include <sys/types.h>
#include <uv.h>

#include "fuse/core.h"

struct holders;

struct holders_counts {
    uint64_t asked;
    uint64_t looked_at_all; /* had to look at all processes */
    uint64_t waiting;
};

/* dev: the mount's device number (mount_info.h). */
struct holders *holders_new(uv_loop_t *loop, dev_t dev);
/* Questions that wait are still answered. */
void holders_free(struct holders *h);

/* never_shared: each FLUSH of the handle so far came from its opener. False is always right, and slower. */
void holders_ask(struct holders *h, const struct core_holders_query *q, bool never_shared,
                 core_holders_done done, void *ctx);
void holders_counts(const struct holders *h, struct holders_counts *ret);

#endif
