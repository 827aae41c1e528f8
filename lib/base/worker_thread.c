#include "lib/base/worker_thread.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/memory.h"
#include "lib/base/thread.h"

/* A singly linked queue through job->next. */
struct jobs {
    struct job *first, **end;
};

struct worker_thread {
    struct worker worker; /* the interface; first so that it is freed as what was allocated */
    uv_async_t finished;  /* wakes the loop */
    pthread_t thread;
    size_t under_way;       /* submitted and not yet `done`; the loop thread's */
    struct jobs delivering; /* taken from `ran`, in a field so that a `done` may call stop */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;  /* the thread's */
    struct jobs waiting;  /* to be run */
    struct jobs ran;      /* to be delivered */
    bool stopping;
};

static void jobs_init(struct jobs *q)
{
    q->first = NULL;
    q->end = &q->first;
}

static void jobs_append(struct jobs *q, struct job *job)
{
    job->next = NULL;
    *q->end = job;
    q->end = &job->next;
}

static struct job *jobs_take(struct jobs *q)
{
    struct job *job = q->first;
    if (!job)
        return NULL;
    q->first = job->next;
    if (!q->first)
        q->end = &q->first;
    return job;
}

/* Puts all of `from` behind `to`. */
static void jobs_move(struct jobs *to, struct jobs *from)
{
    if (!from->first)
        return;
    *to->end = from->first;
    to->end = from->end;
    jobs_init(from);
}

static void *worker_main(void *arg)
{
    struct worker_thread *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct job *job = jobs_take(&w->waiting);
        if (!job && w->stopping)
            break;
        if (!job) {
            pthread_cond_wait(&w->wake, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        job->run(job);
        pthread_mutex_lock(&w->lock);
        bool first = !w->ran.first;
        jobs_append(&w->ran, job);
        if (first)
            uv_async_send(&w->finished);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* A `done` may submit again, and may reuse or free its job. */
static void deliver(struct worker_thread *w)
{
    pthread_mutex_lock(&w->lock);
    jobs_move(&w->delivering, &w->ran);
    pthread_mutex_unlock(&w->lock);
    for (struct job *job; (job = jobs_take(&w->delivering)) != NULL;) {
        assert(w->under_way > 0);
        if (--w->under_way == 0)
            uv_unref((uv_handle_t *)&w->finished);
        job->done(job);
    }
}

static void on_finished(uv_async_t *handle)
{
    deliver(CONTAINER_OF(handle, struct worker_thread, finished));
}

static void worker_submit(struct worker *worker, struct job *job)
{
    struct worker_thread *w = CONTAINER_OF(worker, struct worker_thread, worker);
    if (w->under_way++ == 0)
        uv_ref((uv_handle_t *)&w->finished);
    pthread_mutex_lock(&w->lock);
    bool idle = !w->waiting.first;
    jobs_append(&w->waiting, job);
    pthread_mutex_unlock(&w->lock);
    if (idle)
        pthread_cond_signal(&w->wake);
}

static void worker_free(struct worker_thread *w)
{
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void on_closed(uv_handle_t *handle)
{
    worker_free(CONTAINER_OF(handle, struct worker_thread, finished));
}

enum errc worker_thread_start(uv_loop_t *loop, const char *name, struct worker **ret_worker,
                              struct error *err)
{
    struct worker_thread *w = xcalloc(1, sizeof(*w));
    w->worker.submit = worker_submit;
    jobs_init(&w->waiting);
    jobs_init(&w->ran);
    jobs_init(&w->delivering);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    int rc = uv_async_init(loop, &w->finished, on_finished);
    if (rc) {
        worker_free(w);
        return error_set(err, ERR_INTERNAL, "worker %s: %s", name, uv_strerror(rc));
    }
    uv_unref((uv_handle_t *)&w->finished);
    rc = thread_start(&w->thread, name, worker_main, w);
    if (rc) {
        uv_close((uv_handle_t *)&w->finished, on_closed);
        return error_set(err, ERR_INTERNAL, "worker %s: start a thread: %s", name, strerror(rc));
    }
    *ret_worker = &w->worker;
    return ERR_OK;
}

void worker_thread_stop(struct worker *worker)
{
    struct worker_thread *w = CONTAINER_OF(worker, struct worker_thread, worker);
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_mutex_unlock(&w->lock);
    pthread_cond_signal(&w->wake);
    pthread_join(w->thread, NULL);
    deliver(w);
    assert(w->under_way == 0); /* no `done` submits to a worker that is being stopped */
    uv_close((uv_handle_t *)&w->finished, on_closed);
}
