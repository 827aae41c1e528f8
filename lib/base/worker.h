/* Work off the loop thread, as an interface. The log and the store each have one worker: a thread in
 * production (worker_thread.h), scheduled by the seed in the simulator.
 *
 * A job is submitted by the loop thread; `run` is called on the worker, jobs one after another in the
 * order of submission; then `done` is called on the loop thread, in the same order. The submitter owns
 * the job's memory and may free or reuse it from `done` on. */
#ifndef BASE_WORKER_H
#define BASE_WORKER_H

struct job {
    void (*run)(struct job *);  /* on the worker: may block, must not touch the loop's state */
    void (*done)(struct job *); /* on the loop thread */
    struct job *next;           /* the worker's own */
};

struct worker {
    void (*submit)(struct worker *, struct job *);
};

#endif
