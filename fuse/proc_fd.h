/* Descriptors and states of processes, read from /proc while one of our own requests keeps the process
 * waiting.
 *
 * Only files that can't wait for us are read. A process that execs closes its O_CLOEXEC descriptors inside
 * execve(2), and waits there for our answer to FLUSH with its exec lock held: reading its stat, wchan,
 * environ, io, maps or auxv, or the text of a link in its fd (readlink(2)), would wait for that lock, and so
 * for ourselves. status, fdinfo, children, a pidfd, and the names and lstat(2) of the links in fd are safe;
 * stat is read of a process without memory only, which is past any exec. A stat(2) that follows a link in fd
 * is a request to ourselves.
 *
 * Cost of looking at one descriptor (6.18, two busy cores): readdir 4 us, lstat of the link 1.8 us, fdinfo
 * 20 us. So the link's own mode comes first: it is the descriptor's access mode, and leaves few that may be
 * written to, and none of the sockets if the file was opened for writing only. The link's text would tell
 * files from sockets, but it can wait, see above. (That it would also name the mount point would not help:
 * it is the path as this process sees it, and bind mounts, other mount namespaces, renamed and deleted files
 * have other ones.) */
#ifndef FUSE_PROC_FD_H
#define FUSE_PROC_FD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc_file {
    uint64_t ino;
    dev_t
        dev; /* of the mount; a mount that isn't in our namespace is believed by the inode number */
    int access_mode; /* O_WRONLY or O_RDWR */
};

enum proc_answer {
    PROC_NO,
    PROC_YES,
    PROC_UNKNOWN, /* not ours to read */
};

/* Whether the process (or the thread, if it has a table of its own) has a descriptor of the file. A process
 * that is gone has none. */
enum proc_answer proc_holds(int32_t pid, const struct proc_file *file);
/* Whether any process has one but those in `except` (`except_count` process ids). What can't be read counts
 * as no. New processes have higher ids and are looked at later than their parents, so none slips through
 * by a fork. */
bool proc_any_holds(const struct proc_file *file, const int32_t *except, size_t except_count);

/* The process that a thread belongs to; 0: gone. */
int32_t proc_of_thread(int32_t tid);
/* The process of a pidfd; 0: it has ended (also when nobody has waited for it yet). */
int32_t proc_of_pidfd(int pidfd);
/* Whether the thread is on its way out because of a signal. */
bool proc_killed(int32_t tid);
/* Whether any thread of the process has a child. True if that can't be read. */
bool proc_has_children(int32_t pid);

#endif
