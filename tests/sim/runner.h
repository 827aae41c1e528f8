/* One run of one seed in a process of its own: a crash, a failed assertion or a hang of the code under test ends that
 * process, and is a failure of its seed like a broken promise. */
#ifndef SIM_RUNNER_H
#define SIM_RUNNER_H

#include <stdio.h>
#include <sys/types.h>

#include "tests/sim/sim.h"

struct runner {
    pid_t pid;    /* 0: free */
    int results;  /* read end */
    FILE *output; /* its standard error; the runner's until runner_free() */
};

struct verdict {
    bool good;
    bool hung; /* it took so long in real time that it was ended */
    /* Bad: what was broken, with "#" for every number: two runs with the same text broke the same. */
    char promise[256];
    uint64_t at_seconds; /* simulated, rounded up; 0: not known */
    struct sim_result result;
};

/* Of this process, before sim_run(): SQLite, and what a signal of the code under test prints (the story of
 * *runner_world, if it isn't NULL). */
void runner_prepare_process(void);
extern struct world *runner_world;

void runner_start(struct runner *r, const struct sim_options *o); /* loud: it prints at once */
/* It has ended with `status` (waitpid). */
void runner_take(struct runner *r, int status, struct verdict *ret_verdict);
void runner_free(struct runner *r);

/* Starts, waits, takes; the output is there until runner_free(). */
void runner_run(struct runner *r, const struct sim_options *o, struct verdict *ret_verdict);

#endif
