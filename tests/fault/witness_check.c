/* What the watches told, against the history that the members tell in the end, and that against itself. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/crc32c.h"
#include "lib/base/memory.h"
#include "tests/fault/witness.h"

bool witness_kv_equal(const struct witness_kv *a, const struct witness_kv *b)
{
    return strcmp(a->key, b->key) == 0 && a->value == b->value && a->create == b->create &&
           a->mod == b->mod && a->version == b->version && a->lease == b->lease &&
           a->stamp == b->stamp;
}

static bool same_event(const struct witness_event *a, const struct witness_event *b, bool with_prev)
{
    if (a->deletion != b->deletion || !witness_kv_equal(&a->kv, &b->kv))
        return false;
    return !with_prev ||
           (a->has_prev == b->has_prev && (!a->has_prev || witness_kv_equal(&a->prev, &b->prev)));
}

/* ---- The history against itself ---------------------------------------------------------------- */

/* Each revision changes something, and time doesn't go back. */
static void check_order(struct witness *w, const struct witness_events *history, int64_t last)
{
    int64_t revision = 1;
    uint64_t stamp = 0;
    for (size_t i = 0; i < history->count && history->all[i].kv.mod <= last; i++) {
        const struct witness_kv *kv = &history->all[i].kv;
        if (kv->mod != revision && kv->mod != revision + 1)
            witness_wrong(w, "the history goes from revision %" PRId64 " to %" PRId64 " (%s)",
                          revision, kv->mod, kv->key);
        revision = kv->mod;
        if (history->all[i].deletion)
            continue;
        if (kv->stamp < stamp)
            witness_wrong(w, "%s at revision %" PRId64 ": the stamp goes back by %.3f s", kv->key,
                          kv->mod, (double)(stamp - kv->stamp) / 1e9);
        stamp = kv->stamp;
    }
    w->newest_stamp = stamp;
    if (revision != last)
        witness_wrong(w, "the history ends with revision %" PRId64 " instead of %" PRId64, revision,
                      last);
}

static int by_key(const void *a, const void *b)
{
    const struct witness_event *x = *(const struct witness_event *const *)a;
    const struct witness_event *y = *(const struct witness_event *const *)b;
    int keys = strcmp(x->kv.key, y->kv.key);
    return keys ? keys : (x->kv.mod > y->kv.mod) - (x->kv.mod < y->kv.mod);
}

/* `before`: the key's last event, or NULL. */
static void check_step(struct witness *w, const struct witness_event *before,
                       const struct witness_event *e)
{
    const struct witness_kv *prev = before && !before->deletion ? &before->kv : NULL;
    if (before && before->kv.mod == e->kv.mod)
        witness_wrong(w, "%s changes twice in revision %" PRId64, e->kv.key, e->kv.mod);
    if (e->has_prev != (prev != NULL) || (prev && !witness_kv_equal(prev, &e->prev)))
        witness_wrong(w, "%s at revision %" PRId64 ": prev_kv is not what was there before",
                      e->kv.key, e->kv.mod);
    int64_t create = e->deletion ? 0 : prev ? prev->create : e->kv.mod;
    int64_t version = e->deletion ? 0 : prev ? prev->version + 1 : 1;
    if (e->kv.create != create || e->kv.version != version)
        witness_wrong(w,
                      "%s at revision %" PRId64 ": create_revision %" PRId64 " and version %" PRId64
                      " instead of %" PRId64 " and %" PRId64,
                      e->kv.key, e->kv.mod, e->kv.create, e->kv.version, create, version);
}

static void check_keys(struct witness *w, const struct witness_events *history)
{
    const struct witness_event **sorted = xmalloc((history->count + 1) * sizeof(sorted[0]));
    for (size_t i = 0; i < history->count; i++)
        sorted[i] = &history->all[i];
    qsort(sorted, history->count, sizeof(sorted[0]), by_key);
    for (size_t i = 0; i < history->count; i++) {
        bool first = i == 0 || strcmp(sorted[i - 1]->kv.key, sorted[i]->kv.key) != 0;
        check_step(w, first ? NULL : sorted[i - 1], sorted[i]);
    }
    free(sorted);
}

/* ---- Others against the history ---------------------------------------------------------------- */

static bool concerns(const struct witness_watch *t, const struct witness_kv *kv)
{
    int from = strcmp(kv->key, t->key);
    return t->end[0] ? from >= 0 && strcmp(kv->key, t->end) < 0 : from == 0;
}

static void check_watch(struct witness *w, const struct witness_watch *t,
                        const struct witness_events *history, int64_t last)
{
    size_t at = 0;
    for (size_t i = 0; i < history->count && history->all[i].kv.mod <= last; i++) {
        const struct witness_event *want = &history->all[i];
        if (want->kv.mod < t->first || !concerns(t, &want->kv))
            continue;
        if (at == t->events.count || !same_event(want, &t->events.all[at], t->prev_kv)) {
            witness_wrong(w,
                          "%s (member %zu, from %" PRId64 " on): %s at revision %" PRId64
                          " is missing or another; told was %s at %" PRId64,
                          t->name, t->member + 1, t->first, want->kv.key, want->kv.mod,
                          at == t->events.count ? "nothing" : t->events.all[at].kv.key,
                          at == t->events.count ? 0 : t->events.all[at].kv.mod);
            return;
        }
        at++;
    }
    if (at < t->events.count && t->events.all[at].kv.mod <= last)
        witness_wrong(w, "%s: %s at revision %" PRId64 " never happened", t->name,
                      t->events.all[at].kv.key, t->events.all[at].kv.mod);
}

/* The history has one event at least for each revision, in order: found by bisection. */
static const struct witness_event *event_at(const struct witness_events *history, int64_t revision)
{
    size_t low = 0, high = history->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (history->all[middle].kv.mod < revision)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < history->count && history->all[low].kv.mod == revision;
    return found ? &history->all[low] : NULL;
}

static void check_puts(struct witness *w, const struct witness_events *history)
{
    for (size_t i = 0; i < w->put_count; i++) {
        char key[64], value[32];
        snprintf(key, sizeof(key), WITNESS_PUT_PREFIX "%" PRId64, w->puts[i].number);
        int n = snprintf(value, sizeof(value), "%" PRId64, w->puts[i].number);
        const struct witness_event *e = event_at(history, w->puts[i].revision);
        if (!e || e->deletion || strcmp(e->kv.key, key) != 0 ||
            e->kv.value != crc32c(0, value, (size_t)n))
            witness_wrong(w, "%s was acknowledged at revision %" PRId64 ": there stands %s", key,
                          w->puts[i].revision, e ? e->kv.key : "nothing");
    }
}

/* A lease's key carries its lease, and is gone with one that was abandoned. */
static void check_leases(struct witness *w, const struct witness_events *history)
{
    bool *there = xcalloc(w->lease_count + 1, sizeof(*there));
    size_t prefix = strlen(WITNESS_LEASE_PREFIX);
    for (size_t i = 0; i < history->count; i++) {
        const struct witness_event *e = &history->all[i];
        if (strncmp(e->kv.key, WITNESS_LEASE_PREFIX, prefix) != 0)
            continue;
        size_t number = strtoull(e->kv.key + prefix, NULL, 10);
        if (number >= w->lease_count)
            continue; /* of an earlier witness */
        there[number] = !e->deletion;
        if (!e->deletion && e->kv.lease != w->leases[number]->id)
            witness_wrong(w, "%s has the lease %" PRIx64 " instead of %" PRIx64, e->kv.key,
                          e->kv.lease, w->leases[number]->id);
    }
    for (size_t i = 0; i < w->lease_count; i++) {
        const struct witness_lease *l = w->leases[i];
        if (l->kept && l->attached && !there[i] && !l->ended_ns)
            witness_wrong(w, "lease %zu is kept alive, and its key is gone", i);
        if (!l->kept && there[i])
            witness_wrong(w, "lease %zu is gone, and its key is there", i);
    }
    free(there);
}

void witness_check(struct witness *w, int64_t last)
{
    const struct witness_events *history = &w->readers[0].events;
    check_order(w, history, last);
    check_keys(w, history);
    for (size_t i = 1; i < w->member_count; i++)
        check_watch(w, &w->readers[i], history, last);
    for (size_t i = 0; i < WITNESS_WATCHES; i++)
        check_watch(w, &w->watches[i], history, last);
    check_puts(w, history);
    check_leases(w, history);
}
