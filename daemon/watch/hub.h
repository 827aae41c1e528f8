/* What watch.c (live changes) and catch_up.c (history) share. */
#ifndef WATCH_HUB_H
#define WATCH_HUB_H

#include "daemon/watch/range_tree.h"
#include "daemon/watch/watch.h"

enum watcher_state {
    WATCHER_SYNCED,      /* in its range's group: sees each change as it is applied */
    WATCHER_CATCHING_UP, /* in hub->behind: watch_hub_work() reads history for it */
    WATCHER_PAUSED,      /* in no list: the consumer is behind */
    WATCHER_DEAD,        /* what it needs is compacted */
};

struct watcher {
    struct watch_hub *hub;
    struct watch_consumer consumer;
    void *ctx;
    enum watcher_state state;
    struct mvcc_range range; /* the own copy */
    bool prev_kv, no_put, no_delete;
    /* The first revision that it has not got. While synced it lags behind the hub's when nothing
     * concerned the watcher; a future start stands here too. */
    int64_t next;
    struct range_group *group; /* while synced */
    struct list link;          /* in group->members or hub->behind */
    /* While the hub delivers one revision: the chain of this watcher's events in hub->scratch. */
    size_t touched; /* 1-based place in hub->touched; 0: not there */
    size_t first, last;
    size_t chosen; /* 1-based place in hub->chosen during a slice of history; 0: not there */
};

/* Watchers that share one slice of history: bounds a slice together with CATCH_UP_ROWS_MAX. */
#define CATCH_UP_TOGETHER 32

struct scratch_event {
    struct watch_event event;
    size_t next; /* of the same watcher, 1-based; 0: the last */
};

struct watch_hub {
    struct mvcc *store;
    struct range_tree synced;
    struct list behind;
    int64_t revision; /* all changes up to it went through watch_hub_changes() */
    size_t watcher_count;
    struct watcher *delivering; /* NULL when it was cancelled inside its callback */
    struct watcher **touched;   /* NULL entries: cancelled meanwhile */
    size_t touched_count, touched_cap;
    struct watcher *chosen[CATCH_UP_TOGETHER]; /* NULL entries: cancelled meanwhile */
    struct scratch_event *scratch;
    size_t scratch_count, scratch_cap;
    struct watch_event *events;
    size_t events_cap;
};

struct watch_event *hub_events(struct watch_hub *h, size_t count); /* room for so many */
bool watcher_wants(const struct watcher *w, const struct mvcc_kv *kv);
void watcher_join(struct watcher *w); /* becomes a synced one; it must be in no list */
/* Delivers and notes how far the watcher is; false if it was cancelled inside the callback. Sets
 * *ret_paused when the consumer takes no more until it is resumed. */
bool watcher_deliver(struct watcher *w, const struct watch_event *events, size_t count,
                     int64_t revision, bool *ret_paused);

#endif
