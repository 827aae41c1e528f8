/* quorumd: one member of a cluster. Exit codes: 0 stopped as asked, 1 it can't run, 2 a wrong setting. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "daemon/server/config.h"
#include "daemon/server/server.h"
#include "lib/base/memory.h"

struct program {
    uv_loop_t loop;
    uv_signal_t signals[2];
    struct server *server;
    int exit_code;
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
    fprintf(stderr, "quorumd: %s\n", why->message);
    p->exit_code = 1;
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

static int run(const struct config *c)
{
    struct program p = {0};
    struct error err;
    uv_loop_init(&p.loop);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < ARRAY_LEN(p.signals); i++) {
        uv_signal_init(&p.loop, &p.signals[i]);
        p.signals[i].data = &p;
        uv_signal_start(&p.signals[i], on_signal, i ? SIGTERM : SIGINT);
    }
    enum errc e = server_start(&p.loop, &c->server, &p.server, on_stopped, &p, &err);
    if (e) {
        fprintf(stderr, "quorumd: %s\n", err.message);
        for (size_t i = 0; i < ARRAY_LEN(p.signals); i++)
            uv_close((uv_handle_t *)&p.signals[i], NULL);
        p.exit_code = 1;
    }
    uv_run(&p.loop, UV_RUN_DEFAULT);
    uv_loop_close(&p.loop);
    return p.exit_code;
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
    } else {
        log_set_level(c.log_level);
        log_notes(&c);
        exit_code = run(&c);
    }
    config_free(&c);
    return exit_code;
}
