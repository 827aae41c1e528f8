#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/simvfs_internal.h"

#define PATH_BYTES_MAX 512
#define SECTOR_BYTES 512

static struct simvfs *of_vfs(sqlite3_vfs *vfs)
{
    return CONTAINER_OF(vfs, struct simvfs, base);
}

static struct simvfs_file *of(sqlite3_file *file)
{
    return CONTAINER_OF(file, struct simvfs_file, base);
}

static int code(enum errc rc, int io)
{
    return rc == ERR_OK ? SQLITE_OK : rc == ERR_NO_SPACE ? SQLITE_FULL : io;
}

/* ---- files */

static int file_close(sqlite3_file *file)
{
    struct simvfs_file *f = of(file);
    struct disk *disk = f->vfs->disk;
    if (f->node) {
        simvfs_shm_unmap(file, 0);
        simvfs_unlock(file, SQLITE_LOCK_NONE);
        simnode_put(f->node);
    }
    disk->close(disk, f->file);
    if (f->delete_on_close)
        disk->unlink(disk, f->path, NULL);
    free(f->path);
    return SQLITE_OK;
}

static int file_read(sqlite3_file *file, void *p, int n, sqlite3_int64 offset)
{
    struct simvfs_file *f = of(file);
    size_t got;
    enum errc rc =
        f->vfs->disk->read(f->vfs->disk, f->file, (uint64_t)offset, p, (size_t)n, &got, NULL);
    if (rc)
        return SQLITE_IOERR_READ;
    memset((char *)p + got, 0, (size_t)n - got);
    return got == (size_t)n ? SQLITE_OK : SQLITE_IOERR_SHORT_READ;
}

static int file_write(sqlite3_file *file, const void *p, int n, sqlite3_int64 offset)
{
    struct simvfs_file *f = of(file);
    return code(f->vfs->disk->write(f->vfs->disk, f->file, (uint64_t)offset, p, (size_t)n, NULL),
                SQLITE_IOERR_WRITE);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size)
{
    struct simvfs_file *f = of(file);
    return code(f->vfs->disk->truncate(f->vfs->disk, f->file, (uint64_t)size, NULL),
                SQLITE_IOERR_TRUNCATE);
}

static enum errc sync_folder(struct simvfs *v, const char *path)
{
    char *folder = xstrdup(path);
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    enum errc rc = v->disk->sync_dir(v->disk, slash ? folder : "", NULL);
    free(folder);
    return rc;
}

static int file_sync(sqlite3_file *file, int flags)
{
    (void)flags;
    struct simvfs_file *f = of(file);
    if (f->vfs->disk->sync(f->vfs->disk, f->file, NULL))
        return SQLITE_IOERR_FSYNC;
    if (!f->sync_folder)
        return SQLITE_OK;
    if (sync_folder(f->vfs, f->path))
        return SQLITE_IOERR_DIR_FSYNC;
    f->sync_folder = false;
    return SQLITE_OK;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *ret_size)
{
    struct simvfs_file *f = of(file);
    uint64_t size;
    if (f->vfs->disk->size(f->vfs->disk, f->file, &size, NULL))
        return SQLITE_IOERR_FSTAT;
    *ret_size = (sqlite3_int64)size;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *file, int op, void *arg)
{
    switch (op) {
    case SQLITE_FCNTL_LOCKSTATE:
        *(int *)arg = of(file)->lock;
        return SQLITE_OK;
    case SQLITE_FCNTL_VFSNAME:
        *(char **)arg = sqlite3_mprintf("%s", of(file)->vfs->name);
        return SQLITE_OK;
    default:
        return SQLITE_NOTFOUND;
    }
}

static int file_sector_size(sqlite3_file *file)
{
    (void)file;
    return SECTOR_BYTES;
}

/* A crash changes no byte outside of what was written, as SQLite assumes of today's disks. */
static int file_characteristics(sqlite3_file *file)
{
    (void)file;
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = simvfs_lock,
    .xUnlock = simvfs_unlock,
    .xCheckReservedLock = simvfs_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector_size,
    .xDeviceCharacteristics = file_characteristics,
    .xShmMap = simvfs_shm_map,
    .xShmLock = simvfs_shm_lock,
    .xShmBarrier = simvfs_shm_barrier,
    .xShmUnmap = simvfs_shm_unmap,
};

/* ---- the VFS */

static bool is_there(struct simvfs *v, const char *path)
{
    struct disk_file *file;
    if (v->disk->open(v->disk, path, DISK_READ, &file, NULL))
        return false;
    v->disk->close(v->disk, file);
    return true;
}

static int vfs_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags,
                    int *ret_flags)
{
    struct simvfs *v = of_vfs(vfs);
    struct simvfs_file *f = of(file);
    memset(f, 0, sizeof(*f));
    f->vfs = v;
    f->path = name ? xstrdup(name)
                   : xasprintf("simvfs-temporary-%llu", (unsigned long long)v->temporary++);
    int mode = flags & SQLITE_OPEN_READWRITE ? DISK_WRITE : DISK_READ;
    mode |= flags & SQLITE_OPEN_CREATE ? DISK_WRITE | DISK_CREATE : 0;
    f->sync_folder = (flags & SQLITE_OPEN_CREATE) && !is_there(v, f->path);
    if (v->disk->open(v->disk, f->path, mode, &f->file, NULL)) {
        free(f->path);
        return SQLITE_CANTOPEN;
    }
    f->delete_on_close = flags & SQLITE_OPEN_DELETEONCLOSE;
    if (flags & SQLITE_OPEN_MAIN_DB)
        f->node = simnode_get(v, f->path);
    f->base.pMethods = &methods;
    if (ret_flags)
        *ret_flags = flags;
    return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int dirsync)
{
    struct simvfs *v = of_vfs(vfs);
    enum errc rc = v->disk->unlink(v->disk, path, NULL);
    if (rc == ERR_NOT_FOUND)
        return SQLITE_IOERR_DELETE_NOENT;
    if (rc)
        return SQLITE_IOERR_DELETE;
    return dirsync && sync_folder(v, path) ? SQLITE_IOERR_DIR_FSYNC : SQLITE_OK;
}

static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *ret_yes)
{
    (void)flags;
    struct simvfs *v = of_vfs(vfs);
    struct disk_file *file;
    enum errc rc = v->disk->open(v->disk, path, DISK_READ, &file, NULL);
    if (rc != ERR_OK && rc != ERR_NOT_FOUND)
        return SQLITE_IOERR_ACCESS;
    *ret_yes = rc == ERR_OK;
    if (rc == ERR_OK)
        v->disk->close(v->disk, file);
    return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *vfs, const char *name, int n, char *out)
{
    (void)vfs;
    sqlite3_snprintf(n, out, "%s", name);
    return strlen(name) < (size_t)n ? SQLITE_OK : SQLITE_CANTOPEN;
}

static int vfs_randomness(sqlite3_vfs *vfs, int n, char *out)
{
    struct simvfs *v = of_vfs(vfs);
    for (int i = 0; i < n; i++)
        out[i] = (char)v->env->random(v->env);
    return n;
}

/* Time passes by the simulator's will only; a busy handler that sleeps would wait for itself. */
static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int vfs_time_ms(sqlite3_vfs *vfs, sqlite3_int64 *ret_ms)
{
    struct simvfs *v = of_vfs(vfs);
    const sqlite3_int64 julian_of_1970_ms = 210866760000000ll;
    *ret_ms = julian_of_1970_ms + (sqlite3_int64)(v->env->wall_ns(v->env) / 1000000);
    return SQLITE_OK;
}

static int vfs_time(sqlite3_vfs *vfs, double *ret_days)
{
    sqlite3_int64 ms;
    vfs_time_ms(vfs, &ms);
    *ret_days = (double)ms / 86400000.0;
    return SQLITE_OK;
}

static int vfs_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    (void)n;
    (void)out;
    return 0;
}

struct simvfs *simvfs_new(const char *name, struct disk *disk, struct env *env)
{
    struct simvfs *v = xcalloc(1, sizeof(*v));
    v->disk = disk;
    v->env = env;
    v->name = xstrdup(name);
    list_init(&v->nodes);
    v->base = (sqlite3_vfs){
        .iVersion = 2,
        .szOsFile = sizeof(struct simvfs_file),
        .mxPathname = PATH_BYTES_MAX,
        .zName = v->name,
        .xOpen = vfs_open,
        .xDelete = vfs_delete,
        .xAccess = vfs_access,
        .xFullPathname = vfs_full_path,
        .xRandomness = vfs_randomness,
        .xSleep = vfs_sleep,
        .xCurrentTime = vfs_time,
        .xGetLastError = vfs_last_error,
        .xCurrentTimeInt64 = vfs_time_ms,
    };
    assert(!sqlite3_vfs_find(name));
    int rc = sqlite3_vfs_register(&v->base, 0);
    assert(rc == SQLITE_OK);
    return v;
}

void simvfs_free(struct simvfs *v)
{
    if (!v)
        return;
    assert(list_empty(&v->nodes));
    sqlite3_vfs_unregister(&v->base);
    free(v->name);
    free(v);
}

void simvfs_crash(struct simvfs *v)
{
    /* The old nodes live on, apart from the new ones, until their connections are closed. */
    LIST_FOR_EACH_SAFE(it, next, &v->nodes)
    {
        list_remove(it);
    }
}

void simvfs_seed(uint32_t seed)
{
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed & INT_MAX ? seed & INT_MAX : 1),
                         NULL);
}
