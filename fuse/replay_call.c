/* The system call of each kind of change. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fuse/replay_internal.h"

/* Below `dir`, never out of the mount: a name may have become a link since the change was queued. */
static int open_below(int dir, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
        .mode = flags & O_CREAT ? mode & 0777 : 0,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

int replay_open_root(const char *mount_point, dev_t dev)
{
    int fd = open(mount_point, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    struct statx st; /* DONT_SYNC: without a request to the file system */
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) == 0 &&
        makedev(st.stx_dev_major, st.stx_dev_minor) == dev)
        return fd;
    close(fd);
    errno = ENOENT;
    return -1;
}

/* The directory in which a path's last name stands. */
struct place {
    int dir; /* -1: errno */
    const char *name;
};

static struct place place_open(int root, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return (struct place){fcntl(root, F_DUPFD_CLOEXEC, 0), path};
    char *parent = strndup(path, (size_t)(slash - path));
    if (!parent)
        abort();
    struct place p = {open_below(root, parent, O_PATH | O_DIRECTORY, 0), slash + 1};
    free(parent);
    return p;
}

static void place_close(struct place *p)
{
    int error = errno;
    if (p->dir >= 0)
        close(p->dir);
    errno = error;
}

static enum replay_outcome outcome(int rc)
{
    return rc < 0 ? REPLAY_FAILED : REPLAY_REPEATED;
}

/* MODIFY alone: a new mtime and no atime is all that inotify needs for it. */
static enum replay_outcome touch(int root, const char *path)
{
    int fd = open_below(root, path, O_PATH, 0);
    if (fd < 0)
        return REPLAY_FAILED;
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_nsec = UTIME_NOW}};
    clock_gettime(CLOCK_REALTIME, &times[1]);
    int rc = utimensat(fd, "", times, AT_EMPTY_PATH);
    int error = errno;
    close(fd);
    errno = error;
    return rc < 0 ? REPLAY_FAILED : REPLAY_FELL_BACK;
}

/* The byte is thrown away by the request handler; it makes the kernel say MODIFY. */
static int write_one_byte(int fd)
{
    return pwrite(fd, "", 1, 0) == 1 ? 0 : -1;
}

static enum replay_outcome overwrite(int root, const char *path)
{
    /* O_NONBLOCK: a process with a lease on the file would hold us up for seconds. */
    int fd = open_below(root, path, O_WRONLY | O_NONBLOCK, 0);
    if (fd < 0)
        return errno == ETXTBSY || errno == EAGAIN ? touch(root, path) : REPLAY_FAILED;
    int rc = write_one_byte(fd);
    int error = errno;
    close(fd);
    errno = error;
    return outcome(rc);
}

static enum replay_outcome create(struct place *p, const struct core_change *change)
{
    int fd = open_below(p->dir, p->name, O_WRONLY | O_CREAT | O_EXCL, change->mode);
    if (fd < 0)
        return REPLAY_FAILED;
    int rc = change->content ? write_one_byte(fd) : 0;
    int error = errno;
    close(fd);
    errno = error;
    return outcome(rc);
}

static enum replay_outcome change_mode(int root, const struct core_change *change)
{
    char path[64];
    int fd = open_below(root, change->path, O_PATH, 0);
    if (fd < 0)
        return REPLAY_FAILED;
    /* fchmod refuses O_PATH. Not /proc/self: that is the process' table, which isn't this thread's. */
    snprintf(path, sizeof path, "/proc/thread-self/fd/%d", fd);
    int rc = chmod(path, change->mode & 07777);
    int error = errno;
    close(fd);
    errno = error;
    return outcome(rc);
}

static enum replay_outcome move(int root, struct place *from, const char *to_path)
{
    struct place to = place_open(root, to_path);
    int rc = to.dir < 0 ? -1 : renameat(from->dir, from->name, to.dir, to.name);
    place_close(&to);
    return outcome(rc);
}

enum replay_outcome replay_call(int root, const struct core_change *change)
{
    if (change->kind == CHANGE_OVERWRITE)
        return overwrite(root, change->path);
    if (change->kind == CHANGE_ATTRIB)
        return change_mode(root, change);
    struct place p = place_open(root, change->path);
    enum replay_outcome result = REPLAY_FAILED;
    if (p.dir < 0)
        return result;
    switch (change->kind) {
    case CHANGE_CREATE:
        result = create(&p, change);
        break;
    case CHANGE_MKDIR:
        result = outcome(mkdirat(p.dir, p.name, change->mode & 07777));
        break;
    case CHANGE_SYMLINK:
        result = outcome(symlinkat(change->path2, p.dir, p.name));
        break;
    case CHANGE_DELETE:
        result = outcome(unlinkat(p.dir, p.name, 0));
        break;
    case CHANGE_RMDIR:
        result = outcome(unlinkat(p.dir, p.name, AT_REMOVEDIR));
        break;
    case CHANGE_RENAME:
        result = move(root, &p, change->path2);
        break;
    case CHANGE_OVERWRITE:
    case CHANGE_ATTRIB:
        break;
    }
    place_close(&p);
    return result;
}
