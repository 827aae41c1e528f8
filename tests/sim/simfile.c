#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/simfile.h"

#define HOW_CUT 3 /* simfile_harm() */

/* A sector's versions since the last sync. The newest is what `live` has; most sectors are written once, so
 * that nothing needs to be copied for them. */
struct simfile_dirty {
    struct simfile_dirty *next; /* in the pool */
    uint64_t sector;
    size_t count;                                            /* with the newest */
    uint8_t older[SIMFILE_VERSIONS_MAX - 1][SIMFILE_SECTOR]; /* oldest first */
};

/* Those that are free, of all files: they come and go with every write, and malloc is slow at their size.
 * One thread (simdisk.h). */
static struct simfile_dirty *pool;
static uint64_t pool_bytes; /* of all, in use as well */

static struct simfile_dirty *dirty_new(void)
{
    struct simfile_dirty *d = pool;
    if (!d) {
        pool_bytes += sizeof(*d);
        return xmalloc(sizeof(*d));
    }
    pool = d->next;
    return d;
}

static void dirty_free(struct simfile_dirty *d)
{
    d->next = pool;
    pool = d;
}

uint64_t simfile_pool_bytes(void)
{
    return pool_bytes;
}

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void grow(struct simfile *f, uint64_t size)
{
    if (size <= f->cap)
        return;
    uint64_t cap = f->cap ? f->cap : 4096;
    while (cap < size)
        cap *= 2;
    f->live = xrealloc(f->live, cap);
    f->durable = xrealloc(f->durable, cap);
    f->slot = xrealloc(f->slot, cap / SIMFILE_SECTOR * sizeof(*f->slot));
    memset(f->live + f->cap, 0, cap - f->cap);
    memset(f->durable + f->cap, 0, cap - f->cap);
    memset(f->slot + f->cap / SIMFILE_SECTOR, 0,
           (cap - f->cap) / SIMFILE_SECTOR * sizeof(*f->slot));
    f->cap = cap;
}

void simfile_free(struct simfile *f)
{
    for (size_t i = 0; i < f->dirty_count; i++)
        dirty_free(f->dirty[i]);
    free(f->dirty);
    free(f->slot);
    free(f->live);
    free(f->durable);
    *f = (struct simfile){0};
}

static struct simfile_dirty *dirty_add(struct simfile *f, uint64_t sector)
{
    if (f->dirty_count == f->dirty_cap) {
        f->dirty_cap = f->dirty_cap ? f->dirty_cap * 2 : 16;
        f->dirty = xrealloc(f->dirty, f->dirty_cap * sizeof(struct simfile_dirty *));
    }
    struct simfile_dirty *d = dirty_new();
    d->sector = sector;
    d->count = 1;
    f->dirty[f->dirty_count++] = d;
    f->slot[sector] = (uint32_t)f->dirty_count;
    return d;
}

/* Before live[from..to) is changed: its sectors get a new version each. */
static void add_versions(struct simfile *f, uint64_t from, uint64_t to)
{
    for (uint64_t s = from / SIMFILE_SECTOR; s * SIMFILE_SECTOR < to; s++) {
        if (f->slot[s] == 0) {
            dirty_add(f, s);
            continue;
        }
        struct simfile_dirty *d = f->dirty[f->slot[s] - 1];
        if (d->count == SIMFILE_VERSIONS_MAX) {
            d->count--;
            memmove(d->older[0], d->older[1], (d->count - 1) * SIMFILE_SECTOR);
        }
        memcpy(d->older[d->count++ - 1], f->live + s * SIMFILE_SECTOR, SIMFILE_SECTOR);
    }
}

static const uint8_t *version_of(const struct simfile *f, const struct simfile_dirty *d, size_t i)
{
    return i + 1 == d->count ? f->live + d->sector * SIMFILE_SECTOR : d->older[i];
}

static void set_size(struct simfile *f, uint64_t size)
{
    if (size == f->size)
        return;
    f->size = size;
    if (f->size_count == SIMFILE_VERSIONS_MAX) {
        f->size_count--;
        memmove(f->sizes, f->sizes + 1, f->size_count * sizeof(f->sizes[0]));
    }
    f->sizes[f->size_count++] = size;
}

void simfile_write(struct simfile *f, uint64_t offset, const void *p, size_t n)
{
    if (n == 0)
        return;
    grow(f, offset + n);
    add_versions(f, offset, offset + n);
    memcpy(f->live + offset, p, n);
    if (offset + n > f->size)
        set_size(f, offset + n);
}

void simfile_resize(struct simfile *f, uint64_t size)
{
    grow(f, size);
    if (size < f->size) {
        add_versions(f, size, f->size);
        memset(f->live + size, 0, f->size - size);
    }
    set_size(f, size);
}

static void forget_versions(struct simfile *f)
{
    for (size_t i = 0; i < f->dirty_count; i++) {
        f->slot[f->dirty[i]->sector] = 0;
        dirty_free(f->dirty[i]);
    }
    f->dirty_count = 0;
    f->size_count = 0;
}

static void make_durable(struct simfile *f, const struct simfile_dirty *d)
{
    uint64_t at = d->sector * SIMFILE_SECTOR;
    memcpy(f->durable + at, f->live + at, SIMFILE_SECTOR);
}

void simfile_sync(struct simfile *f)
{
    for (size_t i = 0; i < f->dirty_count; i++)
        make_durable(f, f->dirty[i]);
    f->durable_size = f->size;
    forget_versions(f);
}

void simfile_sync_failed(struct simfile *f, struct simrng *rng)
{
    for (size_t i = 0; i < f->dirty_count; i++)
        if (simrng_chance(rng, 50))
            make_durable(f, f->dirty[i]);
    if (simrng_chance(rng, 50))
        f->durable_size = f->size;
    forget_versions(f);
}

/* What the disk holds of one sector after the power failed. A third each: as synced, the newest, any
 * or torn. */
static void crash_sector(struct simfile *f, const struct simfile_dirty *d, struct simrng *rng)
{
    uint8_t *p = f->durable + d->sector * SIMFILE_SECTOR;
    uint64_t dice = simrng_below(rng, 6);
    if (dice < 2)
        return;
    if (dice < 4) {
        make_durable(f, d);
        return;
    }
    size_t version = (size_t)simrng_below(rng, d->count);
    if (dice == 4) {
        memcpy(p, version_of(f, d, version), SIMFILE_SECTOR);
        return;
    }
    size_t cut = (size_t)simrng_below(rng, SIMFILE_SECTOR);
    const uint8_t *before = version > 0 ? version_of(f, d, version - 1) : p;
    const uint8_t *after = version_of(f, d, version);
    uint8_t torn[SIMFILE_SECTOR];
    memcpy(torn, before, SIMFILE_SECTOR);
    if (simrng_chance(rng, 50))
        memcpy(torn, after, cut);
    else
        memcpy(torn + cut, after + cut, SIMFILE_SECTOR - cut);
    memcpy(p, torn, SIMFILE_SECTOR);
}

void simfile_crash(struct simfile *f, struct simrng *rng)
{
    for (size_t i = 0; i < f->dirty_count; i++)
        crash_sector(f, f->dirty[i], rng);
    size_t pick = (size_t)simrng_below(rng, f->size_count + 1);
    if (pick > 0)
        f->durable_size = f->sizes[pick - 1];
    if (f->cap > f->durable_size)
        memset(f->durable + f->durable_size, 0, f->cap - f->durable_size);
    forget_versions(f);
    if (f->cap > 0)
        memcpy(f->live, f->durable, f->cap);
    f->size = f->durable_size;
}

void simfile_flip(struct simfile *f, uint64_t offset, unsigned bit)
{
    if (offset >= min64(f->size, f->durable_size))
        return;
    f->live[offset] ^= (uint8_t)(1u << bit);
    f->durable[offset] ^= (uint8_t)(1u << bit);
    if (f->slot[offset / SIMFILE_SECTOR] > 0) {
        struct simfile_dirty *d = f->dirty[f->slot[offset / SIMFILE_SECTOR] - 1];
        for (size_t i = 0; i + 1 < d->count; i++)
            d->older[i][offset % SIMFILE_SECTOR] ^= (uint8_t)(1u << bit);
    }
}

static bool cut(struct simfile *f, uint64_t at)
{
    if (f->dirty_count > 0 || f->size != f->durable_size)
        return false;
    memset(f->durable + at, 0, f->size - at);
    memset(f->live + at, 0, f->size - at);
    f->size = f->durable_size = at;
    return true;
}

bool simfile_harm(struct simfile *f, uint64_t sector, int how, struct simrng *rng)
{
    uint64_t at = sector * SIMFILE_SECTOR, end = min64(f->size, f->durable_size);
    if (at >= end || f->slot[sector] > 0)
        return false;
    if (how == HOW_CUT)
        return cut(f, at);
    size_t n = (size_t)min64(SIMFILE_SECTOR, end - at);
    uint8_t harmed[SIMFILE_SECTOR];
    memcpy(harmed, f->durable + at, n);
    for (uint64_t i = how == 0 ? simrng_below(rng, 3) + 1 : 0; i > 0; i--)
        harmed[simrng_below(rng, n)] ^= (uint8_t)(1u << simrng_below(rng, 8));
    for (size_t i = 0; how > 0 && i < n; i++)
        harmed[i] = how == 1 ? 0 : (uint8_t)simrng_next(rng);
    if (memcmp(harmed, f->durable + at, n) == 0)
        return false;
    memcpy(f->durable + at, harmed, n);
    memcpy(f->live + at, harmed, n);
    return true;
}
