#include "fuse/replay.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fuse/replay_internal.h"

/* ---- The queue ----------------------------------------------------------------------------------- */

static size_t bucket_of(const char *path)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a */
    for (; *path; path++)
        h = (h ^ (uint8_t)*path) * 1099511628211u;
    return (h ^ h >> 32) % REPLAY_BUCKETS;
}

static void table_add(struct replay *r, struct replay_entry *entry)
{
    struct replay_entry **bucket = &r->table[bucket_of(entry->change.path)];
    entry->same_bucket = *bucket;
    entry->in_table = true;
    *bucket = entry;
}

/* Takes out what waits for the path (or, with `only`, that entry): later changes are not merged with it. */
static void table_remove(struct replay *r, const char *path, const struct replay_entry *only)
{
    struct replay_entry **at = &r->table[bucket_of(path)];
    while (*at) {
        struct replay_entry *entry = *at;
        if (only ? entry == only : strcmp(entry->change.path, path) == 0) {
            *at = entry->same_bucket;
            entry->in_table = false;
        } else {
            at = &entry->same_bucket;
        }
    }
}

static void table_clear(struct replay *r)
{
    for (size_t i = 0; i < REPLAY_BUCKETS; i++) {
        for (struct replay_entry *e = r->table[i]; e; e = e->same_bucket)
            e->in_table = false;
        r->table[i] = NULL;
    }
}

/* Merges the change with one that waits. A file that is still to be made gets its content then. */
static bool merge(struct replay *r, const struct core_change *change)
{
    if (change->kind != CHANGE_OVERWRITE && change->kind != CHANGE_ATTRIB)
        return false;
    for (struct replay_entry *e = r->table[bucket_of(change->path)]; e; e = e->same_bucket) {
        if (strcmp(e->change.path, change->path) != 0)
            continue;
        bool made = e->change.kind == CHANGE_CREATE && change->kind == CHANGE_OVERWRITE;
        if (e->change.kind != change->kind && !made)
            continue;
        if (made)
            e->change.content = true;
        if (change->ino)
            e->change.ino = change->ino;
        if (change->kind == CHANGE_ATTRIB)
            e->change.mode = change->mode;
        return true;
    }
    return false;
}

static struct replay_entry *entry_new(const struct core_change *change)
{
    struct replay_entry *entry = xcalloc(1, sizeof *entry);
    list_init(&entry->link);
    entry->change = *change;
    entry->change.path = xstrdup(change->path);
    entry->change.path2 = change->path2 ? xstrdup(change->path2) : NULL;
    return entry;
}

static void entry_free(struct replay_entry *entry)
{
    free((char *)entry->change.path);
    free((char *)entry->change.path2);
    free(entry);
}

/* What may still be merged with, now that this change stands behind it. */
static void update_table(struct replay *r, struct replay_entry *entry)
{
    switch (entry->change.kind) {
    case CHANGE_OVERWRITE:
    case CHANGE_ATTRIB:
        table_add(r, entry);
        break;
    case CHANGE_RENAME: /* paths stand for other files from here on */
        table_clear(r);
        break;
    case CHANGE_CREATE:
        table_remove(r, entry->change.path, NULL);
        table_add(r, entry);
        break;
    default:
        table_remove(r, entry->change.path, NULL);
        break;
    }
}

void replay_wake_loop(struct replay *r)
{
    uint64_t one = 1;
    /* Never full: the loop takes all at once. */
    while (write(r->event_fd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

bool replay_push(struct replay *r, const struct core_change *change)
{
    struct replay_entry *entry = entry_new(change);
    pthread_mutex_lock(&r->lock);
    if (r->stopping || (r->counts.waiting >= r->config.queue_max && !merge(r, change))) {
        r->counts.refused++;
        pthread_mutex_unlock(&r->lock);
        entry_free(entry);
        return false;
    }
    if (merge(r, change)) {
        r->counts.merged++;
        list_append(&r->finished, &entry->link);
        replay_wake_loop(r);
    } else {
        list_append(&r->waiting, &entry->link);
        r->counts.waiting++;
        update_table(r, entry);
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return true;
}

struct replay_entry *replay_take(struct replay *r)
{
    if (list_empty(&r->waiting))
        return NULL;
    struct replay_entry *entry = CONTAINER_OF(r->waiting.next, struct replay_entry, link);
    list_remove(&entry->link);
    r->counts.waiting--;
    if (entry->in_table)
        table_remove(r, entry->change.path, entry);
    return entry;
}

void replay_finish(struct replay *r, struct replay_entry *entry)
{
    list_append(&r->finished, &entry->link);
}

void replay_counts(struct replay *r, struct replay_counts *ret)
{
    pthread_mutex_lock(&r->lock);
    *ret = r->counts;
    pthread_mutex_unlock(&r->lock);
}

int32_t replay_tid(const struct replay *r)
{
    return r->tid; /* written before replay_start() returned */
}

/* ---- On the loop --------------------------------------------------------------------------------- */

static void answer_finished(struct replay *r)
{
    struct list finished;
    list_init(&finished);
    pthread_mutex_lock(&r->lock);
    LIST_FOR_EACH_SAFE(it, tmp, &r->finished)
    {
        list_remove(it);
        list_append(&finished, it);
    }
    pthread_mutex_unlock(&r->lock);
    while (!list_empty(&finished)) {
        struct replay_entry *entry = CONTAINER_OF(finished.next, struct replay_entry, link);
        list_remove(&entry->link);
        r->config.replayed(r->config.ctx, entry->change.token);
        entry_free(entry);
    }
}

static void replay_free(struct replay *r)
{
    close(r->event_fd);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    free(r->mount_point);
    free(r);
}

static void on_poll_closed(uv_handle_t *handle)
{
    struct replay *r = CONTAINER_OF(handle, struct replay, poll);
    void (*stopped)(void *) = r->stopped;
    void *ctx = r->stopped_ctx;
    replay_free(r);
    if (stopped)
        stopped(ctx);
}

/* Both threads are past their last system call on the mount. */
static void threads_ended(struct replay *r)
{
    pthread_join(r->replay_thread, NULL);
    pthread_join(r->notifier_thread, NULL);
    LIST_FOR_EACH_SAFE(it, tmp, &r->waiting)
    {
        list_remove(it);
        list_append(&r->finished, it);
    }
    answer_finished(r);
    uv_close((uv_handle_t *)&r->poll, on_poll_closed);
}

static void on_event(uv_poll_t *poll, int status, int events)
{
    struct replay *r = CONTAINER_OF(poll, struct replay, poll);
    uint64_t ignored;
    (void)status;
    (void)events;
    if (read(r->event_fd, &ignored, sizeof ignored) < 0)
        assert(errno == EAGAIN || errno == EINTR);
    answer_finished(r);
    pthread_mutex_lock(&r->lock);
    bool ended = r->ended;
    pthread_mutex_unlock(&r->lock);
    if (ended)
        threads_ended(r);
}

void replay_stop(struct replay *r, void (*stopped)(void *ctx), void *ctx)
{
    r->stopped = stopped;
    r->stopped_ctx = ctx;
    pthread_mutex_lock(&r->lock);
    assert(!r->stopping);
    r->stopping = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

/* ---- Start --------------------------------------------------------------------------------------- */

/* Signals are the loop thread's business. */
static int thread_start(pthread_t *ret, const char *name, void *(*run)(void *), struct replay *r)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int error = pthread_create(ret, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        pthread_setname_np(*ret, name);
    return error;
}

static int threads_start(struct replay *r)
{
    int error = thread_start(&r->replay_thread, "replay", replay_thread_main, r);
    if (error)
        return error;
    pthread_mutex_lock(&r->lock);
    while (!r->ready)
        pthread_cond_wait(&r->changed, &r->lock);
    error = r->start_errno;
    pthread_mutex_unlock(&r->lock);
    if (!error)
        error = thread_start(&r->notifier_thread, "replay-notify", replay_notifier_main, r);
    if (!error)
        return 0;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->replay_thread, NULL);
    return error;
}

enum errc replay_start(const struct replay_config *config, struct replay **ret_replay,
                       struct error *err)
{
    struct replay *r = xcalloc(1, sizeof *r);
    r->config = *config;
    r->mount_point = xstrdup(config->mount_point);
    if (!r->config.queue_max)
        r->config.queue_max = REPLAY_QUEUE_MAX;
    list_init(&r->waiting);
    list_init(&r->finished);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int error = r->event_fd < 0 ? errno : threads_start(r);
    if (error) {
        replay_free(r);
        return error_set(err, ERR_IO, "replay thread: %s", strerror(error));
    }
    int rc = uv_poll_init(config->loop, &r->poll, r->event_fd);
    assert(rc == 0);
    rc = uv_poll_start(&r->poll, UV_READABLE, on_event);
    assert(rc == 0);
    *ret_replay = r;
    return ERR_OK;
}
