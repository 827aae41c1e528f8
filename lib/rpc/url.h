/* Addresses as URLs: `http://HOST:PORT` (IPv4, [IPv6], a name) and `unix:PATH`. Pure. */
#ifndef RPC_URL_H
#define RPC_URL_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/error.h"

struct rpc_url {
    bool is_unix;
    char host[256]; /* without the brackets of an IPv6 address */
    uint16_t port;
    char path[108]; /* of a socket file: as long as sockaddr_un takes */
};

/* ERR_INVALID with a sentence that names the URL and what is wrong with it. Port 0 is allowed: a
 * server that binds it gets a free one. */
enum errc rpc_url_parse(const char *text, struct rpc_url *ret_url, struct error *err);

/* "HOST:PORT" with brackets around an IPv6 address: the default `:authority`, and part of texts. */
void rpc_url_authority(const struct rpc_url *url, char *ret_text, unsigned long size);

#endif
