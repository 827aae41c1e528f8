/* A store in a temporary folder, with a worker that the test drives. */
#ifndef TESTS_TEMP_STORE_H
#define TESTS_TEMP_STORE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/store/mvcc.h"
#include "lib/base/memory.h"
#include "tests/sim/simworker.h"

struct temp_store {
    char dir[64];
    struct simworker worker;
    struct mvcc *store;
    uint64_t index;
};

static inline int fixture_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void fixture_temp_dir(char dir[64])
{
    /* In memory where there is such a thing: thousands of syncs are no part of the tests. */
    snprintf(dir, 64, "/dev/shm/quorumfs-test-XXXXXX");
    if (mkdtemp(dir))
        return;
    snprintf(dir, 64, "/tmp/quorumfs-test-XXXXXX");
    assert_non_null(mkdtemp(dir));
}

static inline void fixture_remove_dir(const char *dir)
{
    nftw(dir, fixture_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void fixture_failed(void *ctx, const struct error *err)
{
    (void)ctx;
    print_error("store failed: %s\n", err->message);
    abort();
}

static inline void temp_store_open_dir(struct temp_store *f)
{
    struct error err = {0};
    simworker_init(&f->worker);
    struct mvcc_config config = {
        .dir = f->dir,
        .disk = disk_posix(),
        .worker = &f->worker.base,
        .failed = fixture_failed,
    };
    assert_int_equal(mvcc_open(&config, &f->store, &err), ERR_OK);
    f->index = mvcc_applied_index(f->store);
}

static inline void temp_store_open(struct temp_store *f)
{
    fixture_temp_dir(f->dir);
    temp_store_open_dir(f);
}

/* Everything is written first. */
static inline void temp_store_abandon(struct temp_store *f)
{
    simworker_drain(&f->worker);
    mvcc_abandon(f->store);
    f->store = NULL;
}

static inline void temp_store_close(struct temp_store *f)
{
    temp_store_abandon(f);
    fixture_remove_dir(f->dir);
}

#endif
