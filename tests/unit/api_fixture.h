/* A whole server and a client in one process and one loop, over a socket file. */
#ifndef TESTS_API_FIXTURE_H
#define TESTS_API_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/server/server.h"
#include "lib/base/log.h"
#include "lib/base/memory.h"
#include "lib/rpc/rpc.h"
#include "proto/rpc.pb-c.h"

struct fixture {
    uv_loop_t loop;
    char dir[64];
    struct server *server;
    struct rpc_channel *channel;
    bool stopped;
    /* the last unary call */
    bool answered;
    int status;
    char text[RPC_STATUS_TEXT_MAX];
    struct buf answer;
};

/* A stream of watch or keep-alive answers, collected. */
struct stream {
    struct fixture *f;
    struct rpc_stream *st;
    struct buf messages[256];
    size_t count, taken;
    bool closed;
    int status;
    char text[RPC_STATUS_TEXT_MAX];
};

/* Conditions, never times: a test that waits for what never comes is ended by the runner. */
#define RUN_UNTIL(f, condition)                                                                    \
    while (!(condition))                                                                           \
    uv_run(&(f)->loop, UV_RUN_ONCE)

static inline void fixture_stopped(void *ctx, const struct error *why)
{
    struct fixture *f = ctx;
    assert_null(why);
    f->stopped = true;
}

static inline void fixture_serve(struct fixture *f)
{
    struct server_config config;
    struct error err;
    char *url = xasprintf("unix:%s/sock", f->dir), *data = xasprintf("%s/data", f->dir);
    server_config_defaults(&config);
    config.data_dir = data;
    config.quiet = true;
    config.listen_client_urls.url[0] = url;
    config.listen_peer_urls.count = 0;
    config.max_request_bytes = 64 * 1024;
    config.heartbeat_ms = 10;
    config.election_ms = 100;
    config.snapshot_stall_ms = 2000;
    f->stopped = false;
    if (server_start(&f->loop, &config, &f->server, fixture_stopped, f, &err))
        fail_msg("%s", err.message);
    struct rpc_channel_config channel = {0};
    f->channel = rpc_channel_new(&f->loop, url, &channel);
    free(url);
    free(data);
}

static inline void fixture_end(struct fixture *f)
{
    rpc_channel_free(f->channel);
    server_stop(f->server);
    RUN_UNTIL(f, f->stopped);
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    log_set_level(LOG_ERROR);
    uv_loop_init(&f->loop);
    snprintf(f->dir, sizeof(f->dir), "/tmp/test_api.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    fixture_serve(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    fixture_end(f);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    char *command = xasprintf("rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(command);
    buf_free(&f->answer);
    free(f);
    return 0;
}

static inline void fixture_done(void *ctx, int status, const char *text, struct bytes answer,
                                bool sent)
{
    struct fixture *f = ctx;
    (void)sent;
    f->answered = true;
    f->status = status;
    snprintf(f->text, sizeof(f->text), "%s", text ? text : "");
    f->answer.n = 0;
    buf_append(&f->answer, answer.p, answer.n);
}

/* Calls and waits; the answer is unpacked (free_answer()) or NULL with f->status and f->text. */
static inline void *call_with(struct fixture *f, const char *path, const void *request,
                              const ProtobufCMessageDescriptor *type,
                              const struct rpc_header *headers, size_t header_count)
{
    size_t n = protobuf_c_message_get_packed_size(request);
    uint8_t *packed = xmalloc(n);
    protobuf_c_message_pack(request, packed);
    f->answered = false;
    rpc_unary(f->channel, path, bytes_of(packed, n), 0, headers, header_count, fixture_done, f);
    free(packed);
    RUN_UNTIL(f, f->answered);
    return f->status ? NULL
                     : (void *)protobuf_c_message_unpack(type, NULL, f->answer.n, f->answer.p);
}

static inline void *call(struct fixture *f, const char *path, const void *request,
                         const ProtobufCMessageDescriptor *type)
{
    return call_with(f, path, request, type, NULL, 0);
}

static inline void free_answer(void *answer)
{
    protobuf_c_message_free_unpacked(answer, NULL);
}

static inline ProtobufCBinaryData text_data(const char *s)
{
    return (ProtobufCBinaryData){strlen(s), (uint8_t *)s};
}

/* The revision of a put that must succeed. */
static inline int64_t put(struct fixture *f, const char *key, const char *value)
{
    Etcdserverpb__PutRequest r = ETCDSERVERPB__PUT_REQUEST__INIT;
    r.key = text_data(key);
    r.value = text_data(value);
    Etcdserverpb__PutResponse *answer =
        call(f, "/etcdserverpb.KV/Put", &r, &etcdserverpb__put_response__descriptor);
    assert_non_null(answer);
    int64_t revision = answer->header->revision;
    free_answer(answer);
    return revision;
}

/* ---- Streams */

static inline void stream_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    struct stream *s = ctx;
    (void)st;
    assert_true(s->count < ARRAY_LEN(s->messages));
    buf_append(&s->messages[s->count++], message.p, message.n);
}

static inline void stream_closed(struct rpc_stream *st, void *ctx, int status, const char *text,
                                 bool sent)
{
    struct stream *s = ctx;
    (void)st;
    (void)sent;
    s->st = NULL;
    s->closed = true;
    s->status = status;
    snprintf(s->text, sizeof(s->text), "%s", text ? text : "");
}

static const struct rpc_stream_handler stream_handler = {
    .message = stream_message,
    .closed = stream_closed,
};

static inline struct stream *stream_open(struct fixture *f, const char *path)
{
    struct stream *s = xcalloc(1, sizeof(*s));
    s->f = f;
    s->st = rpc_stream_open(f->channel, path, 0, NULL, 0, &stream_handler, s);
    return s;
}

static inline void stream_send(struct stream *s, const void *message)
{
    size_t n = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = xmalloc(n);
    protobuf_c_message_pack(message, packed);
    rpc_stream_send(s->st, bytes_of(packed, n));
    free(packed);
}

static inline void *stream_next(struct stream *s, const ProtobufCMessageDescriptor *type)
{
    RUN_UNTIL(s->f, s->taken < s->count || s->closed);
    assert_true(s->taken < s->count);
    struct buf *b = &s->messages[s->taken++];
    void *message = protobuf_c_message_unpack(type, NULL, b->n, b->p);
    assert_non_null(message);
    return message;
}

static inline void stream_free(struct stream *s)
{
    if (s->st)
        rpc_stream_cancel(s->st);
    for (size_t i = 0; i < s->count; i++)
        buf_free(&s->messages[i]);
    free(s);
}

#endif
