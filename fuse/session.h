/* The mount's end at the kernel: libfuse's low-level interface on a libuv loop, in front of a core.
 *
 * Life cycle: session_mount() once the core is loaded; requests are served by the loop; `ended` runs when the
 * file system was unmounted, by fusermount3 or by session_unmount(); session_free().
 *
 * Threading: the loop thread, which only serves: a notification of the kernel from it deadlocks at once.
 * session_invalidate() is for the notifier thread. */
#ifndef FUSE_SESSION_H
#define FUSE_SESSION_H

#include <uv.h>

#include "fuse/core.h"

struct session;

struct session_config {
    const char *mount_point; /* absolute */
    const char *source;      /* shown in /proc/mounts */
    bool allow_other, read_only, debug;
    struct core *core;
    int32_t (*replay_tid)(void *ctx); /* id of the replay thread, 0: none; may be NULL */
    void (*ended)(void *ctx);
    void *ctx;
};

/* ERR_IO, ERR_BUSY, ERR_INVALID with the mount point and the cause. */
enum errc session_mount(uv_loop_t *loop, const struct session_config *config,
                        struct session **ret_session, struct error *err);
/* Takes the mount away from the tree at once; descriptors that are still open end with ENOTCONN. */
void session_unmount(struct session *s);
void session_free(struct session *s);

int session_fd(const struct session *s); /* of /dev/fuse */
/* Drops the kernel's cached attributes and pages of an inode; blocks. Not on the loop thread. */
void session_invalidate(struct session *s, uint64_t ino);

#endif
