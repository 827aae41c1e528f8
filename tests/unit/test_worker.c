/* The worker thread: order, threads, the loop's life, stopping. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <assert.h>
#include <cmocka.h>
#include <pthread.h>
#include <string.h>
#include <uv.h>

#include "lib/base/memory.h"
#include "lib/base/worker_thread.h"

#define JOBS 500

static uv_loop_t loop;
static struct worker *worker;
static pthread_t loop_thread;
static int ran, delivered; /* `ran` is read here only after the worker's lock was taken */

struct numbered {
    struct job job;
    int number;
    int again;     /* how often `done` submits it once more */
    int stop_here; /* `done` stops the worker */
    char thread_name[16];
};

static void numbered_run(struct job *job)
{
    struct numbered *n = CONTAINER_OF(job, struct numbered, job);
    assert(!pthread_equal(pthread_self(), loop_thread));
    pthread_getname_np(pthread_self(), n->thread_name, sizeof(n->thread_name));
    n->number = ran++;
}

static void numbered_done(struct job *job)
{
    struct numbered *n = CONTAINER_OF(job, struct numbered, job);
    assert_true(pthread_equal(pthread_self(), loop_thread));
    assert_int_equal(n->number, delivered);
    delivered++;
    if (n->again-- > 0)
        worker->submit(worker, &n->job);
    if (n->stop_here)
        worker_thread_stop(worker);
}

static int start(void **state)
{
    (void)state;
    struct error err;
    ran = delivered = 0;
    loop_thread = pthread_self();
    if (uv_loop_init(&loop))
        return -1;
    return worker_thread_start(&loop, "test-worker", &worker, &err);
}

static void submit(struct numbered *n)
{
    n->job.run = numbered_run;
    n->job.done = numbered_done;
    worker->submit(worker, &n->job);
}

static void end_loop(void)
{
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void idle_worker_lets_the_loop_end(void **state)
{
    (void)state;
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    worker_thread_stop(worker);
    end_loop();
}

static void jobs_run_and_come_back_in_order(void **state)
{
    (void)state;
    static struct numbered jobs[JOBS];
    memset(jobs, 0, sizeof(jobs));
    for (int i = 0; i < JOBS; i++)
        submit(&jobs[i]);
    /* Nothing else is on the loop: it ends when the last job has come back. */
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(delivered, JOBS);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(jobs[i].number, i);
    assert_string_equal(jobs[0].thread_name, "test-worker");
    worker_thread_stop(worker);
    end_loop();
}

static void done_may_submit_again(void **state)
{
    (void)state;
    struct numbered n = {.again = 100};
    submit(&n);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(delivered, 101);
    worker_thread_stop(worker);
    end_loop();
}

static void stop_runs_and_delivers_what_was_submitted(void **state)
{
    (void)state;
    static struct numbered jobs[JOBS];
    memset(jobs, 0, sizeof(jobs));
    for (int i = 0; i < JOBS; i++)
        submit(&jobs[i]);
    worker_thread_stop(worker);
    assert_int_equal(delivered, JOBS);
    end_loop();
}

/* The rest of a batch is delivered from inside the stop, not lost and not delivered twice. */
static void stop_may_come_from_done(void **state)
{
    (void)state;
    static struct numbered jobs[JOBS];
    memset(jobs, 0, sizeof(jobs));
    jobs[JOBS / 2].stop_here = 1;
    for (int i = 0; i < JOBS; i++)
        submit(&jobs[i]);
    end_loop();
    assert_int_equal(delivered, JOBS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(idle_worker_lets_the_loop_end, start),
        cmocka_unit_test_setup(jobs_run_and_come_back_in_order, start),
        cmocka_unit_test_setup(done_may_submit_again, start),
        cmocka_unit_test_setup(stop_runs_and_delivers_what_was_submitted, start),
        cmocka_unit_test_setup(stop_may_come_from_done, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
