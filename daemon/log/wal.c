/* The loop thread's side: queues operations and commits them in groups, one job on the worker at a
 * time. While a job runs, the writer's state is the worker's; between jobs it is the loop's. */
#include <assert.h>
#include <stdlib.h>

#include "daemon/log/wal_internal.h"
#include "lib/base/memory.h"

struct wal {
    struct wal_config config;
    struct disk_file *lock;
    struct wal_writer writer;
    struct job job;
    bool busy;      /* a job is under way, or its completion is being delivered */
    bool failed;    /* nothing is written any more */
    bool closed;    /* frees itself when the job is done */
    bool waits;     /* for space: nothing is submitted before wal_space_retry() */
    bool no_spare;  /* there was no space for one: not tried again before the log rolls or is cut */
    bool was_spare; /* the last job did not write appends: they go next */
    bool quiet;     /* nothing was appended since the last tick */
    struct wal_scrub scrub;
    uint64_t scrub_due_ms;
    uint64_t seq; /* of the segment being written, to see it roll */
    struct wal_op *pending, **pending_end;
    struct wal_op *group; /* the job's */
    enum errc job_rc;
    struct error job_err;
    uint64_t last_index, base_index; /* behind all that is pending */
    uint64_t bytes;
};

static void op_free(struct wal_op *op)
{
    for (size_t i = 0; i < op->entry_count; i++)
        raft_entry_unref(op->entries[i]);
    free(op);
}

static void ops_free(struct wal_op *op)
{
    while (op) {
        struct wal_op *next = op->next;
        op_free(op);
        op = next;
    }
}

static void drop_pending(struct wal *w)
{
    ops_free(w->pending);
    w->pending = NULL;
    w->pending_end = &w->pending;
}

static void count_bytes(struct wal *w)
{
    const struct wal_dir *d = &w->writer.dir;
    w->bytes = d->has_spare ? d->spare_bytes : 0;
    for (size_t i = 0; i < d->segment_count; i++)
        w->bytes += d->segments[i].bytes;
}

static void destroy(struct wal *w)
{
    if (!w->failed)
        (void)wal_write_closing(&w->writer, NULL); /* it only helps to find damage later */
    drop_pending(w);
    buf_free(&w->scrub.data);
    struct disk *disk = w->config.disk;
    wal_writer_free(&w->writer);
    disk->close(disk, w->lock);
    free(w);
}

static void fail(struct wal *w, const struct error *err)
{
    w->failed = true;
    drop_pending(w);
    if (w->config.failed && !w->closed)
        w->config.failed(w->config.ctx, err);
}

static void start_next(struct wal *w);

static void group_run(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    w->job_rc = wal_write_ops(&w->writer, w->group, &w->job_err);
}

/* Those that found no space go back to where they came from; returns the others. */
static struct wal_op *take_back_unwritten(struct wal *w, struct wal_op *group)
{
    struct wal_op **at = &group, **end;
    while (*at && (*at)->written)
        at = &(*at)->next;
    if (!*at)
        return group;
    for (end = at; *end;)
        end = &(*end)->next;
    if (!w->pending)
        w->pending_end = end;
    *end = w->pending;
    w->pending = *at;
    if (at == &group)
        return NULL;
    *at = NULL;
    return group;
}

/* The callbacks may append, and may close the log: `busy` stays set until the last one returned. */
static void group_done(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    struct wal_op *op = w->group;
    w->group = NULL;
    w->was_spare = false;
    w->no_spare = w->no_spare && w->seq == w->writer.head.seq;
    w->seq = w->writer.head.seq;
    count_bytes(w);
    w->waits = w->job_rc == ERR_NO_SPACE && w->writer.starved;
    if (w->waits && !w->closed)
        op = take_back_unwritten(w, op);
    else if (w->job_rc)
        fail(w, &w->job_err);
    while (op) {
        struct wal_op *next = op->next;
        if (op->done && op->written && !w->failed && !w->closed)
            op->done(op->ctx, op->token);
        op_free(op);
        op = next;
    }
    w->busy = false;
    start_next(w);
}

static void spare_run(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    w->job_rc = wal_spare_make(&w->writer.dir, &w->job_err);
}

static void spare_done(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    w->was_spare = true;
    w->no_spare = w->job_rc == ERR_NO_SPACE;
    count_bytes(w);
    if (w->job_rc && !w->no_spare)
        fail(w, &w->job_err);
    w->busy = false;
    start_next(w);
}

static void submit(struct wal *w, void (*run)(struct job *), void (*done)(struct job *))
{
    w->busy = true;
    w->job_rc = ERR_CANCELLED; /* what a worker that drops its jobs leaves */
    w->job_err = (struct error){.code = ERR_CANCELLED};
    w->job.run = run;
    w->job.done = done;
    w->config.worker->submit(w->config.worker, &w->job);
}

static void watermark_run(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    w->job_rc = wal_write_watermark(&w->writer, &w->job_err);
}

static void quiet_done(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    if (w->job_rc)
        fail(w, &w->job_err);
    w->busy = false;
    start_next(w);
}

void wal_tick(struct wal *w)
{
    bool idle = !w->busy && !w->pending && !w->failed && !w->closed;
    if (idle && w->quiet && !w->writer.vouched && w->writer.offset > WAL_SECTOR)
        submit(w, watermark_run, quiet_done);
    w->quiet = idle;
}

static void scrub_run(struct job *job)
{
    struct wal *w = CONTAINER_OF(job, struct wal, job);
    w->job_rc = wal_scrub_slice(&w->writer, &w->scrub, &w->job_err);
}

void wal_scrub_tick(struct wal *w, uint64_t now_ms, uint64_t pass_ms)
{
    if (pass_ms == 0 || w->busy || w->pending || w->failed || w->closed || now_ms < w->scrub_due_ms)
        return;
    uint64_t slices = w->bytes / WAL_SCRUB_BYTES + w->writer.dir.segment_count + 1;
    w->scrub_due_ms = now_ms + pass_ms / slices;
    submit(w, scrub_run, quiet_done);
}

uint64_t wal_scrub_passes(const struct wal *w)
{
    return w->scrub.passes;
}

/* The newest cut that may overtake the appends before it: they write nothing at or below it. */
static void take_hint(struct wal *w)
{
    uint64_t limit = w->writer.last_index + 1;
    for (const struct wal_op *op = w->pending; op && op->kind != WAL_OP_RESET; op = op->next) {
        if (op->entries_written < op->entry_count &&
            op->entries[op->entries_written]->index < limit)
            limit = op->entries[op->entries_written]->index;
        if (op->kind == WAL_OP_CUT && op->index < limit) {
            w->writer.hint_index = op->index;
            w->writer.hint_term = op->term;
        }
    }
}

static void submit_group(struct wal *w)
{
    size_t bytes = 0;
    if (w->writer.starved)
        take_hint(w);
    struct wal_op **end = &w->pending;
    while (*end && bytes < WAL_GROUP_BYTES_MAX) {
        bytes += (*end)->bytes;
        w->no_spare = w->no_spare && (*end)->kind == WAL_OP_APPEND;
        end = &(*end)->next;
    }
    w->group = w->pending;
    w->pending = *end;
    *end = NULL;
    if (!w->pending)
        w->pending_end = &w->pending;
    submit(w, group_run, group_done);
}

static void start_next(struct wal *w)
{
    if (w->busy)
        return;
    if (w->closed) {
        destroy(w);
        return;
    }
    if (w->failed || w->waits)
        return;
    /* Appends and the making of a spare take turns, so that neither starves the other. */
    bool want_spare = !w->writer.dir.has_spare && !w->no_spare;
    if (w->pending && (!want_spare || w->was_spare))
        submit_group(w);
    else if (want_spare)
        submit(w, spare_run, spare_done);
}

static void enqueue(struct wal *w, struct wal_op *op)
{
    if (w->failed || w->closed) {
        op_free(op);
        return;
    }
    w->quiet = false;
    *w->pending_end = op;
    w->pending_end = &op->next;
    start_next(w);
}

static struct wal_op *op_new(enum wal_op_kind kind, size_t entry_count)
{
    struct wal_op *op = xcalloc(1, sizeof(*op) + entry_count * sizeof(op->entries[0]));
    op->kind = kind;
    return op;
}

static struct wal_op *append_new(struct wal *w, const struct raft_hard_state *hs,
                                 struct raft_entry *const *entries, size_t entry_count)
{
    struct wal_op *op = op_new(WAL_OP_APPEND, entry_count);
    if (hs) {
        op->has_hard_state = true;
        op->hard_state = *hs;
    }
    for (size_t i = 0; i < entry_count; i++) {
        assert(entries[i]->index > w->base_index && entries[i]->index <= w->last_index + 1);
        assert(i == 0 || entries[i]->index == entries[i - 1]->index + 1);
        op->entries[op->entry_count++] = raft_entry_ref(entries[i]);
        op->bytes += wal_entry_bytes(entries[i]);
        w->last_index = entries[i]->index;
    }
    return op;
}

void wal_append(struct wal *w, const struct raft_hard_state *hs, struct raft_entry *const *entries,
                size_t entry_count, void (*done)(void *ctx, uint64_t token), void *ctx,
                uint64_t token)
{
    struct wal_op *op = append_new(w, hs, entries, entry_count);
    op->done = done;
    op->ctx = ctx;
    op->token = token;
    enqueue(w, op);
}

static enum errc write_now(struct wal *w, struct wal_op *op, struct error *err)
{
    enum errc rc = wal_write_ops(&w->writer, op, err);
    w->failed = w->failed || rc != ERR_OK;
    op_free(op);
    count_bytes(w);
    return rc;
}

enum errc wal_begin(struct wal *w, uint64_t base_index, uint64_t base_term,
                    const struct raft_hard_state *hs, struct raft_entry *const *entries,
                    size_t entry_count, struct error *err)
{
    assert(!w->busy && !w->pending && w->last_index == 0);
    enum errc rc = ERR_OK;
    if (base_index > 0) {
        struct wal_op *op = op_new(WAL_OP_RESET, 0);
        op->index = w->base_index = w->last_index = base_index;
        op->term = base_term;
        rc = write_now(w, op, err);
    }
    return rc ? rc : write_now(w, append_new(w, hs, entries, entry_count), err);
}

void wal_cut(struct wal *w, uint64_t index, uint64_t term)
{
    assert(index <= w->last_index);
    if (index <= w->base_index)
        return;
    struct wal_op *op = op_new(WAL_OP_CUT, 0);
    op->index = w->base_index = index;
    op->term = term;
    enqueue(w, op);
}

void wal_reset(struct wal *w, uint64_t index, uint64_t term,
               void (*done)(void *ctx, uint64_t token), void *ctx, uint64_t token)
{
    assert(index >= w->base_index);
    struct wal_op *op = op_new(WAL_OP_RESET, 0);
    op->index = w->base_index = w->last_index = index;
    op->term = term;
    op->done = done;
    op->ctx = ctx;
    op->token = token;
    enqueue(w, op);
}

bool wal_lacks_space(const struct wal *w)
{
    return w->waits || w->no_spare;
}

bool wal_waits_for_space(const struct wal *w)
{
    return w->waits;
}

void wal_space_retry(struct wal *w)
{
    if (w->busy || w->failed || w->closed)
        return;
    w->was_spare = w->waits; /* what waits goes first, it takes the space that a spare would */
    w->waits = w->no_spare = false;
    start_next(w);
}

uint64_t wal_bytes(const struct wal *w)
{
    return w->bytes;
}

static enum errc check_size(const struct wal_config *config, struct error *err)
{
    if (config->segment_bytes == 0 || (config->segment_bytes >= WAL_SEGMENT_BYTES_MIN &&
                                       config->segment_bytes <= WAL_SEGMENT_BYTES_MAX))
        return ERR_OK;
    return error_set(err, ERR_INVALID, "a log segment of %zu bytes: %u to %u are possible",
                     config->segment_bytes, WAL_SEGMENT_BYTES_MIN, WAL_SEGMENT_BYTES_MAX);
}

static enum errc take_lock(const struct wal_config *config, struct disk_file **ret_lock,
                           struct error *err)
{
    enum errc rc = config->disk->mkdir(config->disk, config->dir, err);
    if (rc)
        return rc;
    char *path = xasprintf("%s/%s", config->dir, WAL_LOCK);
    rc = config->disk->lock(config->disk, path, ret_lock, err);
    free(path);
    if (rc == ERR_BUSY)
        error_set(err, ERR_BUSY, "%s is in use by another process", config->dir);
    return rc;
}

enum errc wal_open(const struct wal_config *config, struct wal **ret_wal,
                   struct wal_recovered *ret_recovered, struct error *err)
{
    struct disk_file *lock;
    enum errc rc = check_size(config, err);
    if (!rc)
        rc = take_lock(config, &lock, err);
    if (rc)
        return rc;
    size_t segment_bytes =
        config->segment_bytes ? config->segment_bytes : WAL_SEGMENT_BYTES_DEFAULT;
    struct wal_writer writer = {
        .dir =
            {
                .disk = config->disk,
                .env = config->env ? config->env : env_system(),
                .path = xstrdup(config->dir),
                .segment_bytes = (size_t)wal_round_up(segment_bytes),
            },
    };
    struct wal_recovered recovered;
    rc = wal_recover(&writer, config, &recovered, err);
    if (rc) {
        wal_writer_free(&writer);
        config->disk->close(config->disk, lock);
        return rc;
    }
    struct wal *w = xcalloc(1, sizeof(*w));
    w->config = *config;
    w->config.dir = NULL; /* borrowed only for this call; the writer has its own */
    w->lock = lock;
    w->writer = writer;
    w->pending_end = &w->pending;
    w->was_spare = true;
    w->seq = writer.head.seq;
    w->base_index = writer.base_index;
    w->last_index = writer.last_index;
    count_bytes(w);
    *ret_wal = w;
    *ret_recovered = recovered;
    return ERR_OK;
}

void wal_recovered_free(struct wal_recovered *r)
{
    for (size_t i = 0; i < r->entry_count; i++)
        raft_entry_unref(r->entries[i]);
    free(r->entries);
    *r = (struct wal_recovered){0};
}

void wal_close(struct wal *w)
{
    if (!w)
        return;
    w->closed = true;
    drop_pending(w);
    start_next(w);
}
