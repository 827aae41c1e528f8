#include "lib/rpc/server.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

static void on_grace_over(struct deadline *d)
{
    struct rpc_server *s = CONTAINER_OF(d, struct rpc_server, grace);
    LIST_FOR_EACH_SAFE(it, tmp, &s->conns)
    {
        struct server_conn *sc = CONTAINER_OF(it, struct server_conn, link);
        conn_flush_now(&sc->c);
    }
    while (!list_empty(&s->conns)) {
        struct server_conn *sc = CONTAINER_OF(s->conns.next, struct server_conn, link);
        list_remove(&sc->link);
        conn_end(&sc->c, false, "the server stopped");
    }
}

struct rpc_server *rpc_server_new(uv_loop_t *loop, const struct rpc_server_config *config)
{
    struct rpc_server *s = xcalloc(1, sizeof *s);
    s->loop = loop;
    if (config)
        s->config = *config;
    if (!s->config.message_max)
        s->config.message_max = RPC_MESSAGE_MAX_DEFAULT;
    if (!s->config.streams_max)
        s->config.streams_max = SERVER_STREAMS_MAX_DEFAULT;
    if (!s->config.connections_max)
        s->config.connections_max = SERVER_CONNECTIONS_MAX_DEFAULT;
    turn_init(&s->turn, loop);
    deadlines_init(&s->deadlines, loop);
    deadline_init(&s->grace, on_grace_over);
    s->handles = 2;
    s->callbacks = server_conn_callbacks();
    list_init(&s->listeners);
    list_init(&s->conns);
    return s;
}

/* ---- Methods ----------------------------------------------------------------------------------- */

static size_t hash_path(struct bytes path)
{
    uint64_t h = 14695981039346656037u; /* FNV-1a: paths are few and ours */
    for (size_t i = 0; i < path.n; i++)
        h = (h ^ path.p[i]) * 1099511628211u;
    return (size_t)(h ^ h >> 32);
}

static struct method_slot *find_slot(const struct rpc_server *s, struct bytes path)
{
    for (size_t i = hash_path(path);; i++) {
        struct method_slot *slot = &s->slots[i & (s->slot_count - 1)];
        if (!slot->method || bytes_equal(bytes_str(slot->method->path), path))
            return slot;
    }
}

static void grow_slots(struct rpc_server *s)
{
    struct method_slot *old = s->slots;
    size_t old_count = s->slot_count;
    s->slot_count = old_count ? old_count * 2 : 64;
    s->slots = xcalloc(s->slot_count, sizeof *s->slots);
    for (size_t i = 0; i < old_count; i++)
        if (old[i].method)
            *find_slot(s, bytes_str(old[i].method->path)) = old[i];
    free(old);
}

void rpc_server_add(struct rpc_server *s, const struct rpc_method *methods, size_t count,
                    void *service)
{
    for (size_t i = 0; i < count; i++) {
        if (s->method_count * 2 >= s->slot_count)
            grow_slots(s);
        struct method_slot *slot = find_slot(s, bytes_str(methods[i].path));
        s->method_count += !slot->method;
        *slot = (struct method_slot){&methods[i], service};
    }
}

const struct method_slot *server_find(const struct rpc_server *s, struct bytes path)
{
    if (!s->slot_count)
        return NULL;
    const struct method_slot *slot = find_slot(s, path);
    return slot->method ? slot : NULL;
}

void server_log(struct rpc_server *s, const struct server_conn *sc, const char *text)
{
    char line[256];
    if (!s->config.log)
        return;
    snprintf(line, sizeof line, "%s: %s", sc->c.peer, text);
    s->config.log(s->config.log_ctx, line);
}

/* ---- The end ----------------------------------------------------------------------------------- */

static void on_turn_closed(struct turn *t)
{
    server_handle_closed(CONTAINER_OF(t, struct rpc_server, turn));
}

static void on_deadlines_closed(struct deadlines *ds)
{
    server_handle_closed(CONTAINER_OF(ds, struct rpc_server, deadlines));
}

static void free_server(struct rpc_server *s)
{
    void (*stopped)(void *ctx) = s->stopped;
    void *ctx = s->stopped_ctx;
    nghttp2_session_callbacks_del(s->callbacks);
    free(s->slots);
    free(s);
    if (stopped)
        stopped(ctx);
}

/* Turn and timer close last: connections use them to their end. */
static void close_own_handles(struct rpc_server *s)
{
    if (!s->stopping || s->closing || s->handles > 2)
        return;
    s->closing = true;
    deadline_clear(&s->deadlines, &s->grace);
    turn_close(&s->turn, on_turn_closed);
    deadlines_close(&s->deadlines, on_deadlines_closed);
}

void server_handle_closed(struct rpc_server *s)
{
    s->handles--;
    close_own_handles(s);
    if (s->handles == 0)
        free_server(s);
}

void rpc_server_stop(struct rpc_server *s, uint64_t grace_ms, void (*stopped)(void *ctx), void *ctx)
{
    assert(!s->stopping);
    s->stopping = true;
    s->stopped = stopped;
    s->stopped_ctx = ctx;
    server_stop_listening(s);
    LIST_FOR_EACH_SAFE(it, tmp, &s->conns)
    {
        struct server_conn *sc = CONTAINER_OF(it, struct server_conn, link);
        server_conn_goaway(sc);
    }
    deadline_set(&s->deadlines, &s->grace, uv_now(s->loop) + grace_ms);
    close_own_handles(s);
}
