/* The witness's start and what its parts share: see witness.h. */
#include "tests/fault/witness.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"

#define CONNECT_MS 1000
#define PING_MS 1000 /* a member that is cut off is noticed */
#define WRONG_SHOWN_MAX 40

uint64_t witness_ns(void)
{
    return env_system()->mono_ns(env_system());
}

uint64_t witness_random(struct witness *w, uint64_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (w->random >> 33) % below;
}

void witness_wrong(struct witness *w, const char *format, ...)
{
    if (++w->wrong > WRONG_SHOWN_MAX)
        return;
    va_list args;
    va_start(args, format);
    printf("WRONG: ");
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

ProtobufCBinaryData witness_text(const char *text)
{
    return (ProtobufCBinaryData){strlen(text), (uint8_t *)text};
}

void witness_send(struct rpc_stream *st, const ProtobufCMessage *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = xmalloc(n + 1);
    protobuf_c_message_pack(message, packed);
    rpc_stream_send(st, bytes_of(packed, n));
    free(packed);
}

struct rpc_stream *witness_stream(struct witness *w, size_t member, const char *path,
                                  uint64_t deadline_ms, const ProtobufCMessage *message,
                                  const struct rpc_stream_handler *handler, void *ctx)
{
    /* A member that has lost its leader ends the stream. */
    struct rpc_header header = {bytes_str("hasleader"), bytes_str("true")};
    struct rpc_stream *st =
        rpc_stream_open(w->channels[member], path, deadline_ms, &header, 1, handler, ctx);
    witness_send(st, message);
    return st;
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *ret_buf)
{
    static char ignored[256];
    (void)handle, (void)size;
    *ret_buf = uv_buf_init(ignored, sizeof(ignored));
}

static void input_read(uv_stream_t *input, ssize_t n, const uv_buf_t *buf)
{
    (void)buf;
    if (n >= 0)
        return;
    struct witness *w = input->data;
    uv_close((uv_handle_t *)input, NULL);
    w->ending = true;
    witness_end(w);
}

static bool connect_all(struct witness *w, char *list)
{
    const char *urls[CLIENT_ENDPOINTS_MAX];
    struct rpc_channel_config config = {.connect_timeout_ms = CONNECT_MS, .keepalive_ms = PING_MS};
    char *save = NULL;
    for (char *u = strtok_r(list, ",", &save); u && w->member_count < CLIENT_ENDPOINTS_MAX;
         u = strtok_r(NULL, ",", &save)) {
        w->channels[w->member_count] = rpc_channel_new(&w->loop, u, &config);
        urls[w->member_count++] = u;
    }
    struct client_config client = {.endpoints = urls,
                                   .endpoint_count = w->member_count,
                                   .timeout_ms = WITNESS_CALL_MS,
                                   .request_ids = true};
    struct error err;
    if (client_new(&w->loop, &client, &w->client, &err) == ERR_OK)
        return true;
    fprintf(stderr, "witness: %s\n", err.message);
    return false;
}

static void free_all(struct witness *w)
{
    for (size_t i = 0; i < WITNESS_WATCHES; i++)
        witness_watch_free(&w->watches[i]);
    for (size_t i = 0; i < w->member_count; i++)
        witness_watch_free(&w->readers[i]);
    for (size_t i = 0; i < w->lease_count; i++)
        free(w->leases[i]);
    free(w->puts);
}

static void print_counts(const struct witness *w)
{
    uint64_t now = env_system()->wall_ns(env_system());
    uint64_t ahead_ns = w->newest_stamp > now ? w->newest_stamp - now : 0;
    printf("events=%zu moves=%" PRIu64 " puts=%zu renewals=%" PRIu64 " expired=%zu lapsed=%" PRIu64
           " stamp_ahead_s=%" PRIu64 " wrong=%zu\n",
           w->watches[0].events.count, w->moves, w->put_count, w->renewals,
           witness_leases_expired(w), w->lapsed, ahead_ns / 1000000000, w->wrong);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: witness URL[,URL...] [SEED]\n");
        return 2;
    }
    static struct witness w;
    w.random = argc > 2 ? strtoull(argv[2], NULL, 0) : witness_ns();
    uv_loop_init(&w.loop);
    if (!connect_all(&w, argv[1]))
        return 2;
    uv_pipe_init(&w.loop, &w.input, 0);
    w.input.data = &w;
    uv_pipe_open(&w.input, 0);
    uv_read_start((uv_stream_t *)&w.input, give_buffer, input_read);
    witness_watches_start(&w);
    witness_leases_start(&w);
    witness_writer_start(&w);
    uv_run(&w.loop, UV_RUN_DEFAULT);
    uv_loop_close(&w.loop);
    print_counts(&w);
    free_all(&w);
    return w.wrong ? 1 : 0;
}
