#include "daemon/replica/offline.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"

void offline_member_pack(struct offline_member *row, const struct replica_member *m)
{
    struct replica_member plain = {
        .id = m->id,
        .peer_urls = m->peer_urls,
        .peer_url_count = m->peer_url_count,
        .learner = m->learner,
    };
    Raftpb__Member wire;
    member_to_wire(&plain, &wire);
    put_le64(row->key, m->id);
    row->packed = xmalloc(raftpb__member__get_packed_size(&wire) + 1);
    row->n = raftpb__member__pack(&wire, row->packed);
}

static void refuse_job(struct worker *worker, struct job *job)
{
    (void)worker, (void)job;
    abort(); /* wal_begin() and wal_close() give it none */
}

enum errc offline_write_log(const struct offline_log *l, struct error *err)
{
    char *dir = xasprintf("%s/member/log", l->data_dir);
    struct worker none = {refuse_job};
    struct wal_recovered found = {0};
    struct wal *w = NULL;
    enum errc code = wal_open(&(struct wal_config){.disk = l->disk,
                                                   .worker = &none,
                                                   .env = l->env,
                                                   .dir = dir,
                                                   .cluster_id = l->cluster_id,
                                                   .member_id = l->member_id,
                                                   .segment_bytes = l->segment_bytes},
                              &w, &found, err);
    free(dir);
    if (code != ERR_OK)
        return code;
    assert(found.created);
    struct raft_hard_state hs = {.term = l->term ? l->term : 1, .commit = l->base + l->entry_count};
    code = wal_begin(w, l->base, l->base_term, &hs, l->entries, l->entry_count, err);
    wal_close(w);
    wal_recovered_free(&found);
    return code;
}
