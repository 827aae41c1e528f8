/* A copy of the store for an operator: as a snapshot for a member that lags, but of any member, to nobody in
 * the cluster, and the log isn't kept for it. */
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"

struct replica_backup {
    struct replica *replica;
    struct mvcc_snapshot *source;
    void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last);
    void *ctx;
};

struct replica_backup *replica_backup_open(struct replica *r, int64_t *ret_revision)
{
    if (r->failed || r->closing || r->in.installing)
        return NULL;
    uint64_t index, term;
    struct replica_backup *b = xcalloc(1, sizeof(*b));
    b->replica = r;
    b->source = mvcc_snapshot_begin(r->store, &index, &term);
    *ret_revision = mvcc_revision(r->store);
    return b;
}

/* The same as in snapshot_out.c: damage that a copy comes upon is this member's own. */
static void on_chunk(void *ctx, enum errc code, struct bytes chunk, bool last)
{
    struct replica_backup *b = ctx;
    struct replica *r = b->replica;
    b->done(b->ctx, code, chunk, last); /* may close it */
    if (code != ERR_CORRUPT)
        return;
    struct error err;
    error_set(&err, code,
              "a row of the store is damaged (its checksum is wrong; found by a backup)");
    replica_fail(r, &err);
}

void replica_backup_next(struct replica_backup *b,
                         void (*done)(void *ctx, enum errc code, struct bytes chunk, bool last),
                         void *ctx)
{
    b->done = done;
    b->ctx = ctx;
    mvcc_snapshot_next(b->source, on_chunk, b);
}

void replica_backup_close(struct replica_backup *b)
{
    mvcc_snapshot_end(b->source);
    free(b);
}
