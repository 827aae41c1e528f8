/* The simulated VFS's locks and shared memory: SQLite's rules (sqlite3.h, "SQLITE_LOCK_" and xShmLock)
 * within one process. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/simvfs_internal.h"

struct simnode *simnode_get(struct simvfs *v, const char *path)
{
    LIST_FOR_EACH_SAFE(it, next, &v->nodes)
    {
        struct simnode *node = CONTAINER_OF(it, struct simnode, link);
        if (strcmp(node->path, path) == 0) {
            node->refs++;
            return node;
        }
    }
    struct simnode *node = xcalloc(1, sizeof(*node));
    node->path = xstrdup(path);
    node->refs = 1;
    list_append(&v->nodes, &node->link);
    return node;
}

static void drop_regions(struct simnode *node)
{
    for (size_t i = 0; i < node->region_count; i++)
        free(node->regions[i]);
    free(node->regions);
    node->regions = NULL;
    node->region_count = 0;
}

void simnode_put(struct simnode *node)
{
    if (--node->refs > 0)
        return;
    list_remove(&node->link);
    drop_regions(node);
    free(node->path);
    free(node);
}

static struct simvfs_file *of(sqlite3_file *file)
{
    return CONTAINER_OF(file, struct simvfs_file, base);
}

int simvfs_lock(sqlite3_file *file, int lock)
{
    struct simvfs_file *f = of(file);
    struct simnode *node = f->node;
    if (!node || lock <= f->lock)
        return SQLITE_OK;
    bool others_write = node->writer && node->writer != f;
    if (lock == SQLITE_LOCK_SHARED) {
        if (others_write && (node->pending || node->exclusive))
            return SQLITE_BUSY;
        node->shared++;
        f->lock = SQLITE_LOCK_SHARED;
        return SQLITE_OK;
    }
    assert(f->lock >= SQLITE_LOCK_SHARED);
    if (others_write)
        return SQLITE_BUSY;
    node->writer = f;
    if (lock == SQLITE_LOCK_RESERVED) {
        f->lock = SQLITE_LOCK_RESERVED;
        return SQLITE_OK;
    }
    node->pending = true; /* no new readers; those that read may finish */
    f->lock = SQLITE_LOCK_PENDING;
    if (node->shared > 1)
        return SQLITE_BUSY;
    node->exclusive = true;
    f->lock = SQLITE_LOCK_EXCLUSIVE;
    return SQLITE_OK;
}

int simvfs_unlock(sqlite3_file *file, int lock)
{
    struct simvfs_file *f = of(file);
    struct simnode *node = f->node;
    if (!node || lock >= f->lock)
        return SQLITE_OK;
    if (node->writer == f) {
        node->writer = NULL;
        node->pending = node->exclusive = false;
    }
    if (lock == SQLITE_LOCK_NONE) {
        assert(node->shared > 0);
        node->shared--;
    }
    f->lock = lock;
    return SQLITE_OK;
}

int simvfs_check_reserved(sqlite3_file *file, int *ret_reserved)
{
    struct simnode *node = of(file)->node;
    *ret_reserved = node && node->writer;
    return SQLITE_OK;
}

int simvfs_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **ret_p)
{
    struct simvfs_file *f = of(file);
    struct simnode *node = f->node;
    *ret_p = NULL;
    if (!f->shm_mapped) {
        f->shm_mapped = true;
        node->shm_users++;
    }
    while (extend && node->region_count <= (size_t)region) {
        node->regions = xrealloc(node->regions, (node->region_count + 1) * sizeof(void *));
        node->regions[node->region_count++] = xcalloc(1, (size_t)size);
    }
    if ((size_t)region < node->region_count)
        *ret_p = node->regions[region];
    return SQLITE_OK;
}

static void shm_release(struct simvfs_file *f, unsigned mask)
{
    for (int i = 0; i < SQLITE_SHM_NLOCK; i++) {
        unsigned bit = 1u << i;
        if (mask & bit & f->shm_shared)
            f->node->shm_shared[i]--;
        if (mask & bit & f->shm_exclusive)
            f->node->shm_exclusive[i] = NULL;
    }
    f->shm_shared &= ~mask;
    f->shm_exclusive &= ~mask;
}

int simvfs_shm_lock(sqlite3_file *file, int first, int n, int flags)
{
    struct simvfs_file *f = of(file);
    struct simnode *node = f->node;
    unsigned mask = ((1u << n) - 1u) << first;
    if (flags & SQLITE_SHM_UNLOCK) {
        shm_release(f, mask);
        return SQLITE_OK;
    }
    bool exclusive = flags & SQLITE_SHM_EXCLUSIVE;
    for (int i = first; i < first + n; i++) {
        bool mine = f->shm_shared & 1u << i;
        if (node->shm_exclusive[i] && node->shm_exclusive[i] != f)
            return SQLITE_BUSY;
        if (exclusive && node->shm_shared[i] > (mine ? 1 : 0))
            return SQLITE_BUSY;
    }
    for (int i = first; i < first + n; i++) {
        if (exclusive)
            node->shm_exclusive[i] = f;
        else if (!(f->shm_shared & 1u << i))
            node->shm_shared[i]++;
    }
    if (exclusive)
        f->shm_exclusive |= mask;
    else
        f->shm_shared |= mask;
    return SQLITE_OK;
}

void simvfs_shm_barrier(sqlite3_file *file)
{
    (void)file; /* one thread */
}

int simvfs_shm_unmap(sqlite3_file *file, int drop)
{
    struct simvfs_file *f = of(file);
    if (!f->shm_mapped)
        return SQLITE_OK;
    shm_release(f, ~0u);
    f->shm_mapped = false;
    f->node->shm_users--;
    if (drop && f->node->shm_users == 0)
        drop_regions(f->node);
    return SQLITE_OK;
}
