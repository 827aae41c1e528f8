/* The server in a thread of its own: the mount's embedded mode. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/server/server_internal.h"
#include "lib/base/thread.h"

#define ELECTED_POLL_MS 5
#define ELECTED_MAX_MS 10000 /* a cluster of one elects itself within two election timeouts */

struct server_thread {
    pthread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    uv_timer_t watch;                   /* for the election */
    const struct server_config *config; /* the starter's, until it is told */
    struct server *server;              /* NULL: not started or ended */
    uint64_t give_up_ms;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t told;
    bool started; /* or failed: the starter goes on */
    bool ended;
    struct error why;
};

static void tell(struct server_thread *t, const struct error *why, bool ended)
{
    pthread_mutex_lock(&t->lock);
    t->started = true;
    t->ended |= ended;
    if (why && !t->why.code)
        t->why = *why;
    pthread_cond_broadcast(&t->told);
    pthread_mutex_unlock(&t->lock);
}

static void close_handles(struct server_thread *t)
{
    if (!uv_is_closing((uv_handle_t *)&t->stop))
        uv_close((uv_handle_t *)&t->stop, NULL);
    if (!uv_is_closing((uv_handle_t *)&t->watch))
        uv_close((uv_handle_t *)&t->watch, NULL);
}

static void on_stopped(void *ctx, const struct error *why)
{
    struct server_thread *t = ctx;
    t->server = NULL;
    tell(t, why, true);
    close_handles(t);
    if (why)
        uv_stop(&t->loop); /* handles of a disk that failed may be left */
}

static void on_stop(uv_async_t *async)
{
    struct server_thread *t = async->data;
    if (t->server)
        server_stop(t->server);
}

static void on_watch(uv_timer_t *timer)
{
    struct server_thread *t = timer->data;
    struct raft_status status = {0};
    if (t->server && t->server->replica)
        replica_status(t->server->replica, &status);
    if (status.leader) {
        uv_timer_stop(timer);
        tell(t, NULL, false);
    } else if (uv_now(&t->loop) >= t->give_up_ms) {
        struct error why;
        error_set(&why, ERR_NO_LEADER, "%s: no leader within %d s: look at the log",
                  t->config->data_dir, ELECTED_MAX_MS / 1000);
        uv_timer_stop(timer);
        tell(t, &why, false);
    }
}

static void *thread_main(void *arg)
{
    struct server_thread *t = arg;
    struct error err;
    if (server_start(&t->loop, t->config, &t->server, on_stopped, t, &err)) {
        tell(t, &err, true);
        close_handles(t);
    } else {
        uv_update_time(&t->loop);
        t->give_up_ms = uv_now(&t->loop) + ELECTED_MAX_MS;
        uv_timer_start(&t->watch, on_watch, 0, ELECTED_POLL_MS);
    }
    uv_run(&t->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void thread_free(struct server_thread *t)
{
    uv_loop_close(&t->loop); /* after a disk failure some handles are left: the process ends then */
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->told);
    free(t);
}

enum errc server_thread_start(const struct server_config *config, struct server_thread **ret_thread,
                              struct error *err)
{
    struct server_thread *t = xcalloc(1, sizeof(*t));
    t->config = config;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->told, NULL);
    uv_loop_init(&t->loop);
    uv_async_init(&t->loop, &t->stop, on_stop);
    uv_timer_init(&t->loop, &t->watch);
    t->stop.data = t->watch.data = t;
    int rc = thread_start(&t->thread, "quorumd", thread_main, t);
    if (rc) {
        close_handles(t);
        uv_run(&t->loop, UV_RUN_DEFAULT);
        thread_free(t);
        return error_set(err, ERR_INTERNAL, "start a thread: %s", strerror(rc));
    }
    pthread_mutex_lock(&t->lock);
    while (!t->started)
        pthread_cond_wait(&t->told, &t->lock);
    struct error why = t->why;
    pthread_mutex_unlock(&t->lock);
    if (why.code) {
        server_thread_stop(t);
        return error_set(err, why.code, "%s", why.message);
    }
    *ret_thread = t;
    return ERR_OK;
}

bool server_thread_failed(struct server_thread *t, struct error *ret_why)
{
    pthread_mutex_lock(&t->lock);
    bool ended = t->ended;
    if (ended && ret_why)
        *ret_why = t->why;
    pthread_mutex_unlock(&t->lock);
    return ended;
}

void server_thread_stop(struct server_thread *t)
{
    pthread_mutex_lock(&t->lock);
    if (!t->ended)
        uv_async_send(&t->stop);
    pthread_mutex_unlock(&t->lock);
    pthread_join(t->thread, NULL);
    thread_free(t);
}
