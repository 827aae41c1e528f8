/* quorumd: one member of a cluster. Exit codes: 0 stopped as asked, 1 it can't run (of --rescue:
 * something was lost), 2 a wrong setting. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "daemon/server/config.h"
#include "daemon/server/rescue.h"
#include "daemon/server/restore.h"
#include "daemon/server/server.h"
#include "lib/base/memory.h"

struct program {
    uv_loop_t loop;
    uv_signal_t signals[2];
    struct server *server;
    struct error failure; /* code: why it ends */
};

extern char **environ;

static void on_stopped(void *ctx, const struct error *why)
{
    struct program *p = ctx;
    p->server = NULL;
    for (size_t i = 0; i < ARRAY_LEN(p->signals); i++)
        uv_close((uv_handle_t *)&p->signals[i], NULL);
    if (!why) {
        log_info("server", "stopped");
        return;
    }
    p->failure = *why;
    /* After a failure handles of the store and the log may be left, whose disk must not be touched. */
    uv_stop(&p->loop);
}

/* The first signal asks, the second one doesn't wait. */
static void on_signal(uv_signal_t *handle, int number)
{
    struct program *p = handle->data;
    static int count;
    if (count++ > 0) {
        log_warn("server", "stopped at once by a second signal");
        _Exit(1);
    }
    log_info("server", "stopping signal=%s", strsignal(number));
    if (p->server)
        server_stop(p->server);
}

/* What the server left behind when it failed (its threads, open files) goes with the process image; process id,
 * settings and standard streams stay. */
static void restart(char **argv)
{
    execv("/proc/self/exe", argv);
    fprintf(stderr, "quorumd: start anew: %s: start it again by hand\n", strerror(errno));
}

/* Damaged data is no end if there are other members to come back from. */
static int end(const struct config *c, const struct error *failure, char **argv)
{
    struct error err = *failure;
    if (failure->code == ERR_CORRUPT && server_heal(&c->server, failure, &err))
        restart(argv);
    else
        fprintf(stderr, "quorumd: %s\n", err.message);
    return 1;
}

static int run(const struct config *c, char **argv)
{
    struct program p = {0};
    uv_loop_init(&p.loop);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < ARRAY_LEN(p.signals); i++) {
        uv_signal_init(&p.loop, &p.signals[i]);
        p.signals[i].data = &p;
        uv_signal_start(&p.signals[i], on_signal, i ? SIGTERM : SIGINT);
    }
    struct error err;
    if (server_start(&p.loop, &c->server, &p.server, on_stopped, &p, &err)) {
        p.failure = err;
        for (size_t i = 0; i < ARRAY_LEN(p.signals); i++)
            uv_close((uv_handle_t *)&p.signals[i], NULL);
    }
    uv_run(&p.loop, UV_RUN_DEFAULT);
    uv_loop_close(&p.loop);
    return p.failure.code ? end(c, &p.failure, argv) : 0;
}

/* Prints what was found, and why it ended; the process's exit code. */
static int tell(struct buf *report, enum errc code, const struct error *err)
{
    if (report->n > 0)
        fwrite(report->p, 1, report->n, stdout);
    buf_free(report);
    if (code)
        fprintf(stderr, "quorumd: %s\n", err->message);
    return code == ERR_OK ? 0 : code == ERR_INVALID ? 2 : 1;
}

static int rescue(const struct config *c)
{
    struct buf report = {0};
    struct error err = {0};
    bool lost = false;
    enum errc code = server_rescue(&c->server, c->rescue_dir, &report, &lost, &err);
    int exit_code = tell(&report, code, &err);
    if (code)
        return exit_code;
    printf("%s: start quorumd with the same settings and --data-dir %s\n",
           lost ? "not all was rescued, see above" : "all was rescued", c->rescue_dir);
    return lost;
}

static int restore(const struct config *c)
{
    struct buf report = {0};
    struct error err = {0};
    enum errc code = server_restore(&c->server, c->restore_file, &report, &err);
    int exit_code = tell(&report, code, &err);
    if (code == ERR_OK)
        printf("start quorumd with the same settings\n");
    return exit_code;
}

static void log_notes(const struct config *c)
{
    char *notes = (char *)bytes_dup(buf_bytes(&c->notes)), *save;
    for (char *line = strtok_r(notes, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        log_warn("config", "%s", line);
    free(notes);
}

int main(int argc, char **argv)
{
    struct config c;
    struct error err;
    int exit_code = 0;
    if (config_parse(&c, argc, argv, environ, &err)) {
        fprintf(stderr, "quorumd: %s\n", err.message);
        exit_code = 2;
    } else if (c.action == CONFIG_HELP) {
        struct buf text = {0};
        config_help(&text);
        fwrite(text.p, 1, text.n, stdout);
        buf_free(&text);
    } else if (c.action == CONFIG_VERSION) {
        printf("quorumd Version: %s\n", QUORUMFS_VERSION);
    } else if (c.action == CONFIG_RESCUE) {
        exit_code = rescue(&c);
    } else if (c.action == CONFIG_RESTORE) {
        exit_code = restore(&c);
    } else {
        log_set_level(c.log_level);
        log_notes(&c);
        exit_code = run(&c, argv);
    }
    config_free(&c);
    return exit_code;
}
