/* The simulator's command line: many seeds, each in a process of its own.
 *
 *     sim [--seeds N] [--seed S] [--minutes M] [--jobs J] [--until-failure] [--reduce | --no-reduce]
 *         [--seconds T] [--nodes N] [--clients N] [--scenario NAME] [--without FAULT,...] [--trace]
 *     sim --steady [--hours H] [--seed S]     tests/sim/steady.h; in this process
 *
 * Seeds S, S + 1, ... until N are done or M minutes are over; T simulated seconds each. --seed alone runs
 * that one seed, --trace shows all that happens in it. Every 25th seed is run twice, and the two must
 * have the same trace. A seed that fails prints its story (story.h) and the command that replays it; a single one
 * is made smaller first (reduce.h), with --reduce every one. Exit code: 0 if no seed failed, 1 if one did,
 * 2 for bad usage. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#include "lib/base/memory.h"
#include "tests/sim/reduce.h"
#include "tests/sim/steady.h"

typedef unsigned long long ull;

#define TWICE_EVERY 25
#define JOBS_MAX 64
#define FAILURES_SHOWN 5

struct options {
    const char *program;
    uint64_t seed, seeds, minutes, hours;
    struct sim_options sim;
    size_t jobs;
    bool until_failure, steady, reduce;
};

struct running {
    struct runner runner;
    uint64_t seed;
    bool again; /* a second run: its hash must be `expected` */
    uint64_t expected;
};

struct totals {
    uint64_t done, failed, twice;
    struct sim_result sum;
};

/* ---- a failure ---------------------------------------------------------------------------------- */

static void print_output(FILE *output)
{
    char line[1024];
    rewind(output);
    while (fgets(line, sizeof(line), output))
        printf("    %s", line);
}

static void print_replay(const struct options *o, const struct sim_options *s)
{
    const char *mutant = getenv("QUORUMFS_MUTANT");
    char without[1024];
    printf("    replay: ");
    if (mutant)
        printf("QUORUMFS_MUTANT=%s ", mutant);
    printf("%s --seed %llu --seconds %llu", o->program, (ull)s->seed, (ull)s->seconds);
    if (s->nodes)
        printf(" --nodes %zu", s->nodes);
    if (s->clients)
        printf(" --clients %zu", s->clients);
    if (s->scenario)
        printf(" --scenario %s", scenario_name(s->scenario));
    without_print(s->without, without, sizeof(without));
    if (without[0])
        printf(" --without %s", without);
    printf("\n");
}

static void try_run(void *ctx, const struct sim_options *o, struct verdict *ret_verdict)
{
    (void)ctx;
    struct runner r = {0};
    runner_run(&r, o, ret_verdict);
    runner_free(&r);
}

static void print_kinds(const char *what, uint64_t kinds)
{
    char names[1024];
    without_print(kinds, names, sizeof(names));
    printf("    %s: %s\n", what, names[0] ? names : "none");
}

/* Prints the story of the smallest run that breaks the same; false: the seed's own run is it. */
static bool show_reduced(const struct options *o, const struct sim_options *failed,
                         const struct verdict *v)
{
    struct sim_drawn drawn;
    struct reduction small;
    struct runner r = {0};
    struct verdict last;
    sim_draw(failed, &drawn);
    reduce(failed, v, &drawn, try_run, NULL, &small);
    printf("    %zu runs to make it smaller\n", small.tries);
    if (!small.smaller)
        return false;
    print_kinds("left out", small.options.without & drawn.kinds);
    print_kinds("needed", drawn.kinds & ~small.options.without);
    runner_run(&r, &small.options, &last);
    print_output(r.output);
    runner_free(&r);
    print_replay(o, &small.options);
    return true;
}

static void show(const struct options *o, struct running *r, const struct verdict *v,
                 const struct totals *t)
{
    struct sim_options options = o->sim;
    options.seed = r->seed;
    printf("FAILED seed %llu\n", (ull)r->seed);
    if (t->failed > FAILURES_SHOWN) {
        print_replay(o, &options);
    } else if (v->good || !o->reduce || !show_reduced(o, &options, v)) {
        print_output(r->runner.output);
        print_replay(o, &options);
    }
    fflush(stdout);
}

/* ---- many seeds --------------------------------------------------------------------------------- */

static void start(const struct options *o, struct running *r, uint64_t seed)
{
    struct sim_options options = o->sim;
    r->seed = options.seed = seed;
    runner_start(&r->runner, &options);
}

/* Takes a finished child in; true if it is to be run again. */
static bool take(const struct options *o, struct running *r, int status, struct totals *t)
{
    struct verdict v;
    runner_take(&r->runner, status, &v);
    bool differs = v.good && r->again && v.result.hash != r->expected;
    if (differs)
        fprintf(r->runner.output, "VIOLATION: the same seed gave another trace\n");
    if (!v.good || differs) {
        t->failed++;
        show(o, r, &v, t);
    }
    runner_free(&r->runner);
    if (v.good && !r->again && r->seed % TWICE_EVERY == 0) {
        r->again = true;
        r->expected = v.result.hash;
        return true;
    }
    t->done++;
    t->twice += r->again;
    r->again = false;
    t->sum.events += v.result.events;
    t->sum.requests += v.result.requests;
    t->sum.refused += v.result.refused;
    t->sum.revisions += v.result.revisions;
    t->sum.undecided += v.result.undecided;
    t->sum.snapshots.streams += v.result.snapshots.streams;
    t->sum.snapshots.resumed += v.result.snapshots.resumed;
    t->sum.snapshots.whole += v.result.snapshots.whole;
    t->sum.snapshots.bytes += v.result.snapshots.bytes;
    t->sum.snapshots.bytes_again += v.result.snapshots.bytes_again;
    return false;
}

static struct running *find(struct running *all, size_t count, pid_t pid)
{
    for (size_t i = 0; i < count; i++) {
        if (all[i].runner.pid == pid)
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

/* ---- the command line --------------------------------------------------------------------------- */

static int usage(FILE *out)
{
    fprintf(out, "usage: sim [--seeds N] [--seed S] [--minutes M] [--jobs J] [--until-failure] "
                 "[--reduce | --no-reduce]\n"
                 "           [--seconds T] [--nodes N] [--clients N] [--scenario NAME] "
                 "[--without FAULT,...] [--trace]\n"
                 "       sim --steady [--hours H] [--seed S]\n"
                 "scenarios:");
    for (size_t i = SCENARIO_NONE + 1; i < SCENARIO_KINDS; i++)
        fprintf(out, " %s", scenario_name((enum scenario_kind)i));
    fprintf(out, "\nfaults:");
    for (size_t i = 0; i < without_count(); i++)
        fprintf(out, "%s%s", i % 10 == 0 && i > 0 ? "\n        " : " ", without_name(i));
    fprintf(out, "\n");
    return 2;
}

/* What concerns each run. */
static bool parse_run(int option, uint64_t value, struct sim_options *s)
{
    switch (option) {
    case 't':
        s->seconds = value;
        return value > 0;
    case 'c':
        s->nodes = value;
        return value <= 7;
    case 'k':
        s->clients = value;
        return value <= CLIENTS_MAX;
    case 'v':
        s->loud = true;
        return true;
    case 'z':
        s->scenario = scenario_named(optarg);
        return s->scenario != SCENARIO_KINDS;
    case 'w':
        return without_parse(optarg, &s->without);
    default:
        return false;
    }
}

static bool parse_one(int option, struct options *o)
{
    uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
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
    case 'j':
        o->jobs = value;
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
        return parse_run(option, value, &o->sim);
    }
    return true;
}

static bool parse(int argc, char **argv, struct options *o)
{
    static const struct option list[] = {
        {"seeds", required_argument, NULL, 'n'},   {"seed", required_argument, NULL, 's'},
        {"minutes", required_argument, NULL, 'm'}, {"seconds", required_argument, NULL, 't'},
        {"nodes", required_argument, NULL, 'c'},   {"clients", required_argument, NULL, 'k'},
        {"jobs", required_argument, NULL, 'j'},    {"trace", no_argument, NULL, 'v'},
        {"until-failure", no_argument, NULL, 'u'}, {"scenario", required_argument, NULL, 'z'},
        {"without", required_argument, NULL, 'w'}, {"reduce", no_argument, NULL, 'r'},
        {"no-reduce", no_argument, NULL, 'R'},     {"steady", no_argument, NULL, 'y'},
        {"hours", required_argument, NULL, 'h'},   {0},
    };
    bool has_seed = false, has_count = false;
    int option, reduces = -1;
    while ((option = getopt_long(argc, argv, "", list, NULL)) != -1) {
        has_seed |= option == 's';
        has_count |= option == 'n' || option == 'm';
        if (option == 'r' || option == 'R')
            reduces = option == 'r';
        else if (!parse_one(option, o))
            return false;
    }
    if (has_seed && !has_count)
        o->seeds = 1;
    else if (o->minutes && !o->seeds)
        o->seeds = UINT64_MAX;
    else if (!o->seeds)
        o->seeds = 100;
    o->reduce = !o->sim.loud && (reduces >= 0 ? reduces : o->seeds == 1);
    return optind == argc && o->jobs > 0 && o->jobs <= JOBS_MAX;
}

int main(int argc, char **argv)
{
    struct options o = {.program = argv[0], .jobs = 2, .hours = 24, .sim.seconds = 60};
    o.seed = (uint64_t)time(NULL) * 1000003 % 1000000000;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return 0;
    }
    if (!parse(argc, argv, &o))
        return usage(stderr);
    if (o.steady) {
        printf("seed %llu, %llu simulated hours\n", (ull)o.seed, (ull)o.hours);
        runner_prepare_process();
        int result = steady_run(o.seed, o.hours, &runner_world);
        return result == EINVAL ? usage(stderr) : result ? 1 : 0;
    }
    printf("seed %llu, %llu simulated seconds each\n", (ull)o.seed, (ull)o.sim.seconds);
    struct totals t = {0};
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    run(&o, &t);
    clock_gettime(CLOCK_MONOTONIC, &to);
    double seconds = (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
    printf("%llu seeds in %.1f s, %llu failed, %llu run twice with the same trace; %llu events, "
           "%llu requests (%llu refused), %llu revisions, %llu histories not decided\n",
           (ull)t.done, seconds, (ull)t.failed, (ull)t.twice, (ull)t.sum.events,
           (ull)t.sum.requests, (ull)t.sum.refused, (ull)t.sum.revisions, (ull)t.sum.undecided);
    const struct snapshot_stats *c = &t.sum.snapshots;
    printf("%llu snapshots in %llu streams, %llu of them resumed; %llu bytes sent, %llu of them "
           "again\n",
           (ull)c->whole, (ull)c->streams, (ull)c->resumed, (ull)c->bytes, (ull)c->bytes_again);
    return t.failed ? 1 : 0;
}
