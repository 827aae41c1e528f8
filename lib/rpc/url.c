#include "lib/rpc/url.h"

#include <stdio.h>
#include <string.h>

static enum errc parse_port(const char *text, const char *p, uint16_t *ret_port, struct error *err)
{
    unsigned port = 0;
    unsigned digits = 0;
    for (; *p >= '0' && *p <= '9' && digits < 6; p++, digits++)
        port = port * 10 + (unsigned)(*p - '0');
    if (p[0] == '/' && p[1] == 0)
        p++;
    if (digits == 0 || *p || port > UINT16_MAX)
        return error_set(err, ERR_INVALID, "%s: the port must be a number up to 65535", text);
    *ret_port = (uint16_t)port;
    return ERR_OK;
}

static enum errc parse_unix(const char *text, const char *path, struct rpc_url *ret_url,
                            struct error *err)
{
    struct rpc_url url = {.is_unix = true};
    if (!*path)
        return error_set(err, ERR_INVALID, "%s: the path of the socket file is missing", text);
    if (strlen(path) >= sizeof url.path)
        return error_set(err, ERR_INVALID, "%s: the path is longer than %zu bytes", text,
                         sizeof url.path - 1);
    strcpy(url.path, path);
    *ret_url = url;
    return ERR_OK;
}

/* The host ends at the last colon, or at the bracket of an IPv6 address. */
static enum errc parse_http(const char *text, const char *rest, struct rpc_url *ret_url,
                            struct error *err)
{
    struct rpc_url url = {0};
    const char *host = rest, *end;
    if (*rest == '[') {
        host = rest + 1;
        end = strchr(host, ']');
        if (!end || end[1] != ':')
            return error_set(err, ERR_INVALID, "%s: expected http://[IPV6]:PORT", text);
        rest = end + 2;
    } else {
        end = strchr(host, ':');
        if (!end)
            return error_set(err, ERR_INVALID, "%s: the port is missing", text);
        rest = end + 1;
        if (strchr(rest, ':'))
            return error_set(err, ERR_INVALID, "%s: an IPv6 address needs brackets", text);
    }
    size_t n = (size_t)(end - host);
    if (n == 0 || n >= sizeof url.host)
        return error_set(err, ERR_INVALID, "%s: the host is %s", text, n ? "too long" : "missing");
    memcpy(url.host, host, n);
    if (strcspn(url.host, "/@?# ") != n)
        return error_set(err, ERR_INVALID, "%s: the host has a character that no host has", text);
    enum errc code = parse_port(text, rest, &url.port, err);
    if (code)
        return code;
    *ret_url = url;
    return ERR_OK;
}

enum errc rpc_url_parse(const char *text, struct rpc_url *ret_url, struct error *err)
{
    if (strncmp(text, "unix:", 5) == 0)
        return parse_unix(text, text + 5, ret_url, err);
    if (strncmp(text, "http://", 7) == 0)
        return parse_http(text, text + 7, ret_url, err);
    if (strncmp(text, "https://", 8) == 0)
        return error_set(err, ERR_INVALID, "%s: TLS is not supported, use http://", text);
    return error_set(err, ERR_INVALID, "%s: expected http://HOST:PORT or unix:PATH", text);
}

void rpc_url_authority(const struct rpc_url *url, char *ret_text, unsigned long size)
{
    if (url->is_unix)
        snprintf(ret_text, size, "localhost");
    else if (strchr(url->host, ':'))
        snprintf(ret_text, size, "[%s]:%u", url->host, url->port);
    else
        snprintf(ret_text, size, "%s:%u", url->host, url->port);
}
