/* Repeats changes made elsewhere as system calls on the mount itself, so that the kernel tells watchers of
 * them (DESIGN, Events). The request handler sees the replay thread's id and answers from memory.
 *
 * Two threads beside the loop:
 *   replay    makes the system calls, one change after the other. It has a descriptor table of its own, in
 *             which the FUSE descriptor is closed: a killed process would otherwise never end, its thread
 *             waiting for an answer that nobody gives while its own copy keeps the connection open.
 *   notifier  calls notify(ino) before a change of content or attributes, while the replay thread waits: page
 *             cache and attributes must be gone before watchers are woken, or up to 11 % of them read the
 *             old content. It is not the loop thread, which would wait for itself, nor the replay thread,
 *             which has no FUSE descriptor.
 *
 * A change of content or attributes of a file that waits already is merged with the one that waits: what is
 * not yet replayed shows the newest state when it is. A change that comes while one of the same file is being
 * replayed waits anew, so the last state is always replayed. Renames are not merged over.
 *
 * Paths are followed below the mount's root only, through no symbolic link and into no other mount, and only
 * while the mount has the device number that was given: nothing outside is ever touched. The mount is kept
 * busy (umount: EBUSY) only while changes are being replayed.
 *
 * Life cycle: replay_start() when the mount is there, replay_push(), replay_stop(). Requests of the mount must
 * be served until `stopped` is called, or its connection aborted: a system call under way ends no other way.
 *
 * Threading: the loop thread, but for `notify`. Nothing here waits for a system call. */
#ifndef FUSE_REPLAY_H
#define FUSE_REPLAY_H

#include <sys/types.h>
#include <uv.h>

#include "fuse/core.h"

/* Changes that wait (some 200 bytes each). At 5,000 to 20,000 a second it is gone within seconds; a watcher
 * would not keep up either (inotify's own queue holds 16,384). */
#define REPLAY_QUEUE_MAX 65536

struct replay;

struct replay_config {
    uv_loop_t *loop;
    const char *mount_point; /* absolute; copied */
    dev_t dev;               /* the mount's device number (mount_info.h) */
    int fuse_fd;             /* the thread closes its copy of it (and of every other descriptor) */
    size_t queue_max;        /* 0: REPLAY_QUEUE_MAX */
    /* On the notifier thread: invalidates the kernel's content and attributes of the inode, and waits for
     * it (fuse_lowlevel_notify_inval_inode(ino, 0, 0)). */
    void (*notify)(void *ctx, uint64_t ino);
    /* On the loop, once for each change taken: it was repeated, merged or given up. */
    void (*replayed)(void *ctx, uint64_t token);
    void *ctx;
};

struct replay_counts {
    uint64_t repeated; /* as it should be */
    uint64_t
        fallbacks; /* only MODIFY: the file is being executed, or a process holds a lease on it */
    uint64_t merged;
    uint64_t refused; /* the queue was full */
    uint64_t failed;  /* a system call failed: the name is gone again, or never was there */
    int last_errno;   /* of the last failure */
    uint64_t waiting;
};

/* ERR_IO: the threads or their own descriptor table can't be had. */
enum errc replay_start(const struct replay_config *config, struct replay **ret_replay,
                       struct error *err);
/* The thread id with which the replay thread's requests come. Valid from replay_start() on. */
int32_t replay_tid(const struct replay *r);
/* Takes a change (copied). False: queue full or stopping. */
bool replay_push(struct replay *r, const struct core_change *change);
void replay_counts(struct replay *r, struct replay_counts *ret);
/* Gives up what waits, ends the threads without waiting for them here, then calls `stopped`; everything is
 * freed then. */
void replay_stop(struct replay *r, void (*stopped)(void *ctx), void *ctx);

#endif
