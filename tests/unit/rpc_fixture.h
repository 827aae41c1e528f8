/* A server and a channel on one loop, and records of what their callbacks said. */
#ifndef TESTS_RPC_FIXTURE_H
#define TESTS_RPC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/rpc/rpc.h"

#define UNUSED_FN __attribute__((unused))

/* Runs the loop until the condition holds; a test that waits in vain fails instead of hanging. */
#define RUN_UNTIL(loop, condition)                                                                 \
    do {                                                                                           \
        uint64_t give_up = uv_hrtime() + 30ull * 1000 * 1000 * 1000;                               \
        uv_timer_t tick;                                                                           \
        uv_timer_init(loop, &tick);                                                                \
        uv_timer_start(&tick, fixture_tick, 10, 10);                                               \
        while (!(condition)) {                                                                     \
            uv_run(loop, UV_RUN_ONCE);                                                             \
            if (uv_hrtime() > give_up)                                                             \
                fail_msg("waited in vain for: %s", #condition);                                    \
        }                                                                                          \
        fixture_close(loop, (uv_handle_t *)&tick);                                                 \
    } while (0)

static UNUSED_FN void fixture_tick(uv_timer_t *timer)
{
    (void)timer;
}

static UNUSED_FN void fixture_closed(uv_handle_t *handle)
{
    handle->data = NULL;
}

static UNUSED_FN void fixture_close(uv_loop_t *loop, uv_handle_t *handle)
{
    handle->data = loop;
    uv_close(handle, fixture_closed);
    while (handle->data)
        uv_run(loop, UV_RUN_NOWAIT);
}

struct fixture {
    uv_loop_t loop;
    struct rpc_server *server;
    bool stopped;
    char url[256];
    struct rpc_channel *channel;
    int ups, downs;
    bool refused; /* of the last down */
    char reason[256];
    int log_lines;
    char log_line[256];
};

static UNUSED_FN void fixture_on_state(void *ctx, struct rpc_channel *ch, bool up, bool refused,
                                       const char *reason)
{
    struct fixture *f = ctx;
    (void)ch;
    if (up) {
        f->ups++;
        return;
    }
    f->downs++;
    f->refused = refused;
    snprintf(f->reason, sizeof f->reason, "%s", reason);
}

static UNUSED_FN void fixture_on_log(void *ctx, const char *text)
{
    struct fixture *f = ctx;
    f->log_lines++;
    snprintf(f->log_line, sizeof f->log_line, "%s", text);
}

static UNUSED_FN void fixture_on_stopped(void *ctx)
{
    struct fixture *f = ctx;
    f->stopped = true;
    f->server = NULL;
}

static UNUSED_FN void fixture_start(struct fixture *f, const char *listen_url,
                                    const struct rpc_server_config *server_config,
                                    const struct rpc_channel_config *channel_config,
                                    const struct rpc_method *methods, size_t count, void *service)
{
    struct rpc_server_config sc = server_config ? *server_config : (struct rpc_server_config){0};
    struct rpc_channel_config cc =
        channel_config ? *channel_config : (struct rpc_channel_config){0};
    struct error err = {0};
    memset(f, 0, sizeof *f);
    uv_loop_init(&f->loop);
    sc.log = fixture_on_log;
    cc.state = fixture_on_state;
    sc.log_ctx = cc.ctx = f;
    f->server = rpc_server_new(&f->loop, &sc);
    rpc_server_add(f->server, methods, count, service);
    if (rpc_server_listen(f->server, listen_url, f->url, &err) != ERR_OK)
        fail_msg("%s", err.message);
    f->channel = rpc_channel_new(&f->loop, f->url, &cc);
}

static UNUSED_FN void fixture_stop_server(struct fixture *f, uint64_t grace_ms)
{
    f->stopped = false;
    rpc_server_stop(f->server, grace_ms, fixture_on_stopped, f);
}

/* Also proves that nothing is left: the loop must close. */
static UNUSED_FN void fixture_end(struct fixture *f)
{
    rpc_channel_free(f->channel);
    if (f->server && !f->stopped) {
        fixture_stop_server(f, 0);
        RUN_UNTIL(&f->loop, f->stopped);
    }
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
}

/* What one unary call answered. */
struct result {
    int count;
    int status;
    char text[256];
    bool sent;
    uint8_t *answer;
    size_t answer_n;
};

static UNUSED_FN void result_done(void *ctx, int status, const char *text, struct bytes answer,
                                  bool sent)
{
    struct result *r = ctx;
    r->count++;
    r->status = status;
    snprintf(r->text, sizeof r->text, "%s", text);
    r->sent = sent;
    free(r->answer);
    r->answer = bytes_dup(answer);
    r->answer_n = answer.n;
}

static UNUSED_FN void result_free(struct result *r)
{
    free(r->answer);
    r->answer = NULL;
}

#endif
