/* A load client for any etcd v3 server: the same program for quorumd and for etcd.
 *
 *     load put|get|serializable URL[,URL...] CLIENTS SECONDS
 *
 * Each client is one connection with one request at a time (a closed loop); clients are spread over the URLs.
 * Keys are of 16 bytes out of 10,000, values of 256 bytes. Prints operations a second and latencies:
 *     ops=12345.6 p50_us=80 p99_us=200 max_us=900 errors=0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/env.h"
#include "lib/base/memory.h"
#include "lib/rpc/rpc.h"
#include "proto/rpc.pb-c.h"

#define KEYS 10000
#define VALUE_BYTES 256
#define URLS_MAX 16
#define LATENCIES_MAX (16u * 1024 * 1024)

struct load {
    uv_loop_t loop;
    uv_timer_t end;
    bool put, serializable, ended;
    uint64_t errors, running;
    uint32_t *latencies_us;
    size_t latency_count;
};

struct load_client {
    struct load *load;
    struct rpc_channel *channel;
    uint64_t begun_ns, random;
};

static uint64_t now_ns(void)
{
    return env_system()->mono_ns(env_system());
}

static void next_request(struct load_client *c);

static void answered(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct load_client *c = ctx;
    (void)text, (void)answer, (void)sent;
    uint64_t took_us = (now_ns() - c->begun_ns) / 1000;
    if (status != 0)
        c->load->errors++;
    else if (c->load->latency_count < LATENCIES_MAX)
        c->load->latencies_us[c->load->latency_count++] = (uint32_t)took_us;
    if (c->load->ended)
        c->load->running--;
    else
        next_request(c);
}

static void next_request(struct load_client *c)
{
    char key[32];
    uint8_t packed[VALUE_BYTES + 64], value[VALUE_BYTES];
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    snprintf(key, sizeof(key), "bench/%010u", (unsigned)((c->random >> 33) % KEYS));
    size_t n;
    if (c->load->put) {
        memset(value, 'a' + (int)(c->random >> 60), sizeof(value));
        Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
        r.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
        r.value = (ProtobufCBinaryData){sizeof(value), value};
        n = etcdserverpb__put_request__pack(&r, packed);
    } else {
        Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
        r.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
        r.serializable = c->load->serializable;
        n = etcdserverpb__range_request__pack(&r, packed);
    }
    c->begun_ns = now_ns();
    rpc_unary(c->channel, c->load->put ? "/etcdserverpb.KV/Put" : "/etcdserverpb.KV/Range",
              bytes_of(packed, n), 0, NULL, 0, answered, c);
}

static void time_is_up(uv_timer_t *timer)
{
    ((struct load *)timer->data)->ended = true;
}

static int compare_latency(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(struct load *load, double seconds)
{
    size_t n = load->latency_count;
    qsort(load->latencies_us, n, sizeof(uint32_t), compare_latency);
    printf("ops=%.1f p50_us=%u p99_us=%u max_us=%u errors=%" PRIu64 "\n", (double)n / seconds,
           n ? load->latencies_us[n / 2] : 0, n ? load->latencies_us[n * 99 / 100] : 0,
           n ? load->latencies_us[n - 1] : 0, load->errors);
}

int main(int argc, char **argv)
{
    int clients = argc == 5 ? atoi(argv[3]) : 0;
    double seconds = argc == 5 ? atof(argv[4]) : 0;
    if (clients < 1 || clients > 10000 || seconds <= 0) {
        fprintf(stderr, "usage: load put|get|serializable URL[,URL...] CLIENTS SECONDS\n");
        return 2;
    }
    struct load load = {.put = strcmp(argv[1], "put") == 0,
                        .serializable = strcmp(argv[1], "serializable") == 0,
                        .latencies_us = xmalloc(LATENCIES_MAX * sizeof(uint32_t))};
    char *urls[URLS_MAX], *save = NULL;
    int url_count = 0;
    for (char *u = strtok_r(argv[2], ",", &save); u && url_count < URLS_MAX;
         u = strtok_r(NULL, ",", &save))
        urls[url_count++] = u;
    uv_loop_init(&load.loop);
    uv_timer_init(&load.loop, &load.end);
    load.end.data = &load;
    uv_timer_start(&load.end, time_is_up, (uint64_t)(seconds * 1000), 0);
    struct load_client *all = xcalloc((size_t)clients, sizeof(*all));
    struct rpc_channel_config config = {0};
    uint64_t begun = now_ns();
    for (int i = 0; i < clients; i++) {
        all[i] =
            (struct load_client){.load = &load, .random = (uint64_t)i * 0x9e3779b97f4a7c15u + 1};
        all[i].channel = rpc_channel_new(&load.loop, urls[i % url_count], &config);
        load.running++;
        next_request(&all[i]);
    }
    while (load.running > 0)
        uv_run(&load.loop, UV_RUN_ONCE);
    report(&load, (double)(now_ns() - begun) / 1e9);
    for (int i = 0; i < clients; i++)
        rpc_channel_free(all[i].channel);
    uv_close((uv_handle_t *)&load.end, NULL);
    while (uv_run(&load.loop, UV_RUN_DEFAULT))
        ;
    uv_loop_close(&load.loop);
    free(all);
    free(load.latencies_us);
    return 0;
}
