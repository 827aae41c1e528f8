/* The calls that change files, recorded before they are made: see lossy.h. */
/* Both names of each call are defined here; with it the plain ones would be renamed to the others. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fault/lossy_journal.h"

#define DESCRIPTORS_MAX 65536 /* a covered file with a higher one ends the process */

/* The inode of each descriptor that is covered; 0: not. */
static _Atomic uint64_t inodes[DESCRIPTORS_MAX];

static uint64_t covered(int fd)
{
    return fd >= 0 && fd < DESCRIPTORS_MAX ? atomic_load(&inodes[fd]) : 0;
}

/* ---- Opening and closing ----------------------------------------------------------------------- */

static void save_cut(int fd, uint64_t inode, uint64_t new_size);

static int note_opened(int fd, const char *path, int flags, bool created)
{
    struct stat st;
    if (fd >= DESCRIPTORS_MAX || fstat(fd, &st) != 0)
        lossy_fatal("descriptor too high", path);
    if (created) {
        struct lossy_record r = {
            .kind = LOSSY_CREATE, .inode = st.st_ino, .folder = lossy_folder(path)};
        lossy_append(&r, path, NULL, NULL);
    }
    if (S_ISREG(st.st_mode))
        lossy_keep(path, st.st_ino);
    if (flags & O_TRUNC && st.st_size > 0) {
        save_cut(fd, st.st_ino, 0);
        if (lossy_real()->ftruncate(fd, 0) != 0)
            lossy_fatal("ftruncate", path);
    }
    atomic_store(&inodes[fd], st.st_ino);
    return fd;
}

static int opened(const char *path, int flags, mode_t mode)
{
    char full[LOSSY_PATH_MAX];
    const struct lossy_real *real = lossy_real();
    if (!lossy_covers(path, full))
        return real->open(path, flags, mode);
    if (flags & O_DSYNC || (flags & O_TMPFILE) == O_TMPFILE)
        lossy_fatal("O_SYNC, O_DSYNC and O_TMPFILE are not modelled", full);
    struct stat st;
    lossy_lock("open", -1);
    bool existed = stat(full, &st) == 0;
    /* Truncated here after its bytes are saved; opening to write is needed for both. */
    int fd = real->open(path, flags & ~O_TRUNC, mode);
    int cause = errno;
    if (fd >= 0)
        note_opened(fd, full, flags, !existed && flags & O_CREAT);
    lossy_unlock();
    errno = cause;
    return fd;
}

static mode_t mode_of(int flags, va_list args)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return opened(path, flags, mode);
}

static int opened_at(int folder, const char *path, int flags, mode_t mode)
{
    if (folder == AT_FDCWD || path[0] == '/')
        return opened(path, flags, mode);
    if (covered(folder))
        lossy_fatal("openat with a folder's descriptor is not modelled", path);
    return lossy_real()->openat(folder, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return opened_at(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = mode_of(flags, args);
    va_end(args);
    return opened_at(folder, path, flags, mode);
}

int creat(const char *path, mode_t mode)
{
    return opened(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int creat64(const char *path, mode_t mode)
{
    return opened(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd)
{
    if (covered(fd))
        atomic_store(&inodes[fd], 0); /* before another thread can get the number again */
    return lossy_real()->close(fd);
}

/* ---- Bytes and sizes --------------------------------------------------------------------------- */

static uint64_t size_of(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        lossy_fatal("fstat", NULL);
    return (uint64_t)st.st_size;
}

/* The bytes of [from, to), which are all there; NULL for none. To be freed. */
static void *read_range(int fd, uint64_t from, uint64_t to)
{
    if (from >= to)
        return NULL;
    char *p = malloc(to - from), path[64];
    if (!p)
        lossy_fatal("no memory", NULL);
    /* The descriptor may be open for writing only. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int other = lossy_real()->open(path, O_RDONLY | O_CLOEXEC);
    for (uint64_t done = 0; done < to - from;) {
        ssize_t rc = pread(other, p + done, to - from - done, (off_t)(from + done));
        if (rc <= 0)
            lossy_fatal("a file can't be read", path);
        done += (uint64_t)rc;
    }
    lossy_real()->close(other);
    return p;
}

static void save_range(int fd, uint64_t inode, uint64_t offset, uint64_t n)
{
    uint64_t size = size_of(fd), end = offset + n < size ? offset + n : size;
    struct lossy_record r = {.kind = LOSSY_WRITE,
                             .inode = inode,
                             .offset = offset,
                             .length = n,
                             .old_size = size,
                             .saved_bytes = end > offset ? end - offset : 0};
    void *saved = read_range(fd, offset, end);
    lossy_append(&r, NULL, NULL, saved);
    free(saved);
}

static void save_cut(int fd, uint64_t inode, uint64_t new_size)
{
    uint64_t size = size_of(fd);
    struct lossy_record r = {.kind = LOSSY_SIZE,
                             .inode = inode,
                             .offset = new_size,
                             .old_size = size,
                             .saved_bytes = size > new_size ? size - new_size : 0};
    void *saved = read_range(fd, new_size, size);
    lossy_append(&r, NULL, NULL, saved);
    free(saved);
}

static uint64_t place_of(int fd)
{
    if (fcntl(fd, F_GETFL) & O_APPEND)
        return size_of(fd);
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0)
        lossy_fatal("lseek", NULL);
    return (uint64_t)at;
}

ssize_t write(int fd, const void *p, size_t n)
{
    uint64_t inode = covered(fd);
    if (!inode)
        return lossy_real()->write(fd, p, n);
    lossy_lock("write", fd);
    save_range(fd, inode, place_of(fd), n);
    ssize_t rc = lossy_real()->write(fd, p, n);
    lossy_unlock();
    return rc;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    uint64_t inode = covered(fd);
    if (!inode)
        return lossy_real()->pwrite(fd, p, n, offset);
    lossy_lock("pwrite", fd);
    save_range(fd, inode, (uint64_t)offset, n);
    ssize_t rc = lossy_real()->pwrite(fd, p, n, offset);
    lossy_unlock();
    return rc;
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t offset)
{
    return pwrite(fd, p, n, offset);
}

static size_t total(const struct iovec *parts, int count)
{
    size_t n = 0;
    for (int i = 0; i < count; i++)
        n += parts[i].iov_len;
    return n;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    uint64_t inode = covered(fd);
    if (!inode)
        return lossy_real()->writev(fd, parts, count);
    lossy_lock("writev", fd);
    save_range(fd, inode, place_of(fd), total(parts, count));
    ssize_t rc = lossy_real()->writev(fd, parts, count);
    lossy_unlock();
    return rc;
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    uint64_t inode = covered(fd);
    if (!inode)
        return lossy_real()->pwritev(fd, parts, count, offset);
    lossy_lock("pwritev", fd);
    save_range(fd, inode, (uint64_t)offset, total(parts, count));
    ssize_t rc = lossy_real()->pwritev(fd, parts, count, offset);
    lossy_unlock();
    return rc;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t offset)
{
    return pwritev(fd, parts, count, offset);
}

int ftruncate(int fd, off_t size)
{
    uint64_t inode = covered(fd);
    if (!inode || size < 0)
        return lossy_real()->ftruncate(fd, size);
    lossy_lock("ftruncate", fd);
    save_cut(fd, inode, (uint64_t)size);
    int rc = lossy_real()->ftruncate(fd, size);
    lossy_unlock();
    return rc;
}

int ftruncate64(int fd, off_t size)
{
    return ftruncate(fd, size);
}

int fallocate(int fd, int mode, off_t offset, off_t n)
{
    uint64_t inode = covered(fd);
    if (!inode)
        return lossy_real()->fallocate(fd, mode, offset, n);
    if (mode != 0)
        lossy_fatal("fallocate with a mode is not modelled", NULL);
    lossy_lock("fallocate", fd);
    uint64_t size = size_of(fd), end = (uint64_t)(offset + n);
    save_cut(fd, inode, end > size ? end : size);
    int rc = lossy_real()->fallocate(fd, mode, offset, n);
    lossy_unlock();
    return rc;
}

int fallocate64(int fd, int mode, off_t offset, off_t n)
{
    return fallocate(fd, mode, offset, n);
}

int posix_fallocate(int fd, off_t offset, off_t n)
{
    if (covered(fd)) /* its emulation writes without passing here */
        lossy_fatal("posix_fallocate is not modelled", NULL);
    return lossy_real()->posix_fallocate(fd, offset, n);
}

int posix_fallocate64(int fd, off_t offset, off_t n)
{
    return posix_fallocate(fd, offset, n);
}

int truncate(const char *path, off_t size)
{
    char full[LOSSY_PATH_MAX];
    if (lossy_covers(path, full))
        lossy_fatal("truncate is not modelled", full);
    return lossy_real()->truncate(path, size);
}

void *mmap(void *address, size_t n, int protection, int flags, int fd, off_t offset)
{
    bool writes = (flags & MAP_TYPE) != MAP_PRIVATE && protection & PROT_WRITE;
    if (!(flags & MAP_ANONYMOUS) && writes && covered(fd))
        lossy_fatal("writing through a mapping is not modelled", NULL);
    return lossy_real()->mmap(address, n, protection, flags, fd, offset);
}

void *mmap64(void *address, size_t n, int protection, int flags, int fd, off_t offset)
{
    return mmap(address, n, protection, flags, fd, offset);
}

/* ---- Syncing ----------------------------------------------------------------------------------- */

/* What was written while the sync ran may not be on the disk after it: only the records before its beginning are
 * settled, and only when it has succeeded. */
static int synced(int fd, int (*sync)(int))
{
    uint64_t inode = covered(fd);
    if (!inode)
        return sync(fd);
    lossy_lock("sync", fd);
    struct lossy_record r = {.kind = LOSSY_SYNC, .inode = inode, .upto = lossy_next()};
    lossy_leave();
    int rc = sync(fd), cause = errno;
    lossy_enter("sync", fd);
    if (rc == 0)
        lossy_append(&r, NULL, NULL, NULL);
    lossy_unlock();
    errno = cause;
    return rc;
}

int fsync(int fd)
{
    return synced(fd, lossy_real()->fsync);
}

int fdatasync(int fd)
{
    return synced(fd, lossy_real()->fdatasync);
}

/* ---- Names ------------------------------------------------------------------------------------- */

/* A name's change is recorded before it is made, like all else; one that then fails changed nothing, and the record
 * says so by a number of inode that the name doesn't have at the undoing. */
int rename(const char *from, const char *to)
{
    char full[LOSSY_PATH_MAX], other[LOSSY_PATH_MAX];
    bool one = lossy_covers(from, full), two = lossy_covers(to, other);
    if (!one && !two)
        return lossy_real()->rename(from, to);
    struct stat st, replaced = {0};
    lossy_lock("rename", -1);
    int rc = -1;
    if (!one || !two)
        lossy_fatal("renamed out of or into the folder", full);
    if (stat(full, &st) == 0) {
        if (!S_ISREG(st.st_mode))
            lossy_fatal("the renaming of a folder is not modelled", full);
        struct lossy_record r = {.kind = LOSSY_RENAME,
                                 .inode = st.st_ino,
                                 .folder = lossy_folder(full),
                                 .other_folder = lossy_folder(other)};
        lossy_keep(full, st.st_ino);
        if (stat(other, &replaced) == 0) {
            lossy_keep(other, replaced.st_ino);
            r.other_inode = replaced.st_ino;
        }
        lossy_append(&r, full, other, NULL);
    }
    rc = lossy_real()->rename(from, to);
    lossy_unlock();
    return rc;
}

int unlink(const char *path)
{
    char full[LOSSY_PATH_MAX];
    if (!lossy_covers(path, full))
        return lossy_real()->unlink(path);
    struct stat st;
    lossy_lock("unlink", -1);
    if (lstat(full, &st) == 0 && S_ISREG(st.st_mode)) {
        struct lossy_record r = {
            .kind = LOSSY_UNLINK, .inode = st.st_ino, .folder = lossy_folder(full)};
        lossy_keep(full, st.st_ino);
        lossy_append(&r, full, NULL, NULL);
    }
    int rc = lossy_real()->unlink(path);
    lossy_unlock();
    return rc;
}

static int changed_folder(const char *path, enum lossy_kind kind, mode_t mode)
{
    char full[LOSSY_PATH_MAX];
    const struct lossy_real *real = lossy_real();
    if (!lossy_covers(path, full))
        return kind == LOSSY_MKDIR ? real->mkdir(path, mode) : real->rmdir(path);
    lossy_lock(kind == LOSSY_MKDIR ? "mkdir" : "rmdir", -1);
    int rc = kind == LOSSY_MKDIR ? real->mkdir(path, mode) : real->rmdir(path), cause = errno;
    if (rc == 0) {
        struct lossy_record r = {.kind = kind, .folder = lossy_folder(full)};
        lossy_append(&r, full, NULL, NULL);
    }
    lossy_unlock();
    errno = cause;
    return rc;
}

int mkdir(const char *path, mode_t mode)
{
    return changed_folder(path, LOSSY_MKDIR, mode);
}

int rmdir(const char *path)
{
    return changed_folder(path, LOSSY_RMDIR, 0);
}

int link(const char *from, const char *to)
{
    char full[LOSSY_PATH_MAX];
    if (lossy_covers(from, full) || lossy_covers(to, full))
        lossy_fatal("links are not modelled", full);
    return lossy_real()->link(from, to);
}

int symlink(const char *target, const char *path)
{
    char full[LOSSY_PATH_MAX];
    if (lossy_covers(path, full))
        lossy_fatal("links are not modelled", full);
    return lossy_real()->symlink(target, path);
}
