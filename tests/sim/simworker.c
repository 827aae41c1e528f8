#include "tests/sim/simworker.h"
#include "lib/base/memory.h"

static void submit(struct worker *worker, struct job *job)
{
    struct simworker *w = CONTAINER_OF(worker, struct simworker, base);
    job->next = NULL;
    *w->waiting_end = job;
    w->waiting_end = &job->next;
    w->submitted++;
    while (w->eager && simworker_run(w))
        ;
}

void simworker_init(struct simworker *w)
{
    *w = (struct simworker){.base.submit = submit};
    w->waiting_end = &w->waiting;
    w->ran_end = &w->ran;
}

bool simworker_can_run(const struct simworker *w)
{
    return w->waiting != NULL;
}

bool simworker_can_deliver(const struct simworker *w)
{
    return w->ran != NULL;
}

bool simworker_run(struct simworker *w)
{
    struct job *job = w->waiting;
    if (!job)
        return false;
    w->waiting = job->next;
    if (!w->waiting)
        w->waiting_end = &w->waiting;
    job->next = NULL;
    job->run(job);
    *w->ran_end = job;
    w->ran_end = &job->next;
    return true;
}

bool simworker_deliver(struct simworker *w)
{
    struct job *job = w->ran;
    if (!job)
        return false;
    w->ran = job->next;
    if (!w->ran)
        w->ran_end = &w->ran;
    job->next = NULL;
    job->done(job); /* may free or submit it again */
    return true;
}

bool simworker_run_one(struct simworker *w)
{
    if (simworker_deliver(w))
        return true;
    return simworker_run(w) && simworker_deliver(w);
}

size_t simworker_drain(struct simworker *w)
{
    size_t n = 0;
    while (simworker_run_one(w))
        n++;
    return n;
}
