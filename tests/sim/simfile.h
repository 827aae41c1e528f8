/* A file's contents on the simulated disk: what reads see (the page cache) and what a power failure
 * leaves, kept apart by sectors of 512 bytes. Private to simdisk.
 *
 * A write makes a new version of each sector that it touches. A sync makes the newest versions durable.
 * A crash picks, sector by sector and independently of each other, the durable version, any newer one,
 * or a mixture of two neighbours (a torn sector): so unsynced writes get lost, kept, reordered and torn.
 * Bytes that no version changed never change, and a sector without newer versions is safe. */
#ifndef SIM_SIMFILE_H
#define SIM_SIMFILE_H

#include <stddef.h>
#include <stdint.h>

#include "tests/sim/simrng.h"

#define SIMFILE_SECTOR 512u
/* Unsynced versions kept of one sector; older ones are forgotten, as a disk's queue merges them. */
#define SIMFILE_VERSIONS_MAX 6u

struct simfile_dirty;

struct simfile {
    uint8_t *live, *durable; /* `cap` bytes each, zeros behind the size */
    uint64_t cap;
    uint64_t size, durable_size;
    uint64_t sizes[SIMFILE_VERSIONS_MAX]; /* sizes since the last sync, newest last */
    size_t size_count;
    struct simfile_dirty **dirty; /* sectors with versions, in the order of their first write */
    size_t dirty_count, dirty_cap;
    uint32_t *slot; /* a sector's place in `dirty` + 1; 0: it has no versions */
};

uint64_t simfile_pool_bytes(void); /* what all files together need for their unsynced versions */
void simfile_free(struct simfile *f);
void simfile_write(struct simfile *f, uint64_t offset, const void *p, size_t n);
void simfile_resize(struct simfile *f, uint64_t size); /* new bytes are zeros */
void simfile_sync(struct simfile *f);

/* A sync that failed, as Linux has it: some sectors were written, the others weren't, and none is
 * dirty any more; reads go on seeing the newest bytes, and the next sync succeeds without writing them. */
void simfile_sync_failed(struct simfile *f, struct simrng *rng);

void simfile_crash(struct simfile *f, struct simrng *rng);

/* Changes a stored bit behind everybody's back. */
void simfile_flip(struct simfile *f, uint64_t offset, unsigned bit);
/* The same for a sector that is synced (the last one of the file may be in part): `how` 0 flips one to three
 * bits, 1 makes it zeros, 2 fills it at random. False: it isn't, or nothing changed. */
bool simfile_harm(struct simfile *f, uint64_t sector, int how, struct simrng *rng);

#endif
