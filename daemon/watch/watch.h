/* Watches: who is told of which changes, in revision order, never skipped, never twice.
 *
 * A watcher is synced (gets each change as it is applied) or catching up (reads history from the store in
 * slices of bounded size and joins the synced ones when it has reached the current revision). A watcher
 * whose consumer is behind (deliver() answered false) is set back to catching up, from the first revision
 * that it did not get, and goes on after watch_resume(): it never holds a queue of its own.
 *
 * etcd's guarantees (Bookmarkable, Ordered, Unique, Atomic, Reliable, Resumable) are the contract: all
 * events of one main revision come in one deliver() call, progress never runs ahead of events.
 *
 * Loop thread only. */
#ifndef WATCH_WATCH_H
#define WATCH_WATCH_H

#include "daemon/store/mvcc.h"

struct watch_hub;
struct watcher;

struct watch_event {
    const struct mvcc_kv *kv;   /* a tombstone: DELETE */
    const struct mvcc_kv *prev; /* only with prev_kv, NULL if there was none (or it is compacted) */
};

struct watch_spec {
    struct mvcc_range range;
    int64_t start_revision; /* 0: from the next change on */
    bool prev_kv;
    bool no_put, no_delete; /* filters */
};

struct watch_consumer {
    /* Events in order; `revision`: all changes up to it have been delivered with this call. Borrowed.
     * Returns false if the consumer wants no more until watch_resume(): these events are taken. */
    bool (*deliver)(void *ctx, struct watcher *w, const struct watch_event *events, size_t count,
                    int64_t revision);
    /* The history that the watcher needs is compacted (or its store was replaced by a snapshot that no
     * longer has it), or can't be read (compact_revision 0: a failing disk, a damaged row; another member
     * may have it): the watcher is dead; free it with watch_cancel(). */
    void (*compacted)(void *ctx, struct watcher *w, int64_t compact_revision);
};

struct watch_hub *watch_hub_new(struct mvcc *store);
void watch_hub_free(struct watch_hub *h); /* all watchers must be cancelled before */

/* Called by apply after each mvcc_end() with its changes. */
void watch_hub_changes(struct watch_hub *h, const struct mvcc_change *changes, size_t count,
                       int64_t revision, uint64_t stamp);
/* After a snapshot was installed: every watcher catches up from where it stood. */
void watch_hub_store_replaced(struct watch_hub *h);
/* One slice of work for watchers that catch up; true if there is more to do. The driver calls it on each
 * turn of its loop. */
bool watch_hub_work(struct watch_hub *h);

/* The spec's range is copied. Nothing is delivered inside the call. */
struct watcher *watch_start(struct watch_hub *h, const struct watch_spec *spec,
                            const struct watch_consumer *consumer, void *ctx);
void watch_resume(struct watcher *w); /* nothing is delivered inside the call */
void watch_cancel(struct watcher *w); /* frees; may be called from inside its callbacks */

/* Up to which revision the watcher has seen everything that concerns it, or -1 while it catches up. */
int64_t watch_progress(const struct watcher *w);

#endif
