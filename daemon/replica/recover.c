/* From the data directory to a running core. What log and store may say of each other after a crash:
 *
 *   - The store is behind the log's end: the usual case. The log is replayed from the store's index on.
 *   - The store is beyond the log's end, or of another term there: a snapshot was installed, and the crash
 *     came before the log was reset to it. What the log holds is older than the store; it is reset now,
 *     and never replayed over the newer state.
 *   - The store is behind the log's begin: one of the two was lost or exchanged. There is no way to build
 *     the state, the member has to join again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/replica/internal.h"
#include "lib/base/memory.h"
#include "lib/base/mutant.h"

#define START_STORE_BYTES (UINT64_C(32) * 1024 * 1024) /* its reserve, and room above it */

static void wal_failed(void *ctx, const struct error *err)
{
    replica_fail(ctx, err);
}

static void store_failed(void *ctx, const struct error *err)
{
    replica_fail(ctx, err);
}

static void store_durable(void *ctx, uint64_t applied_index)
{
    struct replica *r = ctx;
    (void)applied_index;
    if (r->closing || !r->raft)
        return;
    duties_cut_log(r);
    replica_wake(r);
}

static enum errc make_dir(struct replica *r, const char *path, struct error *err)
{
    return r->config.disk->mkdir(r->config.disk, path, err);
}

static enum errc open_both(struct replica *r, const char *dir, struct wal_recovered *ret_found,
                           struct error *err)
{
    char *log_dir = xasprintf("%s/log", dir), *store_dir = xasprintf("%s/store", dir);
    enum errc code = make_dir(r, dir, err);
    if (code == ERR_OK)
        code = make_dir(r, store_dir, err);
    if (code == ERR_OK)
        code = wal_open(&(struct wal_config){.disk = r->config.disk,
                                             .worker = r->config.log_worker,
                                             .env = r->config.env,
                                             .dir = log_dir,
                                             .cluster_id = r->config.cluster_id,
                                             .member_id = r->config.member_id,
                                             .segment_bytes = r->config.wal_segment_bytes,
                                             .failed = wal_failed,
                                             .ctx = r},
                        &r->wal, ret_found, err);
    if (code == ERR_OK)
        code =
            mvcc_open(&(struct mvcc_config){.dir = store_dir,
                                            .disk = r->config.disk,
                                            .sqlite_vfs = r->config.sqlite_vfs,
                                            .worker = r->config.store_worker,
                                            .checkpoint_pages = r->config.store_checkpoint_pages,
                                            .snapshot_chunk_bytes = r->config.snapshot_chunk_bytes,
                                            .reserve_bytes = r->config.store_reserve_bytes,
                                            .durable = store_durable,
                                            .failed = store_failed,
                                            .ctx = r},
                      &r->store, err);
    free(log_dir);
    free(store_dir);
    return code;
}

/* The log is new, or its maker crashed before the first entry was on disk. */
static bool is_new(const struct wal_recovered *f)
{
    return !f->has_hard_state && f->entry_count == 0 && f->base_index == 0;
}

static enum errc bootstrap(struct replica *r, struct wal_recovered *f, struct error *err)
{
    if (mvcc_applied_index(r->store) > 0)
        return error_set(
            err, ERR_CORRUPT,
            "%s: the store is at entry %" PRIu64 ", but the log is empty: it was lost or "
            "removed. Remove this member from the cluster, delete its data directory and "
            "add it again",
            r->config.data_dir, mvcc_applied_index(r->store));
    if (r->config.join || r->initial.count == 0)
        return ERR_OK;
    struct raft_entry *e = members_bootstrap_entry(&r->initial);
    f->has_hard_state = true;
    f->hard_state = (struct raft_hard_state){.term = 1, .commit = 1};
    f->entries = xrealloc(f->entries, sizeof(struct raft_entry *));
    f->entries[0] = e;
    f->entry_count = 1;
    /* The store takes this entry next, and must never be ahead of an empty log. */
    return wal_begin(r->wal, 0, 0, &f->hard_state, f->entries, 1, err);
}

static uint64_t term_at(const struct wal_recovered *f, uint64_t index)
{
    if (index == f->base_index)
        return f->base_term;
    if (index < f->base_index || index > f->base_index + f->entry_count)
        return 0;
    return f->entries[index - f->base_index - 1]->term;
}

static enum errc reconcile(struct replica *r, struct wal_recovered *f, struct error *err)
{
    uint64_t applied = mvcc_applied_index(r->store), term = mvcc_applied_term(r->store);
    if (applied < f->base_index)
        return error_set(err, ERR_CORRUPT,
                         "%s: the store is at entry %" PRIu64
                         ", but the log begins behind entry %" PRIu64
                         ": the store was lost or exchanged. Remove this member from the cluster, "
                         "delete its data directory and add it again",
                         r->config.data_dir, applied, f->base_index);
    bool other = applied > 0 && term_at(f, applied) != term;
    if (other && !MUTANT(old_log_over_snapshot)) {
        for (size_t i = 0; i < f->entry_count; i++)
            raft_entry_unref(f->entries[i]);
        f->entry_count = 0;
        f->base_index = applied;
        f->base_term = term;
        wal_reset(r->wal, applied, term, NULL, NULL, 0);
    }
    if (f->hard_state.term < term)
        f->hard_state = (struct raft_hard_state){.term = term};
    uint64_t last = f->base_index + f->entry_count;
    if (f->hard_state.commit < applied)
        f->hard_state.commit = applied;
    if (f->hard_state.commit > last)
        f->hard_state.commit = last;
    return ERR_OK;
}

/* What the core says of elections, transfers and snapshots; not what comes with each request. */
static void trace(void *ctx, const char *text)
{
    if (strncmp(text, "commit ", 7) != 0 && strncmp(text, "refused ", 8) != 0)
        replica_note(ctx, text);
}

static uint64_t draw(void *ctx)
{
    struct env *env = ctx;
    return env->random(env);
}

static enum errc start_core(struct replica *r, const struct wal_recovered *f, struct error *err)
{
    struct raft_config config = {
        .id = r->member_id,
        .election_ticks = r->config.election_ticks,
        .heartbeat_ticks = 1,
        .inflight_messages_max = INFLIGHT_MESSAGES_MAX,
        .inflight_bytes_max = INFLIGHT_BYTES_MAX,
        .message_bytes_max =
            r->config.append_bytes_max ? r->config.append_bytes_max : MESSAGE_BYTES_MAX,
        .uncommitted_bytes_max = r->config.uncommitted_bytes_max ? r->config.uncommitted_bytes_max
                                                                 : UNCOMMITTED_BYTES_MAX,
        .committed_batch_max = APPLY_ENTRIES_A_POLL,
        .random = draw,
        .random_ctx = r->config.env,
        .trace = trace,
        .trace_ctx = r,
    };
    struct raft_start start = {
        .hard_state = f->hard_state,
        .applied = mvcc_applied_index(r->store),
        .applied_term = mvcc_applied_term(r->store),
        .base_index = f->base_index,
        .base_term = f->base_term,
        .entries = f->entries,
        .entry_count = f->entry_count,
    };
    member_list_conf(&r->members, &start.conf);
    return raft_new(&config, &start, &r->raft, err);
}

static enum errc load_state(struct replica *r, struct error *err)
{
    enum errc code = apply_load(r->apply, err);
    return code == ERR_OK ? members_load(r, err) : code;
}

static uint64_t apply_now(void *ctx)
{
    return replica_now_ms(ctx);
}

static void make_state(struct replica *r)
{
    r->lessor = lessor_new();
    r->hub = watch_hub_new(r->store);
    r->apply = apply_new(&(struct apply_config){.store = r->store,
                                                .lessor = r->lessor,
                                                .hub = r->hub,
                                                .cluster_id = r->cluster_id,
                                                .member_id = r->member_id,
                                                .now_ms = apply_now,
                                                .now_ctx = r,
                                                .quota_bytes = r->config.quota_bytes,
                                                .member_attributes = members_apply_attributes,
                                                .member_ctx = r});
}

/* What SQLite needs to open a store is little; a new member allocates its log and both reserves. */
static void explain_no_space(struct replica *r, struct error *err)
{
    uint64_t free_bytes = 0;
    uint64_t segment =
        r->config.wal_segment_bytes ? r->config.wal_segment_bytes : WAL_SEGMENT_BYTES_DEFAULT;
    (void)r->config.disk->free_bytes(r->config.disk, r->config.data_dir, &free_bytes, NULL);
    struct error why = *err;
    error_set(err, ERR_NO_SPACE,
              "%s: the disk is too full to start: %" PRIu64 " bytes are free, needed are %" PRIu64
              " for a new member and 1048576 for one that was here before. Free space on this file "
              "system and start again (%s)",
              r->config.data_dir, free_bytes, 2 * segment + START_STORE_BYTES, why.message);
}

enum errc replica_recover(struct replica *r, char ret_note[512], struct error *err)
{
    char *dir = xasprintf("%s/member", r->config.data_dir);
    struct wal_recovered found = {0};
    enum errc code = open_both(r, dir, &found, err);
    free(dir);
    if (code == ERR_NO_SPACE)
        explain_no_space(r, err);
    if (code != ERR_OK)
        goto out;
    ret_note[0] = 0;
    if (found.cut_bytes)
        snprintf(ret_note, 512, "cut a torn tail of %" PRIu64 " bytes off the log: %s",
                 found.cut_bytes, found.cut_where);
    r->cluster_id = r->config.cluster_id ? r->config.cluster_id : found.cluster_id;
    r->member_id = r->config.member_id ? r->config.member_id : found.member_id;
    make_state(r);
    if (is_new(&found))
        code = bootstrap(r, &found, err);
    if (code == ERR_OK)
        code = load_state(r, err);
    if (code == ERR_OK && mvcc_applied_index(r->store) == 0 && found.entry_count &&
        members_is_bootstrap(found.entries[0]))
        code = members_apply_bootstrap(r, found.entries[0], err);
    if (code == ERR_OK)
        code = reconcile(r, &found, err);
    if (code == ERR_OK)
        code = start_core(r, &found, err);
out:
    wal_recovered_free(&found);
    return code;
}
