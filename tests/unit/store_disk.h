/* The store on the simulated disk: full disks, failed syncs, power losses. */
#ifndef TESTS_UNIT_STORE_DISK_H
#define TESTS_UNIT_STORE_DISK_H

#include "lib/base/env.h"
#include "tests/sim/simdisk.h"
#include "tests/sim/simvfs.h"
#include "tests/unit/store_history.h"

struct disked {
    struct store s; /* first */
    struct simdisk *sim;
    struct simvfs *vfs;
    struct simrng rng;
    struct env env;
};

static uint64_t fixed_time(struct env *env)
{
    (void)env;
    return UINT64_C(1600000000000000000);
}

static uint64_t seeded(struct env *env)
{
    return simrng_next(&CONTAINER_OF(env, struct disked, env)->rng);
}

__attribute__((unused)) static void begin_disk(struct disked *d, uint64_t seed)
{
    memset(d, 0, sizeof(*d));
    d->rng.state = seed;
    d->env = (struct env){fixed_time, fixed_time, seeded};
    d->sim = simdisk_new(seed);
    d->vfs = simvfs_new("space", simdisk_disk(d->sim), &d->env);
    simvfs_seed((uint32_t)seed);
    struct disk *disk = simdisk_disk(d->sim);
    snprintf(d->s.dir, sizeof(d->s.dir), "store");
    disk->mkdir(disk, d->s.dir, NULL);
    disk->sync_dir(disk, "", NULL);
    d->s.config.disk = disk;
    d->s.config.sqlite_vfs = "space";
    d->s.config.checkpoint_pages = 8;
    d->s.config.cache_bytes_max = 4096;
    d->s.config.reserve_bytes = 64 * 1024;
}

__attribute__((unused)) static void end_disk(struct disked *d)
{
    simvfs_free(d->vfs);
    assert_int_equal(simdisk_handles(d->sim), 0);
    simdisk_free(d->sim);
}

__attribute__((unused)) static void power_loss(struct disked *d)
{
    simdisk_power_off(d->sim);
    store_crash(&d->s);
    simdisk_crash(d->sim, &d->rng);
    simvfs_crash(d->vfs);
}

/* Only the process ends: the page cache stays. */
__attribute__((unused)) static void process_end(struct disked *d)
{
    simdisk_kill_process(d->sim);
    store_crash(&d->s);
    simvfs_crash(d->vfs);
}

#endif
