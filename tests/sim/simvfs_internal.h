/* What the sources of the simulated VFS share. */
#ifndef SIM_SIMVFS_INTERNAL_H
#define SIM_SIMVFS_INTERNAL_H

#include <sqlite3.h>
#include <stdbool.h>

#include "lib/base/list.h"
#include "tests/sim/simvfs.h"

/* What all connections to one database file share in the process. */
struct simnode {
    struct list link; /* in simvfs.nodes, or in a list of its own after a crash */
    char *path;
    size_t refs;
    size_t shared;              /* connections with a shared lock or more */
    struct simvfs_file *writer; /* has a reserved lock or more */
    bool pending, exclusive;    /* the writer's */
    void **regions;             /* shared memory */
    size_t region_count;
    size_t shm_shared[SQLITE_SHM_NLOCK]; /* holders */
    struct simvfs_file *shm_exclusive[SQLITE_SHM_NLOCK];
    size_t shm_users;
};

struct simvfs {
    sqlite3_vfs base;
    struct disk *disk;
    struct env *env;
    char *name;
    struct list nodes;
    uint64_t temporary; /* names given to files without one */
};

struct simvfs_file {
    sqlite3_file base;
    struct simvfs *vfs;
    struct disk_file *file;
    char *path;
    struct simnode *node; /* of a database, else NULL */
    int lock;             /* SQLITE_LOCK_... */
    bool delete_on_close;
    bool sync_folder; /* the file is new, and its name not yet durable */
    bool shm_mapped;
    unsigned shm_shared, shm_exclusive; /* slots held, one bit each */
};

/* simvfs_lock.c */
struct simnode *simnode_get(struct simvfs *v, const char *path); /* with a reference */
void simnode_put(struct simnode *node);
int simvfs_lock(sqlite3_file *file, int lock);
int simvfs_unlock(sqlite3_file *file, int lock);
int simvfs_check_reserved(sqlite3_file *file, int *ret_reserved);
int simvfs_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **ret_p);
int simvfs_shm_lock(sqlite3_file *file, int first, int n, int flags);
void simvfs_shm_barrier(sqlite3_file *file);
int simvfs_shm_unmap(sqlite3_file *file, int drop);

#endif
