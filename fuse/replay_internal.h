/* What the parts of the replay share: the queue (replay.c), its threads (replay_thread.c) and the system
 * calls (replay_call.c). */
#ifndef FUSE_REPLAY_INTERNAL_H
#define FUSE_REPLAY_INTERNAL_H

#include <pthread.h>

#include "fuse/replay.h"
#include "lib/base/list.h"

#define REPLAY_BUCKETS 4096 /* of waiting changes by path */

struct replay_entry {
    struct list link;
    struct replay_entry *same_bucket;
    bool in_table;             /* later changes of the path may be merged with it */
    struct core_change change; /* its strings are its own */
};

struct replay {
    struct replay_config config;
    char *mount_point;
    int event_fd; /* written by the replay thread, read on the loop */
    uv_poll_t poll;
    void (*stopped)(void *ctx);
    void *stopped_ctx;
    pthread_t replay_thread, notifier_thread;

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    struct list waiting;  /* entries, oldest first */
    struct list finished; /* entries for the loop to answer */
    struct replay_entry *table[REPLAY_BUCKETS];
    struct replay_counts counts;
    bool ready; /* the thread has its own table, or failed to get one */
    int start_errno;
    int32_t tid;
    uint64_t notify_ino; /* asks the notifier; 0 when it is done */
    bool stopping, ended;
};

/* ---- replay.c; the lock is held */
struct replay_entry *replay_take(struct replay *r);
void replay_finish(struct replay *r, struct replay_entry *entry);

void replay_wake_loop(struct replay *r);

/* ---- replay_thread.c */
void *replay_thread_main(void *r);
void *replay_notifier_main(void *r);

/* ---- replay_call.c; on the replay thread, without the lock */
enum replay_outcome { REPLAY_REPEATED, REPLAY_FELL_BACK, REPLAY_FAILED };

/* A descriptor of the mount's root, or -1: the mount isn't there (any more). */
int replay_open_root(const char *mount_point, dev_t dev);
/* errno is set for REPLAY_FAILED. */
enum replay_outcome replay_call(int root, const struct core_change *change);

#endif
