/* A worker (lib/base/worker.h) without a thread: its owner decides when a job runs and when its
 * completion is delivered, so a test or the simulator's scheduler can put anything in between.
 *
 * Jobs run in the order of submission, completions are delivered in the order of the runs; a job may be
 * submitted from a completion. One thread. */
#ifndef SIM_SIMWORKER_H
#define SIM_SIMWORKER_H

#include <stdbool.h>
#include <stddef.h>

#include "lib/base/worker.h"

struct simworker {
    struct worker base;
    struct job *waiting, **waiting_end; /* submitted, not run */
    struct job *ran, **ran_end;         /* run, completion not delivered */
    size_t submitted;                   /* ever, to see that something was */
    bool
        eager; /* a job runs as soon as it is submitted, as if a thread did it while the caller waits */
};

void simworker_init(struct simworker *w);

bool simworker_can_run(const struct simworker *w);
bool simworker_can_deliver(const struct simworker *w);

/* The oldest job's run(), or the oldest completion's done(); false if there is none. */
bool simworker_run(struct simworker *w);
bool simworker_deliver(struct simworker *w);

/* Both for one job: delivers a completion if one waits, else runs a job and delivers it. */
bool simworker_run_one(struct simworker *w);

/* Until nothing is left; returns how many completions were delivered. Ends a log or a store that has been
 * closed, also after a crash (its jobs then fail on the crashed disk). */
size_t simworker_drain(struct simworker *w);

#endif
