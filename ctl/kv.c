/* get, put, del: keys and values. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ctl/ctl.h"
#include "lib/base/memory.h"

static bool values_only; /* of the one command that this process runs */

static ProtobufCBinaryData field(struct bytes b)
{
    return (ProtobufCBinaryData){b.n, (uint8_t *)b.p};
}

static void print_bytes(ProtobufCBinaryData b)
{
    fwrite(b.data, 1, b.len, stdout);
    putchar('\n');
}

/* The range that --prefix, --from-key or a second argument asks for. */
static bool read_range(struct ctl *ctl, struct arena *arena, bool prefix, bool from_key,
                       ProtobufCBinaryData *ret_key, ProtobufCBinaryData *ret_end)
{
    if (prefix && from_key) {
        ctl_usage(ctl, "--prefix and --from-key exclude each other");
        return false;
    }
    if ((prefix || from_key) && ctl->argc == 2) {
        ctl_usage(ctl, "a range end and --prefix or --from-key exclude each other");
        return false;
    }
    struct bytes key = bytes_str(ctl->argv[0]);
    if ((prefix || from_key) && key.n == 0)
        key = bytes_of("", 1); /* the lowest key there can be */
    *ret_key = field(key);
    if (prefix)
        *ret_end = field(ctl_prefix_end(arena, bytes_str(ctl->argv[0])));
    else if (from_key)
        *ret_end = field(bytes_of("", 1));
    else if (ctl->argc == 2)
        *ret_end = field(bytes_str(ctl->argv[1]));
    return true;
}

static void got(void *ctx, const struct client_result *result)
{
    struct ctl *ctl = ctx;
    if (ctl_failed(ctl, result))
        return;
    const Etcdserverpb__RangeResponse *r = (const void *)result->message;
    for (size_t i = 0; i < r->n_kvs; i++) {
        if (!values_only)
            print_bytes(r->kvs[i]->key);
        print_bytes(r->kvs[i]->value); /* an empty line with --keys-only, as etcdctl */
    }
    ctl_finish(ctl, 0);
}

static bool number_flag(struct ctl *ctl, const char *name, int64_t *ret_number)
{
    const char *text;
    if (!ctl_flag(ctl, name, &text))
        return true;
    char *end;
    *ret_number = strtoll(text, &end, 10);
    if (*text != 0 && *end == 0)
        return true;
    ctl_usage(ctl, "--%s %s: not a number", name, text);
    return false;
}

static bool run_get(struct ctl *ctl)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    const char *consistency = "l";
    bool prefix = ctl_flag(ctl, "prefix", NULL), from_key = ctl_flag(ctl, "from-key", NULL);
    values_only = ctl_flag(ctl, "print-value-only", NULL);
    r.keys_only = ctl_flag(ctl, "keys-only", NULL);
    if (!number_flag(ctl, "rev", &r.revision) || !number_flag(ctl, "limit", &r.limit))
        return false;
    ctl_flag(ctl, "consistency", &consistency);
    r.serializable = strcmp(consistency, "s") == 0;
    if (!r.serializable && strcmp(consistency, "l") != 0) {
        ctl_usage(ctl, "--consistency %s: neither l (linearizable) nor s (serializable)",
                  consistency);
        return false;
    }
    if (!ctl_arguments(ctl, 1, 2))
        return false;
    struct arena arena = {0};
    bool ok = read_range(ctl, &arena, prefix, from_key, &r.key, &r.range_end);
    if (ok)
        client_range(ctl->client, &r, ctl->timeout_ms, got, ctl);
    arena_free(&arena);
    return ok;
}

static void put_done(void *ctx, const struct client_result *result)
{
    struct ctl *ctl = ctx;
    if (ctl_failed(ctl, result))
        return;
    puts("OK");
    ctl_finish(ctl, 0);
}

static void read_stdin(struct buf *value)
{
    ssize_t n;
    do {
        buf_reserve(value, 65536);
        n = read(STDIN_FILENO, value->p + value->n, 65536);
        if (n > 0)
            value->n += (size_t)n;
    } while (n > 0);
}

static bool run_put(struct ctl *ctl)
{
    const char *lease = NULL;
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
    if (ctl_flag(ctl, "lease", &lease)) {
        char *end;
        r.lease = (int64_t)strtoull(lease, &end, 16);
        if (*lease == 0 || *end != 0) {
            ctl_usage(ctl, "--lease %s: not a lease id (hexadecimal)", lease);
            return false;
        }
    }
    if (!ctl_arguments(ctl, 1, 2))
        return false;
    struct buf value = {0};
    if (ctl->argc == 2)
        buf_append(&value, ctl->argv[1], strlen(ctl->argv[1]));
    else
        read_stdin(&value);
    r.key = field(bytes_str(ctl->argv[0]));
    r.value = field(buf_bytes(&value));
    client_put(ctl->client, &r, ctl->timeout_ms, put_done, ctl);
    buf_free(&value);
    return true;
}

static void deleted(void *ctx, const struct client_result *result)
{
    struct ctl *ctl = ctx;
    if (ctl_failed(ctl, result))
        return;
    printf("%ld\n", (long)((const Etcdserverpb__DeleteRangeResponse *)result->message)->deleted);
    ctl_finish(ctl, 0);
}

static bool run_del(struct ctl *ctl)
{
    Etcdserverpb__DeleteRangeRequest r = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    bool prefix = ctl_flag(ctl, "prefix", NULL), from_key = ctl_flag(ctl, "from-key", NULL);
    if (!ctl_arguments(ctl, 1, 2))
        return false;
    struct arena arena = {0};
    bool ok = read_range(ctl, &arena, prefix, from_key, &r.key, &r.range_end);
    if (ok)
        client_delete(ctl->client, &r, ctl->timeout_ms, deleted, ctl);
    arena_free(&arena);
    return ok;
}

const struct ctl_command ctl_kv_commands[] = {
    {"get", "[--prefix|--from-key] [--rev=N] KEY [END]", "prints keys and values", run_get},
    {"put", "[--lease=ID] KEY [VALUE]", "stores a value (of standard input without one)", run_put},
    {"del", "[--prefix|--from-key] KEY [END]", "deletes keys, prints how many", run_del},
    {0},
};
