/* How long a cluster takes no write when its leader is killed: the same program for quorumd and for etcd.
 *
 *     failover URL[,URL...]        until standard input ends
 *
 * WRITERS writers at each member put one key after the other, with a short deadline and a short pause after a failure,
 * so that the cluster's first write after a kill is noticed at once whichever member takes it. A line on standard input
 * marks a kill; each mark, and the end, prints for the time since the mark before
 *     gap_ms=N writes=N failed=N
 * gap_ms: the longest time between two successful writes of any writers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/env.h"
#include "lib/base/memory.h"
#include "lib/rpc/rpc.h"
#include "proto/rpc.pb-c.h"

#define WRITERS 4
#define URLS_MAX 16
#define DEADLINE_MS 250 /* a proposal that was lost with its leader is given up, and made again */
#define PAUSE_MS 5

struct failover {
    uv_loop_t loop;
    uv_pipe_t input;
    bool ended;
    uint64_t writes, failed, last_ns, gap_ns;
};

struct writer {
    struct failover *f;
    struct rpc_channel *channel;
    uv_timer_t pause;
    unsigned number;
};

static uint64_t now_ns(void)
{
    return env_system()->mono_ns(env_system());
}

static void note_gap(struct failover *f)
{
    uint64_t now = now_ns();
    if (f->last_ns && now - f->last_ns > f->gap_ns)
        f->gap_ns = now - f->last_ns;
}

static void put_next(uv_timer_t *timer);

static void answered(void *ctx, int status, const char *text, struct bytes answer, bool sent)
{
    struct writer *w = ctx;
    (void)text, (void)answer, (void)sent;
    if (status == 0) {
        note_gap(w->f);
        w->f->last_ns = now_ns();
        w->f->writes++;
    } else {
        w->f->failed++;
    }
    uv_timer_start(&w->pause, put_next, PAUSE_MS, 0);
}

static void put_next(uv_timer_t *timer)
{
    struct writer *w = CONTAINER_OF(timer, struct writer, pause);
    if (w->f->ended) {
        uv_close((uv_handle_t *)timer, NULL);
        rpc_channel_free(w->channel);
        return;
    }
    char key[32];
    uint8_t packed[64];
    snprintf(key, sizeof(key), "failover/%u", w->number);
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
    r.key = r.value = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    size_t n = etcdserverpb__put_request__pack(&r, packed);
    rpc_unary(w->channel, "/etcdserverpb.KV/Put", bytes_of(packed, n), DEADLINE_MS, NULL, 0,
              answered, w);
}

static void report(struct failover *f)
{
    note_gap(f); /* one that has not ended yet counts as long as it is */
    printf("gap_ms=%" PRIu64 " writes=%" PRIu64 " failed=%" PRIu64 "\n", f->gap_ns / 1000000,
           f->writes, f->failed);
    fflush(stdout);
    f->writes = f->failed = f->gap_ns = 0;
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret_buf)
{
    static char buffer[256];
    (void)handle, (void)size;
    *ret_buf = uv_buf_init(buffer, sizeof(buffer));
}

static void input_read(uv_stream_t *input, ssize_t n, const uv_buf_t *buf)
{
    struct failover *f = input->data;
    for (ssize_t i = 0; i < n; i++) {
        if (buf->base[i] == '\n')
            report(f);
    }
    if (n < 0) {
        report(f);
        f->ended = true;
        uv_close((uv_handle_t *)input, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: failover URL[,URL...]\n");
        return 2;
    }
    static struct writer writers[WRITERS * URLS_MAX];
    struct failover f = {0};
    struct rpc_channel_config config = {.connect_timeout_ms = DEADLINE_MS};
    uv_loop_init(&f.loop);
    uv_pipe_init(&f.loop, &f.input, 0);
    f.input.data = &f;
    uv_pipe_open(&f.input, 0);
    uv_read_start((uv_stream_t *)&f.input, give_buffer, input_read);
    char *urls[URLS_MAX], *save = NULL;
    unsigned url_count = 0;
    for (char *u = strtok_r(argv[1], ",", &save); u && url_count < URLS_MAX;
         u = strtok_r(NULL, ",", &save))
        urls[url_count++] = u;
    for (unsigned i = 0; i < WRITERS * url_count; i++) {
        struct writer *w = &writers[i];
        *w = (struct writer){.f = &f, .number = i};
        w->channel = rpc_channel_new(&f.loop, urls[i % url_count], &config);
        uv_timer_init(&f.loop, &w->pause);
        uv_timer_start(&w->pause, put_next, 0, 0);
    }
    uv_run(&f.loop, UV_RUN_DEFAULT);
    uv_loop_close(&f.loop);
    return 0;
}
