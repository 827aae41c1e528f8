/* The names of the simulated disk: as they are, and as a power failure may leave them. Private to
 * simdisk.
 *
 * Creating, removing and renaming change the live table at once and wait in a journal until the folder
 * is synced. A crash carries out some of the waiting changes: half of the times the first few, as a
 * journaling file system does, else any, as POSIX allows. A rename is atomic. */
#ifndef SIM_SIMDIR_H
#define SIM_SIMDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/sim/simfile.h"

/* A file or folder. Counted: one for each table that names it, change that waits, and open handle. */
struct siminode {
    size_t refs;
    size_t handles; /* open ones of this generation */
    bool is_dir;
    bool named;  /* in the live table */
    bool locked; /* by disk->lock */
    struct simfile file;
};

struct simname {
    char *path;
    struct siminode *inode;
};

struct simtable {
    struct simname *names; /* in order of creation */
    size_t count, cap;
};

struct simchange {
    char *from;             /* removed, unless NULL */
    char *to;               /* made or replaced, unless NULL */
    struct siminode *inode; /* what `to` names */
};

struct simdir {
    struct simtable live, durable;
    struct simchange *changes;
    size_t change_count, change_cap;
};

/* The path without "./" before it, doubled and trailing slashes; the root is "". Caller frees. */
char *simdir_normal(const char *path);
/* The folder of a normal path, normal; the caller frees it. */
char *simdir_parent(const char *path);

void simdir_free(struct simdir *d);
struct siminode *simdir_find(const struct simdir *d, const char *path); /* NULL: not there */
bool simdir_is_folder(const struct simdir *d, const char *path);        /* also for the root */
struct siminode *simdir_make(struct simdir *d, const char *path, bool is_dir);
void simdir_unlink(struct simdir *d, const char *path);
void simdir_rename(struct simdir *d, const char *from, const char *to);
void simdir_sync(struct simdir *d, const char *folder);
void simdir_crash(struct simdir *d, struct simrng *rng);
void simdir_unref(struct siminode *inode);

#endif
