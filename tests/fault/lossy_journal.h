/* Inside lossy.so: the journal's writing end, and the C library's own calls. See lossy.h. */
#ifndef FAULT_LOSSY_JOURNAL_H
#define FAULT_LOSSY_JOURNAL_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "tests/fault/lossy.h"

#define LOSSY_PATH_MAX 1024

/* The C library's functions, behind the ones of the same name in this library. */
struct lossy_real {
    int (*open)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*close)(int);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*pwritev)(int, const struct iovec *, int, off_t);
    int (*ftruncate)(int, off_t);
    int (*fallocate)(int, int, off_t, off_t);
    int (*posix_fallocate)(int, off_t, off_t);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*rename)(const char *, const char *);
    int (*unlink)(const char *);
    int (*mkdir)(const char *, mode_t);
    int (*rmdir)(const char *);
    int (*link)(const char *, const char *);
    int (*symlink)(const char *, const char *);
    int (*truncate)(const char *, off_t);
    void *(*mmap)(void *, size_t, int, int, int, off_t);
};

/* Found on the first use, with the settings of the environment. */
const struct lossy_real *lossy_real(void);

/* Ends the process: the call can't be undone, or the journal can't be written. */
_Noreturn void lossy_fatal(const char *what, const char *path);

/* The path made absolute; false if it is neither LOSSY_DIR nor below it (or the library is off, or it is a -shm file). */
bool lossy_covers(const char *path, char *ret_path);

/* One call at a time between these two: the journal's order is the order of the calls. At both of them the process may
 * be killed (LOSSY_COUNTDOWN in lossy.h); `what` is the call, on `fd` or, with -1, on a path. */
void lossy_lock(const char *what, int fd);
void lossy_unlock(void);
/* Inside: other threads' calls may come in between (while a file is synced). */
void lossy_leave(void);
void lossy_enter(const char *what, int fd);

/* With the lock held. The number of the next record. */
uint64_t lossy_next(void);
/* With the lock held: appends; magic and number are filled in. */
void lossy_append(struct lossy_record *r, const char *path, const char *other_path,
                  const void *saved);
/* With the lock held: keeps the file alive under its number, whatever happens to its names. */
void lossy_keep(const char *path, uint64_t inode);
/* The inode of the folder that `path` stands in. */
uint64_t lossy_folder(const char *path);

#endif
