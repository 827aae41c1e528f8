/* The journal between lossy.so, which records what a process did to its files, and lossy_undo, which takes back
 * what was never synced: together they make kill -9 as bad as a power loss.
 *
 *     LD_PRELOAD=lossy.so LOSSY_DIR=/data LOSSY_JOURNAL=/journal daemon ...       all day long, until kill -9
 *     lossy_undo /journal [SEED]                                                  before the next start
 *
 * With LOSSY_COUNTDOWN=/file as well the process kills itself at a chosen place: the file is a struct lossy_countdown.
 * Its number counts down before and after each recorded call while it is positive; who brings it to 0 is killed there
 * and then, and says on standard error which call it was.
 *
 * Recorded are the calls on files below LOSSY_DIR. What counts as synced is what POSIX promises and no more: fsync(2)
 * and fdatasync(2) of a file settle its bytes and its size, that of a folder settles the names in it (created, renamed,
 * removed). Calls that this can't undo end the process with a message: they would make a test pass that proves nothing.
 *
 * The journal is a folder on the same file system, in the page cache: it survives the kill as the files do.
 *     log.N       one a process, of records in the order of the calls
 *     inodes/I    a link to each file that was touched, so that it outlives its names and its number is not reused
 * SQLite's -shm files are left alone: SQLite itself doesn't expect them to survive. */
#ifndef FAULT_LOSSY_H
#define FAULT_LOSSY_H

#include <stdatomic.h>
#include <stdint.h>

#define LOSSY_MAGIC 0x4c4f5359u
#define LOSSY_SECTOR 512u /* what a disk writes wholly or not at all */

enum lossy_kind {
    LOSSY_WRITE = 1, /* saved: what was in [offset, offset + length) below old_size */
    LOSSY_SIZE,      /* saved: what was cut off, from `offset`, the new size, to old_size */
    LOSSY_CREATE,    /* path */
    LOSSY_MKDIR,     /* path */
    LOSSY_RENAME,    /* path to other_path; other_inode: the file that it replaced, or 0 */
    LOSSY_UNLINK,    /* path */
    LOSSY_RMDIR,     /* path */
    LOSSY_SYNC, /* settles the records before `upto` of this inode (a file, or a folder's names) */
};

enum lossy_counted { LOSSY_ALL, LOSSY_NO_WRITES, LOSSY_NO_WRITES_OR_SYNCS };

struct lossy_countdown {
    _Atomic int64_t left;
    int64_t counted; /* which calls: an enum lossy_counted */
};

/* Followed by path, other_path (with their final NULs) and the saved bytes. */
struct lossy_record {
    uint32_t magic, kind;
    uint64_t number; /* grows through all logs of a journal */
    uint64_t inode, other_inode;
    uint64_t folder, other_folder; /* the inodes of the folders whose names change */
    uint64_t offset, length, old_size;
    uint64_t upto;
    uint32_t path_bytes, other_path_bytes;
    uint64_t saved_bytes;
};

#endif
