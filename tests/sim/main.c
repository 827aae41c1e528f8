/* The simulator's command line: many seeds, each in a process of its own.
 *
 *     sim [--seeds N] [--seed S] [--minutes M] [--seconds T] [--nodes N] [--jobs J] [--trace]
 *         [--until-failure] [--scenario NAME]          scenario.h
 *     sim --steady [--hours H] [--seed S]     tests/sim/steady.h; in this process
 *
 * Seeds S, S + 1, ... until N are done or M minutes are over; T simulated seconds each. --seed alone runs
 * that one seed, --trace shows all that happens in it. Every 25th seed is run twice, and the two must
 * have the same trace. A crash, a failed assertion or a hang of the code under test is a failure of its
 * seed like a broken promise. Exit code: 0 if no seed failed, 1 if one did, 2 for bad usage. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/base/memory.h"
#include "tests/sim/steady.h"

#define SEED_SECONDS_MAX 240 /* of real time: a hang */
/* Pages that don't come from malloc, each with room for SQLite's header of it. */
#define SQLITE_PAGES 1024
#define SQLITE_PAGE_ROOM (4096 + 512)
#define TWICE_EVERY 25
#define JOBS_MAX 64
#define FAILURES_SHOWN 5

struct options {
    uint64_t seed, seeds, minutes, hours;
    struct sim_options sim;
    size_t jobs;
    bool trace, until_failure, steady;
};

struct running {
    pid_t pid; /* 0: free */
    uint64_t seed;
    bool again; /* a second run: its hash must be `expected` */
    uint64_t expected;
    int results;  /* read end */
    FILE *output; /* its standard error */
};

struct totals {
    uint64_t done, failed, twice;
    struct sim_result sum;
};

/* ---- the child ---------------------------------------------------------------------------------- */

static struct world *dying_world;

static void on_signal(int number)
{
    /* Not what a handler may do in general; it is the last thing that this process does. */
    signal(number, SIG_DFL);
    if (dying_world)
        world_story(dying_world, STORY_LINES);
    fprintf(stderr, "VIOLATION: the process got signal %d (%s)\n", number, strsignal(number));
    raise(number);
}

static void prepare_process(void)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        signal(signals[i], on_signal);
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static _Noreturn void run_child(const struct options *o, uint64_t seed, int out)
{
    struct sim_options options = o->sim;
    struct sim_result result = {0};
    options.seed = seed;
    options.loud = o->trace;
    prepare_process();
    mallopt(M_TRIM_THRESHOLD, 1 << 30); /* a short life: pages that were had are kept */
    mallopt(M_TOP_PAD, 4 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 28);
    static _Alignas(8) char pages[SQLITE_PAGES][SQLITE_PAGE_ROOM];
    sqlite3_config(SQLITE_CONFIG_PAGECACHE, pages, SQLITE_PAGE_ROOM, SQLITE_PAGES);
    alarm(SEED_SECONDS_MAX);
    sim_run(&options, &result, &dying_world);
    if (write(out, &result, sizeof(result)) != sizeof(result))
        _exit(3);
    exit(0);
}

/* ---- the parent --------------------------------------------------------------------------------- */

static void start(const struct options *o, struct running *r, uint64_t seed)
{
    int fds[2];
    r->output = tmpfile();
    if (!r->output || pipe(fds)) {
        perror("sim");
        exit(2);
    }
    r->seed = seed;
    r->results = fds[0];
    fflush(stdout);
    r->pid = fork();
    if (r->pid < 0) {
        perror("sim: fork");
        exit(2);
    }
    if (r->pid == 0) {
        close(fds[0]);
        if (!o->trace)
            dup2(fileno(r->output), STDERR_FILENO);
        run_child(o, seed, fds[1]);
    }
    close(fds[1]);
}

static void show(const struct options *o, const struct running *r, const struct totals *t)
{
    printf("FAILED seed %llu\n", (unsigned long long)r->seed);
    char line[1024];
    rewind(r->output);
    while (t->failed <= FAILURES_SHOWN && fgets(line, sizeof(line), r->output))
        printf("    %s", line);
    printf("    replay: build/tests/sim/sim --seed %llu --seconds %llu%s%.0llu --trace\n",
           (unsigned long long)r->seed, (unsigned long long)o->sim.seconds,
           o->sim.nodes ? " --nodes " : "", (unsigned long long)o->sim.nodes);
    fflush(stdout);
}

/* Takes a finished child in; true if it is to be run again. */
static bool take(const struct options *o, struct running *r, int status, struct totals *t)
{
    struct sim_result result = {0};
    bool good = read(r->results, &result, sizeof(result)) == sizeof(result) && WIFEXITED(status) &&
                WEXITSTATUS(status) == 0;
    close(r->results);
    bool differs = good && r->again && result.hash != r->expected;
    if (differs)
        fprintf(r->output, "VIOLATION: the same seed gave another trace\n");
    if (!good || differs) {
        t->failed++;
        show(o, r, t);
    }
    fclose(r->output);
    r->pid = 0;
    if (good && !r->again && r->seed % TWICE_EVERY == 0) {
        r->again = true;
        r->expected = result.hash;
        return true;
    }
    t->done++;
    t->twice += r->again;
    r->again = false;
    t->sum.events += result.events;
    t->sum.requests += result.requests;
    t->sum.refused += result.refused;
    t->sum.revisions += result.revisions;
    t->sum.undecided += result.undecided;
    return false;
}

static struct running *find(struct running *all, size_t count, pid_t pid)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].pid == pid)
            return &all[i];
    }
    return NULL;
}

static void run(const struct options *o, struct totals *t)
{
    static struct running all[JOBS_MAX];
    uint64_t next = 0, running = 0;
    time_t begun = time(NULL);
    for (;;) {
        bool over = next == o->seeds || (o->until_failure && t->failed) ||
                    (o->minutes && (uint64_t)(time(NULL) - begun) >= o->minutes * 60);
        struct running *idle = over ? NULL : find(all, o->jobs, 0);
        if (idle) {
            start(o, idle, o->seed + next++);
            running++;
            continue;
        }
        if (running == 0)
            return;
        int status;
        pid_t pid = wait(&status);
        struct running *r = find(all, o->jobs, pid);
        if (!r)
            continue;
        if (take(o, r, status, t))
            start(o, r, r->seed);
        else
            running--;
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: sim [--seeds N] [--seed S] [--minutes M] [--seconds T] [--nodes N] "
                    "[--jobs J] [--trace] [--until-failure]\n"
                    "           [--scenario hung-disk|figure-8|two-changes|prevote|"
                    "rotten-row|rotten-log|two-snapshots]\n"
                    "       sim --steady [--hours H] [--seed S]\n");
    return 2;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option list[] = {
        {"seeds", required_argument, NULL, 'n'},    {"seed", required_argument, NULL, 's'},
        {"minutes", required_argument, NULL, 'm'},  {"seconds", required_argument, NULL, 't'},
        {"nodes", required_argument, NULL, 'c'},    {"jobs", required_argument, NULL, 'j'},
        {"trace", no_argument, NULL, 'v'},          {"until-failure", no_argument, NULL, 'u'},
        {"scenario", required_argument, NULL, 'z'}, {"steady", no_argument, NULL, 'y'},
        {"hours", required_argument, NULL, 'h'},    {0},
    };
    bool has_seed = false, has_count = false;
    int option;
    while ((option = getopt_long(argc, argv, "", list, NULL)) != -1) {
        uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
        has_seed |= option == 's';
        has_count |= option == 'n' || option == 'm';
        switch (option) {
        case 'n':
            o->seeds = value;
            break;
        case 's':
            o->seed = value;
            break;
        case 'm':
            o->minutes = value;
            break;
        case 't':
            o->sim.seconds = value;
            break;
        case 'c':
            o->sim.nodes = value;
            break;
        case 'j':
            o->jobs = value;
            break;
        case 'v':
            o->trace = true;
            break;
        case 'z':
            o->sim.scenario = scenario_named(optarg);
            if (o->sim.scenario == SCENARIO_KINDS)
                return false;
            break;
        case 'y':
            o->steady = true;
            break;
        case 'h':
            o->hours = value;
            break;
        case 'u':
            o->until_failure = true;
            break;
        default:
            return false;
        }
    }
    if (has_seed && !has_count)
        o->seeds = 1;
    else if (o->minutes && !o->seeds)
        o->seeds = UINT64_MAX;
    else if (!o->seeds)
        o->seeds = 100;
    return optind == argc && o->jobs > 0 && o->jobs <= JOBS_MAX && o->sim.seconds > 0 &&
           o->sim.nodes <= 7;
}

int main(int argc, char **argv)
{
    struct options o = {.jobs = 2, .hours = 24, .sim.seconds = 60};
    o.seed = (uint64_t)time(NULL) * 1000003 % 1000000000;
    if (!parse(argc, argv, &o))
        return usage();
    if (o.steady) {
        printf("seed %llu, %llu simulated hours\n", (unsigned long long)o.seed,
               (unsigned long long)o.hours);
        prepare_process();
        int result = steady_run(o.seed, o.hours, &dying_world);
        return result == EINVAL ? usage() : result ? 1 : 0;
    }
    printf("seed %llu, %llu simulated seconds each\n", (unsigned long long)o.seed,
           (unsigned long long)o.sim.seconds);
    struct totals t = {0};
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    run(&o, &t);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%llu seeds in %.1f s, %llu failed, %llu run twice with the same trace; %llu events, "
           "%llu requests (%llu refused), %llu revisions, %llu histories not decided\n",
           (unsigned long long)t.done, seconds, (unsigned long long)t.failed,
           (unsigned long long)t.twice, (unsigned long long)t.sum.events,
           (unsigned long long)t.sum.requests, (unsigned long long)t.sum.refused,
           (unsigned long long)t.sum.revisions, (unsigned long long)t.sum.undecided);
    return t.failed ? 1 : 0;
}
