/* Connecting: resolve the name, try its addresses one after the other, wait for the server's SETTINGS.
 *
 * The channel counts as up when the SETTINGS have come, not when TCP is: a process that hangs accepts
 * connections too (its kernel does), and a call given to it would count as sent. */
#include <assert.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

#include "lib/rpc/channel.h"

static void on_connect_turn(struct turn_item *item);
static void on_connect_timeout(struct deadline *d);

void channel_connect_init(struct rpc_channel *ch)
{
    turn_item_init(&ch->connect, on_connect_turn);
    deadline_init(&ch->connect_deadline, on_connect_timeout);
}

void channel_connect_soon(struct rpc_channel *ch)
{
    if (ch->up || ch->connecting)
        return;
    ch->connecting = true;
    turn_add_work(&ch->turn, &ch->connect);
}

static void forget_addresses(struct rpc_channel *ch)
{
    if (ch->addresses)
        uv_freeaddrinfo(ch->addresses);
    ch->addresses = ch->next_address = NULL;
}

void channel_connect_abort(struct rpc_channel *ch)
{
    ch->connecting = false;
    turn_drop(&ch->connect);
    deadline_clear(&ch->deadlines, &ch->connect_deadline);
    if (ch->resolving)
        uv_cancel((uv_req_t *)&ch->resolve); /* its callback frees what it still brings */
    forget_addresses(ch);
}

void channel_connect_failed(struct rpc_channel *ch, bool refused, const char *reason)
{
    char text[RPC_STATUS_TEXT_MAX];
    struct channel_conn *cc = ch->current;
    snprintf(text, sizeof text, "%s: connect: %s", ch->url, reason);
    if (ch->bad_url.code)
        snprintf(text, sizeof text, "%s", ch->bad_url.message);
    channel_connect_abort(ch);
    ch->current = NULL;
    if (cc)
        conn_end(&cc->c, refused, reason);
    channel_tell(ch, false, refused, text);
    channel_fail_waiting(ch, text);
}

static void on_connect_timeout(struct deadline *d)
{
    struct rpc_channel *ch = CONTAINER_OF(d, struct rpc_channel, connect_deadline);
    channel_connect_failed(ch, false, "timed out");
}

static bool is_refusal(int uv_error)
{
    return uv_error == UV_ECONNREFUSED || uv_error == UV_ECONNRESET || uv_error == UV_ENOENT;
}

static void on_connected(uv_connect_t *req, int status)
{
    struct channel_conn *cc = req->data;
    struct rpc_channel *ch = cc->ch;
    if (cc->c.ended)
        return;
    if (status == 0) {
        channel_conn_start(cc);
        return;
    }
    assert(ch->current == cc);
    ch->current = NULL;
    conn_end(&cc->c, is_refusal(status), uv_strerror(status));
    channel_connect_next(ch, is_refusal(status), uv_strerror(status));
}

void channel_connect_next(struct rpc_channel *ch, bool refused, const char *reason)
{
    while (ch->next_address) {
        struct addrinfo *a = ch->next_address;
        struct channel_conn *cc = channel_conn_new(ch);
        ch->next_address = a->ai_next;
        cc->connect.data = cc;
        int rc = uv_tcp_connect(&cc->connect, &cc->c.handle.tcp, a->ai_addr, on_connected);
        if (rc == 0) {
            ch->current = cc;
            return;
        }
        refused = is_refusal(rc);
        reason = uv_strerror(rc);
        conn_end(&cc->c, refused, reason);
    }
    channel_connect_failed(ch, refused, reason);
}

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *addresses)
{
    struct rpc_channel *ch = req->data;
    ch->resolving = false;
    if (ch->freed || !ch->connecting || status == UV_ECANCELED) {
        uv_freeaddrinfo(addresses);
        /* The connect that was asked for while this one was being cancelled. */
        if (!ch->freed && ch->connecting)
            turn_add_work(&ch->turn, &ch->connect);
        channel_handle_closed(ch);
        return;
    }
    ch->addresses = addresses;
    for (struct addrinfo *a = addresses; a; a = a->ai_next) {
        if (a->ai_family == AF_INET6)
            ((struct sockaddr_in6 *)a->ai_addr)->sin6_port = htons(ch->address.port);
        else
            ((struct sockaddr_in *)a->ai_addr)->sin_port = htons(ch->address.port);
    }
    ch->next_address = addresses;
    channel_connect_next(ch, false, status ? uv_strerror(status) : "no address");
    channel_handle_closed(ch);
}

static void connect_unix(struct rpc_channel *ch)
{
    struct channel_conn *cc = channel_conn_new(ch);
    ch->current = cc;
    cc->connect.data = cc;
    uv_pipe_connect(&cc->connect, &cc->c.handle.pipe, ch->address.path, on_connected);
}

static void on_connect_turn(struct turn_item *item)
{
    struct rpc_channel *ch = CONTAINER_OF(item, struct rpc_channel, connect);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (ch->bad_url.code) {
        channel_connect_failed(ch, false, ch->bad_url.message);
        return;
    }
    uv_update_time(ch->loop); /* the loop may not have run for a while */
    deadline_set(&ch->deadlines, &ch->connect_deadline,
                 uv_now(ch->loop) + ch->config.connect_timeout_ms);
    if (ch->resolving)
        return; /* an aborted attempt: its callback comes back here */
    if (ch->address.is_unix) {
        connect_unix(ch);
        return;
    }
    ch->resolve.data = ch;
    int rc = uv_getaddrinfo(ch->loop, &ch->resolve, on_resolved, ch->address.host, NULL, &hints);
    if (rc != 0) {
        channel_connect_failed(ch, false, uv_strerror(rc));
        return;
    }
    ch->resolving = true;
    ch->handles++;
}

void channel_connect_done(struct rpc_channel *ch)
{
    struct channel_conn *cc = ch->current;
    channel_connect_abort(ch);
    ch->up = true;
    /* Calls that waited go out in the order they came. */
    LIST_FOR_EACH_SAFE(it, tmp, &ch->streams)
    {
        struct rpc_stream *st = CONTAINER_OF(it, struct rpc_stream, link);
        if (st->waiting)
            stream_submit(st, cc);
    }
    channel_tell(ch, true, false, "");
}
