/* The replay's two threads. */
#include <errno.h>
#include <linux/close_range.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuse/replay_internal.h"

/* A descriptor table of this thread's own, with nothing in it but standard streams and the way to tell the
 * loop: a copy of the FUSE descriptor would keep the connection of a killed process, and one of a socket
 * its peer from seeing it closed. */
static int own_descriptors(int keep)
{
    if (unshare(CLONE_FILES) != 0)
        return errno;
    if (keep > 3 && syscall(SYS_close_range, 3u, (unsigned)keep - 1, 0) != 0)
        return errno;
    if (syscall(SYS_close_range, (unsigned)keep + 1, ~0u, 0) != 0)
        return errno;
    return 0;
}

/* With the lock. The notifier answers by notify_ino going back to 0. */
static void notify_and_wait(struct replay *r, uint64_t ino)
{
    r->notify_ino = ino;
    pthread_cond_broadcast(&r->changed);
    while (r->notify_ino)
        pthread_cond_wait(&r->changed, &r->lock);
}

static void count(struct replay *r, enum replay_outcome outcome, int error)
{
    switch (outcome) {
    case REPLAY_REPEATED:
        r->counts.repeated++;
        break;
    case REPLAY_FELL_BACK:
        r->counts.fallbacks++;
        break;
    case REPLAY_FAILED:
        r->counts.failed++;
        r->counts.last_errno = error;
        break;
    }
}

static void repeat(struct replay *r, struct replay_entry *entry, int *root)
{
    if (entry->change.ino)
        notify_and_wait(r, entry->change.ino);
    pthread_mutex_unlock(&r->lock);
    if (*root < 0)
        *root = replay_open_root(r->mount_point, r->config.dev);
    enum replay_outcome outcome = *root < 0 ? REPLAY_FAILED : replay_call(*root, &entry->change);
    int error = errno;
    pthread_mutex_lock(&r->lock);
    count(r, outcome, error);
    replay_finish(r, entry);
    replay_wake_loop(r);
}

void *replay_thread_main(void *ctx)
{
    struct replay *r = ctx;
    int root = -1; /* open only while there is work: it keeps the mount busy */
    pthread_mutex_lock(&r->lock);
    r->start_errno = own_descriptors(r->event_fd);
    r->tid = gettid();
    r->ready = true;
    pthread_cond_broadcast(&r->changed);
    while (!r->start_errno && !r->stopping) {
        struct replay_entry *entry = replay_take(r);
        if (entry) {
            repeat(r, entry, &root);
        } else if (root >= 0) {
            close(root);
            root = -1;
        } else {
            pthread_cond_wait(&r->changed, &r->lock);
        }
    }
    if (root >= 0)
        close(root);
    r->ended = true;
    pthread_cond_broadcast(&r->changed);
    replay_wake_loop(r);
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

void *replay_notifier_main(void *ctx)
{
    struct replay *r = ctx;
    pthread_mutex_lock(&r->lock);
    while (!r->ended) {
        if (!r->notify_ino) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        uint64_t ino = r->notify_ino;
        pthread_mutex_unlock(&r->lock);
        r->config.notify(r->config.ctx, ino);
        pthread_mutex_lock(&r->lock);
        r->notify_ino = 0;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}
