#include "tests/sim/steady.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/apply/internal.h"
#include "daemon/replica/internal.h"
#include "tests/sim/simfile.h"

#define HOUR (3600 * SECOND)
#define WINDOW (600 * SECOND)
#define LOOK (10 * SECOND) /* sizes are saw-toothed: a window shows their highest point */
#define TICK_MS 500
#define SEGMENT_BYTES (1024u * 1024)
#define TRANSFER_EVERY (1200 * SECOND)
#define RESTART_EVERY (1800 * SECOND)
#define AWAY_SHORT (2 * SECOND)
#define AWAY_LONG (700 * SECOND) /* every fourth restart: the others cut their logs meanwhile */

enum figure {
    HEAP, /* of the whole process, without the simulated disks */
    LOG,
    STORE,
    IN_USE,
    FILES,
    LEASES,
    SESSIONS,
    P50,
    P99,
    EVENTS, /* of the simulator, a simulated second: the work that is done */
    FIGURES,
};

static const struct {
    const char *name, *unit;
    uint64_t divisor;
    /* The quarters' medians are compared, not their highest points: a restart falls into a window or not. */
    bool typical;
    uint64_t percent, slack; /* the last quarter's may be so much above the first one's */
} figures[FIGURES] = {
    [HEAP] = {"heap", "KiB", 1024, false, 10, 65536},
    [LOG] = {"log", "KiB", 1024, false, 20, SEGMENT_BYTES},
    [STORE] = {"store", "KiB", 1024, false, 20, 0},
    [IN_USE] = {"in use", "KiB", 1024, false, 20, 0},
    [FILES] = {"files", "KiB", 1024, false, 20, SEGMENT_BYTES},
    [LEASES] = {"leases", "", 1, false, 20, 5},
    [SESSIONS] = {"sessions", "", 1, false, 20, 0},
    [P50] = {"p50", "us", 1000, true, 20, STEADY_LATENCY_NS},
    [P99] = {"p99", "us", 1000, true, 20, 2 * STEADY_LATENCY_NS},
    [EVENTS] = {"events", "/s", 1, true, 20, 2},
};

struct window {
    uint64_t at, value[FIGURES], requests, cpu_ms;
    int64_t revision;
};

struct run {
    struct steady t;
    struct window *windows;
    size_t count, cap;
    uint64_t events_before, restarts;
    clock_t cpu_before;
};

static void raise_to(uint64_t *at, uint64_t value)
{
    *at = value > *at ? value : *at;
}

/* ---- the figures -------------------------------------------------------------------------------- */

static uint64_t heap(const struct sim *s)
{
    struct mallinfo2 m = mallinfo2();
    uint64_t bytes = m.uordblks + m.hblkhd - simfile_pool_bytes();
    for (size_t i = 0; i < s->node_count; i++)
        bytes -= simdisk_memory(s->nodes[i]->disk);
    return bytes;
}

static void look_at(struct window *x, struct simnode *n)
{
    struct mvcc *store = replica_store(n->replica);
    raise_to(&x->value[LOG], replica_log_bytes(n->replica));
    raise_to(&x->value[STORE], mvcc_size(store));
    raise_to(&x->value[IN_USE], mvcc_size_in_use(store));
    raise_to(&x->value[FILES], simdisk_used(n->disk));
    raise_to(&x->value[LEASES], lessor_count(replica_lessor(n->replica)));
    raise_to(&x->value[SESSIONS], replica_apply(n->replica)->sessions.count);
    if (mvcc_revision(store) > x->revision)
        x->revision = mvcc_revision(store);
}

static uint64_t percentile(const struct steady *t, uint64_t percent)
{
    uint64_t wanted = t->requests * percent / 100, sum = 0;
    for (uint64_t i = 0; i < STEADY_LATENCIES; i++) {
        sum += t->latencies[i];
        if (sum > wanted)
            return (i + 1) * STEADY_LATENCY_NS;
    }
    return 0;
}

static void print_head(void)
{
    printf("%6s", "hours");
    for (size_t i = 0; i < FIGURES; i++)
        printf(" %8s", figures[i].name);
    printf(" %8s %9s %7s\n%6s", "requests", "revision", "cpu ms", "");
    for (size_t i = 0; i < FIGURES; i++)
        printf(" %8s", figures[i].unit);
    printf("\n");
}

static void print_window(const struct window *x)
{
    printf("%6.2f", (double)x->at / (double)HOUR);
    for (size_t i = 0; i < FIGURES; i++)
        printf(" %8llu", (unsigned long long)(x->value[i] / figures[i].divisor));
    printf(" %8llu %9lld %7llu\n", (unsigned long long)x->requests, (long long)x->revision,
           (unsigned long long)x->cpu_ms);
    fflush(stdout);
}

static void end_window(struct run *r)
{
    struct steady *t = &r->t;
    struct window *x = &r->windows[r->count];
    struct world *w = &t->sim->world;
    clock_t cpu = clock();
    x->at = w->now;
    x->value[P50] = percentile(t, 50);
    x->value[P99] = percentile(t, 99);
    x->value[EVENTS] = (w->events - r->events_before) / (WINDOW / SECOND);
    x->requests = t->requests;
    x->cpu_ms = (uint64_t)(cpu - r->cpu_before) * 1000 / CLOCKS_PER_SEC;
    print_window(x);
    r->count++;
    r->events_before = w->events;
    r->cpu_before = cpu;
    memset(t->latencies, 0, sizeof(t->latencies));
    t->requests = 0;
}

static void on_look(struct world *w, void *ctx, uint64_t n, uint64_t b)
{
    struct run *r = ctx;
    struct sim *s = r->t.sim;
    if (r->count == r->cap)
        return;
    struct window *x = &r->windows[r->count];
    raise_to(&x->value[HEAP], heap(s));
    for (size_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i]->replica)
            look_at(x, s->nodes[i]);
    }
    if ((n + 1) % (WINDOW / LOOK) == 0)
        end_window(r);
    world_after(w, LOOK, on_look, r, n + 1, b);
}

/* ---- what happens ------------------------------------------------------------------------------- */

static void on_transfer(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct run *r = ctx;
    struct simnode *n = sim_leader(r->t.sim);
    if (n) {
        replica_transfer_leader(n->replica, 0);
        simnode_settle(n);
    }
    world_after(w, TRANSFER_EVERY, on_transfer, r, a, b);
}

static void on_back(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)a, (void)b;
    struct simnode *n = ctx;
    if (!simnode_start(n))
        world_fail(w, "member %llu does not come back", (unsigned long long)n->id);
}

/* A leader that is told to stop hands over first; a second is enough. */
static void on_stop(struct world *w, void *ctx, uint64_t number, uint64_t b)
{
    (void)b;
    struct run *r = ctx;
    struct simnode *n = r->t.sim->nodes[number % r->t.sim->node_count];
    steady_leave(&r->t, n->id);
    simnode_stop(n);
    world_after(w, number % 4 == 3 ? AWAY_LONG : AWAY_SHORT, on_back, n, 0, 0);
}

static void on_restart(struct world *w, void *ctx, uint64_t number, uint64_t b)
{
    struct run *r = ctx;
    struct simnode *n = r->t.sim->nodes[number % r->t.sim->node_count];
    if (r->t.sim->load_over)
        return;
    if (n == sim_leader(r->t.sim)) {
        replica_transfer_leader(n->replica, 0);
        simnode_settle(n);
    }
    r->restarts++;
    world_after(w, SECOND, on_stop, r, number, 0);
    world_after(w, RESTART_EVERY, on_restart, r, number + 1, b);
}

/* ---- the judgement ------------------------------------------------------------------------------ */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t of_windows(const struct window *from, size_t count, size_t figure)
{
    uint64_t *values = xmalloc(count * sizeof(*values));
    for (size_t i = 0; i < count; i++)
        values[i] = from[i].value[figure];
    qsort(values, count, sizeof(*values), by_value);
    uint64_t result = values[figures[figure].typical ? count / 2 : count - 1];
    free(values);
    return result;
}

static size_t judge(const struct run *r, size_t warm)
{
    size_t quarter = (r->count - warm) / 4, grown = 0;
    printf("%-10s %12s %12s   after %zu windows to warm up, quarters of %zu\n", "", "first quarter",
           "last quarter", warm, quarter);
    for (size_t i = 0; i < FIGURES; i++) {
        uint64_t first = of_windows(r->windows + warm, quarter, i);
        uint64_t last = of_windows(r->windows + r->count - quarter, quarter, i);
        bool bad = last > first + first * figures[i].percent / 100 + figures[i].slack;
        printf("%-10s %12llu %12llu %s%s\n", figures[i].name,
               (unsigned long long)(first / figures[i].divisor),
               (unsigned long long)(last / figures[i].divisor), figures[i].unit,
               bad ? "   GROWS" : "");
        grown += bad;
    }
    return grown;
}

static void read_all(struct simnode *n, struct mvcc_result *ret_r)
{
    static const uint8_t zero[1] = {0};
    struct mvcc_query q = {.range = {.key = bytes_of(zero, 1), .end = bytes_of(zero, 1)}};
    struct error err = {0};
    if (mvcc_range(replica_store(n->replica), &q, ret_r, &err) != ERR_OK)
        world_fail(&n->sim->world, "member %llu can't be read: %s", (unsigned long long)n->id,
                   err.message);
}

static void check_same(struct simnode *a, struct simnode *b)
{
    struct mvcc_result ra, rb;
    read_all(a, &ra);
    read_all(b, &rb);
    bool same = ra.count == rb.count && lessor_count(replica_lessor(a->replica)) ==
                                            lessor_count(replica_lessor(b->replica));
    for (size_t i = 0; same && i < ra.count; i++)
        same = bytes_equal(ra.kvs[i]->key, rb.kvs[i]->key) &&
               bytes_equal(ra.kvs[i]->value, rb.kvs[i]->value) &&
               ra.kvs[i]->mod_revision == rb.kvs[i]->mod_revision;
    if (!same)
        world_fail(&a->sim->world, "at the end members %llu and %llu differ",
                   (unsigned long long)a->id, (unsigned long long)b->id);
    mvcc_result_free(&ra);
    mvcc_result_free(&rb);
}

/* The load is over: all members hold the same, all leases have expired, and every watcher has seen all. */
static void check_end(struct run *r)
{
    struct sim *s = r->t.sim;
    s->load_over = true;
    uint64_t until = s->world.now + AWAY_LONG + 120 * SECOND;
    while (world_step(&s->world, until))
        ;
    for (size_t i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[i];
        if (!n->replica || lessor_count(replica_lessor(n->replica)) != 0)
            world_fail(&s->world, "at the end member %llu is down, or has leases",
                       (unsigned long long)n->id);
        check_same(s->nodes[0], n);
    }
    int64_t revision = mvcc_revision(replica_store(s->nodes[0]->replica));
    for (size_t i = 0; i < STEADY_WATCHERS; i++) {
        const struct steady_watcher *x = &r->t.watchers[i];
        int64_t seen = x->watcher && x->number % 3 == 1 ? watch_progress(x->watcher) : x->seen;
        if (seen != revision)
            world_fail(&s->world, "at the end watcher %zu has seen %lld of %lld revisions", i,
                       (long long)seen, (long long)revision);
    }
}

/* ---- the run ------------------------------------------------------------------------------------ */

static void configure(struct sim *s)
{
    struct faults *f = &s->faults;
    f->sim = s;
    f->rng = world_rng(&s->world, 6);
    f->delay_max = 2 * MS;
    f->slow_disk_factor = 1;
    f->tick_ms = TICK_MS;
    f->quota_bytes = STEADY_QUOTA;
    f->snapshot_entries = 1000;
    f->checkpoint_pages = 500;
    f->segment_bytes = SEGMENT_BYTES;
    f->lease_checkpoint_ms = 10000;
}

static void begin(struct run *r, struct sim *s, uint64_t seed)
{
    world_init(&s->world, seed);
    simvfs_seed((uint32_t)seed | 1);
    s->steady = s->calm = true;
    configure(s);
    simnet_init(&s->net, s);
    model_init(&s->model, &s->world);
    s->model.key_limit = STEADY_KEYS + STEADY_HOLDERS;
    check_init(&s->check);
    s->clients.net_rng = world_rng(&s->world, 3);
    s->initial_count = 3;
    s->cluster_id = SIM_CLUSTER_ID;
    for (size_t i = 0; i < s->initial_count; i++)
        s->nodes[s->node_count++] = simnode_new(s, i + 1, false);
    for (size_t i = 0; i < s->initial_count; i++)
        simnode_start(s->nodes[i]);
    r->t.sim = s;
    r->t.rng = world_rng(&s->world, 8);
    steady_load_start(&r->t);
    r->cpu_before = clock();
    world_after(&s->world, LOOK, on_look, r, 0, 0);
    world_after(&s->world, TRANSFER_EVERY - 100 * SECOND, on_transfer, r, 0, 0);
    world_after(&s->world, RESTART_EVERY, on_restart, r, 0, 0);
}

int steady_run(uint64_t seed, uint64_t hours, struct world **ret_world)
{
    if (hours < 3)
        return EINVAL;
    struct sim *s = xcalloc(1, sizeof(*s));
    struct run *r = xcalloc(1, sizeof(*r));
    *ret_world = &s->world;
    r->cap = hours * (HOUR / WINDOW);
    r->windows = xcalloc(r->cap, sizeof(*r->windows));
    print_head();
    begin(r, s, seed);
    while (r->count < r->cap && world_step(&s->world, hours * HOUR + WINDOW))
        ;
    check_end(r);
    /* The quota is reached, and the table of sessions full, within the first hour. */
    size_t grown = judge(r, (hours >= 12 ? 3 : 1) * (HOUR / WINDOW));
    printf("%llu MiB of values in %llu hours: %.0f times the quota of %u MiB; %llu restarts, %llu "
           "events "
           "to watchers, %llu of them too late, %llu renewals, %llu requests asked again\n",
           (unsigned long long)(r->t.bytes_written >> 20), (unsigned long long)hours,
           (double)r->t.bytes_written / STEADY_QUOTA, STEADY_QUOTA >> 20,
           (unsigned long long)r->restarts, (unsigned long long)r->t.events,
           (unsigned long long)r->t.compacted, (unsigned long long)r->t.renewed,
           (unsigned long long)r->t.retries);
    if (grown)
        printf("VIOLATION: %zu figures grew\n", grown);
    return grown ? ERANGE : 0;
}
