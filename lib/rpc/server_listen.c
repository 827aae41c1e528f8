/* Listening: addresses, stale socket files, and what accept() brings. */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/rpc/server.h"

#define LISTEN_BACKLOG 1024

struct listener {
    union {
        uv_handle_t any;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } handle;
    struct rpc_server *server;
    struct list link;
    bool is_unix;
};

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    struct rpc_server *s = l->server;
    free(l);
    server_handle_closed(s);
}

static void close_listener(struct listener *l)
{
    list_remove(&l->link);
    uv_close(&l->handle.any, on_listener_closed);
}

void server_stop_listening(struct rpc_server *s)
{
    while (!list_empty(&s->listeners))
        close_listener(CONTAINER_OF(s->listeners.next, struct listener, link));
}

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *l = stream->data;
    struct rpc_server *s = l->server;
    if (status < 0)
        return; /* out of descriptors or the peer has left again: the next one may work */
    struct server_conn *sc = server_conn_new(s, l->is_unix);
    if (uv_accept(stream, &sc->c.handle.stream) != 0)
        conn_end(&sc->c, false, "accept failed");
    else if (s->conn_count > s->config.connections_max)
        conn_end(&sc->c, false, "too many connections");
    else
        server_conn_start(sc);
}

/* A socket file outlives its process. One that nobody listens on is in the way and is removed; one that
 * answers belongs to a living server. */
static enum errc clear_socket_file(const char *url, const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (lstat(path, &st) != 0)
        return ERR_OK; /* bind says what is wrong, if anything is */
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, ERR_INVALID, "%s: there is a file that is no socket", url);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set(err, ERR_IO, "%s: socket: %s", url, strerror(errno));
    int rc = connect(fd, (struct sockaddr *)&address, sizeof address), error = errno;
    close(fd);
    if (rc != 0 && error == ECONNREFUSED)
        unlink(path);
    else if (rc == 0 || error == EAGAIN)
        return error_set(err, ERR_BUSY, "%s: another process listens there", url);
    return ERR_OK;
}

static int bind_tcp(struct listener *l, const struct rpc_url *url)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    uv_getaddrinfo_t req;
    int rc = uv_tcp_init(l->server->loop, &l->handle.tcp);
    assert(rc == 0);
    /* Without a callback it resolves at once: a server listens before it serves. */
    rc = uv_getaddrinfo(l->server->loop, &req, NULL, url->host, NULL, &hints);
    if (rc != 0)
        return rc;
    struct sockaddr *address = req.addrinfo->ai_addr;
    if (address->sa_family == AF_INET6)
        ((struct sockaddr_in6 *)address)->sin6_port = htons(url->port);
    else
        ((struct sockaddr_in *)address)->sin_port = htons(url->port);
    rc = uv_tcp_bind(&l->handle.tcp, address, 0);
    uv_freeaddrinfo(req.addrinfo);
    return rc;
}

static int bind_unix(struct listener *l, const struct rpc_url *url)
{
    int rc = uv_pipe_init(l->server->loop, &l->handle.pipe, 0);
    assert(rc == 0);
    return uv_pipe_bind(&l->handle.pipe, url->path);
}

static void name_listener(const struct listener *l, const struct rpc_url *url, char *ret_url)
{
    struct sockaddr_storage address;
    struct rpc_url bound = *url;
    char authority[300];
    int n = sizeof address;
    if (url->is_unix) {
        snprintf(ret_url, 256, "unix:%s", url->path);
        return;
    }
    uv_tcp_getsockname(&l->handle.tcp, (struct sockaddr *)&address, &n);
    bound.port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                     : ((struct sockaddr_in *)&address)->sin_port);
    rpc_url_authority(&bound, authority, sizeof authority);
    snprintf(ret_url, 256, "http://%.248s", authority);
}

enum errc rpc_server_listen(struct rpc_server *s, const char *url, char *ret_url, struct error *err)
{
    struct rpc_url parsed;
    enum errc code = rpc_url_parse(url, &parsed, err);
    if (!code && parsed.is_unix)
        code = clear_socket_file(url, parsed.path, err);
    if (code)
        return code;
    struct listener *l = xcalloc(1, sizeof *l);
    l->server = s;
    l->is_unix = parsed.is_unix;
    int rc = parsed.is_unix ? bind_unix(l, &parsed) : bind_tcp(l, &parsed);
    l->handle.any.data = l;
    s->handles++;
    list_append(&s->listeners, &l->link);
    if (rc == 0)
        rc = uv_listen(&l->handle.stream, LISTEN_BACKLOG, on_connection);
    if (rc == 0 && ret_url)
        name_listener(l, &parsed, ret_url);
    if (rc == 0)
        return ERR_OK;
    close_listener(l);
    if (rc == UV_EADDRINUSE)
        return error_set(err, ERR_BUSY, "%s: the address is in use", url);
    return error_set(err, ERR_IO, "%s: listen: %s", url, uv_strerror(rc));
}
