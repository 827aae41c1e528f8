/* A SQLite VFS over a struct disk, for the store in the simulator: SQLite's files live on a simulated
 * disk, its time and randomness come from a struct env.
 *
 * It does what the store relies on in SQLite's Unix VFS: locks within the process, shared memory for
 * WAL mode with several connections, a sync of the folder when a new file is first synced and when one
 * is deleted with the dirsync flag. Each simulated disk has its own VFS with its own name:
 *
 *     struct simvfs *v = simvfs_new("sim-3", simdisk_disk(d), env);
 *     sqlite3_open_v2("store.db", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "sim-3");
 *     ...
 *     simdisk_crash(d, &rng);
 *     simvfs_crash(v);       // shared memory and locks are gone
 *     sqlite3_close(db);     // fails quietly on its dead handles
 *     ... open again ...
 *     simvfs_free(v);        // all connections are closed
 *
 * SQLite's own generator (it salts the write-ahead log, among others) is one for the whole process:
 * simvfs_seed() makes a run replay exactly. One thread. */
#ifndef SIM_SIMVFS_H
#define SIM_SIMVFS_H

#include <stdint.h>

#include "lib/base/disk.h"
#include "lib/base/env.h"

struct simvfs;

/* Registers a VFS named `name` (copied, unique), not as the default one. Disk and env outlive it. */
struct simvfs *simvfs_new(const char *name, struct disk *disk, struct env *env);
void simvfs_free(struct simvfs *v);

/* The process that used it is dead: connections opened from now on see none of the locks and shared
 * memory of before. The old connections only fail (their handles must be dead: simdisk_crash() or
 * simdisk_kill_process()), and must be closed. */
void simvfs_crash(struct simvfs *v);

/* Starts SQLite's random numbers anew, for the whole process. Not 0. */
void simvfs_seed(uint32_t seed);

#endif
