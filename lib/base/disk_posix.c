#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "lib/base/disk.h"
#include "lib/base/memory.h"

struct disk_file {
    int fd;
    char path[]; /* as given to open, for messages */
};

static enum errc from_errno(int cause)
{
    switch (cause) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EACCES:
        return ERR_PERMISSION_DENIED;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case EWOULDBLOCK:
    case EBUSY:
        return ERR_BUSY;
    default:
        return ERR_IO;
    }
}

static enum errc fail(struct error *err, int cause, const char *what, const char *path)
{
    char text[128];
    return error_set(err, from_errno(cause), "%s %s: %s", what, path,
                     strerror_r(cause, text, sizeof(text)));
}

static int open_retry(const char *path, int flags)
{
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, 0600);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static struct disk_file *file_new(const char *path, int fd)
{
    size_t n = strlen(path) + 1;
    struct disk_file *file = xmalloc(sizeof(*file) + n);
    file->fd = fd;
    memcpy(file->path, path, n);
    return file;
}

static enum errc posix_open(struct disk *disk, const char *path, int flags,
                            struct disk_file **ret_file, struct error *err)
{
    (void)disk;
    assert((flags & DISK_WRITE) || !(flags & DISK_CREATE));
    assert((flags & DISK_CREATE) || !(flags & DISK_EXCL));
    int mode = flags & DISK_WRITE ? O_RDWR : O_RDONLY;
    mode |= flags & DISK_CREATE ? O_CREAT : 0;
    mode |= flags & DISK_EXCL ? O_EXCL : 0;
    int fd = open_retry(path, mode);
    if (fd < 0)
        return fail(err, errno, "open", path);
    *ret_file = file_new(path, fd);
    return ERR_OK;
}

static void posix_close(struct disk *disk, struct disk_file *file)
{
    (void)disk;
    if (!file)
        return;
    close(file->fd); /* what matters was synced before; Linux frees the descriptor even on EINTR */
    free(file);
}

static enum errc posix_read(struct disk *disk, struct disk_file *file, uint64_t offset, void *p,
                            size_t n, size_t *ret_n, struct error *err)
{
    (void)disk;
    size_t done = 0;
    while (done < n) {
        ssize_t rc = pread(file->fd, (char *)p + done, n - done, (off_t)(offset + done));
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc < 0)
            return fail(err, errno, "read", file->path);
        if (rc == 0)
            break;
        done += (size_t)rc;
    }
    *ret_n = done;
    return ERR_OK;
}

static enum errc posix_write(struct disk *disk, struct disk_file *file, uint64_t offset,
                             const void *p, size_t n, struct error *err)
{
    (void)disk;
    size_t done = 0;
    while (done < n) {
        ssize_t rc = pwrite(file->fd, (const char *)p + done, n - done, (off_t)(offset + done));
        if (rc < 0 && errno == EINTR)
            continue;
        if (rc < 0)
            return fail(err, errno, "write", file->path);
        if (rc == 0)
            return fail(err, EIO, "write", file->path);
        done += (size_t)rc;
    }
    return ERR_OK;
}

/* Never retried on a failure but EINTR: after one, Linux may have dropped the dirty pages and would
 * call the next attempt a success. */
static enum errc posix_sync(struct disk *disk, struct disk_file *file, struct error *err)
{
    (void)disk;
    int rc;
    do {
        rc = fdatasync(file->fd);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? fail(err, errno, "sync", file->path) : ERR_OK;
}

static enum errc posix_size(struct disk *disk, struct disk_file *file, uint64_t *ret_size,
                            struct error *err)
{
    (void)disk;
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return fail(err, errno, "stat", file->path);
    *ret_size = (uint64_t)st.st_size;
    return ERR_OK;
}

static enum errc posix_truncate(struct disk *disk, struct disk_file *file, uint64_t size,
                                struct error *err)
{
    (void)disk;
    int rc;
    do {
        rc = ftruncate(file->fd, (off_t)size);
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? fail(err, errno, "truncate", file->path) : ERR_OK;
}

/* fallocate(2) itself: where the file system has none, glibc's posix_fallocate would write to every
 * block. There the file only gets its length, and a later write may find no space. */
static enum errc posix_allocate(struct disk *disk, struct disk_file *file, uint64_t size,
                                struct error *err)
{
    uint64_t now;
    enum errc rc = posix_size(disk, file, &now, err);
    if (rc || size == 0)
        return rc;
    int failed;
    do {
        failed = fallocate(file->fd, 0, 0, (off_t)size);
    } while (failed && errno == EINTR);
    if (!failed)
        return ERR_OK;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return fail(err, errno, "allocate", file->path);
    return size > now ? posix_truncate(disk, file, size, err) : ERR_OK;
}

static enum errc posix_rename(struct disk *disk, const char *from, const char *to,
                              struct error *err)
{
    (void)disk;
    if (rename(from, to) == 0)
        return ERR_OK;
    int cause = errno;
    char text[128];
    return error_set(err, from_errno(cause), "rename %s to %s: %s", from, to,
                     strerror_r(cause, text, sizeof(text)));
}

static enum errc posix_unlink(struct disk *disk, const char *path, struct error *err)
{
    (void)disk;
    return unlink(path) < 0 ? fail(err, errno, "unlink", path) : ERR_OK;
}

static enum errc posix_mkdir(struct disk *disk, const char *path, struct error *err)
{
    (void)disk;
    if (mkdir(path, 0700) == 0)
        return ERR_OK;
    int cause = errno;
    struct stat st;
    if (cause == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return ERR_OK;
    return fail(err, cause, "mkdir", path);
}

static enum errc posix_sync_dir(struct disk *disk, const char *path, struct error *err)
{
    (void)disk;
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return fail(err, errno, "open", path);
    int rc;
    do {
        rc = fsync(fd);
    } while (rc < 0 && errno == EINTR);
    int cause = errno;
    close(fd);
    return rc < 0 ? fail(err, cause, "sync", path) : ERR_OK;
}

static enum errc posix_list(struct disk *disk, const char *path,
                            void (*each)(void *ctx, const char *name), void *ctx, struct error *err)
{
    (void)disk;
    DIR *dir = opendir(path);
    if (!dir)
        return fail(err, errno, "list", path);
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry)
            break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(ctx, entry->d_name);
    }
    int cause = errno;
    closedir(dir);
    return cause ? fail(err, cause, "list", path) : ERR_OK;
}

static enum errc posix_lock(struct disk *disk, const char *path, struct disk_file **ret_file,
                            struct error *err)
{
    (void)disk;
    int fd = open_retry(path, O_RDWR | O_CREAT);
    if (fd < 0)
        return fail(err, errno, "open", path);
    int rc;
    do {
        rc = flock(fd, LOCK_EX | LOCK_NB);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0) {
        int cause = errno;
        close(fd);
        return fail(err, cause, "lock", path);
    }
    *ret_file = file_new(path, fd);
    return ERR_OK;
}

static enum errc posix_free_bytes(struct disk *disk, const char *path, uint64_t *ret_bytes,
                                  struct error *err)
{
    (void)disk;
    struct statvfs fs;
    int rc;
    do {
        rc = statvfs(path, &fs);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return fail(err, errno, "statvfs", path);
    *ret_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return ERR_OK;
}

struct disk *disk_posix(void)
{
    static struct disk disk = {
        .open = posix_open,
        .close = posix_close,
        .read = posix_read,
        .write = posix_write,
        .sync = posix_sync,
        .size = posix_size,
        .truncate = posix_truncate,
        .allocate = posix_allocate,
        .rename = posix_rename,
        .unlink = posix_unlink,
        .mkdir = posix_mkdir,
        .sync_dir = posix_sync_dir,
        .list = posix_list,
        .lock = posix_lock,
        .free_bytes = posix_free_bytes,
    };
    return &disk;
}
