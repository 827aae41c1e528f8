#include "fuse/embedded.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "daemon/server/server.h"
#include "lib/base/memory.h"

enum errc embedded_start(struct options *o, struct server_thread **ret_thread, struct error *err)
{
    struct server_config config;
    struct sockaddr_un address;
    server_config_defaults(&config);
    if (mkdir(o->data_dir, 0700) != 0 && errno != EEXIST)
        return error_set(err, ERR_IO, "can't make the folder %s: %s", o->data_dir, strerror(errno));
    char *folder = realpath(o->data_dir, NULL);
    if (!folder)
        return error_set(err, ERR_IO, "%s: %s", o->data_dir, strerror(errno));
    free(o->data_dir);
    o->data_dir = folder;
    char *url = xasprintf("unix:%s/quorumfs.sock", folder);
    if (strlen(url) - 5 >= sizeof address.sun_path) {
        free(url);
        return error_set(err, ERR_INVALID, "%s: the path is too long for a socket in it", folder);
    }
    config.data_dir = folder;
    config.listen_client_urls = (struct server_urls){.url = {url}, .count = 1};
    config.advertise_client_urls.count = 0;
    for (size_t i = 0; i < o->listen.count && i + 1 < SERVER_URLS_MAX; i++)
        config.listen_client_urls.url[config.listen_client_urls.count++] = o->listen.item[i];
    for (size_t i = 0; i < o->listen.count && i < SERVER_URLS_MAX; i++)
        config.advertise_client_urls.url[config.advertise_client_urls.count++] = o->listen.item[i];
    config.listen_peer_urls.count = 0;
    config.quiet = true;
    o->endpoints.item[0] = url;
    o->endpoints.count = 1;
    return server_thread_start(&config, ret_thread, err);
}

bool embedded_failed(struct server_thread *thread, struct error *ret_why)
{
    return server_thread_failed(thread, ret_why);
}

void embedded_stop(struct server_thread *thread)
{
    server_thread_stop(thread);
}
