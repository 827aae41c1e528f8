#include "daemon/peer/ids.h"

#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/bytes.h"

static int compare_urls(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint64_t hash(struct buf *b)
{
    uint8_t digest[SHA_DIGEST_LENGTH];
    SHA1(b->p, b->n, digest);
    buf_free(b);
    return get_be64(digest);
}

uint64_t member_id_compute(char **urls, size_t count, const char *token, int64_t added_at)
{
    struct buf b = {0};
    qsort(urls, count, sizeof(*urls), compare_urls);
    for (size_t i = 0; i < count; i++)
        buf_append(&b, urls[i], strlen(urls[i]));
    buf_append(&b, token, strlen(token));
    if (added_at >= 0)
        buf_printf(&b, "%lld", (long long)added_at);
    return hash(&b);
}

uint64_t cluster_id_compute(uint64_t *ids, size_t count)
{
    struct buf b = {0};
    qsort(ids, count, sizeof(*ids), compare_ids);
    for (size_t i = 0; i < count; i++) {
        uint8_t be[8];
        put_be64(be, ids[i]);
        buf_append(&b, be, sizeof(be));
    }
    return hash(&b);
}

static enum errc check_host_port(const char *url, const char *at, struct error *err)
{
    const char *colon = strrchr(at, ':');
    if (!colon || colon == at || (at[0] == '[' && colon[-1] != ']'))
        return error_set(err, ERR_INVALID, "URL %s has no port: write http://HOST:PORT", url);
    char *end;
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || port > 65535)
        return error_set(err, ERR_INVALID, "URL %s: the port is not a number from 0 to 65535", url);
    if (*end && strcmp(end, "/"))
        return error_set(err, ERR_INVALID, "URL %s must not contain a path", url);
    return ERR_OK;
}

enum errc url_check(const char *url, struct error *err)
{
    if (!strncmp(url, "https://", 8) || !strncmp(url, "unixs:", 6))
        return error_set(
            err, ERR_INVALID,
            "URL %s: TLS is not supported; write http:// and keep the port on a trusted "
            "network or behind a TLS proxy",
            url);
    if (!strncmp(url, "unix:", 5))
        return url[5] ? ERR_OK
                      : error_set(err, ERR_INVALID, "URL %s names no socket: write unix:PATH", url);
    if (strncmp(url, "http://", 7))
        return error_set(err, ERR_INVALID, "URL %s: write http://HOST:PORT or unix:PATH", url);
    return check_host_port(url, url + 7, err);
}
