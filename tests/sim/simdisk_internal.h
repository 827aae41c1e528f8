/* The simulated disk's state, for its two sources. */
#ifndef SIM_SIMDISK_INTERNAL_H
#define SIM_SIMDISK_INTERNAL_H

#include "tests/sim/simdir.h"
#include "tests/sim/simdisk.h"

struct simdisk {
    struct disk base;
    struct simdir dir;
    struct simrng rng; /* for what a failed call still does */
    uint64_t trace;
    uint64_t calls;
    size_t handles;
    uint64_t generation; /* of handles: one more after each crash */
    bool off;
    uint64_t off_at; /* calls until the power goes, 0: never */
    uint64_t fail_at;
    unsigned fail_ops;
    enum errc fail_code;
    bool fail_stays, has_failed;
    const char *lies_in;   /* a folder, NULL: it is honest */
    uint64_t misdirect_at; /* writes until one goes astray, 0: never */
    char *astray_path;     /* NULL: none did */
    uint64_t astray_offset;
    uint64_t capacity, used;
    void (*hook)(void *ctx, enum simdisk_op op, const char *path);
    void *hook_ctx;
};

static inline uint64_t simdisk_sectors(uint64_t size)
{
    return (size + SIMFILE_SECTOR - 1) / SIMFILE_SECTOR * SIMFILE_SECTOR;
}

#endif
