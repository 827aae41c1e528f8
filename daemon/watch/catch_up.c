/* Watchers that read history: slices of bounded size, shared by watchers that need the same part. */
#include <stdlib.h>

#include "daemon/watch/hub.h"
#include "lib/base/memory.h"

/* Rows of one slice: with CATCH_UP_TOGETHER watchers it stays in the order of a millisecond. */
#define CATCH_UP_ROWS_MAX 512

/* The smallest range that has both. */
static struct mvcc_range hull(const struct mvcc_range *a, const struct mvcc_range *b)
{
    struct mvcc_range h = *a;
    if (bytes_compare(b->key, h.key) < 0)
        h.key = b->key;
    static const uint8_t zero[1] = {0};
    bool same = bytes_equal(a->key, b->key) && range_is_key(a) && range_is_key(b);
    if (same)
        return h;
    if (range_is_key(a) || range_is_key(b) || range_is_open(a) || range_is_open(b))
        h.end =
            bytes_of(zero, 1); /* a key has no end of its own to take: all above is cheap to skip */
    else if (bytes_compare(b->end, a->end) > 0)
        h.end = b->end;
    return h;
}

/* The state of a key before `kv`; NULL if there was none or it is compacted. */
static enum errc previous(struct watch_hub *h, const struct mvcc_kv *kv, struct mvcc_kv **ret_prev)
{
    *ret_prev = NULL;
    if (kv->mod_revision <= 1 || (!kv->tombstone && kv->version == 1))
        return ERR_OK;
    struct mvcc_query q = {.range = {.key = kv->key}, .revision = kv->mod_revision - 1};
    struct mvcc_result r;
    enum errc code = mvcc_range(h->store, &q, &r, NULL);
    if (code != ERR_OK)
        return code == ERR_COMPACTED ? ERR_OK : code;
    *ret_prev = r.count ? mvcc_kv_ref(r.kvs[0]) : NULL;
    mvcc_result_free(&r);
    return ERR_OK;
}

/* The history at the watcher's place is gone, or can't be read: that one is no compaction, and must not
 * send the watcher back to its revision. */
static void tell_gone(struct watcher *w, enum errc code)
{
    list_remove(&w->link);
    w->state = WATCHER_DEAD;
    w->consumer.compacted(w->ctx, w,
                          code == ERR_COMPACTED ? mvcc_compact_revision(w->hub->store) : 0);
}

static void drop_prevs(struct watch_event *events, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (events[i].prev)
            mvcc_kv_unref((struct mvcc_kv *)events[i].prev);
    }
}

/* Hands a slice of history (everything in [w->next, next)) to one watcher. */
static void feed(struct watcher *w, const struct mvcc_result *slice, int64_t next)
{
    struct watch_hub *h = w->hub;
    struct watch_event *events = hub_events(h, slice->count ? slice->count : 1);
    size_t count = 0;
    enum errc code = ERR_OK;
    for (size_t i = 0; i < slice->count && code == ERR_OK; i++) {
        const struct mvcc_kv *kv = slice->kvs[i];
        if (!watcher_wants(w, kv) || !mvcc_range_has(&w->range, kv->key))
            continue;
        struct mvcc_kv *prev = NULL;
        if (w->prev_kv)
            code = previous(h, kv, &prev);
        events[count++] = (struct watch_event){kv, prev};
    }
    list_remove(&w->link);
    w->state = WATCHER_PAUSED; /* until it is known where it goes */
    if (code != ERR_OK) {
        drop_prevs(events, count);
        tell_gone(w, code);
        return;
    }
    bool alive = true, paused = false;
    if (count)
        alive = watcher_deliver(w, events, count, next - 1, &paused);
    else if (w->next < next)
        w->next = next;
    drop_prevs(events, count);
    if (!alive || paused || w->state != WATCHER_PAUSED)
        return;
    watch_resume(w);
}

/* Fills hub->chosen from the head of the list, and says which part of the history they need first. */
static size_t choose(struct watch_hub *h, struct mvcc_range *ret_range, int64_t *ret_from)
{
    size_t n = 0;
    LIST_FOR_EACH_SAFE(it, tmp, &h->behind)
    {
        if (n == CATCH_UP_TOGETHER)
            break;
        struct watcher *w = CONTAINER_OF(it, struct watcher, link);
        *ret_range = n == 0 ? w->range : hull(ret_range, &w->range);
        *ret_from = n == 0 || w->next < *ret_from ? w->next : *ret_from;
        h->chosen[n++] = w;
        w->chosen = n;
    }
    return n;
}

/* The watcher's turn in this slice is over: it goes to the end of the list, so that nobody starves, or
 * joins if there is nothing to catch up with (a future start after the store was replaced). */
static void step_back(struct watcher *w)
{
    list_remove(&w->link);
    if (w->next > w->hub->revision)
        watcher_join(w);
    else
        list_append(&w->hub->behind, &w->link);
}

bool watch_hub_work(struct watch_hub *h)
{
    if (list_empty(&h->behind))
        return false;
    struct mvcc_range range = {.key = BYTES_EMPTY};
    int64_t from = 0, next = 0;
    size_t n = choose(h, &range, &from);
    struct mvcc_result slice = {0};
    enum errc code = mvcc_history(h->store, &range, from, CATCH_UP_ROWS_MAX, &slice, &next, NULL);
    bool gone = code != ERR_OK;
    if (!gone && next > h->revision + 1)
        next = h->revision + 1;
    for (size_t i = 0; i < n; i++) {
        struct watcher *w = h->chosen[i];
        if (!w)
            continue;
        w->chosen = 0;
        if (gone && w->next == from)
            tell_gone(w, code);
        else if (!gone && w->next < next)
            feed(w, &slice, next);
        else
            step_back(w);
    }
    mvcc_result_free(&slice);
    return !list_empty(&h->behind);
}
