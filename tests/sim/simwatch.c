#include "tests/sim/simwatch.h"

#include <stdlib.h>

#include "lib/base/memory.h"
#include "tests/sim/sim.h"

#define HISTORY_MAX 300
#define FUTURE_MAX 30
#define PROGRESS_MAX SECOND /* between two answers, with the way */

struct seen {
    struct modelkv kv, prev;
    bool has_prev;
};

struct delivery {
    struct simwatch *watch;
    uint64_t connection;
    int64_t revision, compacted, floor; /* compacted: -1, or the revision of the cancellation */
    size_t count;
    struct seen events[];
};

static void connect(struct world *w, void *ctx, uint64_t a, uint64_t b);

static void reconnect_after(struct simwatch *t, uint64_t ms)
{
    t->connection++;
    world_after(&t->sim->world, ms * MS, connect, t, t->connection, 0);
}

/* ---- the client's side -------------------------------------------------------------------------- */

static bool concerns(const struct simwatch *t, const struct modelkv *kv)
{
    return kv->key >= t->first && kv->key < t->end && !(kv->tombstone ? t->no_delete : t->no_put);
}

static void check_prev(struct simwatch *t, const struct seen *e, int64_t compacted)
{
    struct world *w = &t->sim->world;
    const struct modelkv *want =
        t->prev_kv ? model_at(&t->sim->model, e->kv.key, e->kv.mod_revision - 1) : NULL;
    if (e->has_prev && (!want || !modelkv_equal(want, &e->prev)))
        world_fail_about(w,
                         ABOUT(.watch = t->number, .member = t->node,
                               .revision = (uint64_t)e->kv.mod_revision, ABOUT_KEY(e->kv.key)),
                         "watch %zu: k%03u at revision %lld has a wrong prev_kv", t->number,
                         e->kv.key, (long long)e->kv.mod_revision);
    if (want && !e->has_prev && e->kv.mod_revision - 1 >= compacted)
        world_fail_about(w,
                         ABOUT(.watch = t->number, .member = t->node,
                               .revision = (uint64_t)e->kv.mod_revision, ABOUT_KEY(e->kv.key)),
                         "watch %zu: k%03u at revision %lld has no prev_kv", t->number, e->kv.key,
                         (long long)e->kv.mod_revision);
}

/* The events must be all that the model has from t->next to d->revision. */
static void check_events(struct simwatch *t, const struct delivery *d)
{
    struct model *m = &t->sim->model;
    struct world *w = &t->sim->world;
    size_t at = 0;
    if (d->revision > m->last)
        world_fail_about(
            w, ABOUT(.watch = t->number, .member = t->node, .revision = (uint64_t)d->revision),
            "watch %zu: nobody has applied revision %lld", t->number, (long long)d->revision);
    for (int64_t r = t->next; r <= d->revision; r++) {
        size_t count;
        const struct modelkv *kvs = model_changes(m, r, &count);
        for (size_t i = 0; i < count; i++) {
            if (!concerns(t, &kvs[i]))
                continue;
            if (at == d->count || !modelkv_equal(&kvs[i], &d->events[at].kv))
                world_fail_about(
                    w,
                    ABOUT(.watch = t->number, .member = t->node, .revision = (uint64_t)r,
                          ABOUT_KEY(kvs[i].key)),
                    "watch %zu [k%03u, k%03u) from %lld to %lld: the change of k%03u at "
                    "revision %lld is missing or out of order",
                    t->number, t->first, t->end, (long long)t->next, (long long)d->revision,
                    kvs[i].key, (long long)r);
            check_prev(t, &d->events[at++], d->floor);
        }
    }
    if (at != d->count)
        world_fail_about(w,
                         ABOUT(.watch = t->number, .member = t->node,
                               .revision = (uint64_t)d->events[at].kv.mod_revision,
                               ABOUT_KEY(d->events[at].kv.key)),
                         "watch %zu from %lld to %lld: an event of revision %lld too many",
                         t->number, (long long)t->next, (long long)d->revision,
                         (long long)d->events[at].kv.mod_revision);
}

static void on_delivery(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)a, (void)b;
    struct delivery *d = ctx;
    struct simwatch *t = d->watch;
    if (d->connection == t->connection) {
        if (d->compacted >= 0) {
            TRACE2(w, "=watch %w is cancelled: the history is compacted up to %u", t->number,
                   d->compacted);
            if (d->compacted && d->compacted < t->next)
                world_fail_about(w, ABOUT(.watch = t->number, .member = t->node),
                                 "watch %zu was cancelled for compaction %lld, but it is at %lld",
                                 t->number, (long long)d->compacted, (long long)t->next);
            if (d->compacted) /* else its disk failed: another member has the history */
                t->next = d->compacted;
            reconnect_after(t, 20);
        } else {
            if (d->count > 0 || d->revision >= t->next)
                NOTE4(w, "watch %w is given revisions %r to %s, with %u events", t->number, t->next,
                      d->revision, d->count);
            check_events(t, d);
            t->sim->watches.events += d->count;
            t->sim->watches.progress += d->count == 0;
            if (d->revision >= t->next)
                t->next = d->revision + 1;
        }
    }
    free(d);
}

/* ---- the member's side -------------------------------------------------------------------------- */

static struct delivery *delivery_new(struct simwatch *t, size_t count)
{
    struct simnode *n = sim_node(t->sim, t->node);
    struct delivery *d = xcalloc(1, sizeof(*d) + count * sizeof(struct seen));
    d->watch = t;
    d->connection = t->connection;
    d->compacted = -1;
    d->floor = mvcc_compact_revision(replica_store(n->replica));
    d->count = count;
    return d;
}

/* In order, as on a stream. */
static void post(struct simwatch *t, struct delivery *d)
{
    struct world *w = &t->sim->world;
    uint64_t at = w->now + 100000 + simrng_below(&t->sim->watches.rng, 3 * MS);
    if (at <= t->last_arrival)
        at = t->last_arrival + 1;
    t->last_arrival = at;
    world_after(w, at - w->now, on_delivery, d, 0, 0);
}

static void on_resume(struct world *w, void *ctx, uint64_t connection, uint64_t b)
{
    (void)b;
    struct simwatch *t = ctx;
    struct simnode *n = sim_node(t->sim, t->node);
    if (connection != t->connection || !t->watcher || !t->paused || n->boot != t->boot)
        return;
    t->paused = false;
    NOTE2(w, "watch %w takes what %m has for it again", t->number, t->node);
    watch_resume(t->watcher);
    simnode_wake(n);
    simnode_settle(n);
}

static bool on_events(void *ctx, struct watcher *watcher, const struct watch_event *events,
                      size_t count, int64_t revision)
{
    (void)watcher;
    struct simwatch *t = ctx;
    struct delivery *d = delivery_new(t, count);
    d->revision = revision;
    for (size_t i = 0; i < count; i++) {
        model_take(&t->sim->model, events[i].kv, &d->events[i].kv);
        d->events[i].has_prev = events[i].prev != NULL;
        if (events[i].prev)
            model_take(&t->sim->model, events[i].prev, &d->events[i].prev);
    }
    post(t, d);
    if (!simrng_chance(&t->sim->watches.rng, t->sim->faults.slow_watch_percent))
        return true;
    t->paused = true;
    NOTE2(&t->sim->world, "watch %w takes nothing more of %m for a while", t->number, t->node);
    uint64_t pause = simrng_below(&t->sim->watches.rng, t->sim->calm ? 100 * MS : 2 * SECOND);
    world_after(&t->sim->world, pause, on_resume, t, t->connection, 0);
    return false;
}

static void on_compacted(void *ctx, struct watcher *watcher, int64_t revision)
{
    (void)watcher;
    struct simwatch *t = ctx;
    struct delivery *d = delivery_new(t, 0);
    d->compacted = revision;
    post(t, d);
}

static void disconnect(struct simwatch *t)
{
    if (t->watcher)
        watch_cancel(t->watcher);
    t->watcher = NULL;
    t->paused = false;
    list_remove(&t->link);
}

void watches_drop_all(struct simnode *n)
{
    while (!list_empty(&n->watchers)) {
        struct simwatch *t = CONTAINER_OF(n->watchers.next, struct simwatch, link);
        disconnect(t);
        reconnect_after(t, 1 + simrng_below(&n->sim->watches.rng, 500));
    }
}

static void ask_progress(struct world *w, void *ctx, uint64_t connection, uint64_t b)
{
    (void)b;
    struct simwatch *t = ctx;
    struct simnode *n = sim_node(t->sim, t->node);
    if (connection != t->connection || !t->watcher || n->boot != t->boot)
        return;
    int64_t seen = w->now < n->paused_until ? -1 : watch_progress(t->watcher);
    if (seen >= 0) {
        struct delivery *d = delivery_new(t, 0);
        d->revision = seen;
        post(t, d);
    }
    world_after(w, 100 * MS + simrng_below(&t->sim->watches.rng, 800 * MS), ask_progress, t,
                connection, 0);
}

/* A new client: from an old revision, from the very one that was compacted, or from one that is still to come. */
static int64_t somewhere(const struct simwatch *t)
{
    struct watches *all = &t->sim->watches;
    const struct simnode *n = sim_node(t->sim, t->node);
    const struct model *m = &t->sim->model;
    uint64_t how = simrng_below(&all->rng, 3);
    int64_t back = (int64_t)simrng_below(&all->rng, HISTORY_MAX);
    if (how == 0 && n->replica)
        return mvcc_compact_revision(replica_store(n->replica));
    if (how == 1)
        return m->last + (int64_t)simrng_below(&all->rng, FUTURE_MAX);
    return m->last - back;
}

static void on_leave(struct world *w, void *ctx, uint64_t connection, uint64_t b)
{
    (void)w, (void)b;
    struct simwatch *t = ctx;
    if (connection != t->connection || t->sim->calm)
        return;
    if (simrng_chance(&t->sim->watches.rng, 30)) {
        int64_t at = somewhere(t);
        t->next = at > 0 ? at : 1;
    }
    disconnect(t);
    reconnect_after(t, 1 + simrng_below(&t->sim->watches.rng, 1000));
}

static void connect(struct world *w, void *ctx, uint64_t connection, uint64_t b)
{
    (void)b;
    struct simwatch *t = ctx;
    struct watches *all = &t->sim->watches;
    if (connection != t->connection)
        return;
    disconnect(t);
    t->node = t->wanted ? t->wanted : clients_pick_node(&t->sim->clients);
    t->wanted = 0;
    struct simnode *n = sim_node(t->sim, t->node);
    if (!n->replica || w->now < n->paused_until) {
        reconnect_after(t, 100);
        return;
    }
    struct mvcc *store = replica_store(n->replica);
    if (t->next == 0)
        t->next = simrng_chance(&all->rng, 50) ? mvcc_revision(store) + 1 : 1;
    static char keys[2][MODEL_KEY_BYTES + 1];
    struct watch_spec spec = {
        .range = {.key = model_key(t->first, keys[0])},
        .start_revision = t->next,
        .prev_kv = t->prev_kv,
        .no_put = t->no_put,
        .no_delete = t->no_delete,
    };
    if (t->end > t->first + 1)
        spec.range.end = model_key(t->end, keys[1]);
    TRACE3(w, "=watch %w connects to %m and asks for all from revision %u on", t->number, n->id,
           t->next);
    t->boot = n->boot;
    t->watcher = watch_start(replica_watch_hub(n->replica), &spec,
                             &(struct watch_consumer){on_events, on_compacted}, t);
    list_append(&n->watchers, &t->link);
    simnode_wake(n);
    simnode_settle(n);
    world_after(w, 50 * MS, ask_progress, t, t->connection, 0);
    world_after(w, simrng_below(&all->rng, 15 * SECOND), on_leave, t, t->connection, 0);
}

void watches_begin_anew(struct watches *all, uint64_t node, int64_t revision)
{
    struct simwatch *t = &all->all[simrng_below(&all->rng, all->count)];
    t->first = 0;
    t->end = MODEL_KEYS;
    t->no_put = t->no_delete = false;
    t->next = revision;
    t->wanted = node;
    disconnect(t);
    reconnect_after(t, 0);
}

void watches_start(struct watches *all, struct sim *s)
{
    all->sim = s;
    all->rng = world_rng(&s->world, 5);
    all->count = 2 + simrng_below(&all->rng, WATCHES_MAX - 1);
    for (size_t i = 0; i < all->count; i++) {
        struct simwatch *t = &all->all[i];
        *t = (struct simwatch){.sim = s, .number = i + 1};
        list_init(&t->link);
        t->first = (uint32_t)simrng_below(&all->rng, CLIENT_KEYS);
        t->end = t->first + 1;
        if (simrng_chance(&all->rng, 60)) {
            t->first = 0;
            t->end = MODEL_KEYS;
        }
        t->prev_kv = simrng_chance(&all->rng, 50);
        t->no_put = simrng_chance(&all->rng, 10);
        t->no_delete = simrng_chance(&all->rng, 10);
        reconnect_after(t, 100 + simrng_below(&all->rng, 1000));
    }
}

/* A lease that ended in the last moment makes a revision that a watch need not have heard of: what does not
 * concern it comes with the next progress answer. */
static bool has_all(const struct simwatch *t)
{
    const struct model *m = &t->sim->model;
    for (int64_t r = t->next; r <= m->last; r++) {
        size_t count;
        const struct modelkv *kvs = model_changes(m, r, &count);
        if (m->seen_at[r] + PROGRESS_MAX < t->sim->world.now)
            return false;
        for (size_t i = 0; i < count; i++) {
            if (concerns(t, &kvs[i]))
                return false;
        }
    }
    return true;
}

void watches_check_end(struct watches *all)
{
    struct sim *s = all->sim;
    for (size_t i = 0; i < all->count; i++) {
        if (!has_all(&all->all[i]))
            world_fail_about(&s->world,
                             ABOUT(.watch = all->all[i].number, .member = all->all[i].node,
                                   .revision = (uint64_t)all->all[i].next),
                             "at the end watch %zu has seen all below %lld, the cluster is at "
                             "%lld",
                             all->all[i].number, (long long)all->all[i].next,
                             (long long)s->model.last);
    }
}

void watches_end_epoch(struct watches *all, int64_t revision)
{
    for (size_t i = 0; i < all->count; i++) {
        struct simwatch *t = &all->all[i];
        t->next = t->next > revision + 1 ? revision + 1 : t->next;
        disconnect(t);
        reconnect_after(t,
                        100 + simrng_below(&all->rng, 1000)); /* what is under way is for nobody */
    }
}

void watches_close(struct watches *all)
{
    for (size_t i = 0; i < all->count; i++)
        disconnect(&all->all[i]);
}
