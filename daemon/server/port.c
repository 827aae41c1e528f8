#include "daemon/server/port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/server/server_internal.h"
#include "lib/base/log.h"

struct port_stream {
    struct list link;
    struct rpc_call *call;
};

/* ---- Answers of a member that isn't there -------------------------------------------------------- */

static void on_list(struct rpc_call *call, void *service, struct bytes message)
{
    struct server *s = service;
    char text[128];
    (void)message;
    snprintf(text, sizeof(text), "%s (%016llx)",
             s->waiting.rejoining ? PORT_REJOINING_TEXT : PORT_FRESH_TEXT,
             (unsigned long long)s->waiting.nonce);
    rpc_call_finish(call, errc_grpc_code(ERR_UNAVAILABLE), text);
}

enum port_answer port_answer_of(const char *text, uint64_t own_nonce)
{
    bool fresh = !strncmp(text, PORT_FRESH_TEXT, strlen(PORT_FRESH_TEXT));
    if (!fresh && strncmp(text, PORT_REJOINING_TEXT, strlen(PORT_REJOINING_TEXT)) != 0)
        return PORT_NO_ANSWER;
    const char *nonce = strrchr(text, '(');
    if (nonce && strtoull(nonce + 1, NULL, 16) == own_nonce)
        return PORT_SELF;
    return fresh ? PORT_FRESH : PORT_REJOINING;
}

static void on_stream(struct rpc_call *call, void *service)
{
    struct server *s = service;
    struct port_stream *st = xcalloc(1, sizeof(*st));
    st->call = call;
    rpc_call_set_user(call, st);
    list_append(&s->waiting.streams, &st->link);
}

static void on_stream_closed(struct rpc_call *call, void *service)
{
    (void)service;
    struct port_stream *st = rpc_call_user(call);
    list_remove(&st->link);
    free(st);
}

static const struct rpc_method waiting_methods[] = {
    {.path = "/etcdserverpb.Cluster/MemberList", .message = on_list},
    {.path = "/raftpb.Peer/Messages",
     .client_streams = true,
     .started = on_stream,
     .closed = on_stream_closed},
};

void port_end_waiting(struct server *s)
{
    LIST_FOR_EACH_SAFE(it, tmp, &s->waiting.streams)
    {
        struct port_stream *st = CONTAINER_OF(it, struct port_stream, link);
        list_remove(it);
        list_init(it);
        rpc_call_finish(st->call, errc_grpc_code(ERR_UNAVAILABLE), "the member has started");
    }
}

/* ---- Listening ----------------------------------------------------------------------------------- */

static void log_rpc(void *ctx, const char *text)
{
    log_debug("rpc", "%s: %s", (const char *)ctx, text);
}

static enum errc listen_all(struct rpc_server *port, const struct server_urls *urls,
                            char (*bound)[256], const char *flag, struct error *err)
{
    for (size_t i = 0; i < urls->count; i++) {
        struct error why;
        enum errc e = rpc_server_listen(port, urls->url[i], bound[i], &why);
        if (e == ERR_BUSY)
            return error_set(err, e, "--%s: %s: stop the process that has it, or name another",
                             flag, why.message);
        if (e)
            return error_set(err, e, "--%s: %s: name an address of this machine", flag,
                             why.message);
        if (!strncmp(bound[i], "unix:", 5))
            chmod(bound[i] + 5, 0600); /* a data set as precious as its directory */
    }
    return ERR_OK;
}

enum errc port_open_clients(struct server *s, struct error *err)
{
    struct rpc_server_config config = {
        .message_max = s->config.max_request_bytes + API_MESSAGE_OVERHEAD,
        .log = log_rpc,
        .log_ctx = (void *)"clients",
    };
    s->clients = rpc_server_new(s->loop, &config);
    return listen_all(s->clients, &s->config.listen_client_urls, s->client_urls,
                      "listen-client-urls", err);
}

enum errc port_open_peers(struct server *s, bool rejoining, struct error *err)
{
    struct rpc_server_config config = {
        .message_max = s->config.max_request_bytes + PEER_MESSAGE_OVERHEAD,
        .log = log_rpc,
        .log_ctx = (void *)"peers",
    };
    s->waiting.rejoining = rejoining;
    if (s->peer_port || s->config.listen_peer_urls.count == 0)
        return ERR_OK;
    struct env *env = env_system();
    s->waiting.nonce = env->random(env);
    list_init(&s->waiting.streams);
    s->peer_port = rpc_server_new(s->loop, &config);
    rpc_server_add(s->peer_port, waiting_methods, ARRAY_LEN(waiting_methods), s);
    return listen_all(s->peer_port, &s->config.listen_peer_urls, s->peer_urls, "listen-peer-urls",
                      err);
}
