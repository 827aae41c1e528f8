#include "tests/sim/runner.h"

#include <ctype.h>
#include <malloc.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/memory.h"

#define SEED_SECONDS_MAX 240 /* of real time: a hang */
/* Pages that don't come from malloc, each with room for SQLite's header of it. */
#define SQLITE_PAGES 1024
#define SQLITE_PAGE_ROOM (4096 + 512)

struct world *runner_world;

/* ---- the child ---------------------------------------------------------------------------------- */

static void on_signal(int number)
{
    /* Not what a handler may do in general; it is the last thing that this process does. */
    signal(number, SIG_DFL);
    if (runner_world)
        world_story(runner_world, NULL);
    fprintf(stderr, "VIOLATION: the process got signal %d (%s)\n", number, strsignal(number));
    raise(number);
}

void runner_prepare_process(void)
{
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGALRM};
    for (size_t i = 0; i < ARRAY_LEN(signals); i++)
        signal(signals[i], on_signal);
    sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static _Noreturn void run_child(const struct sim_options *o, int out)
{
    struct sim_result result = {0};
    runner_prepare_process();
    mallopt(M_TRIM_THRESHOLD, 1 << 30); /* a short life: pages that were had are kept */
    mallopt(M_TOP_PAD, 4 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 28);
    static _Alignas(8) char pages[SQLITE_PAGES][SQLITE_PAGE_ROOM];
    sqlite3_config(SQLITE_CONFIG_PAGECACHE, pages, SQLITE_PAGE_ROOM, SQLITE_PAGES);
    alarm(SEED_SECONDS_MAX);
    sim_run(o, &result, &runner_world);
    if (write(out, &result, sizeof(result)) != sizeof(result))
        _exit(3);
    exit(0);
}

/* ---- the parent --------------------------------------------------------------------------------- */

void runner_start(struct runner *r, const struct sim_options *o)
{
    int fds[2];
    r->output = tmpfile();
    if (!r->output || pipe(fds)) {
        perror("sim");
        exit(2);
    }
    r->results = fds[0];
    fflush(stdout);
    r->pid = fork();
    if (r->pid < 0) {
        perror("sim: fork");
        exit(2);
    }
    if (r->pid == 0) {
        close(fds[0]);
        if (!o->loud)
            dup2(fileno(r->output), STDERR_FILENO);
        run_child(o, fds[1]);
    }
    close(fds[1]);
}

/* Numbers differ from run to run: each becomes a "#". */
static void take_promise(const char *text, struct verdict *v)
{
    size_t n = 0;
    while (*text && *text != '\n' && n + 1 < sizeof(v->promise)) {
        bool digit = isdigit((unsigned char)*text);
        v->promise[n++] = digit ? '#' : *text;
        text += digit ? strspn(text, "0123456789") : 1;
    }
    v->promise[n] = '\0';
}

static void read_violation(FILE *output, struct verdict *v)
{
    char line[1024];
    rewind(output);
    while (fgets(line, sizeof(line), output)) {
        unsigned long long seconds, us;
        const char *text = strchr(line, ':');
        if (strncmp(line, "VIOLATION", 9) != 0 || !text)
            continue;
        take_promise(text + 1, v);
        if (sscanf(line, "VIOLATION at %llu.%llu s:", &seconds, &us) == 2)
            v->at_seconds = seconds + 1;
    }
}

void runner_take(struct runner *r, int status, struct verdict *ret_verdict)
{
    struct verdict v = {0};
    v.good = read(r->results, &v.result, sizeof(v.result)) == sizeof(v.result) &&
             WIFEXITED(status) && WEXITSTATUS(status) == 0;
    close(r->results);
    v.hung = WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
    if (!v.good)
        read_violation(r->output, &v);
    if (!v.good && !v.promise[0]) /* a sanitizer, say: its report is in the output */
        snprintf(v.promise, sizeof(v.promise), "the process ended with status %d", status);
    r->pid = 0;
    *ret_verdict = v;
}

void runner_free(struct runner *r)
{
    if (r->output)
        fclose(r->output);
    r->output = NULL;
}

void runner_run(struct runner *r, const struct sim_options *o, struct verdict *ret_verdict)
{
    int status;
    runner_start(r, o);
    while (waitpid(r->pid, &status, 0) != r->pid)
        ;
    runner_take(r, status, ret_verdict);
}
