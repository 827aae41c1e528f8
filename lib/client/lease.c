/* Leases: grant, keep alive on a stream of its own, tell when it is lost.
 *
 * The id is chosen here, at random: then a grant whose answer was lost can be asked for again, and "lease
 * already exists" means that it was granted. */
#include <assert.h>
#include <stdlib.h>

#include "lib/client/internal.h"

#define KEEP_ALIVES_A_TTL 3

enum lease_state {
    LEASE_GRANTING,
    LEASE_ALIVE,
    LEASE_GONE, /* not granted, or lost: the user knows or will from the timer */
};

struct client_lease {
    struct list link; /* in client->leases */
    struct client *client;
    enum lease_state state;
    int64_t id, ttl_s;
    void (*granted)(void *ctx, enum errc code, int64_t id);
    void (*lost)(void *ctx);
    void *ctx;
    bool stopped;

    struct client_call *grant;
    uint64_t asked_at;   /* when the request whose answer is awaited was sent */
    uint64_t expires_at; /* not before the server's own clock says so: counted from the request */
    uint64_t ask_at;     /* when the next keep-alive is due */
    bool awaiting;
    struct conn *conn;
    struct rpc_stream *stream;
    uv_timer_t timer;
};

static void on_lease_timer(uv_timer_t *timer);

struct client_lease *lease_of_link(struct list *link)
{
    return CONTAINER_OF(link, struct client_lease, link);
}

static uint64_t interval_ms(const struct client_lease *l)
{
    return (uint64_t)l->ttl_s * 1000 / KEEP_ALIVES_A_TTL;
}

static void timer_at(struct client_lease *l, uint64_t at)
{
    uint64_t now = uv_now(l->client->loop);
    uv_timer_start(&l->timer, on_lease_timer, at > now ? at - now : 0, 0);
}

static void stream_drop(struct client_lease *l)
{
    if (l->stream)
        rpc_stream_cancel(l->stream);
    l->stream = NULL;
    l->conn = NULL;
    l->awaiting = false;
}

static void lease_lost(struct client_lease *l)
{
    stream_drop(l);
    uv_timer_stop(&l->timer);
    l->state = LEASE_GONE;
    l->lost(l->ctx);
}

/* ---- Keep-alive ---------------------------------------------------------------------------------- */

static void on_alive(struct rpc_stream *st, void *ctx, struct bytes message)
{
    (void)st;
    struct client_lease *l = ctx;
    Etcdserverpb__LeaseKeepAliveResponse *r =
        etcdserverpb__lease_keep_alive_response__unpack(NULL, message.n, message.p);
    if (!r)
        return; /* no answer in time will end the stream */
    int64_t id = r->id, ttl_s = r->ttl;
    etcdserverpb__lease_keep_alive_response__free_unpacked(r, NULL);
    if (id != l->id || !l->awaiting)
        return;
    if (ttl_s <= 0) {
        lease_lost(l);
        return;
    }
    l->awaiting = false;
    l->ttl_s = ttl_s;
    l->expires_at = l->asked_at + (uint64_t)ttl_s * 1000;
    l->ask_at = l->asked_at + interval_ms(l);
    timer_at(l, l->ask_at);
    client_conn_good(l->conn);
}

static void on_stream_closed(struct rpc_stream *st, void *ctx, int status, const char *text,
                             bool sent)
{
    (void)st;
    (void)sent;
    struct client_lease *l = ctx;
    struct conn *conn = l->conn;
    l->stream = NULL;
    l->conn = NULL;
    l->awaiting = false;
    enum errc code = errc_from_grpc(status, text);
    if (code == ERR_LEASE_NOT_FOUND) {
        lease_lost(l);
        return;
    }
    /* A server that ends the stream at once must not be asked in a tight loop. */
    uint64_t wait = interval_ms(l) / 8;
    l->ask_at = uv_now(l->client->loop) + (wait < 500 ? wait : 500);
    timer_at(l, l->ask_at);
    if (client_endpoint_failed(code))
        client_conn_bad(conn, text);
}

static const struct rpc_stream_handler keep_alive_handler = {
    .message = on_alive,
    .closed = on_stream_closed,
};

static void keep_alive(struct client_lease *l)
{
    struct conn *conn = client_ready(l->client);
    if (!conn) {
        timer_at(l, l->expires_at);
        return;
    }
    if (!l->stream) {
        l->conn = conn;
        l->stream = rpc_stream_open(conn->channel, "/etcdserverpb.Lease/LeaseKeepAlive", 0, NULL, 0,
                                    &keep_alive_handler, l);
    }
    Etcdserverpb__LeaseKeepAliveRequest request = ETCDSERVERPB__LEASE_KEEP_ALIVE_REQUEST__INIT;
    request.id = l->id;
    uint8_t packed[16];
    assert(protobuf_c_message_get_packed_size(&request.base) <= sizeof(packed));
    size_t n = protobuf_c_message_pack(&request.base, packed);
    rpc_stream_send(l->stream, bytes_of(packed, n));
    l->awaiting = true;
    l->asked_at = uv_now(l->client->loop);
    uint64_t give_up = l->asked_at + interval_ms(l);
    timer_at(l, give_up < l->expires_at ? give_up : l->expires_at);
}

static void on_lease_timer(uv_timer_t *timer)
{
    struct client_lease *l = CONTAINER_OF(timer, struct client_lease, timer);
    uint64_t now = uv_now(l->client->loop);
    if (l->state != LEASE_ALIVE)
        return;
    if (now >= l->expires_at) {
        lease_lost(l);
        return;
    }
    if (l->awaiting) {
        struct conn *conn = l->conn;
        stream_drop(l);
        client_conn_bad(conn, "no answer to a keep-alive");
        if (l->stopped) /* by the client's state callback */
            return;
    }
    keep_alive(l);
}

void lease_conn_changed(struct client_lease *l)
{
    if (l->state != LEASE_ALIVE)
        return;
    if (l->conn && l->conn != l->client->conn)
        stream_drop(l);
    uint64_t now = uv_now(l->client->loop);
    if (!l->stream)
        timer_at(l, l->ask_at > now ? l->ask_at : now);
}

/* ---- Grant and end ------------------------------------------------------------------------------- */

static void on_granted(void *ctx, const struct client_result *result)
{
    struct client_lease *l = ctx;
    l->grant = NULL;
    if (result->code != ERR_OK && result->code != ERR_LEASE_EXISTS) {
        l->state = LEASE_GONE;
        l->granted(l->ctx, result->code, 0);
        return;
    }
    if (result->code == ERR_OK) {
        const Etcdserverpb__LeaseGrantResponse *r =
            CONTAINER_OF(result->message, Etcdserverpb__LeaseGrantResponse, base);
        if (r->ttl > 0)
            l->ttl_s = r->ttl;
    }
    l->state = LEASE_ALIVE;
    uint64_t now = uv_now(l->client->loop);
    l->expires_at = l->asked_at + (uint64_t)l->ttl_s * 1000;
    l->ask_at = l->asked_at + interval_ms(l);
    /* A grant that took most of its own TTL (tries, an election) is verified by a keep-alive at once. */
    if (l->expires_at < now + interval_ms(l))
        l->expires_at = now + interval_ms(l);
    timer_at(l, l->ask_at);
    l->granted(l->ctx, ERR_OK, l->id);
}

struct client_lease *client_lease_start(struct client *c, int64_t ttl_s,
                                        void (*granted)(void *ctx, enum errc code, int64_t id),
                                        void (*lost)(void *ctx), void *ctx)
{
    struct client_lease *l = xcalloc(1, sizeof(*l));
    int rc = uv_timer_init(c->loop, &l->timer);
    assert(rc == 0);
    l->client = c;
    l->ttl_s = ttl_s;
    l->granted = granted;
    l->lost = lost;
    l->ctx = ctx;
    l->asked_at = uv_now(c->loop);
    while (l->id == 0)
        l->id = (int64_t)(c->env->random(c->env) & INT64_MAX);
    list_append(&c->leases, &l->link);
    Etcdserverpb__LeaseGrantRequest request = ETCDSERVERPB__LEASE_GRANT_REQUEST__INIT;
    request.ttl = ttl_s;
    request.id = l->id;
    l->grant =
        client_unary(c, "/etcdserverpb.Lease/LeaseGrant", &request.base,
                     &etcdserverpb__lease_grant_response__descriptor, true, 0, on_granted, l);
    return l;
}

static void on_lease_closed(uv_handle_t *handle)
{
    free(CONTAINER_OF(handle, struct client_lease, timer));
}

static void on_revoked(void *ctx, const struct client_result *result)
{
    /* Whatever came of it: without keep-alives the lease ends by itself. */
    (void)ctx;
    (void)result;
}

void client_lease_stop(struct client_lease *l, bool revoke)
{
    assert(!l->stopped);
    l->stopped = true;
    if (l->grant)
        client_cancel(l->grant);
    stream_drop(l);
    list_remove(&l->link);
    if (revoke && l->state != LEASE_GONE) {
        Etcdserverpb__LeaseRevokeRequest request = ETCDSERVERPB__LEASE_REVOKE_REQUEST__INIT;
        request.id = l->id;
        client_unary(l->client, "/etcdserverpb.Lease/LeaseRevoke", &request.base,
                     &etcdserverpb__lease_revoke_response__descriptor, true, 0, on_revoked, NULL);
    }
    l->state = LEASE_GONE;
    uv_close((uv_handle_t *)&l->timer, on_lease_closed);
}
