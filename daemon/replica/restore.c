#include "daemon/replica/restore.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/replica/offline.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

static enum errc write_store(const struct restore_config *c, const char *dir,
                             struct db_state *ret_state, struct error *err)
{
    struct offline_member packed[RAFT_MEMBERS_MAX];
    struct import_row rows[RAFT_MEMBERS_MAX];
    assert(c->member_count <= RAFT_MEMBERS_MAX);
    for (size_t i = 0; i < c->member_count; i++) {
        offline_member_pack(&packed[i], &c->members[i]);
        rows[i] = (struct import_row){MVCC_BUCKET_MEMBER, bytes_of(packed[i].key, 8),
                                      bytes_of(packed[i].packed, packed[i].n)};
    }
    struct import_config import = {
        .disk = c->disk,
        .sqlite_vfs = c->sqlite_vfs,
        .file = c->file,
        .dir = dir,
        .keep = {[MVCC_BUCKET_LEASE] = !MUTANT(restore_forgets_leases),
                 [MVCC_BUCKET_SESSION] = !MUTANT(restore_forgets_sessions),
                 [MVCC_BUCKET_AUTH] = true,
                 [MVCC_BUCKET_MEMBER] = MUTANT(restore_keeps_members)},
        .rows = rows,
        .row_count = c->member_count,
    };
    enum errc code = import_run(&import, ret_state, err);
    for (size_t i = 0; i < c->member_count; i++)
        free(packed[i].packed);
    return code;
}

enum errc replica_restore(const struct restore_config *c, struct error *err)
{
    struct db_state state;
    char *dir = xasprintf("%s/member/store", c->data_dir);
    enum errc code = c->disk->mkdir(c->disk, dir, err);
    if (code == ERR_OK)
        code = write_store(c, dir, &state, err);
    if (code == ERR_OK)
        code = offline_write_log(&(struct offline_log){.disk = c->disk,
                                                       .data_dir = c->data_dir,
                                                       .cluster_id = c->cluster_id,
                                                       .member_id = c->member_id,
                                                       .base = state.applied,
                                                       .base_term = state.term,
                                                       .term = state.term,
                                                       .segment_bytes = c->wal_segment_bytes,
                                                       .env = c->env},
                                 err);
    free(dir);
    return code;
}
