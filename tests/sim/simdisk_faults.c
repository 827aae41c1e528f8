/* What happens to the disk from outside: crashes, faults, damage. */
#include <stdlib.h>

#include "tests/sim/simdisk_internal.h"

uint64_t simdisk_trace(const struct simdisk *d)
{
    return d->trace;
}

uint64_t simdisk_calls(const struct simdisk *d)
{
    return d->calls;
}

size_t simdisk_handles(const struct simdisk *d)
{
    return d->handles;
}

uint64_t simdisk_used(const struct simdisk *d)
{
    return d->used;
}

void simdisk_power_off(struct simdisk *d)
{
    d->off = true;
}

void simdisk_power_off_at(struct simdisk *d, uint64_t n)
{
    d->off_at = n;
}

bool simdisk_is_off(const struct simdisk *d)
{
    return d->off;
}

/* The machine or the process starts again: nobody holds a handle or a lock. */
static void restart(struct simdisk *d)
{
    d->generation++;
    d->off = false;
    d->lies_in = NULL;
    d->off_at = d->fail_at = d->misdirect_at = 0;
    d->used = 0;
    for (size_t i = 0; i < d->dir.live.count; i++) {
        struct siminode *inode = d->dir.live.names[i].inode;
        inode->handles = 0;
        inode->locked = false;
        d->used += simdisk_sectors(inode->file.size);
    }
}

void simdisk_crash(struct simdisk *d, struct simrng *rng)
{
    simdir_crash(&d->dir, rng);
    for (size_t i = 0; i < d->dir.live.count; i++)
        simfile_crash(&d->dir.live.names[i].inode->file, rng);
    restart(d);
}

void simdisk_kill_process(struct simdisk *d)
{
    restart(d);
}

void simdisk_fail_at(struct simdisk *d, uint64_t n, unsigned ops, enum errc code, bool stays)
{
    d->fail_at = n;
    d->fail_ops = ops;
    d->fail_code = code;
    d->fail_stays = stays;
    d->has_failed = false;
}

bool simdisk_has_failed(const struct simdisk *d)
{
    return d->has_failed;
}

void simdisk_set_capacity(struct simdisk *d, uint64_t bytes)
{
    d->capacity = bytes;
}

void simdisk_lie(struct simdisk *d, const char *folder)
{
    d->lies_in = folder;
}

bool simdisk_is_limited(const struct simdisk *d)
{
    return d->capacity > 0;
}

void simdisk_misdirect_at(struct simdisk *d, uint64_t n)
{
    d->misdirect_at = n;
}

enum errc simdisk_flip(struct simdisk *d, const char *name, uint64_t offset, unsigned bit)
{
    char *path = simdir_normal(name);
    struct siminode *inode = simdir_find(&d->dir, path);
    free(path);
    if (!inode || inode->is_dir)
        return ERR_NOT_FOUND;
    simfile_flip(&inode->file, offset, bit);
    return ERR_OK;
}

bool simdisk_astray(const struct simdisk *d, const char **ret_path, uint64_t *ret_offset)
{
    *ret_path = d->astray_path;
    *ret_offset = d->astray_offset;
    return d->astray_path != NULL;
}

bool simdisk_harm(struct simdisk *d, const char *name, uint64_t sector, enum simdisk_damage how,
                  struct simrng *rng)
{
    char *path = simdir_normal(name);
    struct siminode *inode = simdir_find(&d->dir, path);
    free(path);
    if (!inode || inode->is_dir)
        return false;
    uint64_t before = inode->file.size;
    bool harmed = simfile_harm(&inode->file, sector, (int)how, rng);
    d->used -= simdisk_sectors(before) - simdisk_sectors(inode->file.size);
    return harmed;
}

bool simdisk_rot(struct simdisk *d, struct simrng *rng)
{
    size_t n = d->dir.live.count;
    size_t at = n > 0 ? (size_t)simrng_below(rng, n) : 0;
    for (size_t i = 0; i < n; i++) {
        struct siminode *inode = d->dir.live.names[(at + i) % n].inode;
        if (inode->file.durable_size == 0)
            continue;
        uint64_t offset = simrng_below(rng, inode->file.durable_size);
        simfile_flip(&inode->file, offset, (unsigned)simrng_below(rng, 8));
        return true;
    }
    return false;
}

void simdisk_set_hook(struct simdisk *d,
                      void (*hook)(void *ctx, enum simdisk_op op, const char *path), void *ctx)
{
    d->hook = hook;
    d->hook_ctx = ctx;
}

enum errc simdisk_contents(struct simdisk *d, const char *name, struct buf *out)
{
    char *path = simdir_normal(name);
    struct siminode *inode = simdir_find(&d->dir, path);
    free(path);
    if (!inode || inode->is_dir)
        return ERR_NOT_FOUND;
    buf_append(out, inode->file.live, (size_t)inode->file.size);
    return ERR_OK;
}

enum errc simdisk_durable(struct simdisk *d, const char *name, struct buf *out)
{
    char *path = simdir_normal(name);
    struct siminode *inode = simdir_find(&d->dir, path);
    free(path);
    if (!inode || inode->is_dir)
        return ERR_NOT_FOUND;
    buf_append(out, inode->file.durable, (size_t)inode->file.durable_size);
    return ERR_OK;
}

void simdisk_each_file(struct simdisk *d,
                       void (*each)(void *ctx, const char *path, uint64_t durable_size), void *ctx)
{
    for (size_t i = 0; i < d->dir.live.count; i++) {
        const struct simname *name = &d->dir.live.names[i];
        if (!name->inode->is_dir)
            each(ctx, name->path, name->inode->file.durable_size);
    }
}

static uint64_t table_memory(const struct simtable *t, const struct simtable *other)
{
    uint64_t sum = t->cap * sizeof(*t->names);
    for (size_t i = 0; i < t->count; i++) {
        const struct siminode *inode = t->names[i].inode;
        bool counted = false;
        for (size_t k = 0; other && k < other->count && !counted; k++)
            counted = other->names[k].inode == inode;
        if (!counted)
            sum += inode->file.cap * 2 + inode->file.cap / SIMFILE_SECTOR * sizeof(uint32_t);
    }
    return sum;
}

uint64_t simdisk_memory(const struct simdisk *d)
{
    return table_memory(&d->dir.live, NULL) + table_memory(&d->dir.durable, &d->dir.live) +
           d->dir.change_cap * sizeof(*d->dir.changes);
}
