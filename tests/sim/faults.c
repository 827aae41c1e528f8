#include "tests/sim/faults.h"

#include "tests/sim/sim.h"

static void happen(struct world *w, void *ctx, uint64_t kind, uint64_t b);

static uint64_t below(struct faults *f, uint64_t n)
{
    return simrng_below(&f->rng, n);
}

static bool chance(struct faults *f, unsigned percent)
{
    return simrng_chance(&f->rng, percent);
}

/* ---- the draw ----------------------------------------------------------------------------------- */

static void draw_network(struct faults *f)
{
    f->delay_max = chance(f, 50) ? 2 * MS : 20 * MS;
    f->loss_percent = chance(f, 30) ? (unsigned)below(f, 30) : 0;
    f->duplicate_percent = chance(f, 30) ? (unsigned)below(f, 20) : 0;
    f->reorder_percent = chance(f, 30) ? (unsigned)below(f, 30) : 0;
    f->late_percent = chance(f, 30) ? (unsigned)below(f, 10) : 0;
    f->late_max = chance(f, 50) ? 300 * MS : 3 * SECOND;
    f->damage_permille = chance(f, 20) ? 1 + (unsigned)below(f, 5) : 0;
    f->answer_loss_permille = chance(f, 50) ? (unsigned)below(f, 50) : 0;
}

/* In a generator of its own: what other seeds are known for doesn't change with it. */
static void draw_limits(struct faults *f, struct sim *s)
{
    struct simrng rng = world_rng(&s->world, 61);
    f->uncommitted_bytes_max = simrng_chance(&rng, 30) ? 80 + simrng_below(&rng, 400) : 0;
}

void faults_draw(struct faults *f, struct sim *s)
{
    static const uint64_t mean_ms[FAULT_KINDS] = {
        [FAULT_CRASH] = 6000,     [FAULT_CRASH_IO] = 4000,   [FAULT_BLACKOUT] = 15000,
        [FAULT_PAUSE] = 5000,     [FAULT_PARTITION] = 6000,  [FAULT_ISOLATE] = 5000,
        [FAULT_BRIDGE] = 10000,   [FAULT_SLOW_LINK] = 5000,  [FAULT_RESET] = 3000,
        [FAULT_CLOCK] = 5000,     [FAULT_SLOW_DISK] = 8000,  [FAULT_IO_ERROR] = 9000,
        [FAULT_DISK_HANG] = 9000, [FAULT_DISK_FULL] = 15000, [FAULT_KILL] = 4000,
        [FAULT_ATTRITION] = 8000, [FAULT_SWIZZLE] = 12000,   [FAULT_ROT] = 2500,
        [FAULT_MISDIRECT] = 3000, [FAULT_WIPE] = 15000,
    };
    f->sim = s;
    f->rng = world_rng(&s->world, 6);
    unsigned density = 15 + (unsigned)below(f, 50);
    for (size_t i = 0; i < FAULT_KINDS; i++) {
        f->on[i] = chance(f, density);
        f->mean[i] = mean_ms[i] * MS * (50 + below(f, 150)) / 100;
    }
    draw_network(f);
    f->power_percent = (unsigned)below(f, 101);
    f->slow_disk_factor = 10 + (unsigned)below(f, 1000);
    f->drift_permille = chance(f, 30) ? (unsigned)below(f, 50) : 0;
    f->tick_ms = NODE_TICK_MS;
    f->quota_bytes = chance(f, 15) ? 36 * 1024 + below(f, 24 * 1024) : 0;
    f->value_bytes = chance(f, 25) || f->quota_bytes ? 300 : chance(f, 20) ? 3000 : 0;
    f->repairs = f->on[FAULT_ROT] || f->on[FAULT_MISDIRECT] || f->on[FAULT_WIPE] || f->quota_bytes;
    f->crash_in_start_percent = chance(f, 40) ? 20 : 0;
    f->snapshot_entries = chance(f, 60) ? 5 + below(f, 100) : 10000;
    f->checkpoint_pages = chance(f, 70) ? 10 + below(f, 60) : 500;
    f->append_bytes_max = chance(f, 40) ? 1 : 0; /* entry by entry */
    f->chase_percent = chance(f, 30) ? 30 + (unsigned)below(f, 70) : 0;
    f->lease_checkpoint_ms = 1000 + below(f, 4000);
    f->compact_percent = chance(f, 60) ? 1 + (unsigned)below(f, 6) : 0;
    f->segment_bytes = chance(f, 50) ? 16 * 1024 : 128 * 1024;
    f->client_count = 2 + below(f, CLIENTS_MAX - 2);
    f->think_ms = 40 + below(f, 120);
    f->defragments = 1;
    f->slow_watch_percent = chance(f, 50) ? (unsigned)below(f, 10) : 0;
    f->administration = !chance(f, 50) ? 0 : chance(f, 50) ? 15 : 90;
    draw_limits(f, s);
    f->snapshot_chunk = chance(f, 60) ? 1024 + below(f, 7 * 1024) : 0;
    f->stream_chunks_max = f->snapshot_chunk && chance(f, 50) ? 2 + (unsigned)below(f, 6) : 0;
}

/* ---- machines ----------------------------------------------------------------------------------- */

static struct simnode *pick(struct faults *f)
{
    struct sim *s = f->sim;
    for (int tries = 0; tries < 10; tries++) {
        struct simnode *n = s->nodes[below(f, s->node_count)];
        if (n->replica)
            return n;
    }
    return NULL;
}

static struct simnode *pick_leader(struct faults *f)
{
    struct simnode *leader = sim_leader(f->sim);
    return leader ? leader : pick(f);
}

static struct simnode *victim(struct faults *f)
{
    return chance(f, 40) ? pick_leader(f) : pick(f);
}

static void blackout(struct faults *f)
{
    struct sim *s = f->sim;
    TRACE0(&s->world, "!all machines lose their power");
    for (size_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i]->replica)
            simnode_crash(s->nodes[i], true);
    }
}

void faults_before_start(struct simnode *n)
{
    struct faults *f = &n->sim->faults;
    if (!n->sim->calm && chance(f, f->crash_in_start_percent))
        simdisk_power_off_at(n->disk, 1 + below(f, 120));
}

static void io_error(struct faults *f, struct simnode *n)
{
    static const unsigned ops[] = {SIMDISK_READ, SIMDISK_WRITE, SIMDISK_SYNC, SIMDISK_SYNC_DIR,
                                   SIMDISK_ALL};
    static const char *const words[] = {
        "!%m: one of its next reads will fail",
        "!%m: one of its next writes will fail",
        "!%m: one of its next syncs will fail",
        "!%m: one of its next syncs of a folder will fail",
        "!%m: one of its next disk operations will fail",
    };
    uint64_t kind = below(f, 5);
    unsigned which = ops[kind];
    simdisk_fail_at(n->disk, 1 + below(f, 30), which, ERR_IO, chance(f, 20));
    TRACE2(&f->sim->world, words[kind], n->id, which);
}

static void on_space(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)a, (void)b;
    struct simnode *n = ctx;
    TRACE1(w, "!%m has space on its disk again", n->id);
    simdisk_set_capacity(n->disk, 0);
}

static void fill(struct faults *f, struct simnode *n)
{
    /* Somebody else's file: it leaves nothing, or a little. */
    uint64_t room = chance(f, 40) ? 0 : below(f, chance(f, 50) ? 16 * 1024 : 192 * 1024);
    TRACE2(&f->sim->world, "!%m: its disk has only %u bytes left", n->id, room);
    simdisk_set_capacity(n->disk, simdisk_used(n->disk) + room);
    uint64_t lasts = SECOND + below(f, chance(f, 50) ? 4 * SECOND : 15 * SECOND);
    world_after(&f->sim->world, lasts, on_space, n, 0, 0);
}

/* Often all disks at once: members of a cluster are alike. */
static void disk_full(struct faults *f, struct simnode *n)
{
    bool all = chance(f, 30);
    for (size_t i = 0; all && i < f->sim->node_count; i++)
        fill(f, f->sim->nodes[i]);
    if (!all)
        fill(f, n);
}

static void clock_jump(struct faults *f, struct simnode *n)
{
    uint64_t span = chance(f, 70) ? 10 * SECOND : 48 * 3600 * SECOND;
    int64_t by = (int64_t)below(f, 2 * span) - (int64_t)span;
    TRACE2(&f->sim->world, "!%m: its wall clock jumps by %lld ms", n->id, by / (int64_t)MS);
    n->wall_skew += by;
    if (f->drift_permille) {
        int64_t limit = (int64_t)f->drift_permille * 500; /* two clocks may drift apart */
        simnode_set_rate(n, (int64_t)below(f, (uint64_t)limit * 2) - limit);
    }
}

static struct simnode *harmed(struct sim *s)
{
    for (size_t i = 0; i < s->node_count; i++) {
        if (s->nodes[i]->damaged && !s->nodes[i]->gone)
            return s->nodes[i];
    }
    return NULL;
}

/* A disk is harmed while its member runs or while it is down. What has been harmed is read again soon, by a
 * restart, or exchanged by somebody who watches the disks: then another one may be harmed. */
static void harm(struct faults *f, enum fault_kind kind)
{
    struct sim *s = f->sim;
    struct simnode *n = harmed(s);
    if (n && chance(f, 50)) {
        if (n->boot == n->harmed_in && n->replica)
            simnode_crash(n, chance(f, f->power_percent));
        else if (n->boot != n->harmed_in)
            simnode_lose(n);
        return;
    }
    n = s->nodes[below(f, s->node_count)];
    if (!rot_may_harm(s, n))
        return;
    if (kind == FAULT_ROT && n->replica && chance(f, 50))
        simnode_crash(n, chance(f, f->power_percent)); /* at rest: its start reads it */
    n->harmed_in = n->boot;
    if (kind == FAULT_ROT && !n->gone)
        rot_strike(n, &f->rng);
    else if (kind == FAULT_MISDIRECT && n->replica)
        rot_misdirect(n, &f->rng);
    else if (kind == FAULT_WIPE)
        simnode_lose(n);
}

static void on_machine(struct faults *f, enum fault_kind kind)
{
    struct simnode *n = victim(f);
    if (!n)
        return;
    switch (kind) {
    case FAULT_CRASH:
        simnode_crash(n, chance(f, f->power_percent));
        break;
    case FAULT_CRASH_IO:
        simdisk_power_off_at(n->disk, 1 + below(f, 60));
        break;
    case FAULT_KILL:
        n->die_at = 1 + below(f, 60);
        break;
    case FAULT_ATTRITION:
        n->rest_ns = 3 * SECOND + below(f, 8 * SECOND);
        simnode_crash(n, chance(f, f->power_percent));
        break;
    case FAULT_PAUSE:
        simnode_pause(n, 100 * MS + below(f, chance(f, 50) ? 2 * SECOND : 8 * SECOND));
        break;
    case FAULT_CLOCK:
        clock_jump(f, n);
        break;
    case FAULT_SLOW_DISK:
        n->slow_until = f->sim->world.now + SECOND + below(f, 6 * SECOND);
        TRACE2(&f->sim->world, "!%m: its disk is %u times slower for a while", n->id,
               f->slow_disk_factor);
        break;
    case FAULT_DISK_HANG:
        n->hung_until = f->sim->world.now + SECOND + below(f, 8 * SECOND);
        TRACE1(&f->sim->world, "!%m: its disk hangs", n->id);
        break;
    case FAULT_IO_ERROR:
        io_error(f, n);
        break;
    case FAULT_DISK_FULL:
        disk_full(f, n);
        break;
    default:
        break;
    }
}

/* ---- links -------------------------------------------------------------------------------------- */

static void on_heal(struct world *w, void *ctx, uint64_t number, uint64_t b)
{
    (void)b;
    struct faults *f = ctx;
    if (number != f->partitions)
        return;
    TRACE0(w, "!the network is whole again");
    simnet_heal(&f->sim->net);
}

static void cut_pair(struct faults *f, uint64_t a, uint64_t b, bool both)
{
    simnet_cut(&f->sim->net, a, b, true);
    if (both)
        simnet_cut(&f->sim->net, b, a, true);
}

/* Members on different sides, as bits of `sides`, don't hear each other; but for `bridge`. */
static void partition(struct faults *f, uint64_t sides, uint64_t bridge)
{
    struct sim *s = f->sim;
    TRACE2(&s->world,
           bridge ? "!the network is parted: %g on one side, n%u reaches both"
                  : "!the network is parted: %g on one side",
           sides, bridge);
    for (uint64_t a = 1; a <= s->node_count; a++) {
        for (uint64_t b = 1; b < a; b++) {
            if ((sides >> a & 1) != (sides >> b & 1) && a != bridge && b != bridge)
                cut_pair(f, a, b, true);
        }
    }
}

static void isolate(struct faults *f)
{
    struct sim *s = f->sim;
    struct simnode *n = victim(f);
    uint64_t how = below(f, 3);
    static const char *const words[] = {
        "!%m is cut off from all others",
        "!%m is heard by nobody any more",
        "!%m hears nobody any more",
    };
    if (!n)
        return;
    TRACE2(&s->world, words[how], n->id, how);
    for (uint64_t id = 1; id <= s->node_count; id++) {
        if (id == n->id)
            continue;
        if (how != 2)
            simnet_cut(&s->net, n->id, id, true);
        if (how != 1)
            simnet_cut(&s->net, id, n->id, true);
    }
}

static void on_clog(struct world *w, void *ctx, uint64_t id, uint64_t clog)
{
    struct faults *f = ctx;
    struct sim *s = f->sim;
    if (s->calm)
        return;
    TRACE2(w, clog ? "!%m is cut off from all others" : "!%m is no longer cut off", id, clog);
    f->clogged = (f->clogged & ~(1ull << id)) | clog << id;
    for (uint64_t other = 1; other <= s->node_count; other++) {
        bool cut = (f->clogged >> id & 1) || (f->clogged >> other & 1);
        simnet_cut(&s->net, id, other, cut);
        simnet_cut(&s->net, other, id, cut);
    }
}

static void swizzle(struct faults *f)
{
    struct sim *s = f->sim;
    for (uint64_t id = 1; id <= s->node_count; id++) {
        if (s->nodes[id - 1]->gone || !chance(f, 70))
            continue;
        world_after(&s->world, below(f, 2 * SECOND), on_clog, f, id, 1);
        world_after(&s->world, 2 * SECOND + below(f, 3 * SECOND), on_clog, f, id, 0);
    }
}

static void on_links(struct faults *f, enum fault_kind kind)
{
    struct sim *s = f->sim;
    uint64_t a = 1 + below(f, s->node_count), b = 1 + below(f, s->node_count);
    if (kind == FAULT_RESET) {
        if (a != b)
            simnet_reset(&s->net, a, b);
        return;
    }
    f->partitions++;
    if (kind == FAULT_PARTITION)
        partition(f, below(f, 1ull << (s->node_count + 1)), 0);
    else if (kind == FAULT_BRIDGE)
        partition(f, below(f, 1ull << (s->node_count + 1)), a);
    else if (kind == FAULT_ISOLATE)
        isolate(f);
    else if (a != b)
        s->net.links[a][b].slow = s->net.links[b][a].slow = 50 * MS + below(f, SECOND);
    world_after(&s->world, 500 * MS + below(f, 7 * SECOND), on_heal, f, f->partitions, 0);
}

static void cut_off(struct faults *f, struct simnode *n)
{
    f->partitions++;
    for (uint64_t id = 1; id <= f->sim->node_count; id++) {
        if (id != n->id && chance(f, 75))
            cut_pair(f, n->id, id, true);
    }
    world_after(&f->sim->world, 200 * MS + below(f, 3 * SECOND), on_heal, f, f->partitions, 0);
}

static void on_chase(struct world *w, void *ctx, uint64_t how, uint64_t boot)
{
    struct simnode *n = ctx;
    if (n->sim->calm || !simnode_awake(n, on_chase, how, boot))
        return;
    TRACE2(w,
           how == 2 ? "!%m is cut off from most others soon after its election"
                    : "!%m is struck soon after its election",
           n->id, how);
    if (how == 0)
        simnode_crash(n, true);
    else if (how == 1)
        simnode_pause(n, 500 * MS + below(&n->sim->faults, 3 * SECOND));
    else
        cut_off(&n->sim->faults, n);
}

void faults_new_leader(struct simnode *n)
{
    struct faults *f = &n->sim->faults;
    if (n->sim->calm || !chance(f, f->chase_percent))
        return;
    simnode_after(n, below(f, chance(f, 50) ? 20 * MS : 300 * MS), on_chase, below(f, 3));
}

void faults_snapshot_installed(struct simnode *n)
{
    struct faults *f = &n->sim->faults;
    if (!n->sim->calm && chance(f, f->crash_in_start_percent))
        simdisk_power_off_at(n->disk, 1 + below(f, 8));
}

/* ---- time --------------------------------------------------------------------------------------- */

static void schedule(struct faults *f, enum fault_kind kind)
{
    world_after(&f->sim->world, f->mean[kind] / 4 + below(f, f->mean[kind] * 3 / 2), happen, f,
                kind, 0);
}

static void happen(struct world *w, void *ctx, uint64_t kind, uint64_t b)
{
    (void)w, (void)b;
    struct faults *f = ctx;
    if (f->sim->calm)
        return;
    f->count[kind]++;
    switch (kind) {
    case FAULT_BLACKOUT:
        blackout(f);
        break;
    case FAULT_SWIZZLE:
        swizzle(f);
        break;
    case FAULT_ROT:
    case FAULT_MISDIRECT:
    case FAULT_WIPE:
        harm(f, (enum fault_kind)kind);
        break;
    case FAULT_PARTITION:
    case FAULT_ISOLATE:
    case FAULT_BRIDGE:
    case FAULT_SLOW_LINK:
    case FAULT_RESET:
        on_links(f, (enum fault_kind)kind);
        break;
    default:
        on_machine(f, (enum fault_kind)kind);
    }
    schedule(f, (enum fault_kind)kind);
}

void faults_start(struct faults *f)
{
    for (size_t i = 0; i < FAULT_KINDS; i++) {
        if (f->on[i])
            schedule(f, (enum fault_kind)i);
    }
}

void faults_stop(struct faults *f)
{
    struct sim *s = f->sim;
    TRACE0(&s->world, "!from now on nothing goes wrong");
    f->partitions++;
    simnet_heal(&s->net);
    for (size_t i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[i];
        simdisk_power_off_at(n->disk, 0);
        simdisk_fail_at(n->disk, 0, 0, ERR_OK, false);
        simdisk_misdirect_at(n->disk, 0);
        n->die_at = 0;
        simdisk_set_capacity(n->disk, 0);
        n->slow_until = n->hung_until = 0;
        if (n->paused_until > s->world.now + 100 * MS)
            n->paused_until = s->world.now + 100 * MS;
        simnode_set_rate(n, 0);
        if (!n->replica && !n->gone && !n->no_restart)
            simnode_start(n);
    }
}
