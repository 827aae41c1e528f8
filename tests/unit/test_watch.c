/* Watches: order, completeness, no doubles, whatever the consumer and the history do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "daemon/watch/watch.h"
#include "tests/unit/temp_store.h"

static struct temp_store f;
static struct watch_hub *hub;

/* What one consumer got, as text: "put K@REV ", "del K@REV ", with "(PREV)" behind it. */
struct seen {
    struct watcher *w;
    char text[65536];
    size_t n;
    size_t calls, events;
    int64_t revision, last_event;
    bool pause;          /* answers false from now on */
    bool cancel_inside;  /* cancels itself at the next delivery */
    struct seen *victim; /* cancels this one at the next delivery */
    bool compacted;
    int64_t compact_revision;
};

static bool deliver(void *ctx, struct watcher *w, const struct watch_event *events, size_t count,
                    int64_t revision)
{
    struct seen *s = ctx;
    assert_ptr_equal(w, s->w);
    assert_true(revision > s->revision);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        const struct mvcc_kv *kv = events[i].kv;
        assert_true(kv->mod_revision > s->revision && kv->mod_revision <= revision);
        assert_true(kv->mod_revision >= s->last_event);
        s->last_event = kv->mod_revision;
        s->events++;
        if (s->n < sizeof(s->text) - 256)
            s->n +=
                (size_t)snprintf(s->text + s->n, 256, "%s %.*s@%lld", kv->tombstone ? "del" : "put",
                                 (int)kv->key.n, kv->key.p, (long long)kv->mod_revision);
        if (events[i].prev && s->n < sizeof(s->text) - 256)
            s->n += (size_t)snprintf(s->text + s->n, 256, "(%.*s)", (int)events[i].prev->value.n,
                                     events[i].prev->value.p);
        if (s->n < sizeof(s->text) - 256)
            s->text[s->n++] = ' ';
    }
    s->text[s->n] = 0;
    s->calls++;
    s->revision = revision;
    if (s->victim && s->victim->w) {
        watch_cancel(s->victim->w);
        s->victim->w = NULL;
    }
    if (s->cancel_inside) {
        watch_cancel(w);
        s->w = NULL;
    }
    return !s->pause;
}

static void compacted(void *ctx, struct watcher *w, int64_t compact_revision)
{
    struct seen *s = ctx;
    assert_ptr_equal(w, s->w);
    s->compacted = true;
    s->compact_revision = compact_revision;
}

static const struct watch_consumer consumer = {deliver, compacted};

static void start(struct seen *s, const char *key, const char *end, int64_t from, bool prev_kv)
{
    memset(s, 0, sizeof(*s));
    struct watch_spec spec = {.start_revision = from, .prev_kv = prev_kv};
    spec.range.key = bytes_str(key);
    if (end)
        spec.range.end = end[0] ? bytes_str(end) : bytes_of("", 1);
    s->w = watch_start(hub, &spec, &consumer, s);
}

static void stop(struct seen *s)
{
    if (s->w)
        watch_cancel(s->w);
    s->w = NULL;
}

static int setup(void **state)
{
    (void)state;
    temp_store_open(&f);
    hub = watch_hub_new(f.store);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    watch_hub_free(hub);
    temp_store_close(&f);
    return 0;
}

static void begin(void)
{
    f.index++;
    mvcc_begin(f.store, f.index, 1, f.index);
}

static void end(void)
{
    const struct mvcc_change *changes;
    size_t count;
    mvcc_end(f.store, &changes, &count);
    watch_hub_changes(hub, changes, count, mvcc_revision(f.store), f.index);
}

static void put(const char *key, const char *value)
{
    assert_int_equal(mvcc_put(f.store, bytes_str(key), bytes_str(value), 0, NULL), ERR_OK);
}

static void put1(const char *key, const char *value)
{
    begin();
    put(key, value);
    end();
}

static void del1(const char *key)
{
    int64_t n;
    begin();
    mvcc_delete(f.store, &(struct mvcc_range){.key = bytes_str(key)}, &n, NULL);
    end();
}

static void compact(int64_t revision)
{
    begin();
    assert_int_equal(mvcc_compact(f.store, revision), ERR_OK);
    end();
    simworker_drain(&f.worker);
}

static void work_all(void)
{
    size_t slices = 0;
    while (watch_hub_work(hub))
        assert_true(++slices < 100000);
}

static void live_changes_reach_who_watches_them(void **state)
{
    (void)state;
    static struct seen key, range, open, other;
    start(&key, "b", NULL, 0, true);
    start(&range, "a", "c", 0, false);
    start(&open, "b", "", 0, false);
    start(&other, "x", NULL, 0, false);
    put1("a", "1");
    put1("b", "2");
    put1("b", "3");
    put1("c", "4");
    del1("b");
    assert_string_equal(key.text, "put b@3 put b@4(2) del b@6(3) ");
    assert_string_equal(range.text, "put a@2 put b@3 put b@4 del b@6 ");
    assert_string_equal(open.text, "put b@3 put b@4 put c@5 del b@6 ");
    assert_string_equal(other.text, "");
    assert_int_equal(watch_progress(other.w), 6);
    stop(&key);
    stop(&range);
    stop(&open);
    put1("b", "5");
    stop(&other);
}

static void one_revision_comes_in_one_call(void **state)
{
    (void)state;
    static struct seen s, late;
    start(&s, "a", "z", 0, false);
    begin();
    put("a", "1");
    put("zz", "1");
    put("b", "2");
    end();
    assert_string_equal(s.text, "put a@2 put b@2 ");
    assert_int_equal(s.calls, 1);
    start(&late, "a", "z", 1, false);
    work_all();
    assert_string_equal(late.text, "put a@2 put b@2 ");
    assert_int_equal(late.calls, 1);
    stop(&s);
    stop(&late);
}

static void filters_are_exact(void **state)
{
    (void)state;
    static struct seen puts, dels;
    struct watch_spec spec = {.range = {.key = bytes_str("a")}, .no_delete = true};
    puts.w = watch_start(hub, &spec, &consumer, &puts);
    spec.no_delete = false;
    spec.no_put = true;
    spec.start_revision = 1;
    dels.w = watch_start(hub, &spec, &consumer, &dels);
    put1("a", "1");
    del1("a");
    put1("a", "2");
    work_all();
    assert_string_equal(puts.text, "put a@2 put a@4 ");
    assert_string_equal(dels.text, "del a@3 ");
    stop(&puts);
    stop(&dels);
}

static void history_then_live(void **state)
{
    (void)state;
    static struct seen s, prev;
    for (int i = 0; i < 2000; i++)
        put1(i % 2 ? "a" : "b", i % 4 < 2 ? "x" : "y");
    start(&s, "a", "c", 2, false);
    start(&prev, "a", NULL, 1995, true);
    assert_int_equal(watch_progress(s.w), -1);
    assert_true(watch_hub_work(hub));
    put1("a", "while it catches up");
    work_all();
    assert_int_equal(s.events, 2001);
    assert_int_equal(s.revision, 2002);
    assert_string_equal(prev.text,
                        "put a@1995(y) put a@1997(x) put a@1999(y) put a@2001(x) put a@2002(y) ");
    put1("b", "live");
    assert_int_equal(s.events, 2002);
    assert_int_equal(watch_progress(s.w), 2003);
    stop(&s);
    stop(&prev);
}

/* A slow watcher gets everything once it goes on, and others don't wait for it (e#17529). */
static void a_slow_consumer_loses_nothing(void **state)
{
    (void)state;
    static struct seen slow, fast;
    start(&slow, "k", NULL, 0, false);
    start(&fast, "k", NULL, 0, false);
    slow.pause = true;
    put1("k", "1");
    assert_int_equal(slow.events, 1);
    assert_int_equal(watch_progress(slow.w), -1);
    for (int i = 0; i < 3000; i++)
        put1("k", "2");
    work_all();
    assert_int_equal(slow.events, 1);
    assert_int_equal(fast.events, 3001);
    watch_resume(slow.w); /* it takes one slice and is full again */
    work_all();
    size_t after = slow.events;
    assert_true(after > 1 && after < 3001);
    slow.pause = false;
    watch_resume(slow.w);
    put1("k", "3");
    work_all();
    assert_int_equal(slow.events, 3002);
    assert_int_equal(watch_progress(slow.w), mvcc_revision(f.store));
    stop(&slow);
    stop(&fast);
}

static void a_future_start_gets_nothing_older(void **state)
{
    (void)state;
    static struct seen s;
    start(&s, "k", NULL, 5, false);
    for (int i = 0; i < 5; i++)
        put1("k", "v");
    work_all();
    assert_string_equal(s.text, "put k@5 put k@6 ");
    stop(&s);
    /* Nor after the store was replaced while it waited (e#20221). */
    start(&s, "k", NULL, 9, false);
    watch_hub_store_replaced(hub);
    work_all();
    for (int i = 0; i < 4; i++)
        put1("k", "v");
    work_all();
    assert_string_equal(s.text, "put k@9 put k@10 ");
    stop(&s);
}

static void a_compacted_start_is_told(void **state)
{
    (void)state;
    static struct seen gone, edge, later;
    for (int i = 0; i < 9; i++)
        put1("k", "v");
    compact(6);
    start(&gone, "k", NULL, 5, false);
    start(&edge, "k", NULL, 6, false);
    start(&later, "k", NULL, 8, false);
    work_all();
    assert_true(gone.compacted);
    assert_int_equal(gone.compact_revision, 6);
    assert_int_equal(gone.events, 0);
    assert_false(edge.compacted); /* clients start again at the revision that they are told */
    assert_int_equal(edge.events, 5);
    assert_int_equal(later.events, 3);
    stop(&gone);
    stop(&edge);
    stop(&later);
}

/* A watcher that paused behind the compaction learns of it; nothing is skipped silently (e#18089). */
static void a_slow_consumer_behind_a_compaction_is_told(void **state)
{
    (void)state;
    static struct seen s;
    start(&s, "k", NULL, 0, false);
    s.pause = true;
    for (int i = 0; i < 9; i++)
        put1("k", "v");
    compact(8);
    s.pause = false;
    watch_resume(s.w);
    work_all();
    assert_true(s.compacted);
    assert_int_equal(s.events, 1);
    stop(&s);
}

static void progress_is_behind_events_of_the_revision_under_delivery(void **state)
{
    (void)state;
    static struct seen first, second;
    start(&first, "a", "z", 0, false);
    start(&second, "a", "z", 0, false);
    put1("a", "1");
    assert_int_equal(watch_progress(first.w), 2);
    first.victim = &second; /* cancelled by the other's callback, before its own delivery */
    put1("a", "2");
    assert_int_equal(second.events, 1);
    assert_null(second.w);
    first.cancel_inside = true;
    put1("a", "3");
    assert_int_equal(first.events, 3);
    assert_null(first.w);
    put1("a", "4");
}

static void callbacks_may_cancel_while_catching_up(void **state)
{
    (void)state;
    static struct seen s[40];
    for (int i = 0; i < 1000; i++)
        put1("a", "1");
    for (size_t i = 0; i < 40; i++) {
        start(&s[i], "a", "z", 1 + (int64_t)i, false);
        s[i].cancel_inside = i % 3 == 1;
    }
    for (size_t i = 0; i + 2 < 40; i += 3)
        s[i].victim = &s[i + 2];
    work_all();
    for (size_t i = 0; i < 40; i++) {
        if (i % 3 == 0)
            assert_int_equal(s[i].events, 1000 - (i > 1 ? i - 1 : 0));
        if (i % 3 == 2 && i < 39)
            assert_null(s[i].w);
        stop(&s[i]);
    }
}

/* Many watchers of many shapes against a plain list. */
static void many_ranges(void **state)
{
    (void)state;
    enum { N = 600 };
    static struct seen s[N];
    static char keys[N][8], ends[N][8];
    static size_t expect[N];
    uint32_t seed = 12345;
    memset(expect, 0, sizeof(expect));
    for (size_t i = 0; i < N; i++) {
        seed = seed * 1664525 + 1013904223;
        snprintf(keys[i], sizeof(keys[i]), "%03u", (seed >> 16) % 1000);
        snprintf(ends[i], sizeof(ends[i]), "%03u", (seed >> 8) % 1000);
        const char *end = i % 3 == 0 ? NULL : i % 7 == 0 ? "" : ends[i];
        start(&s[i], keys[i], end, 0, false);
    }
    for (int n = 0; n < 300; n++) {
        char key[8];
        seed = seed * 1664525 + 1013904223;
        snprintf(key, sizeof(key), "%03u", (seed >> 16) % 1000);
        if (n == 150) { /* the tree shrinks in the middle */
            for (size_t i = 0; i < N; i += 2)
                stop(&s[i]);
        }
        put1(key, "v");
        for (size_t i = 0; i < N; i++) {
            bool in = i % 3 == 0   ? strcmp(key, keys[i]) == 0
                      : i % 7 == 0 ? strcmp(key, keys[i]) >= 0
                                   : strcmp(key, keys[i]) >= 0 && strcmp(key, ends[i]) < 0;
            expect[i] += in && s[i].w;
        }
    }
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(s[i].events, expect[i]);
        stop(&s[i]);
    }
}

static void a_replaced_store_sets_everybody_back(void **state)
{
    (void)state;
    static struct seen s;
    start(&s, "k", NULL, 0, false);
    put1("k", "1");
    /* Two revisions that the hub hears nothing of, as if a snapshot had brought them. */
    for (int i = 0; i < 2; i++) {
        const struct mvcc_change *changes;
        size_t count;
        begin();
        put("k", "2");
        mvcc_end(f.store, &changes, &count);
    }
    watch_hub_store_replaced(hub);
    assert_int_equal(watch_progress(s.w), -1);
    work_all();
    put1("k", "3");
    assert_string_equal(s.text, "put k@2 put k@3 put k@4 put k@5 ");
    stop(&s);
}

/* Seed 54: the first of two watchers of one range took the group with it, which the second one still
 * pointed to, when a snapshot replaced the store. */
static void watchers_of_one_range_survive_a_snapshot(void **state)
{
    (void)state;
    static struct seen key1, key2, range1, range2;
    start(&key1, "k", NULL, 0, false);
    start(&key2, "k", NULL, 0, false);
    start(&range1, "a", "z", 0, false);
    start(&range2, "a", "z", 0, false);
    watch_hub_store_replaced(hub);
    work_all();
    put1("k", "1");
    struct seen *all[] = {&key1, &key2, &range1, &range2};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(all[i]->text, "put k@2 ");
        stop(all[i]);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(live_changes_reach_who_watches_them),
        T(one_revision_comes_in_one_call),
        T(filters_are_exact),
        T(history_then_live),
        T(a_slow_consumer_loses_nothing),
        T(a_future_start_gets_nothing_older),
        T(watchers_of_one_range_survive_a_snapshot),
        T(a_compacted_start_is_told),
        T(a_slow_consumer_behind_a_compaction_is_told),
        T(progress_is_behind_events_of_the_revision_under_delivery),
        T(callbacks_may_cancel_while_catching_up),
        T(many_ranges),
        T(a_replaced_store_sets_everybody_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
