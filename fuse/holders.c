#include "fuse/holders.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuse/proc_fd.h"
#include "lib/base/memory.h"

struct holders {
    uv_loop_t *loop;
    dev_t dev;
    struct holders_counts counts;
    bool closing;
};

struct question {
    uv_work_t work;
    struct holders *holders;
    struct core_holders_query query;
    struct proc_file file;
    bool never_shared;
    struct core_holders_answer answer;
    bool looked_at_all;
    core_holders_done done;
    void *ctx;
};

/* In the pool: touches nothing but the question. */
static void look(uv_work_t *work)
{
    struct question *q = CONTAINER_OF(work, struct question, work);
    struct core_holders_answer *a = &q->answer;
    int32_t caller = proc_of_thread(q->query.caller_pid);
    a->caller_signaled = proc_killed(q->query.caller_pid);
    /* Of the thread: if it is on its way out, its process may have other tables, but not this one. */
    a->caller_holds = proc_holds(q->query.caller_pid, &q->file) != PROC_NO;
    if (a->caller_holds)
        return;
    int32_t opener = q->query.opener_pidfd >= 0 ? proc_of_pidfd(q->query.opener_pidfd)
                                                : proc_of_thread(q->query.opener_pid);
    if (opener && opener != caller) {
        a->opener_holds = proc_holds(opener, &q->file) != PROC_NO;
        if (a->opener_holds)
            return;
    }
    if (q->never_shared && opener && opener == caller && !proc_has_children(opener))
        return;
    q->looked_at_all = true;
    int32_t except[] = {getpid(), caller, opener};
    a->other_holds = proc_any_holds(&q->file, except, ARRAY_LEN(except));
}

static void answered(uv_work_t *work, int status)
{
    struct question *q = CONTAINER_OF(work, struct question, work);
    struct holders *h = q->holders;
    assert(status == 0); /* never cancelled */
    h->counts.looked_at_all += q->looked_at_all;
    q->done(q->ctx, &q->answer);
    free(q);
    h->counts.waiting--;
    if (h->closing && h->counts.waiting == 0)
        free(h);
}

struct holders *holders_new(uv_loop_t *loop, dev_t dev)
{
    struct holders *h = xcalloc(1, sizeof *h);
    h->loop = loop;
    h->dev = dev;
    return h;
}

void holders_free(struct holders *h)
{
    assert(!h->closing);
    h->closing = true;
    if (h->counts.waiting == 0)
        free(h);
}

void holders_ask(struct holders *h, const struct core_holders_query *q, bool never_shared,
                 core_holders_done done, void *ctx)
{
    struct question *question = xcalloc(1, sizeof *question);
    question->holders = h;
    question->query = *q;
    question->file = (struct proc_file){q->ino, h->dev, q->access_mode};
    question->never_shared = never_shared;
    question->done = done;
    question->ctx = ctx;
    h->counts.asked++;
    h->counts.waiting++;
    int rc = uv_queue_work(h->loop, &question->work, look, answered);
    assert(rc == 0);
}

void holders_counts(const struct holders *h, struct holders_counts *ret)
{
    *ret = h->counts;
}
