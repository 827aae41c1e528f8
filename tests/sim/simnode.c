#include "tests/sim/simnode.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/note.h"
#include "tests/sim/sim.h"
#include "tests/sim/simcall.h"

#define EPOCH_NS (1700000000ull * SECOND)
#define RESTART_MS_MAX 3000
#define SCRUB_MS 10000 /* several passes in a run */
#define HANG_LOOK (10 * MS)
#define REMOVED_GRACE SECOND
#define DATA_DIR "data"

/* ---- clock and randomness ----------------------------------------------------------------------- */

uint64_t simnode_mono(const struct simnode *n)
{
    int64_t passed = (int64_t)(n->sim->world.now - n->clock_at);
    return n->clock_mono + (uint64_t)(passed + passed / 1000 * n->clock_ppm / 1000);
}

void simnode_set_rate(struct simnode *n, int64_t ppm)
{
    n->clock_mono = simnode_mono(n);
    n->clock_at = n->sim->world.now;
    n->clock_ppm = ppm;
}

static uint64_t env_mono(struct env *e)
{
    return simnode_mono(CONTAINER_OF(e, struct simnode, env));
}

static uint64_t env_wall(struct env *e)
{
    struct simnode *n = CONTAINER_OF(e, struct simnode, env);
    return EPOCH_NS + (uint64_t)((int64_t)n->sim->world.now + n->wall_skew);
}

static uint64_t env_random(struct env *e)
{
    return simrng_next(&CONTAINER_OF(e, struct simnode, env)->env_rng);
}

/* ---- events on the member ----------------------------------------------------------------------- */

void simnode_after(struct simnode *n, uint64_t delay, world_fn fn, uint64_t a)
{
    world_after(&n->sim->world, delay, fn, n, a, n->boot);
}

bool simnode_awake(struct simnode *n, world_fn fn, uint64_t a, uint64_t boot)
{
    if (!n->replica || n->boot != boot)
        return false;
    uint64_t now = n->sim->world.now;
    if (now >= n->paused_until)
        return true;
    world_after(&n->sim->world, n->paused_until - now, fn, n, a, boot);
    return false;
}

static uint64_t between(struct simnode *n, uint64_t low, uint64_t high)
{
    return low + simrng_below(&n->rng, high - low + 1);
}

static void on_turn(struct world *w, void *ctx, uint64_t a, uint64_t boot)
{
    (void)w;
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_turn, a, boot))
        return;
    n->turn_due = false;
    if (replica_poll(n->replica) && !n->turn_due) {
        n->turn_due = true;
        simnode_after(n, between(n, 5000, 50000), on_turn, 0);
    }
    simnode_settle(n);
}

/* The process may be killed in the middle of something, as by the kernel when memory is short: what it has
 * written is in the page cache, what it has not sent is gone. */
static void may_die(struct simnode *n)
{
    if (n->die_at == 0 || --n->die_at > 0 || !n->replica)
        return;
    TRACE1(&n->sim->world, "!%m is killed in the middle of something", n->id);
    n->killed = true;
    simdisk_power_off(n->disk);
}

static void on_wake(void *ctx)
{
    may_die(ctx);
    simnode_wake(ctx);
}

void simnode_wake(struct simnode *n)
{
    if (n->turn_due)
        return;
    n->turn_due = true;
    simnode_after(n, between(n, 10000, 200000), on_turn, 0);
}

static void on_tick(struct world *w, void *ctx, uint64_t a, uint64_t boot)
{
    (void)w;
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_tick, a, boot))
        return;
    replica_tick(n->replica);
    int64_t tick = (int64_t)(n->sim->faults.tick_ms * MS);
    simnode_after(n, (uint64_t)(tick - tick / 1000 * n->clock_ppm / 1000), on_tick, 0);
    simnode_settle(n);
}

static void on_deliver(struct world *w, void *ctx, uint64_t store, uint64_t boot);

static uint64_t disk_time(struct simnode *n, bool store)
{
    uint64_t slow = n->sim->world.now < n->slow_until ? n->sim->faults.slow_disk_factor : 1;
    return between(n, 50000, store ? 600000 : 900000) * slow;
}

static void on_work(struct world *w, void *ctx, uint64_t store, uint64_t boot)
{
    (void)w;
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_work, store, boot))
        return;
    if (n->sim->world.now <
        n->hung_until) { /* looked at again: the end of the hang may come sooner */
        world_after(&n->sim->world, HANG_LOOK, on_work, n, store, boot);
        return;
    }
    simworker_run(store ? &n->store : &n->log);
    simnode_after(n, between(n, 5000, 60000), on_deliver, store);
    simnode_settle(n);
}

static void on_deliver(struct world *w, void *ctx, uint64_t store, uint64_t boot)
{
    (void)w;
    struct simnode *n = ctx;
    if (!simnode_awake(n, on_deliver, store, boot))
        return;
    uint64_t applied = mvcc_applied_index(replica_store(n->replica));
    simworker_deliver(store ? &n->store : &n->log);
    if (store)
        n->store_due = false;
    else
        n->log_due = false;
    if (!n->fatal && mvcc_applied_index(replica_store(n->replica)) != applied)
        check_snapshot_installed(n);
    simnode_settle(n);
}

static void schedule_workers(struct simnode *n)
{
    if (!n->log_due && simworker_can_run(&n->log)) {
        n->log_due = true;
        simnode_after(n, disk_time(n, false), on_work, false);
    }
    if (!n->store_due && simworker_can_run(&n->store)) {
        n->store_due = true;
        simnode_after(n, disk_time(n, true), on_work, true);
    }
}

/* As in daemon/server/drive.c: what it has still to say to the others must reach them. */
static void on_grace_over(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct simnode *n = ctx;
    if (!n->gone)
        simnode_remove(n);
}

/* What was ordered with simdisk_fail_at() came to pass. */
static void note_failure(struct simnode *n)
{
    bool failed = simdisk_has_failed(n->disk);
    if (failed && !n->disk_failed)
        NOTE1(&n->sim->world, "!%m: the disk has failed an operation, as ordered", n->id);
    n->disk_failed = failed;
}

void simnode_settle(struct simnode *n)
{
    if (!n->replica)
        return;
    note_failure(n);
    if (!n->fatal && !n->refuses && !simdisk_is_off(n->disk)) {
        check_node(n);
        scenario_look(n);
        simnet_flush(n);
        schedule_workers(n);
        if (n->removed && !n->leaves) {
            n->leaves = true;
            world_after(&n->sim->world, REMOVED_GRACE, on_grace_over, n, 0, 0);
        }
        return;
    }
    struct sim *s = n->sim;
    if (n->fatal && !simdisk_is_off(n->disk)) {
        TRACE2(&s->world, "!%m ends itself: %e", n->id, n->fatal_code);
        if (n->fatal_code == ERR_CORRUPT)
            rot_found(n, n->fatal_text);
        else if (n->fatal_code != ERR_IO) /* a full disk is no reason to end */
            world_fail_about(&s->world, ABOUT(.member = n->id), "member %llu ended: %s",
                             (unsigned long long)n->id, n->fatal_text);
    }
    if (n->refuses)
        simnode_lose(n);
    else
        simnode_crash(n, !n->killed && simrng_chance(&n->rng, s->faults.power_percent));
}

/* ---- what the replica says ---------------------------------------------------------------------- */

static void on_fatal(void *ctx, const struct error *err)
{
    struct simnode *n = ctx;
    n->fatal = true;
    n->fatal_code = err->code;
    snprintf(n->fatal_text, sizeof(n->fatal_text), "%s: %s", errc_text(err->code), err->message);
}

static void on_space(void *ctx, bool shortage, const char *text)
{
    struct simnode *n = ctx;
    (void)text;
    TRACE2(&n->sim->world, "!%m lacks space: %y", n->id, shortage);
}

static void on_note(void *ctx, const char *text)
{
    struct simnode *n = ctx;
    n->thrown += strstr(text, "throws away") != NULL;
}

static void on_removed(void *ctx)
{
    ((struct simnode *)ctx)->removed = true;
    may_die(ctx);
}

static void on_leader(void *ctx, uint64_t leader, uint64_t term, bool self)
{
    struct simnode *n = ctx;
    if (leader)
        TRACE4(&n->sim->world, "=%m takes %m for the leader of term %t", n->id, leader, term, self);
    else
        TRACE2(&n->sim->world, "=%m knows no leader in term %t", n->id, term);
    may_die(n);
}

/* ---- life and death ----------------------------------------------------------------------------- */

static void fill_config(struct simnode *n, struct replica_config *c, struct replica_member *members)
{
    struct sim *s = n->sim;
    size_t count = 0;
    for (size_t i = 0; i < s->node_count && count < RAFT_MEMBERS_MAX; i++) {
        if ((i < s->initial_first || i >= s->initial_first + s->initial_count) && i + 1 != n->id)
            continue;
        static char urls[SIM_MEMBERS_MAX][48];
        static char *url_of[SIM_MEMBERS_MAX];
        snprintf(urls[i], sizeof(urls[i]), "http://n%zu:2380", i + 1);
        url_of[i] = urls[i];
        members[count++] = (struct replica_member){
            .id = i + 1, .name = "", .peer_urls = &url_of[i], .peer_url_count = 1};
    }
    *c = (struct replica_config){
        .data_dir = DATA_DIR,
        .name = n->name,
        .env = &n->env,
        .disk = simdisk_disk(n->disk),
        .sqlite_vfs = n->name,
        .log_worker = &n->log.base,
        .store_worker = &n->store.base,
        .transport = &n->transport,
        .cluster_id = s->cluster_id,
        .member_id = n->id,
        .initial_members = members,
        .initial_member_count = count,
        .join = n->join,
        .tick_ms = s->faults.tick_ms,
        .election_ticks = NODE_ELECTION_TICKS,
        .snapshot_entries = s->faults.snapshot_entries,
        .wal_segment_bytes = s->faults.segment_bytes,
        .append_bytes_max = s->faults.append_bytes_max,
        .uncommitted_bytes_max = s->faults.uncommitted_bytes_max,
        .store_checkpoint_pages = s->faults.checkpoint_pages,
        .snapshot_chunk_bytes = s->faults.snapshot_chunk,
        .store_reserve_bytes = NODE_RESERVE_BYTES,
        .lease_checkpoint_ms = s->faults.lease_checkpoint_ms,
        .scrub_ms = SCRUB_MS,
        .txn_ops_max = APPLY_TXN_OPS_MAX_DEFAULT,
        .quota_bytes = s->faults.quota_bytes,
        .keep_history = !s->steady,
        .fatal = on_fatal,
        .leader_changed = on_leader,
        .removed = on_removed,
        .space = on_space,
        .note = on_note,
        .wake = on_wake,
        .ctx = n,
    };
}

struct simnode *simnode_new(struct sim *s, uint64_t id, bool join)
{
    struct simnode *n = xcalloc(1, sizeof(*n));
    n->sim = s;
    n->id = id;
    n->join = join;
    snprintf(n->name, sizeof(n->name), "sim%llu", (unsigned long long)id);
    n->env = (struct env){env_mono, env_wall, env_random};
    n->env_rng = world_rng(&s->world, 100 + id);
    n->rng = world_rng(&s->world, 200 + id);
    n->clock_mono = between(n, SECOND, 1000 * SECOND);
    n->clock_at = s->world.now;
    n->disk = simdisk_new(simrng_next(&n->rng));
    simdisk_set_hook(n->disk, note_disk, n);
    n->vfs = simvfs_new(n->name, simdisk_disk(n->disk), &n->env);
    n->transport = (struct replica_transport){simnet_send, simnet_members};
    simworker_init(&n->log);
    simworker_init(&n->store);
    list_init(&n->calls);
    list_init(&n->watchers);
    /* The folders that are there before the replica starts: daemon/server/identity.c makes them. */
    struct disk *d = simdisk_disk(n->disk);
    d->mkdir(d, DATA_DIR, NULL);
    d->sync_dir(d, "", NULL);
    d->mkdir(d, DATA_DIR "/member", NULL);
    d->sync_dir(d, DATA_DIR, NULL);
    return n;
}

void simnode_free(struct simnode *n)
{
    for (size_t i = 0; i < NODE_LINKS_MAX; i++)
        buf_free(&n->outbox[i]);
    simvfs_free(n->vfs);
    simdisk_free(n->disk);
    free(n->terms_seen);
    free(n);
}

static void on_restart(struct world *w, void *ctx, uint64_t a, uint64_t boot)
{
    (void)w;
    (void)a;
    struct simnode *n = ctx;
    if (!n->replica && n->boot == boot && !n->gone)
        simnode_start(n);
}

static void restart_later(struct simnode *n)
{
    uint64_t ms = between(n, 50, n->sim->calm ? 300 : RESTART_MS_MAX);
    uint64_t rest = n->sim->calm ? 0 : n->rest_ns;
    n->rest_ns = 0;
    world_after(&n->sim->world, ms * MS + rest, on_restart, n, 0, n->boot);
}

static void reset_machine(struct simnode *n, bool power)
{
    simworker_init(&n->log);
    simworker_init(&n->store);
    if (power)
        simdisk_crash(n->disk, &n->rng);
    else
        simdisk_kill_process(n->disk);
    simvfs_crash(n->vfs);
    n->log_due = n->store_due = n->turn_due = false;
    n->fatal = n->killed = false;
    n->die_at = 0;
    n->paused_until = n->hung_until = 0;
    n->boot++;
}

static bool failed_to_open(struct simnode *n, enum errc code, const struct error *err)
{
    struct sim *s = n->sim;
    bool off = simdisk_is_off(n->disk);
    TRACE3(&s->world, "!%m did not start: %e (its power went off: %y)", n->id, code, off);
    if (rot_is_loss(n)) { /* while it opened its log */
        simnode_lose(n);
        return false;
    }
    if (!off && code == ERR_CORRUPT) {
        rot_found(n, err->message);
        simnode_lose(n);
        return false;
    }
    /* In quiet times a disk has no error left: what calls damage one can't be repaired. */
    if (!off && ((code != ERR_IO && code != ERR_NO_SPACE) || (code == ERR_IO && s->calm)))
        world_fail_about(&s->world, ABOUT(.member = n->id), "member %llu can't start: %s: %s",
                         (unsigned long long)n->id, errc_text(code), err->message);
    reset_machine(n, off && simrng_chance(&n->rng, 50));
    restart_later(n);
    return false;
}

bool simnode_start(struct simnode *n)
{
    struct sim *s = n->sim;
    struct replica_member members[RAFT_MEMBERS_MAX];
    struct replica_config config;
    char note[512] = "";
    struct error err = {0};
    fill_config(n, &config, members);
    TRACE2(&s->world, "!%m starts (its life number %u)", n->id, n->boot);
    faults_before_start(n);
    enum errc code = replica_open(&config, &n->replica, note, &err);
    if (code != ERR_OK) {
        n->replica = NULL;
        return failed_to_open(n, code, &err);
    }
    if (note[0])
        TRACE1(&s->world, "!%m found a torn end of its log and cut it off", n->id);
    simnode_after(n, between(n, 1, s->faults.tick_ms) * MS, on_tick, 0);
    check_started(n);
    simnode_settle(n);
    return true;
}

void simnode_crash(struct simnode *n, bool power)
{
    struct sim *s = n->sim;
    TRACE4(&s->world,
           power ? "!%m loses its power: what isn't synced may be gone (life %u, disk call %u)"
                 : "!%m dies, its page cache stays (life %u, disk call %u)",
           n->id, n->boot, simdisk_calls(n->disk), power);
    n->powers += power;
    bool loss = !n->gone && rot_is_loss(n);
    if (loss) {
        TRACE1(&s->world, "!%m: a log's write went astray, and nothing vouches for it", n->id);
        n->gone = n->lost = true;
    }
    simdisk_power_off(n->disk);
    if (n->replica) {
        check_stopped(n);
        calls_drop_all(n);
        watches_drop_all(n);
        simnet_drop_all(n);
        disaster_drop(n);
        replica_abandon(n->replica);
        n->replica = NULL;
        simworker_drain(&n->log); /* what the closed log still has under way fails, and frees it */
    }
    reset_machine(n, power);
    simnet_reset_all(n, !power || simrng_chance(&n->rng, 50));
    if (!n->gone && !n->no_restart)
        restart_later(n);
}

void simnode_stop(struct simnode *n)
{
    TRACE2(&n->sim->world, "!%m is told to stop, in order (life %u)", n->id, n->boot);
    check_stopped(n);
    simnet_drop_all(n);
    disaster_drop(n);
    n->store.eager = true;
    replica_close(n->replica);
    n->replica = NULL;
    simworker_drain(&n->log);
    simworker_drain(&n->store);
    calls_drop_all(n);
    reset_machine(n, false);
    simnet_reset_all(n, true);
}

void simnode_remove(struct simnode *n)
{
    TRACE1(&n->sim->world, "!%m was removed from the cluster, and ends for good", n->id);
    n->gone = true;
    simnode_crash(n, false);
}

void simnode_lose(struct simnode *n)
{
    TRACE1(&n->sim->world, "!%m: its disk is lost", n->id);
    n->gone = n->lost = true;
    n->refuses = false;
    simnode_crash(n, true);
}

void simnode_pause(struct simnode *n, uint64_t ns)
{
    TRACE2(&n->sim->world, "!%m is paused for %d", n->id, ns);
    n->paused_until = n->sim->world.now + ns;
}
