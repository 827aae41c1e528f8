/* A snapshot in a file, as Maintenance.Snapshot streams it and `snapshot save` keeps it:
 *
 *     frames (frame.h), zeros up to a multiple of 512 bytes, SHA-256 of all before it
 *
 * The length is what etcd's tools expect of a complete snapshot (32 more than a multiple of 512). A file of
 * etcd's own has its database (bbolt) in place of the frames, and is told apart.
 *
 * Blocking; any thread. */
#ifndef SNAPFILE_FILE_H
#define SNAPFILE_FILE_H

#include "lib/base/disk.h"
#include "lib/snapfile/frame.h"
#include "lib/snapfile/sha256.h"

#define SNAPFILE_ALIGN 512

/* How many zeros follow `n` bytes of frames. */
static inline size_t snapfile_padding(uint64_t n)
{
    return (size_t)(-n % SNAPFILE_ALIGN);
}

struct snapfile_info {
    struct record_head head;
    uint64_t keys;  /* rows: revisions of keys, and those of the tables beside them */
    uint64_t bytes; /* of the file */
    uint32_t crc;   /* CRC32C of the frames: tells two snapshots apart */
};

/* Reads a file twice: first the length, the kind and the SHA-256 of the whole, then record by record, each
 * handed to `each` (NULL: only counted; an error of it ends the walk). That the last one is a tail is checked;
 * the sums of rows are the store's to check.
 * ERR_CORRUPT: damaged or cut; ERR_INVALID: no snapshot of quorumd (err says what it is); and the disk's. */
enum errc snapfile_read(struct disk *disk, const char *path,
                        enum errc (*each)(void *ctx, const struct record *record,
                                          struct error *err),
                        void *ctx, struct snapfile_info *ret_info, struct error *err);

/* Length and SHA-256 only: so a file of etcd's passes as well. */
enum errc snapfile_verify(struct disk *disk, const char *path, struct error *err);

#endif
