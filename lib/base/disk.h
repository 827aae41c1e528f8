/* The disk, as an interface: production takes disk_posix(), the simulator a disk that loses what was
 * not synced, tears sectors and fails. Used by the write-ahead log and by the store's SQLite VFS in
 * the simulator; every file that the daemon writes goes through it.
 *
 * Calls block and may come from any thread; one file is used by one thread at a time. Failures come
 * back as ERR_IO, ERR_NO_SPACE, ERR_NOT_FOUND, ERR_EXISTS or ERR_BUSY with the path and the cause in
 * `err`. Paths are passed through as they are. */
#ifndef BASE_DISK_H
#define BASE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/error.h"

struct disk_file; /* opaque to users; each implementation defines its own */

enum disk_open_flags {
    DISK_READ = 0,
    DISK_WRITE = 1,  /* read and write */
    DISK_CREATE = 2, /* make it if it is missing (with DISK_WRITE) */
    DISK_EXCL = 4,   /* fail with ERR_EXISTS if it is there (with DISK_CREATE) */
};

struct disk {
    enum errc (*open)(struct disk *, const char *path, int flags, struct disk_file **ret_file,
                      struct error *err);
    void (*close)(struct disk *, struct disk_file *);
    /* Reads up to n bytes; *ret_n is less only at the end of the file. */
    enum errc (*read)(struct disk *, struct disk_file *, uint64_t offset, void *p, size_t n,
                      size_t *ret_n, struct error *err);
    enum errc (*write)(struct disk *, struct disk_file *, uint64_t offset, const void *p, size_t n,
                       struct error *err); /* all of it or an error */
    enum errc (*sync)(struct disk *, struct disk_file *, struct error *err); /* fdatasync(2) */
    enum errc (*size)(struct disk *, struct disk_file *, uint64_t *ret_size, struct error *err);
    enum errc (*truncate)(struct disk *, struct disk_file *, uint64_t size, struct error *err);
    /* Reserves blocks up to `size` and makes the file that long: later writes need no space. */
    enum errc (*allocate)(struct disk *, struct disk_file *, uint64_t size, struct error *err);
    enum errc (*rename)(struct disk *, const char *from, const char *to, struct error *err);
    enum errc (*unlink)(struct disk *, const char *path, struct error *err);
    enum errc (*mkdir)(struct disk *, const char *path, struct error *err); /* 0700; exists is OK */
    enum errc (*sync_dir)(struct disk *, const char *path, struct error *err); /* fsync(2) of it */
    /* Calls `each` for every name but "." and "..", in no order; `each` must not change the folder. */
    enum errc (*list)(struct disk *, const char *path, void (*each)(void *ctx, const char *name),
                      void *ctx, struct error *err);
    /* Takes an exclusive lock on a file (made if missing) that dies with the process or with close;
     * ERR_BUSY if another process holds it. */
    enum errc (*lock)(struct disk *, const char *path, struct disk_file **ret_file,
                      struct error *err);
    /* What this user may still allocate on the file system of `path` (statvfs(3)'s f_bavail). Never waits
     * for the device, so that the loop thread may ask. */
    enum errc (*free_bytes)(struct disk *, const char *path, uint64_t *ret_bytes,
                            struct error *err);
};

struct disk *disk_posix(void); /* the real one; never freed */

#endif
