/* The mount as a state machine: file operations in, answers out, a store behind it (backend.h).
 *
 * It knows neither libfuse nor sockets nor a loop, so that tests and the simulator drive it as session.c
 * does. Life cycle: core_new(), core_load() until its callback says ERR_OK (the mirror holds the prefix and
 * follows it), operations, core_shutdown() (commits what is dirty), core_free().
 *
 * Threading: one thread. `done` of an operation runs exactly once, perhaps inside the call. What a reply
 * points to is borrowed until `done` returns. Every operation ends within the timeout of the options, and a
 * commit within a few of them; none waits for a replay (DESIGN, Events).
 *
 * What the kernel is told about remote changes: the core hands each one that the kernel can know about to
 * `replay`, whose thread repeats it as a system call on the mount. Requests that come from that thread carry
 * `caller.replay`: they are answered at once from memory and change nothing but what the kernel has been
 * told. */
#ifndef FUSE_CORE_H
#define FUSE_CORE_H

#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "fuse/backend.h"
#include "lib/base/bytes.h"
#include "lib/base/env.h"
#include "lib/base/error.h"

#define CORE_FILE_SIZE_MAX                                                                         \
    (1536 * 1024 - 4096) /* etcd's request limit less room for key and frame */
#define CORE_ROOT_INO 1

struct core;

/* Who asks. pid is the id of the thread (0: outside our pid namespace, or the kernel itself). */
struct caller {
    int32_t pid;
    uint32_t uid, gid;
    bool replay; /* the replay thread */
};

/* ---- Who still holds a descriptor (fuse/holders.h answers) ------------------------------------------- */

struct core_holders_query {
    uint64_t
        ino; /* st_ino of the file; unique over all mounts of this machine with high probability */
    int access_mode;    /* O_WRONLY or O_RDWR: of the handle that is being flushed */
    int32_t caller_pid; /* thread id of the flusher */
    int32_t opener_pid; /* thread id of who opened it */
    int opener_pidfd;   /* of that process; -1: none. Borrowed until `done` */
    bool never_shared;  /* each FLUSH of the handle so far came from its opener */
};

struct core_holders_answer {
    bool caller_holds;    /* the caller's process still has a descriptor of it */
    bool opener_holds;    /* the opener is alive, another process than the caller, and has one */
    bool other_holds;     /* any further process has one */
    bool caller_signaled; /* the caller is being killed by a signal */
};

typedef void (*core_holders_done)(void *ctx, const struct core_holders_answer *answer);

/* ---- Remote changes (fuse/replay.h repeats them) ----------------------------------------------------- */

enum core_change_kind {
    CHANGE_CREATE,  /* open(O_CREAT|O_EXCL|O_WRONLY), close: CREATE, OPEN, CLOSE_WRITE */
    CHANGE_MKDIR,   /* mkdir */
    CHANGE_SYMLINK, /* symlink(path2, path) */
    CHANGE_OVERWRITE, /* invalidate `ino` first; open(O_WRONLY|O_NONBLOCK), pwrite of one byte, close */
    CHANGE_ATTRIB, /* invalidate `ino` first; chmod(path, mode) */
    CHANGE_DELETE, /* unlink */
    CHANGE_RMDIR,  /* rmdir */
    CHANGE_RENAME, /* rename(path, path2) */
};

struct core_change {
    enum core_change_kind kind;
    const char *path;  /* below the mount point, no leading slash */
    const char *path2; /* CHANGE_RENAME: the new path; CHANGE_SYMLINK: the target; else NULL */
    uint64_t ino;      /* kernel's node id to invalidate; 0: the kernel has no inode of it */
    uint32_t mode;     /* permission bits for CHANGE_CREATE, _MKDIR, _ATTRIB */
    bool content;      /* CHANGE_CREATE: write one byte before the close: MODIFY as well */
    uint64_t token;    /* hand it back with core_replayed() */
};

/* ---- Life ------------------------------------------------------------------------------------------- */

struct core_options {
    struct bytes prefix; /* of the keys that are shown: empty, or ends with '/' */
    const char
        *identity; /* source and mount point: makes inode numbers stable and unlike other mounts' */
    uint64_t timeout_ms; /* of a sync point and of one try of a transaction */
    bool cached;         /* consistency=cached: no sync points */
    bool stale_allow;    /* no quorum: serve the last known state instead of EAGAIN */
    size_t cache_bytes;  /* limit of cached values; more are fetched again when read */
    uint32_t uid, gid;   /* owner of what has no metadata */
    uint32_t file_mode, dir_mode;
    const char *const *local_patterns; /* names that stay in this mount's memory (local.h) */
    size_t local_pattern_count;
    uint64_t
        append_idle_ms; /* an O_APPEND handle that was written to commits after this idle time */
};

struct core_host {
    void *ctx;
    struct env *env;
    /* NULL: nobody is asked; saves commit at RELEASE and fsync only. */
    void (*holders)(void *ctx, const struct core_holders_query *q, core_holders_done done,
                    void *done_ctx);
    /* Takes a change to repeat, in order (copies it). Each one that is taken is answered later by
     * core_replayed(), once, also if it was merged with another or failed. False: not taken (queue full,
     * shutting down). NULL: no replay. */
    bool (*replay)(void *ctx, const struct core_change *change);
};

/* All pointers of options and host are copied or outlive the core (identity, prefix, patterns: copied). */
struct core *core_new(const struct core_options *options, const struct core_host *host,
                      struct backend *backend);
void core_free(struct core *c);

/* Reads the prefix and starts to follow it. */
void core_load(struct core *c, void (*done)(void *ctx, enum errc code, const char *text),
               void *ctx);
/* Every 100 to 250 ms: idle commits, deferred deletions. */
void core_tick(struct core *c);
/* Commits everything dirty, keeps what can't be committed under unsaved/ (and logs it), then calls done. */
void core_shutdown(struct core *c, void (*done)(void *ctx), void *ctx);
/* Operations that wait for an answer of the store or of `holders`. */
size_t core_waiting(const struct core *c);
/* The change with this token was repeated, merged or given up. */
void core_replayed(struct core *c, uint64_t token);

/* ---- Operations -------------------------------------------------------------------------------------- */

struct core_reply {
    int error;         /* 0 or a positive errno; then nothing else is set */
    struct stat st;    /* entry and attribute answers; st.st_ino is the node id */
    uint64_t fh;       /* open, create, opendir */
    bool noflush;      /* open: a FLUSH at close is not needed */
    struct bytes data; /* read, readlink, getxattr, listxattr */
    uint64_t count;    /* write, lseek */
};
typedef void (*core_done)(void *ctx, const struct core_reply *reply);

enum core_set {
    CORE_SET_MODE = 1,
    CORE_SET_UID = 2,
    CORE_SET_GID = 4,
    CORE_SET_SIZE = 8,
    CORE_SET_MTIME = 16,
    CORE_SET_MTIME_NOW = 32,
    CORE_SET_ATIME = 64,
    CORE_SET_ATIME_NOW = 128,
};

/* Directory entries go to `add` until it returns false (no room; the entry was not taken). With `plus`
 * each taken entry but "." and ".." counts as a lookup. */
struct core_dir_sink {
    void *ctx;
    bool (*add)(void *ctx, const char *name, const struct stat *st, uint64_t next_offset);
    bool plus;
};

#define CORE_NO_HANDLE UINT64_MAX

void core_lookup(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 core_done done, void *ctx);
void core_forget(struct core *c, uint64_t ino, uint64_t count);
void core_getattr(struct core *c, const struct caller *who, uint64_t ino, uint64_t fh,
                  core_done done, void *ctx);
void core_setattr(struct core *c, const struct caller *who, uint64_t ino, uint64_t fh, unsigned set,
                  const struct stat *st, core_done done, void *ctx);
void core_readlink(struct core *c, const struct caller *who, uint64_t ino, core_done done,
                   void *ctx);

void core_opendir(struct core *c, const struct caller *who, uint64_t ino, core_done done,
                  void *ctx);
/* Answers with `done` after the last `add`; `sink` must live until then. */
void core_readdir(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset,
                  const struct core_dir_sink *sink, core_done done, void *ctx);
void core_releasedir(struct core *c, uint64_t fh);

/* flags: open(2)'s, with O_TRUNC, O_APPEND, O_EXCL as the caller gave them. */
void core_open(struct core *c, const struct caller *who, uint64_t ino, int flags, core_done done,
               void *ctx);
void core_create(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 uint32_t mode, int flags, core_done done, void *ctx);
void core_read(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset, size_t size,
               core_done done, void *ctx);
void core_write(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset,
                struct bytes data, core_done done, void *ctx);
void core_flush(struct core *c, const struct caller *who, uint64_t fh, core_done done, void *ctx);
void core_fsync(struct core *c, const struct caller *who, uint64_t fh, core_done done, void *ctx);
void core_release(struct core *c, const struct caller *who, uint64_t fh);
void core_fallocate(struct core *c, const struct caller *who, uint64_t fh, int mode,
                    uint64_t offset, uint64_t length, core_done done, void *ctx);
void core_lseek(struct core *c, const struct caller *who, uint64_t fh, uint64_t offset, int whence,
                core_done done, void *ctx);

void core_mknod(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                uint32_t mode, core_done done, void *ctx);
void core_mkdir(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                uint32_t mode, core_done done, void *ctx);
void core_symlink(struct core *c, const struct caller *who, const char *target, uint64_t parent,
                  const char *name, core_done done, void *ctx);
void core_unlink(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 core_done done, void *ctx);
void core_rmdir(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                core_done done, void *ctx);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE. */
void core_rename(struct core *c, const struct caller *who, uint64_t parent, const char *name,
                 uint64_t new_parent, const char *new_name, unsigned flags, core_done done,
                 void *ctx);

void core_getxattr(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                   core_done done, void *ctx);
void core_listxattr(struct core *c, const struct caller *who, uint64_t ino, core_done done,
                    void *ctx);
void core_setxattr(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                   struct bytes value, int flags, core_done done, void *ctx);
void core_removexattr(struct core *c, const struct caller *who, uint64_t ino, const char *name,
                      core_done done, void *ctx);
void core_statfs(struct core *c, struct statvfs *ret_st);

#endif
