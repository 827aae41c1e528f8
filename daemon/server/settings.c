/* Defaults, checks and copies of a server's settings. */
#include <stdlib.h>
#include <string.h>

#include "daemon/apply/apply.h"
#include "daemon/peer/ids.h"
#include "daemon/server/config.h"
#include "lib/base/memory.h"

#define ELECTION_MS_MAX 50000 /* etcd's limit: a cluster without a leader for longer is a mistake */

void server_config_defaults(struct server_config *config)
{
    *config = (struct server_config){
        .name = "default",
        .listen_client_urls = {{"http://localhost:2379"}, 1},
        .listen_peer_urls = {{"http://localhost:2380"}, 1},
        .initial_advertise_peer_urls = {{"http://localhost:2380"}, 1},
        .token = "etcd-cluster",
        .heartbeat_ms = 100,
        .election_ms = 1000,
        .snapshot_count = 10000,
        .quota_bytes = 2ull * 1024 * 1024 * 1024,
        .max_request_bytes = APPLY_REQUEST_BYTES_MAX_DEFAULT,
        .max_txn_ops = APPLY_TXN_OPS_MAX_DEFAULT,
        .scrub_ms = 3600000,
    };
}

static enum errc check_urls(const char *flag, const struct server_urls *urls, struct error *err)
{
    for (size_t i = 0; i < urls->count; i++) {
        struct error why;
        if (url_check(urls->url[i], &why))
            return error_set(err, ERR_INVALID, "--%s: %s", flag, why.message);
    }
    return ERR_OK;
}

/* Names go into the identity file and the initial cluster's list. */
static enum errc check_name(const char *name, struct error *err)
{
    if (!*name)
        return error_set(err, ERR_INVALID, "--name is empty: give the member a name");
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < ' ' || *p == '=' || *p == ',')
            return error_set(err, ERR_INVALID,
                             "--name %s: a name has no '=', ',' or control characters", name);
    return ERR_OK;
}

enum errc server_config_check(const struct server_config *config, struct error *err)
{
    enum errc e = check_name(config->name, err);
    if (!e)
        e = check_urls("listen-client-urls", &config->listen_client_urls, err);
    if (!e)
        e = check_urls("advertise-client-urls", &config->advertise_client_urls, err);
    if (!e)
        e = check_urls("listen-peer-urls", &config->listen_peer_urls, err);
    if (!e)
        e = check_urls("initial-advertise-peer-urls", &config->initial_advertise_peer_urls, err);
    if (e)
        return e;
    if (config->listen_client_urls.count == 0)
        return error_set(err, ERR_INVALID, "--listen-client-urls is empty: name an address");
    if (config->heartbeat_ms == 0 || config->election_ms < 5 * config->heartbeat_ms)
        return error_set(err, ERR_INVALID,
                         "--election-timeout[%llums] should be at least as 5 times as "
                         "--heartbeat-interval[%llums]",
                         (unsigned long long)config->election_ms,
                         (unsigned long long)config->heartbeat_ms);
    if (config->election_ms > ELECTION_MS_MAX)
        return error_set(err, ERR_INVALID,
                         "--election-timeout[%llums] is too long, and should be set less than %dms",
                         (unsigned long long)config->election_ms, ELECTION_MS_MAX);
    return ERR_OK;
}

static void copy_string(const char **s)
{
    if (*s)
        *s = xstrdup(*s);
}

static void copy_urls(struct server_urls *urls)
{
    for (size_t i = 0; i < urls->count; i++)
        copy_string(&urls->url[i]);
}

static void free_urls(struct server_urls *urls)
{
    for (size_t i = 0; i < urls->count; i++)
        free((char *)urls->url[i]);
    urls->count = 0;
}

void server_config_copy(struct server_config *to, const struct server_config *from)
{
    *to = *from;
    copy_string(&to->data_dir);
    copy_string(&to->name);
    copy_string(&to->initial_cluster);
    copy_string(&to->token);
    copy_urls(&to->listen_client_urls);
    copy_urls(&to->advertise_client_urls);
    copy_urls(&to->listen_peer_urls);
    copy_urls(&to->initial_advertise_peer_urls);
}

void server_config_free(struct server_config *config)
{
    free((char *)config->data_dir);
    free((char *)config->name);
    free((char *)config->initial_cluster);
    free((char *)config->token);
    free_urls(&config->listen_client_urls);
    free_urls(&config->advertise_client_urls);
    free_urls(&config->listen_peer_urls);
    free_urls(&config->initial_advertise_peer_urls);
    *config = (struct server_config){0};
}
