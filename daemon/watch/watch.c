#include "daemon/watch/watch.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/watch/hub.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

struct watch_hub *watch_hub_new(struct mvcc *store)
{
    struct watch_hub *h = xcalloc(1, sizeof(*h));
    h->store = store;
    range_tree_init(&h->synced);
    list_init(&h->behind);
    h->revision = mvcc_revision(store);
    return h;
}

void watch_hub_free(struct watch_hub *h)
{
    if (!h)
        return;
    assert(h->watcher_count == 0);
    range_tree_free(&h->synced);
    free(h->touched);
    free(h->scratch);
    free(h->events);
    free(h);
}

struct watch_event *hub_events(struct watch_hub *h, size_t count)
{
    if (count > h->events_cap) {
        h->events_cap = count * 2;
        h->events = xrealloc(h->events, h->events_cap * sizeof(*h->events));
    }
    return h->events;
}

bool watcher_wants(const struct watcher *w, const struct mvcc_kv *kv)
{
    return kv->mod_revision >= w->next && !(kv->tombstone ? w->no_delete : w->no_put);
}

void watcher_join(struct watcher *w)
{
    w->state = WATCHER_SYNCED;
    w->group = range_tree_get(&w->hub->synced, &w->range);
    list_append(&w->group->members, &w->link);
}

static void leave(struct watcher *w)
{
    list_remove(&w->link);
    if (w->group)
        range_tree_release(&w->hub->synced, w->group);
    w->group = NULL;
}

bool watcher_deliver(struct watcher *w, const struct watch_event *events, size_t count,
                     int64_t revision, bool *ret_paused)
{
    struct watch_hub *h = w->hub;
    assert(!h->delivering && revision >= w->next);
    w->next = revision + 1;
    h->delivering = w;
    bool more = w->consumer.deliver(w->ctx, w, events, count, revision);
    bool alive = h->delivering == w;
    h->delivering = NULL;
    *ret_paused = alive && !more;
    return alive;
}

/* ---- live changes ------------------------------------------------------------------------------- */

static void touch(struct watch_hub *h, struct watcher *w, const struct mvcc_change *change)
{
    if (!watcher_wants(w, change->kv))
        return;
    if (h->scratch_count == h->scratch_cap) {
        h->scratch_cap = h->scratch_cap ? h->scratch_cap * 2 : 64;
        h->scratch = xrealloc(h->scratch, h->scratch_cap * sizeof(*h->scratch));
    }
    h->scratch[h->scratch_count++] = (struct scratch_event){
        .event = {change->kv, w->prev_kv ? mvcc_change_prev(h->store, change) : NULL},
    };
    if (w->touched) {
        h->scratch[w->last - 1].next = h->scratch_count;
        w->last = h->scratch_count;
        return;
    }
    if (h->touched_count == h->touched_cap) {
        h->touched_cap = h->touched_cap ? h->touched_cap * 2 : 64;
        h->touched = xrealloc(h->touched, h->touched_cap * sizeof(struct watcher *));
    }
    h->touched[h->touched_count++] = w;
    w->touched = h->touched_count;
    w->first = w->last = h->scratch_count;
}

struct stab {
    struct watch_hub *hub;
    const struct mvcc_change *change;
};

static void touch_group(void *ctx, struct range_group *g)
{
    struct stab *s = ctx;
    LIST_FOR_EACH_SAFE(it, tmp, &g->members)
    touch(s->hub, CONTAINER_OF(it, struct watcher, link), s->change);
}

static void deliver_touched(struct watch_hub *h, struct watcher *w, int64_t revision)
{
    size_t count = 0;
    for (size_t i = w->first; i; i = h->scratch[i - 1].next)
        count++;
    struct watch_event *events = hub_events(h, count);
    count = 0;
    for (size_t i = w->first; i; i = h->scratch[i - 1].next)
        events[count++] = h->scratch[i - 1].event;
    w->touched = 0;
    bool paused;
    if (watcher_deliver(w, events, count, revision, &paused) && paused) {
        leave(w);
        w->state = WATCHER_PAUSED;
    }
}

void watch_hub_changes(struct watch_hub *h, const struct mvcc_change *changes, size_t count,
                       int64_t revision, uint64_t stamp)
{
    (void)stamp; /* stands in each kv */
    if (count == 0)
        return;
    assert(revision > h->revision && h->touched_count == 0);
    h->revision = revision;
    for (size_t i = 0; i < count; i++) {
        struct stab s = {h, &changes[i]};
        range_tree_stab(&h->synced, changes[i].kv->key, touch_group, &s);
    }
    for (size_t i = 0; i < h->touched_count; i++) {
        if (h->touched[i])
            deliver_touched(h, h->touched[i], revision);
    }
    h->touched_count = h->scratch_count = 0;
}

/* ---- life of a watcher -------------------------------------------------------------------------- */

static void fall_behind(struct watcher *w, int64_t seen)
{
    leave(w);
    if (w->next <= seen)
        w->next = seen + 1;
    w->state = WATCHER_CATCHING_UP;
    list_append(&w->hub->behind, &w->link);
}

struct groups {
    struct range_group **items;
    size_t count, cap;
};

static void groups_add(struct groups *all, struct range_group *g)
{
    if (all->count == all->cap) {
        all->cap = all->cap ? 2 * all->cap : 64;
        all->items = xrealloc(all->items, all->cap * sizeof(*all->items));
    }
    all->items[all->count++] = g;
}

static void groups_add_tree(struct groups *all, struct range_group *g)
{
    if (!g)
        return;
    groups_add_tree(all, g->left);
    groups_add(all, g);
    groups_add_tree(all, g->right);
}

/* The group goes with its last member: the members are counted before. */
static void group_falls_behind(struct range_group *g, int64_t seen)
{
    size_t members = 0;
    LIST_FOR_EACH_SAFE(it, tmp, &g->members)
    members++;
    struct list *first = &g->members;
    for (; members > 0; members--)
        fall_behind(CONTAINER_OF(first->next, struct watcher, link), seen);
}

void watch_hub_store_replaced(struct watch_hub *h)
{
    assert(h->touched_count == 0);
    struct groups all = {0};
    for (size_t i = 0; i < h->synced.bucket_count; i++) {
        for (struct range_group *g = h->synced.buckets[i]; g; g = g->next)
            groups_add(&all, g);
    }
    groups_add_tree(&all, h->synced.root);
    for (size_t i = 0; i < all.count; i++)
        group_falls_behind(all.items[i], h->revision);
    free(all.items);
    h->revision = mvcc_revision(h->store);
}

struct watcher *watch_start(struct watch_hub *h, const struct watch_spec *spec,
                            const struct watch_consumer *consumer, void *ctx)
{
    struct watcher *w = xcalloc(1, sizeof(*w));
    w->hub = h;
    w->consumer = *consumer;
    w->ctx = ctx;
    w->range.key = bytes_of(bytes_dup(spec->range.key), spec->range.key.n);
    if (!range_is_key(&spec->range))
        w->range.end = bytes_of(bytes_dup(spec->range.end), spec->range.end.n);
    else if (MUTANT(watch_leaks_later_keys)) /* GHSA-xg4h-6gfc-h4m8 */
        w->range.end = bytes_of(bytes_dup(bytes_of("", 1)), 1);
    w->prev_kv = spec->prev_kv;
    w->no_put = spec->no_put;
    w->no_delete = spec->no_delete;
    list_init(&w->link);
    h->watcher_count++;
    /* A start in the future waits as a synced watcher that wants nothing before it (e#20221). */
    w->next = spec->start_revision > 0 ? spec->start_revision : h->revision + 1;
    if (MUTANT(watch_future_revision_old_events) && w->next > h->revision)
        w->next = h->revision + 1;
    if (MUTANT(watch_goes_back) && spec->start_revision > 1 && w->next <= h->revision)
        w->next--; /* what the client has seen last: e#15271 */
    if (w->next > h->revision) {
        watcher_join(w);
    } else {
        w->state = WATCHER_CATCHING_UP;
        list_append(&h->behind, &w->link);
    }
    return w;
}

void watch_resume(struct watcher *w)
{
    if (w->state != WATCHER_PAUSED)
        return;
    if (MUTANT(watch_skips_slow)) /* e#17529 */
        w->next = w->hub->revision + 1;
    if (w->next > w->hub->revision) {
        watcher_join(w);
        return;
    }
    w->state = WATCHER_CATCHING_UP;
    list_append(&w->hub->behind, &w->link);
}

void watch_cancel(struct watcher *w)
{
    struct watch_hub *h = w->hub;
    if (h->delivering == w)
        h->delivering = NULL;
    if (w->touched)
        h->touched[w->touched - 1] = NULL;
    if (w->chosen)
        h->chosen[w->chosen - 1] = NULL;
    leave(w);
    h->watcher_count--;
    free((void *)w->range.key.p);
    free((void *)w->range.end.p);
    free(w);
}

int64_t watch_progress(const struct watcher *w)
{
    if (MUTANT(watch_progress_ahead)) /* e#15220 */
        return w->hub->revision;
    if (w->state != WATCHER_SYNCED)
        return -1;
    /* Its events of the revision that is being delivered are still to come (e#15220). */
    return w->touched ? w->hub->revision - 1 : w->hub->revision;
}
