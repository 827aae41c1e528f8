#include "tests/sim/disaster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/restore.h"
#include "lib/base/memory.h"
#include "lib/snapfile/file.h"
#include "tests/sim/sim.h"

#define FILE_NAME "backup"
#define STEP (100 * MS)
#define CUT_PERCENT 30 /* of restores: the power fails half way */

typedef unsigned long long ull;

/* ---- the backup ---------------------------------------------------------------------------------- */

static void stop_making(struct disaster *d)
{
    if (d->source)
        replica_backup_close(d->source);
    d->source = NULL;
}

void disaster_drop(struct simnode *n)
{
    struct disaster *d = &n->sim->disaster;
    if (d->source && d->node == n->id)
        stop_making(d);
}

/* As daemon/api/snapshot.c ends the stream. */
static void end_file(struct buf *file)
{
    static const uint8_t zeros[SNAPFILE_ALIGN];
    uint8_t digest[SHA256_BYTES];
    buf_append(file, zeros, snapfile_padding(file->n));
    struct sha256 *h = sha256_new();
    sha256_add(h, file->p, file->n);
    sha256_end(h, digest);
    sha256_free(h);
    buf_append(file, digest, sizeof(digest));
}

static void pull(struct world *w, void *ctx, uint64_t a, uint64_t boot);

static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct disaster *d = ctx;
    struct simnode *n = sim_node(d->sim, d->node);
    if (code != ERR_OK) {
        TRACE2(&d->sim->world, "the backup of n%llu fails: %llu", d->node, code);
        stop_making(d);
        return;
    }
    buf_append(&d->making.file, chunk.p, chunk.n);
    if (!last) {
        simnode_after(n, simrng_below(&d->rng, 50 * MS), pull, 0);
        return;
    }
    stop_making(d);
    end_file(&d->making.file);
    buf_free(&d->kept.file);
    d->kept = d->making;
    d->making.file = (struct buf){0};
    d->backups++;
    TRACE3(&d->sim->world, "a backup of n%llu at revision %llu is kept: %llu bytes", d->node,
           d->kept.revision, d->kept.file.n);
}

static void pull(struct world *w, void *ctx, uint64_t a, uint64_t boot)
{
    (void)w;
    struct simnode *n = ctx;
    struct disaster *d = &n->sim->disaster;
    if (!simnode_awake(n, pull, a, boot) || !d->source || d->node != n->id || d->boot != boot)
        return;
    replica_backup_next(d->source, on_chunk, d);
    simnode_settle(n);
}

static void note_lease(void *ctx, int64_t id)
{
    bool *leases = ctx;
    if (id > 0 && id <= LEASES_MAX)
        leases[id] = true;
}

static void begin_backup(struct disaster *d)
{
    struct sim *s = d->sim;
    struct simnode *n = s->nodes[simrng_below(&d->rng, s->node_count)];
    if (!n->replica || s->world.now < n->paused_until || n->fatal)
        return;
    d->making.file.n = 0;
    memset(d->making.leases, 0, sizeof(d->making.leases));
    d->source = replica_backup_open(n->replica, &d->making.revision);
    if (!d->source)
        return;
    lessor_each(replica_lessor(n->replica), note_lease, d->making.leases);
    TRACE2(&s->world, "a backup of n%llu begins at revision %llu", n->id, d->making.revision);
    d->node = n->id;
    d->boot = n->boot;
    simnode_after(n, MS, pull, 0);
    simnode_settle(n);
}

/* ---- the disaster -------------------------------------------------------------------------------- */

static void lose_all(struct sim *s)
{
    for (size_t i = 0; i < s->node_count; i++) {
        struct simnode *n = s->nodes[i];
        bool was = n->gone;
        n->gone = true;
        n->lost = false; /* nobody replaces them one by one any more */
        if (!was)
            simnode_crash(n, true);
    }
}

static void forget_administration(struct admin *a)
{
    a->learner = a->leaving = a->missing = 0;
    a->waiting = false;
    a->node = a->boot = 0;
}

static void put_file(struct disaster *d, struct simnode *n)
{
    struct disk *disk = simdisk_disk(n->disk);
    struct disk_file *f;
    struct error err;
    enum errc code = disk->open(disk, FILE_NAME, DISK_WRITE | DISK_CREATE, &f, &err);
    if (code == ERR_OK)
        code = disk->write(disk, f, 0, d->kept.file.p, d->kept.file.n, &err);
    if (code != ERR_OK)
        world_fail(&d->sim->world, "a backup can't be copied: %s", err.message);
    disk->close(disk, f);
}

static enum errc run_restore(struct disaster *d, struct simnode *n, struct error *err)
{
    struct sim *s = d->sim;
    struct replica_member members[RAFT_MEMBERS_MAX];
    static char urls[RAFT_MEMBERS_MAX][48], *url_of[RAFT_MEMBERS_MAX];
    for (size_t i = 0; i < s->initial_count; i++) {
        uint64_t id = s->initial_first + i + 1;
        snprintf(urls[i], sizeof(urls[i]), "http://n%llu:2380", (ull)id);
        url_of[i] = urls[i];
        members[i] = (struct replica_member){
            .id = id, .name = "", .peer_urls = &url_of[i], .peer_url_count = 1};
    }
    struct snapfile_info info;
    enum errc code = import_check(simdisk_disk(n->disk), FILE_NAME, &info, err);
    if (code == ERR_OK && info.head.revision != d->kept.revision)
        world_fail(&s->world, "the backup says that it is as of revision %lld, not %lld",
                   (long long)info.head.revision, (long long)d->kept.revision);
    return code ? code
                : replica_restore(
                      &(struct restore_config){.disk = simdisk_disk(n->disk),
                                               .sqlite_vfs = n->name,
                                               .file = FILE_NAME,
                                               .data_dir = "data",
                                               .cluster_id = s->cluster_id,
                                               .member_id = n->id,
                                               .members = members,
                                               .member_count = s->initial_count,
                                               .wal_segment_bytes = s->faults.segment_bytes,
                                               .env = &n->env},
                      err);
}

/* Nothing of what was restored may be at stake any more. */
static void lose_power(struct disaster *d, struct simnode *n)
{
    if (!simrng_chance(&d->rng, 50))
        return;
    TRACE1(&d->sim->world, "n%llu: the power fails after it was restored", n->id);
    simdisk_power_off(n->disk);
    simdisk_crash(n->disk, &d->rng);
    simvfs_crash(n->vfs);
}

/* What a restore left that was cut off is thrown away, with its disk. (That a server doesn't take it for a member
 * is test_restore's.) */
static struct simnode *restore_member(struct disaster *d, uint64_t id)
{
    struct sim *s = d->sim;
    struct error err = {0};
    bool cut = simrng_chance(&d->rng, CUT_PERCENT);
    for (;;) {
        struct simnode *n = simnode_new(s, id, false);
        put_file(d, n);
        if (cut)
            simdisk_power_off_at(n->disk, 1 + simrng_below(&d->rng, 150));
        enum errc code = run_restore(d, n, &err);
        bool off = simdisk_is_off(n->disk);
        simdisk_power_off_at(n->disk, 0);
        if (code == ERR_OK && !off) {
            lose_power(d, n);
            return n;
        }
        if (!off)
            world_fail(&s->world, "member %llu can't be restored: %s", (ull)id, err.message);
        TRACE1(&s->world, "n%llu: the power fails while it is restored", id);
        simdisk_crash(n->disk, &d->rng);
        simvfs_crash(n->vfs);
        simnode_free(n);
        cut = false;
    }
}

/* Their very first start isn't crashed: what they hold is looked at before anything else happens to it. */
static void start_all(struct disaster *d)
{
    struct sim *s = d->sim;
    unsigned percent = s->faults.crash_in_start_percent;
    s->faults.crash_in_start_percent = 0;
    for (size_t i = s->initial_first; i < s->node_count; i++) {
        simnode_start(s->nodes[i]);
        check_restored(s->nodes[i], d->kept.leases);
    }
    s->faults.crash_in_start_percent = percent;
}

static void strike(struct disaster *d)
{
    struct sim *s = d->sim;
    int64_t revision = d->kept.revision;
    TRACE2(&s->world, "all machines are lost at revision %llu; the backup is of %llu",
           s->model.last, revision);
    stop_making(d);
    lose_all(s);
    clients_end_epoch(&s->clients, revision);
    watches_end_epoch(&s->watches, revision);
    leases_end_epoch(&s->leases, d->kept.leases);
    model_cut(&s->model, revision);
    clients_begin_epoch(&s->clients);
    check_free(&s->check);
    check_init(&s->check);
    forget_administration(&s->admin);
    s->cluster_id++;
    s->initial_first = s->node_count;
    for (size_t i = 0; i < s->initial_count; i++) {
        s->nodes[s->node_count] = restore_member(d, s->node_count + 1);
        s->node_count++;
    }
    start_all(d);
    d->restores++;
}

static void on_step(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    struct disaster *d = ctx;
    struct sim *s = d->sim;
    if (s->calm) {
        stop_making(d);
        return;
    }
    bool room = s->node_count + s->initial_count <= SIM_MEMBERS_MAX;
    if (d->restores == 0 && w->now >= d->at && d->kept.revision > 1 && room)
        strike(d);
    else if (!d->source && simrng_chance(&d->rng, d->kept.revision ? 2 : 10))
        begin_backup(d);
    world_after(w, STEP, on_step, d, a, b);
}

void disaster_start(struct disaster *d, struct sim *s)
{
    if (s->scenario.kind != SCENARIO_RESTORE)
        return;
    d->sim = s;
    d->rng = world_rng(&s->world, 10);
    d->at = 8 * SECOND + simrng_below(&d->rng, 22 * SECOND);
    world_after(&s->world, SECOND + simrng_below(&d->rng, 3 * SECOND), on_step, d, 0, 0);
}

void disaster_free(struct disaster *d)
{
    stop_making(d);
    buf_free(&d->kept.file);
    buf_free(&d->making.file);
}
