/* The calls of lib/base/disk.h. What a test does to the disk is in simdisk_faults.c. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/simdisk_internal.h"

struct disk_file {
    struct siminode *inode;
    uint64_t generation;
    bool writable, is_lock;
    char *path;
};

static struct simdisk *of(struct disk *disk)
{
    return CONTAINER_OF(disk, struct simdisk, base);
}

static void mix(struct simdisk *d, uint64_t v)
{
    struct simrng r = {d->trace ^ v};
    d->trace = simrng_next(&r);
}

/* FNV-1a on words, in four lanes that don't wait for each other: all that is read and written goes
 * through here. */
static void mix_bytes(struct simdisk *d, const void *p, size_t n)
{
    const uint64_t prime = 1099511628211ull;
    uint64_t h[4] = {14695981039346656037ull, n, ~14695981039346656037ull, ~(uint64_t)n};
    const uint8_t *at = p;
    for (; n >= 32; n -= 32, at += 32) {
        for (size_t i = 0; i < 4; i++)
            h[i] = (h[i] ^ get_le64(at + 8 * i)) * prime;
    }
    for (; n >= 8; n -= 8, at += 8)
        h[0] = (h[0] ^ get_le64(at)) * prime;
    for (; n > 0; n--, at++)
        h[0] = (h[0] ^ *at) * prime;
    for (size_t i = 1; i < 4; i++)
        h[0] = (h[0] ^ h[i] ^ h[i] >> 29) * prime;
    mix(d, h[0]);
}

/* What becomes of a call: the usual, an error, or an error after half of it was done. */
enum verdict { GO, REFUSE, HALF };

static enum verdict begin(struct simdisk *d, enum simdisk_op op, const char *path,
                          enum errc *ret_rc, struct error *err)
{
    if (d->hook && !d->off)
        d->hook(d->hook_ctx, op, path);
    *ret_rc = ERR_IO;
    if (d->off) {
        error_set(err, ERR_IO, "%s: the power is off", path);
        return REFUSE;
    }
    d->calls++;
    mix(d, op);
    mix_bytes(d, path, strlen(path));
    if (d->off_at > 0 && --d->off_at == 0) {
        d->off = true;
        error_set(err, ERR_IO, "%s: the power went off", path);
        return HALF;
    }
    if (d->fail_at > 0 && (d->fail_ops & op) && d->fail_at-- == 1) {
        d->fail_at = d->fail_stays ? 1 : 0;
        d->has_failed = true;
        *ret_rc = error_set(err, d->fail_code, "%s: fault injected", path);
        return HALF;
    }
    *ret_rc = ERR_OK;
    return GO;
}

static enum verdict begin_file(struct simdisk *d, enum simdisk_op op, const struct disk_file *f,
                               enum errc *ret_rc, struct error *err)
{
    if (f->generation == d->generation)
        return begin(d, op, f->path, ret_rc, err);
    *ret_rc = error_set(err, ERR_IO, "%s: a handle of before the crash", f->path);
    return REFUSE;
}

static bool in_use(const struct siminode *inode)
{
    return inode->named || inode->handles > 0;
}

/* Accounts for a file's new size; false if the disk has no room for it. */
static bool take_space(struct simdisk *d, const struct siminode *inode, uint64_t size)
{
    uint64_t before = simdisk_sectors(inode->file.size), after = simdisk_sectors(size);
    if (after > before && d->capacity > 0 && d->used + after - before > d->capacity)
        return false;
    d->used += after - before;
    return true;
}

static void give_back(struct simdisk *d, struct siminode *inode)
{
    if (inode && !in_use(inode))
        d->used -= simdisk_sectors(inode->file.size);
}

static struct disk_file *handle_new(struct simdisk *d, const char *path, struct siminode *inode)
{
    struct disk_file *f = xcalloc(1, sizeof(*f));
    f->inode = inode;
    inode->refs++;
    inode->handles++;
    f->generation = d->generation;
    f->path = xstrdup(path);
    d->handles++;
    return f;
}

/* Finds or makes a file. */
static enum errc look_up(struct simdisk *d, const char *path, int flags,
                         struct siminode **ret_inode, struct error *err)
{
    char *parent = simdir_parent(path);
    bool has_parent = simdir_is_folder(&d->dir, parent);
    free(parent);
    struct siminode *inode = simdir_find(&d->dir, path);
    if (inode && inode->is_dir)
        return error_set(err, ERR_IO, "open %s: it is a folder", path);
    if (inode && (flags & DISK_EXCL))
        return error_set(err, ERR_EXISTS, "open %s: it exists", path);
    if (!inode && (!has_parent || !(flags & DISK_CREATE)))
        return error_set(err, ERR_NOT_FOUND, "open %s: not found", path);
    *ret_inode = inode ? inode : simdir_make(&d->dir, path, false);
    return ERR_OK;
}

static enum errc sim_open(struct disk *disk, const char *name, int flags,
                          struct disk_file **ret_file, struct error *err)
{
    struct simdisk *d = of(disk);
    char *path = simdir_normal(name);
    enum errc rc;
    if (begin(d, SIMDISK_OPEN, path, &rc, err) == GO) {
        struct siminode *inode;
        rc = look_up(d, path, flags, &inode, err);
        if (!rc) {
            *ret_file = handle_new(d, path, inode);
            (*ret_file)->writable = flags & DISK_WRITE;
        }
        mix(d, rc);
    }
    free(path);
    return rc;
}

static void sim_close(struct disk *disk, struct disk_file *f)
{
    struct simdisk *d = of(disk);
    if (!f)
        return;
    if (f->generation == d->generation) {
        f->inode->handles--;
        give_back(d, f->inode);
        if (f->is_lock)
            f->inode->locked = false;
    }
    simdir_unref(f->inode);
    free(f->path);
    free(f);
    d->handles--;
}

static enum errc sim_read(struct disk *disk, struct disk_file *f, uint64_t offset, void *p,
                          size_t n, size_t *ret_n, struct error *err)
{
    struct simdisk *d = of(disk);
    enum errc rc;
    if (begin_file(d, SIMDISK_READ, f, &rc, err) != GO)
        return rc;
    const struct simfile *file = &f->inode->file;
    uint64_t there = offset < file->size ? file->size - offset : 0;
    size_t got = there < n ? (size_t)there : n;
    if (got > 0)
        memcpy(p, file->live + offset, got);
    mix(d, offset);
    mix_bytes(d, p, got);
    *ret_n = got;
    return ERR_OK;
}

/* Some of the sectors of a write that was cut short. */
static void write_half(struct simdisk *d, struct siminode *inode, uint64_t offset, const uint8_t *p,
                       size_t n)
{
    size_t at = 0;
    while (at < n) {
        size_t part = SIMFILE_SECTOR - (size_t)((offset + at) % SIMFILE_SECTOR);
        part = part < n - at ? part : n - at;
        uint64_t end = offset + at + part;
        if (simrng_chance(&d->rng, 50) && (end <= inode->file.size || take_space(d, inode, end)))
            simfile_write(&inode->file, offset + at, p + at, part);
        at += part;
    }
}

static uint64_t astray(struct simdisk *d, const struct siminode *inode, uint64_t offset, size_t n)
{
    uint64_t room = inode->file.size > n ? inode->file.size - n : 0;
    uint64_t wrong = simrng_below(&d->rng, room / SIMFILE_SECTOR + 1) * SIMFILE_SECTOR;
    return wrong != offset ? wrong : offset + SIMFILE_SECTOR;
}

static enum errc sim_write(struct disk *disk, struct disk_file *f, uint64_t offset, const void *p,
                           size_t n, struct error *err)
{
    struct simdisk *d = of(disk);
    enum errc rc;
    assert(f->writable);
    enum verdict verdict = begin_file(d, SIMDISK_WRITE, f, &rc, err);
    if (verdict == REFUSE)
        return rc;
    mix(d, offset);
    mix_bytes(d, p, n);
    if (verdict == HALF) {
        write_half(d, f->inode, offset, p, n);
        return rc;
    }
    if (d->misdirect_at > 0 && --d->misdirect_at == 0) {
        free(d->astray_path);
        d->astray_path = xstrdup(f->path);
        d->astray_offset = offset;
        offset = astray(d, f->inode, offset, n);
    }
    uint64_t end = offset + n;
    if (end > f->inode->file.size && !take_space(d, f->inode, end))
        return error_set(err, ERR_NO_SPACE, "write %s: no space left", f->path);
    simfile_write(&f->inode->file, offset, p, n);
    return ERR_OK;
}

static enum errc sim_sync(struct disk *disk, struct disk_file *f, struct error *err)
{
    struct simdisk *d = of(disk);
    enum errc rc;
    enum verdict verdict = begin_file(d, SIMDISK_SYNC, f, &rc, err);
    bool lies = d->lies_in && strncmp(f->path, d->lies_in, strlen(d->lies_in)) == 0;
    if (verdict == GO && !lies)
        simfile_sync(&f->inode->file);
    else if (verdict == HALF && !d->off) /* off: simdisk_crash() decides */
        simfile_sync_failed(&f->inode->file, &d->rng);
    return rc;
}

static enum errc sim_size(struct disk *disk, struct disk_file *f, uint64_t *ret_size,
                          struct error *err)
{
    enum errc rc;
    if (begin_file(of(disk), SIMDISK_SIZE, f, &rc, err) == GO)
        *ret_size = f->inode->file.size;
    return rc;
}

static enum errc resize(struct disk *disk, enum simdisk_op op, struct disk_file *f, uint64_t size,
                        struct error *err)
{
    struct simdisk *d = of(disk);
    enum errc rc;
    assert(f->writable);
    if (begin_file(d, op, f, &rc, err) != GO)
        return rc;
    mix(d, size);
    if (op == SIMDISK_ALLOCATE && size <= f->inode->file.size)
        return ERR_OK;
    if (!take_space(d, f->inode, size))
        return error_set(err, ERR_NO_SPACE, "allocate %s: no space left", f->path);
    simfile_resize(&f->inode->file, size);
    return ERR_OK;
}

static enum errc sim_truncate(struct disk *disk, struct disk_file *f, uint64_t size,
                              struct error *err)
{
    return resize(disk, SIMDISK_TRUNCATE, f, size, err);
}

static enum errc sim_allocate(struct disk *disk, struct disk_file *f, uint64_t size,
                              struct error *err)
{
    return resize(disk, SIMDISK_ALLOCATE, f, size, err);
}

static enum errc sim_rename(struct disk *disk, const char *from_name, const char *to_name,
                            struct error *err)
{
    struct simdisk *d = of(disk);
    char *from = simdir_normal(from_name), *to = simdir_normal(to_name);
    char *parent = simdir_parent(to);
    enum errc rc;
    if (begin(d, SIMDISK_RENAME, from, &rc, err) == GO) {
        mix_bytes(d, to, strlen(to));
        struct siminode *source = simdir_find(&d->dir, from);
        struct siminode *target = simdir_find(&d->dir, to);
        if (!source || !simdir_is_folder(&d->dir, parent))
            rc = error_set(err, ERR_NOT_FOUND, "rename %s to %s: not found", from, to);
        else if (source->is_dir || (target && target->is_dir))
            rc = error_set(err, ERR_IO, "rename %s to %s: a folder", from, to);
    }
    if (!rc) {
        struct siminode *target = simdir_find(&d->dir, to);
        if (target)
            target->refs++;
        simdir_rename(&d->dir, from, to);
        if (target && target != simdir_find(&d->dir, to))
            give_back(d, target);
        if (target)
            simdir_unref(target);
    }
    free(from);
    free(to);
    free(parent);
    return rc;
}

static enum errc sim_unlink(struct disk *disk, const char *name, struct error *err)
{
    struct simdisk *d = of(disk);
    char *path = simdir_normal(name);
    enum errc rc;
    if (begin(d, SIMDISK_UNLINK, path, &rc, err) == GO) {
        struct siminode *inode = simdir_find(&d->dir, path);
        if (!inode) {
            rc = error_set(err, ERR_NOT_FOUND, "unlink %s: not found", path);
        } else if (inode->is_dir) {
            rc = error_set(err, ERR_IO, "unlink %s: it is a folder", path);
        } else {
            inode->refs++;
            simdir_unlink(&d->dir, path);
            give_back(d, inode);
            simdir_unref(inode);
        }
    }
    free(path);
    return rc;
}

static enum errc sim_mkdir(struct disk *disk, const char *name, struct error *err)
{
    struct simdisk *d = of(disk);
    char *path = simdir_normal(name);
    char *parent = simdir_parent(path);
    enum errc rc;
    if (begin(d, SIMDISK_MKDIR, path, &rc, err) == GO && !simdir_is_folder(&d->dir, path)) {
        if (simdir_find(&d->dir, path))
            rc = error_set(err, ERR_EXISTS, "mkdir %s: it is a file", path);
        else if (!simdir_is_folder(&d->dir, parent))
            rc = error_set(err, ERR_NOT_FOUND, "mkdir %s: no folder to make it in", path);
        else
            simdir_make(&d->dir, path, true);
    }
    free(path);
    free(parent);
    return rc;
}

static enum errc sim_sync_dir(struct disk *disk, const char *name, struct error *err)
{
    struct simdisk *d = of(disk);
    char *path = simdir_normal(name);
    enum errc rc;
    if (begin(d, SIMDISK_SYNC_DIR, path, &rc, err) == GO) {
        if (simdir_is_folder(&d->dir, path))
            simdir_sync(&d->dir, path);
        else
            rc = error_set(err, ERR_NOT_FOUND, "sync %s: not found", path);
    }
    free(path);
    return rc;
}

static enum errc sim_list(struct disk *disk, const char *name,
                          void (*each)(void *ctx, const char *name), void *ctx, struct error *err)
{
    struct simdisk *d = of(disk);
    char *path = simdir_normal(name);
    enum errc rc;
    if (begin(d, SIMDISK_LIST, path, &rc, err) == GO && !simdir_is_folder(&d->dir, path))
        rc = error_set(err, ERR_NOT_FOUND, "list %s: not found", path);
    for (size_t i = 0; !rc && i < d->dir.live.count; i++) {
        const char *entry = d->dir.live.names[i].path;
        char *parent = simdir_parent(entry);
        if (strcmp(parent, path) == 0)
            each(ctx, parent[0] ? entry + strlen(parent) + 1 : entry);
        free(parent);
    }
    free(path);
    return rc;
}

static enum errc sim_lock(struct disk *disk, const char *name, struct disk_file **ret_file,
                          struct error *err)
{
    struct simdisk *d = of(disk);
    char *path = simdir_normal(name);
    enum errc rc;
    if (begin(d, SIMDISK_LOCK, path, &rc, err) == GO) {
        struct siminode *inode;
        rc = look_up(d, path, DISK_WRITE | DISK_CREATE, &inode, err);
        if (!rc && inode->locked)
            rc = error_set(err, ERR_BUSY, "lock %s: it is held", path);
        if (!rc) {
            inode->locked = true;
            *ret_file = handle_new(d, path, inode);
            (*ret_file)->is_lock = true;
        }
    }
    free(path);
    return rc;
}

/* A look that changes nothing, so no fault can be ordered for it. */
static enum errc sim_free_bytes(struct disk *disk, const char *path, uint64_t *ret_bytes,
                                struct error *err)
{
    struct simdisk *d = of(disk);
    if (d->off)
        return error_set(err, ERR_IO, "%s: the power is off", path);
    *ret_bytes = d->capacity == 0 ? UINT64_MAX : d->used < d->capacity ? d->capacity - d->used : 0;
    return ERR_OK;
}

struct simdisk *simdisk_new(uint64_t seed)
{
    struct simdisk *d = xcalloc(1, sizeof(*d));
    d->rng.state = seed;
    d->base = (struct disk){
        .open = sim_open,
        .close = sim_close,
        .read = sim_read,
        .write = sim_write,
        .sync = sim_sync,
        .size = sim_size,
        .truncate = sim_truncate,
        .allocate = sim_allocate,
        .rename = sim_rename,
        .unlink = sim_unlink,
        .mkdir = sim_mkdir,
        .sync_dir = sim_sync_dir,
        .list = sim_list,
        .lock = sim_lock,
        .free_bytes = sim_free_bytes,
    };
    return d;
}

void simdisk_free(struct simdisk *d)
{
    if (!d)
        return;
    assert(d->handles == 0);
    simdir_free(&d->dir);
    free(d->astray_path);
    free(d);
}

struct disk *simdisk_disk(struct simdisk *d)
{
    return &d->base;
}
