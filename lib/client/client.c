#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/client/internal.h"

#define TIMEOUT_MS_DEFAULT 5000
/* A dead address must not use up a call's time when there are others to try. */
#define CONNECT_MS 5000
#define CONNECT_AMONG_OTHERS_MS 2000
/* etcd cuts connections that ping more often than every 5 s (grpc-keepalive-min-time). */
#define KEEPALIVE_MS 6000
/* After all endpoints failed. An election takes about a second; more than that between two tries would be
 * noticed, less would be a burden for a server that starts. */
#define RECONNECT_MS 50
#define RECONNECT_MS_MAX 1000

static void on_step(uv_timer_t *timer);

/* ---- Endpoints ----------------------------------------------------------------------------------- */

static enum errc endpoint_parse(const char *text, char **ret_url, struct error *err)
{
    if (strncmp(text, "unix:", 5) == 0) {
        if (text[5] == '\0')
            return error_set(err, ERR_INVALID, "endpoint '%s': the path of the socket is missing",
                             text);
        *ret_url = xstrdup(text);
        return ERR_OK;
    }
    if (strncmp(text, "http://", 7) != 0)
        return error_set(err, ERR_INVALID,
                         "endpoint '%s' is not of the form http://HOST:PORT or unix:PATH", text);
    const char *host = text + 7;
    size_t length = strlen(host);
    while (length && host[length - 1] == '/')
        length--;
    const char *bracket = memchr(host, ']', length);
    if ((host[0] == '[') != (bracket != NULL) || memchr(host, '/', length) ||
        memchr(host, ' ', length))
        return error_set(err, ERR_INVALID, "endpoint '%s': the host cannot be read", text);
    const char *rest = bracket ? bracket + 1 : host;
    const char *colon = memchr(rest, ':', length - (size_t)(rest - host));
    if (length == 0 || colon == host || (bracket && colon && colon != rest) ||
        (bracket && !colon && rest != host + length))
        return error_set(err, ERR_INVALID, "endpoint '%s': the host cannot be read", text);
    if (!colon) {
        *ret_url = xasprintf("http://%.*s:%d", (int)length, host, CLIENT_PORT_DEFAULT);
        return ERR_OK;
    }
    char *end;
    long port = strtol(colon + 1, &end, 10);
    if (end == colon + 1 || end != host + length || port < 1 || port > 65535)
        return error_set(err, ERR_INVALID,
                         "endpoint '%s': the port is not a number from 1 to 65535", text);
    *ret_url = xasprintf("http://%.*s", (int)length, host);
    return ERR_OK;
}

/* ---- Life cycle ---------------------------------------------------------------------------------- */

enum errc client_new(uv_loop_t *loop, const struct client_config *config,
                     struct client **ret_client, struct error *err)
{
    if (config->endpoint_count == 0)
        return error_set(err, ERR_INVALID, "no endpoint is given");
    if (config->endpoint_count > CLIENT_ENDPOINTS_MAX)
        return error_set(err, ERR_INVALID, "%zu endpoints are given, at most %d are possible",
                         config->endpoint_count, CLIENT_ENDPOINTS_MAX);
    struct client *c = xcalloc(1, sizeof(*c));
    for (size_t i = 0; i < config->endpoint_count; i++) {
        enum errc code = endpoint_parse(config->endpoints[i], &c->endpoints[i], err);
        if (code != ERR_OK) {
            for (size_t j = 0; j < i; j++)
                free(c->endpoints[j]);
            free(c);
            return code;
        }
    }
    c->endpoint_count = config->endpoint_count;
    c->loop = loop;
    c->env = config->env ? config->env : env_system();
    c->timeout_ms = config->timeout_ms ? config->timeout_ms : TIMEOUT_MS_DEFAULT;
    c->request_ids = config->request_ids;
    c->state = config->state;
    c->ctx = config->ctx;
    list_init(&c->retired);
    list_init(&c->calls);
    list_init(&c->streams);
    list_init(&c->watches);
    list_init(&c->leases);
    int rc = uv_timer_init(loop, &c->timer);
    assert(rc == 0);
    *ret_client = c;
    return ERR_OK;
}

static void conn_free(struct conn *conn)
{
    detect_stop(conn);
    rpc_channel_free(conn->channel);
    assert(conn->calls == 0);
    list_remove(&conn->link);
    free(conn);
}

static void on_client_closed(uv_handle_t *handle)
{
    struct client *c = CONTAINER_OF(handle, struct client, timer);
    if (c->conn)
        conn_free(c->conn);
    LIST_FOR_EACH_SAFE(it, tmp, &c->retired)
    conn_free(CONTAINER_OF(it, struct conn, link));
    for (size_t i = 0; i < c->endpoint_count; i++)
        free(c->endpoints[i]);
    free(c);
}

void client_free(struct client *c)
{
    assert(!c->closing);
    c->closing = true;
    while (!list_empty(&c->watches))
        client_watch_stop(watch_of_link(c->watches.next));
    while (!list_empty(&c->leases))
        client_lease_stop(lease_of_link(c->leases.next), false);
    while (!list_empty(&c->streams))
        client_stream_stop(stream_of_link(c->streams.next));
    while (!list_empty(&c->calls))
        call_close(call_of_link(c->calls.next));
    /* The channels go in the close callback: this may be running inside one of their callbacks. */
    uv_close((uv_handle_t *)&c->timer, on_client_closed);
}

bool client_is_quorumd(const struct client *c)
{
    return c->quorumd;
}

/* ---- The connection ------------------------------------------------------------------------------ */

uint64_t client_backoff_ms(struct client *c, unsigned n, uint64_t base_ms, uint64_t max_ms)
{
    unsigned shift = n > 16 ? 15 : n - 1;
    uint64_t ms = base_ms << shift;
    if (ms > max_ms)
        ms = max_ms;
    return ms / 2 + c->env->random(c->env) % (ms / 2 + 1);
}

void client_step_at(struct client *c, uint64_t at)
{
    if (c->closing)
        return;
    uint64_t now = uv_now(c->loop);
    uint64_t delay = at > now ? at - now : 0;
    if (uv_is_active((uv_handle_t *)&c->timer) && uv_timer_get_due_in(&c->timer) <= delay)
        return;
    uv_timer_start(&c->timer, on_step, delay, 0);
}

void client_tell_parts(struct client *c)
{
    LIST_FOR_EACH_SAFE(it, tmp, &c->calls)
    call_conn_changed(call_of_link(it));
    LIST_FOR_EACH_SAFE(it, tmp, &c->streams)
    stream_conn_changed(stream_of_link(it));
    LIST_FOR_EACH_SAFE(it, tmp, &c->watches)
    watch_conn_changed(watch_of_link(it));
    LIST_FOR_EACH_SAFE(it, tmp, &c->leases)
    lease_conn_changed(lease_of_link(it));
}

static void tell_up(struct client *c)
{
    if (c->told_up)
        return;
    c->told_up = true;
    c->told_down = false;
    if (c->state)
        c->state(c->ctx, true, rpc_channel_url(c->conn->channel));
}

static void tell_down(struct client *c)
{
    if (c->told_down)
        return;
    c->told_down = true;
    c->told_up = false;
    if (c->state)
        c->state(c->ctx, false, c->reason);
}

/* The current connection is given up. The next endpoint is tried at once until all have failed, then
 * after a wait. */
static void conn_retire(struct client *c, const char *reason)
{
    struct conn *conn = c->conn;
    bool was_up = conn->up;
    snprintf(c->reason, sizeof(c->reason), "%s: %s", c->endpoints[c->current], reason);
    detect_stop(conn);
    c->conn = NULL;
    list_append(&c->retired, &conn->link);
    c->current = (c->current + 1) % c->endpoint_count;
    c->failures++;
    uint64_t now = uv_now(c->loop);
    unsigned rounds = c->failures / (unsigned)c->endpoint_count;
    bool all_failed = c->failures % c->endpoint_count == 0;
    c->connect_at =
        all_failed ? now + client_backoff_ms(c, rounds, RECONNECT_MS, RECONNECT_MS_MAX) : now;
    client_step_at(c, now);
    if (was_up) {
        c->told_up = false; /* the next one is told, whichever it is */
        client_tell_parts(c);
    }
    if (all_failed)
        tell_down(c);
}

static void on_channel_state(void *ctx, struct rpc_channel *channel, bool up, bool refused,
                             const char *reason)
{
    (void)channel;
    (void)refused;
    struct conn *conn = ctx;
    struct client *c = conn->client;
    if (c->closing || c->conn != conn) {
        conn->up = up && conn->up;
        if (!c->closing)
            client_step_at(c, uv_now(c->loop));
        return;
    }
    if (!up) {
        c->leaderless = false;
        /* That a working server went down says nothing about the one that is tried next. */
        if (conn->good)
            c->failures = 0;
        conn_retire(c, reason);
        conn->up = false;
        return;
    }
    conn->up = true;
    detect_start(conn);
    client_tell_parts(c);
    if (!c->told_down || !c->leaderless)
        tell_up(c);
}

static void connect_now(struct client *c)
{
    struct conn *conn = xcalloc(1, sizeof(*conn));
    conn->client = c;
    list_init(&conn->link);
    struct rpc_channel_config config = {
        .connect_timeout_ms = c->endpoint_count > 1 ? CONNECT_AMONG_OTHERS_MS : CONNECT_MS,
        .keepalive_ms = KEEPALIVE_MS,
        .state = on_channel_state,
        .ctx = conn,
    };
    c->conn = conn;
    conn->channel = rpc_channel_new(c->loop, c->endpoints[c->current], &config);
    rpc_channel_connect(conn->channel);
}

static bool wanted(const struct client *c)
{
    return !list_empty(&c->calls) || !list_empty(&c->streams) || !list_empty(&c->watches) ||
           !list_empty(&c->leases);
}

static void on_step(uv_timer_t *timer)
{
    struct client *c = CONTAINER_OF(timer, struct client, timer);
    uint64_t now = uv_now(c->loop);
    LIST_FOR_EACH_SAFE(it, tmp, &c->retired)
    {
        struct conn *conn = CONTAINER_OF(it, struct conn, link);
        if (conn->calls == 0)
            conn_free(conn);
    }
    if (c->conn && c->conn->probe_at) {
        if (c->conn->probe_at <= now)
            detect_start(c->conn);
        else
            client_step_at(c, c->conn->probe_at);
    }
    if (c->conn || !wanted(c))
        return;
    if (c->connect_at <= now)
        connect_now(c);
    else
        client_step_at(c, c->connect_at);
}

struct conn *client_ready(struct client *c)
{
    if (c->conn && c->conn->up)
        return c->conn;
    if (!c->conn)
        client_step_at(c, c->connect_at);
    return NULL;
}

void client_conn_good(struct conn *conn)
{
    struct client *c = conn->client;
    if (c->conn != conn || c->closing)
        return;
    conn->good = true;
    c->failures = 0;
    c->leaderless = false;
    tell_up(c);
}

void client_conn_bad(struct conn *conn, const char *reason)
{
    struct client *c = conn->client;
    if (c->conn != conn || c->closing || c->endpoint_count == 1)
        return;
    c->leaderless = true;
    conn_retire(c, reason);
}

bool client_endpoint_failed(enum errc code)
{
    switch (code) {
    case ERR_NO_LEADER:
    case ERR_NOT_LEADER:
    case ERR_NOT_LEARNER_CAPABLE:
    case ERR_STOPPED:
    case ERR_TIMEOUT:
    case ERR_TIMEOUT_LEADER_FAIL:
    case ERR_TIMEOUT_CONNECTION:
    case ERR_UNHEALTHY:
    case ERR_DEADLINE:
        return true;
    default:
        return false;
    }
}

void client_conn_release(struct conn *conn)
{
    assert(conn->calls > 0);
    conn->calls--;
    if (conn->calls == 0 && conn->client->conn != conn)
        client_step_at(conn->client, uv_now(conn->client->loop));
}
