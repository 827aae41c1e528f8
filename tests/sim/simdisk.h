/* A simulated disk: lib/base/disk.h in memory, deterministic, for the log, for SQLite (simvfs.h) and for
 * the simulator.
 *
 * It behaves like a file system with a page cache on a disk with sectors of 512 bytes, and is as unkind
 * as such a system may be. What was not synced may be lost, kept, torn or reordered by a crash, sector by
 * sector (simfile.h); names that were made, removed or renamed without sync_dir may come back or be gone
 * (simdir.h); a failed sync leaves its pages clean, so that the next one lies. On top of that, faults can
 * be ordered: the Nth call fails, or is the last one before the power goes; the disk is full; stored bits
 * flip; a write goes to the wrong place.
 *
 * The same calls with the same seed give the same results; simdisk_trace() is a hash of all of them, so
 * two runs can be compared. A disk starts with an empty root folder; "/", "." and "" name it, and a
 * leading slash does not matter. One thread.
 *
 *     struct simdisk *d = simdisk_new(seed);
 *     ... use simdisk_disk(d) ...
 *     simdisk_power_off_at(d, 17);        // the 17th call from now is the last
 *     ... everything fails with ERR_IO ...
 *     simdisk_crash(d, &rng);             // the machine is back, with what the disk kept
 *     ... close the old handles (a formality), open again ...
 *
 * Handles of before a crash are invalid: every call on them fails with ERR_IO, and they must still be
 * closed. */
#ifndef SIM_SIMDISK_H
#define SIM_SIMDISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/base/bytes.h"
#include "lib/base/disk.h"
#include "tests/sim/simrng.h"

enum simdisk_op {
    SIMDISK_OPEN = 1 << 0,
    SIMDISK_READ = 1 << 1,
    SIMDISK_WRITE = 1 << 2,
    SIMDISK_SYNC = 1 << 3,
    SIMDISK_SIZE = 1 << 4,
    SIMDISK_TRUNCATE = 1 << 5,
    SIMDISK_ALLOCATE = 1 << 6,
    SIMDISK_RENAME = 1 << 7,
    SIMDISK_UNLINK = 1 << 8,
    SIMDISK_MKDIR = 1 << 9,
    SIMDISK_SYNC_DIR = 1 << 10,
    SIMDISK_LIST = 1 << 11,
    SIMDISK_LOCK = 1 << 12,
    SIMDISK_CHANGES = SIMDISK_WRITE | SIMDISK_SYNC | SIMDISK_TRUNCATE | SIMDISK_ALLOCATE |
                      SIMDISK_RENAME | SIMDISK_UNLINK | SIMDISK_MKDIR | SIMDISK_SYNC_DIR,
    SIMDISK_ALL = (1 << 13) - 1,
};

struct simdisk;

struct simdisk *simdisk_new(uint64_t seed);
void simdisk_free(struct simdisk *d); /* all handles are closed */
struct disk *simdisk_disk(struct simdisk *d);

uint64_t simdisk_trace(const struct simdisk *d);
uint64_t simdisk_calls(const struct simdisk *d); /* of the interface so far, but close */
size_t simdisk_handles(const struct simdisk *d); /* open ones, to find leaks */
uint64_t simdisk_used(const struct simdisk *d);  /* bytes of all files, whole sectors */
uint64_t simdisk_memory(
    const struct simdisk *d); /* what is needed to simulate them, but for simfile_pool_bytes() */

/* ---- the end of the process, or of the power */

/* From now on every call fails with ERR_IO, until simdisk_crash() or simdisk_kill_process(). */
void simdisk_power_off(struct simdisk *d);
/* The same at the nth call from now (1: the next). A write or sync is then carried out in part. */
void simdisk_power_off_at(struct simdisk *d, uint64_t n);
bool simdisk_is_off(const struct simdisk *d);

/* The power failed and came back: see above. Handles become invalid, locks are gone, ordered faults
 * too. Draws from `rng` only. */
void simdisk_crash(struct simdisk *d, struct simrng *rng);
/* Only the process died: the page cache is still there. */
void simdisk_kill_process(struct simdisk *d);

/* ---- faults */

/* The nth call from now (1: the next) of a kind in `ops` fails with `code`; with `stays`, all later ones
 * of these kinds as well. A failed write may have written some of its sectors, a failed sync see above.
 * n = 0 takes it back. */
void simdisk_fail_at(struct simdisk *d, uint64_t n, unsigned ops, enum errc code, bool stays);
bool simdisk_has_failed(const struct simdisk *d); /* an ordered failure came to pass */

/* What is over `bytes` of simdisk_used() fails with ERR_NO_SPACE; 0: no limit. */
void simdisk_set_capacity(struct simdisk *d, uint64_t bytes);
bool simdisk_is_limited(const struct simdisk *d);

/* Syncs of the files below `folder` (a literal) say that they did, and do nothing, until it is taken back by NULL
 * or the power fails: then all since may be lost. */
void simdisk_lie(struct simdisk *d, const char *folder);

/* The nth write from now lands in another sector of the same file. n = 0 takes it back. */
void simdisk_misdirect_at(struct simdisk *d, uint64_t n);
/* Whether one did since simdisk_new(), and which: the last one's file (valid until the next one) and where
 * it should have gone. */
bool simdisk_astray(const struct simdisk *d, const char **ret_path, uint64_t *ret_offset);

/* Flips one stored bit; nothing if the file has no synced byte there. ERR_NOT_FOUND. */
enum errc simdisk_flip(struct simdisk *d, const char *path, uint64_t offset, unsigned bit);
/* Flips one bit of a file drawn at random; false if there is none that has bytes. */
bool simdisk_rot(struct simdisk *d, struct simrng *rng);

enum simdisk_damage { SIMDISK_BITS, SIMDISK_ZEROS, SIMDISK_GARBAGE, SIMDISK_CUT };
/* Harms one sector of 512 bytes, of which all is synced and nothing newer waits: one to three bits, or all
 * of it; or the file ends before it (if nothing of the file waits). False if there is no such sector, or if
 * nothing changed. */
bool simdisk_harm(struct simdisk *d, const char *path, uint64_t sector, enum simdisk_damage how,
                  struct simrng *rng);

/* Called before every call (its effect comes after): the simulator lets time pass here, for a slow
 * sync, or does something unexpected in between. NULL: none. */
void simdisk_set_hook(struct simdisk *d,
                      void (*hook)(void *ctx, enum simdisk_op op, const char *path), void *ctx);

/* ---- a look behind the interface, which counts as no call */

/* The contents as reads see them, appended to *out. ERR_NOT_FOUND. */
enum errc simdisk_contents(struct simdisk *d, const char *path, struct buf *out);
/* The same of what is synced. */
enum errc simdisk_durable(struct simdisk *d, const char *path, struct buf *out);
/* All files, with the sizes that are synced. */
void simdisk_each_file(struct simdisk *d,
                       void (*each)(void *ctx, const char *path, uint64_t durable_size), void *ctx);

#endif
