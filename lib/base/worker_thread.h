/* A worker (worker.h) that is a thread, with its completions delivered on a libuv loop.
 *
 * The queue has no bound of its own: a job's memory is its submitter's, so each submitter bounds what
 * it has under way (the log one batch, the store its transactions), and a full queue here could only
 * block the loop. `done` may submit again. The thread takes no signals. */
#ifndef BASE_WORKER_THREAD_H
#define BASE_WORKER_THREAD_H

#include <uv.h>

#include "lib/base/error.h"
#include "lib/base/worker.h"

/* Starts the thread, named `name` (at most 15 bytes) in ps and gdb. The worker keeps `loop` alive only
 * while jobs are under way. */
enum errc worker_thread_start(uv_loop_t *loop, const char *name, struct worker **ret_worker,
                              struct error *err);

/* Waits until all submitted jobs have run, ends the thread and frees the worker. Call it on the loop
 * thread (a `done` may); the `done` of each job that has not been delivered is called before it
 * returns, and must not submit any more. The loop must run once more afterwards to let go of its
 * handle. */
void worker_thread_stop(struct worker *worker);

#endif
