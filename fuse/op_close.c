#include <fcntl.h>

#include "fuse/state.h"

/* FLUSH, FSYNC and RELEASE: when a save becomes a transaction (FUSE's FLUSH comes for every duplicate of a
 * descriptor, not once; see DESIGN, "When is it the last close?"). */

static void flush_committed(void *ctx, int error)
{
    op_fail(ctx, error);
}

static void flush_answer(void *ctx, const struct core_holders_answer *a)
{
    struct op *op = ctx;
    struct handle *h = op->h;
    if (a->caller_holds || a->opener_holds || a->other_holds) {
        op_ok(op); /* a later FLUSH will come, or RELEASE */
        return;
    }
    /* What a killed log writer has appended is whole in itself; another's half file is nobody's version. */
    if (a->caller_signaled && !h->append) {
        h->abandoned = true;
        op_ok(op);
        return;
    }
    save_commit(op->c, h, false, flush_committed, op);
}

void core_flush(struct core *c, const struct caller *who, uint64_t fh, core_done done, void *ctx)
{
    struct handle *h = fh == CORE_FH_REPLAY ? NULL : handle_of(fh);
    if (h && who->pid != h->opener)
        h->shared = true;
    if (!h || (!h->dirty && !h->committing)) {
        core_fail(done, ctx, 0);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, NULL);
    op->h = h;
    struct node *n = h->inode->node;
    bool dropping = n && n->local && !n->local->pending;
    if (dropping || (!n && h->inode->unlinked))
        save_commit(c, h, true, flush_committed, op);
    else if (who->pid <= 0 || !c->host.holders)
        op_ok(op); /* nobody to ask about: RELEASE commits */
    else {
        struct core_holders_query q = {.ino = h->inode->ino,
                                       .access_mode = h->flags & O_ACCMODE,
                                       .caller_pid = who->pid,
                                       .opener_pid = h->opener,
                                       .opener_pidfd = h->pidfd,
                                       .never_shared = !h->shared};
        c->host.holders(c->host.ctx, &q, flush_answer, op);
    }
}

void core_fsync(struct core *c, const struct caller *who, uint64_t fh, core_done done, void *ctx)
{
    struct handle *h = fh == CORE_FH_REPLAY ? NULL : handle_of(fh);
    if (!h || !handle_writes(h)) {
        core_fail(done, ctx, 0);
        return;
    }
    struct op *op = op_new(c, who, done, ctx, NULL);
    save_commit(c, h, true, flush_committed, op);
}

void core_release(struct core *c, const struct caller *who, uint64_t fh)
{
    (void)who;
    if (fh != CORE_FH_REPLAY)
        save_release(c, handle_of(fh));
}

/* ---- The end ---------------------------------------------------------------------------------------- */

static void shutdown_committed(void *ctx, int error)
{
    struct core *c = ctx;
    (void)error;
    if (--c->stopping > 0)
        return;
    c->stopped(c->stopped_ctx);
}

void core_shutdown(struct core *c, void (*done)(void *ctx), void *ctx)
{
    c->stopped = done;
    c->stopped_ctx = ctx;
    c->stopping = 1; /* ours, until all are begun */
    for (size_t b = 0; b < c->inodes.size; b++)
        for (struct hash_link *l = c->inodes.buckets[b]; l; l = l->next) {
            struct inode *i = CONTAINER_OF(l, struct inode, link);
            for (struct list *it = i->handles.next; it != &i->handles; it = it->next) {
                struct handle *h = CONTAINER_OF(it, struct handle, link);
                if (!h->dirty || h->abandoned)
                    continue;
                c->stopping++;
                save_commit(c, h, false, shutdown_committed, c);
            }
        }
    local_shutdown(c);
    shutdown_committed(c, 0);
}
