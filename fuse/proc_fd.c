#include "fuse/proc_fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuse/mount_info.h"

#define TEXT_MAX 4096 /* of a status file: what is looked for stands in its first lines */
#define PF_SIGNALED 0x400

static bool is_number(const char *name)
{
    return name[0] >= '0' && name[0] <= '9';
}

static DIR *open_dir(const char *format, int32_t pid)
{
    char path[64];
    snprintf(path, sizeof path, format, pid);
    return opendir(path);
}

/* The beginning of a file as a string; -1 with errno. */
static ssize_t read_text(int dir, const char *path, char text[TEXT_MAX])
{
    int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = 0, n;
    while ((n = read(fd, text + length, (size_t)(TEXT_MAX - 1 - length))) > 0)
        length += n;
    close(fd);
    text[length] = '\0';
    return n < 0 && length == 0 ? -1 : length;
}

/* The number behind "\nNAME:" (or at the very beginning). */
static bool number_of(const char *text, const char *name, int base, uint64_t *ret)
{
    size_t n = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n')
            line++;
        if (strncmp(line, name, n) != 0)
            continue;
        *ret = strtoull(line + n, NULL, base);
        return true;
    }
    return false;
}

static bool read_status(int32_t tid, char text[TEXT_MAX])
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", tid);
    return read_text(AT_FDCWD, path, text) > 0;
}

/* ---- Descriptors --------------------------------------------------------------------------------- */

static bool is_the_file(const char *fdinfo, const struct proc_file *file)
{
    uint64_t ino, mount_id;
    dev_t dev;
    if (!number_of(fdinfo, "ino:", 10, &ino) || ino != file->ino)
        return false;
    return !number_of(fdinfo, "mnt_id:", 10, &mount_id) ||
           !mount_info_of_id((long)mount_id, &dev) || dev == file->dev;
}

/* One descriptor, cheapest questions first. */
static bool descriptor_is(int fd_dir, int *fdinfo_dir, const char *name,
                          const struct proc_file *file)
{
    struct stat st;
    mode_t mode = file->access_mode == O_RDWR ? 0600 : 0200;
    if (fstatat(fd_dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || (st.st_mode & 0600) != mode)
        return false;
    if (*fdinfo_dir < 0)
        *fdinfo_dir = openat(fd_dir, "../fdinfo", O_PATH | O_DIRECTORY | O_CLOEXEC);
    char text[TEXT_MAX];
    return *fdinfo_dir >= 0 && read_text(*fdinfo_dir, name, text) > 0 && is_the_file(text, file);
}

static enum proc_answer table_holds(DIR *dir, const struct proc_file *file, bool *ret_empty)
{
    enum proc_answer answer = PROC_NO;
    int fdinfo_dir = -1;
    struct dirent *e;
    *ret_empty = true;
    while (answer == PROC_NO && (e = readdir(dir))) {
        if (!is_number(e->d_name))
            continue;
        *ret_empty = false;
        if (descriptor_is(dirfd(dir), &fdinfo_dir, e->d_name, file))
            answer = PROC_YES;
    }
    if (fdinfo_dir >= 0)
        close(fdinfo_dir);
    return answer;
}

/* A process whose first thread has ended shows no descriptors there, but at its other threads, which share
 * one table. */
static enum proc_answer other_thread_holds(int32_t pid, const struct proc_file *file)
{
    DIR *tasks = open_dir("/proc/%d/task", pid);
    enum proc_answer answer = PROC_NO;
    bool empty = true;
    struct dirent *e;
    while (tasks && empty && (e = readdir(tasks))) {
        int32_t tid = is_number(e->d_name) ? atoi(e->d_name) : pid;
        DIR *dir = tid != pid ? open_dir("/proc/%d/fd", tid) : NULL;
        if (!dir)
            continue;
        answer = table_holds(dir, file, &empty);
        closedir(dir);
    }
    if (tasks)
        closedir(tasks);
    return answer;
}

enum proc_answer proc_holds(int32_t pid, const struct proc_file *file)
{
    bool empty;
    DIR *dir = open_dir("/proc/%d/fd", pid);
    if (!dir)
        return errno == ENOENT || errno == ESRCH ? PROC_NO : PROC_UNKNOWN;
    errno = 0;
    enum proc_answer answer = table_holds(dir, file, &empty);
    if (answer == PROC_NO && empty && (errno == EACCES || errno == EPERM))
        answer = PROC_UNKNOWN;
    closedir(dir);
    return answer == PROC_NO && empty ? other_thread_holds(pid, file) : answer;
}

bool proc_any_holds(const struct proc_file *file, const int32_t *except, size_t except_count)
{
    DIR *proc = opendir("/proc");
    bool found = false;
    struct dirent *e;
    while (proc && !found && (e = readdir(proc))) {
        int32_t pid = is_number(e->d_name) ? atoi(e->d_name) : 0;
        bool skip = pid == 0;
        for (size_t i = 0; i < except_count; i++)
            skip |= pid == except[i];
        found = !skip && proc_holds(pid, file) == PROC_YES;
    }
    if (proc)
        closedir(proc);
    return found;
}

/* ---- Processes ----------------------------------------------------------------------------------- */

int32_t proc_of_thread(int32_t tid)
{
    char text[TEXT_MAX];
    uint64_t pid;
    return read_status(tid, text) && number_of(text, "Tgid:", 10, &pid) ? (int32_t)pid : 0;
}

int32_t proc_of_pidfd(int pidfd)
{
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    if (poll(&ended, 1, 0) != 0)
        return 0;
    char path[64], text[TEXT_MAX];
    uint64_t pid;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    /* "Pid: -1" once it is gone, 0 if it is outside of our namespace */
    if (read_text(AT_FDCWD, path, text) <= 0 || !number_of(text, "Pid:", 10, &pid))
        return 0;
    return (int64_t)pid > 0 ? (int32_t)pid : 0;
}

/* The n-th field of stat, counted from 1; the second is in parentheses and may hold anything. */
static bool stat_field(const char *text, int n, uint64_t *ret)
{
    const char *at = strrchr(text, ')');
    for (int i = 2; at && i < n; i++) {
        at = strchr(at, ' ');
        if (at)
            at++;
    }
    if (!at)
        return false;
    *ret = strtoull(at, NULL, 10);
    return true;
}

/* PF_SIGNALED alone is not enough: when one thread calls exit(3), the others are ended as by SIGKILL, and the
 * last one of them may be the one that closes the files. The exit code tells: its low bits are a signal. */
bool proc_killed(int32_t tid)
{
    char text[TEXT_MAX], path[64];
    uint64_t ignored, flags, exit_code;
    if (!read_status(tid, text) || number_of(text, "VmSize:", 10, &ignored))
        return false;
    snprintf(path, sizeof path, "/proc/%d/stat", tid);
    return read_text(AT_FDCWD, path, text) > 0 && stat_field(text, 9, &flags) &&
           stat_field(text, 52, &exit_code) && (flags & PF_SIGNALED) && (exit_code & 0x7f);
}

bool proc_has_children(int32_t pid)
{
    DIR *tasks = open_dir("/proc/%d/task", pid);
    bool found = false;
    struct dirent *e;
    if (!tasks)
        return errno != ENOENT && errno != ESRCH;
    while (!found && (e = readdir(tasks))) {
        if (!is_number(e->d_name))
            continue;
        char path[300], text[TEXT_MAX];
        snprintf(path, sizeof path, "%s/children", e->d_name);
        ssize_t n = read_text(dirfd(tasks), path, text);
        /* A kernel without the file (CONFIG_PROC_CHILDREN) can't tell; a thread that has ended has none. */
        found = n > 0 || (n < 0 && faccessat(dirfd(tasks), e->d_name, F_OK, 0) == 0);
    }
    closedir(tasks);
    return found;
}
