/* Maintenance.Snapshot: what etcd's clients get, and what a client gets that doesn't take it. */
#include "tests/unit/api_fixture.h"

#include "lib/snapfile/file.h"

#define KEYS 60
#define VALUE_BYTES 60000

struct taker {
    struct fixture *f;
    struct rpc_stream *st;
    struct buf blobs;
    size_t messages;
    int64_t revision; /* of the first header */
    uint64_t remaining;
    size_t largest;
    bool pauses; /* takes one message, and then nothing */
    bool closed;
    int status;
    char text[RPC_STATUS_TEXT_MAX];
};

static void on_message(struct rpc_stream *st, void *ctx, struct bytes message)
{
    struct taker *t = ctx;
    Etcdserverpb__SnapshotResponse *r =
        etcdserverpb__snapshot_response__unpack(NULL, message.n, message.p);
    assert_non_null(r);
    if (t->messages++ == 0)
        t->revision = r->header->revision;
    t->remaining = r->remaining_bytes;
    t->largest = r->blob.len > t->largest ? r->blob.len : t->largest;
    buf_append(&t->blobs, r->blob.data, r->blob.len);
    etcdserverpb__snapshot_response__free_unpacked(r, NULL);
    if (t->pauses)
        rpc_stream_pause(st);
}

static void on_closed(struct rpc_stream *st, void *ctx, int status, const char *text, bool sent)
{
    struct taker *t = ctx;
    (void)st, (void)sent;
    t->st = NULL;
    t->closed = true;
    t->status = status;
    snprintf(t->text, sizeof(t->text), "%s", text ? text : "");
}

static const struct rpc_stream_handler handler = {.message = on_message, .closed = on_closed};

static void take(struct taker *t, struct fixture *f, bool pauses)
{
    *t = (struct taker){.f = f, .pauses = pauses};
    t->st =
        rpc_stream_open(f->channel, "/etcdserverpb.Maintenance/Snapshot", 0, NULL, 0, &handler, t);
    rpc_stream_send(t->st, BYTES_EMPTY);
    rpc_stream_half_close(t->st);
}

static void taker_free(struct taker *t)
{
    if (t->st)
        rpc_stream_cancel(t->st);
    buf_free(&t->blobs);
}

static int64_t fill(struct fixture *f)
{
    char key[16], *value = xmalloc(VALUE_BYTES + 1);
    int64_t revision = 0;
    memset(value, 'v', VALUE_BYTES);
    value[VALUE_BYTES] = 0;
    for (int i = 0; i < KEYS; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        revision = put(f, key, value);
    }
    free(value);
    return revision;
}

static enum errc count_row(void *ctx, const struct record *record, struct error *err)
{
    (void)err;
    *(size_t *)ctx += record->type == RECORD_ROW;
    return ERR_OK;
}

/* The blobs are a file whose hash is right, and hold every revision. */
static void check_file(struct fixture *f, const struct taker *t, int64_t revision)
{
    char *path = xasprintf("%s/snapshot", f->dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(t->blobs.p, 1, t->blobs.n, file), t->blobs.n);
    fclose(file);
    struct snapfile_info info;
    struct error err;
    size_t rows = 0;
    if (snapfile_read(disk_posix(), path, count_row, &rows, &info, &err) != ERR_OK)
        fail_msg("%s", err.message);
    assert_int_equal(info.head.revision, revision);
    assert_true(rows >= KEYS);
    free(path);
}

static void test_whole(void **state)
{
    struct fixture *f = *state;
    struct taker t;
    int64_t revision = fill(f);
    take(&t, f, false);
    RUN_UNTIL(f, t.closed);
    assert_int_equal(t.status, 0);
    assert_int_equal(t.revision, revision);
    assert_int_equal(t.remaining, 0);
    assert_true(t.largest <= 32 * 1024);
    check_file(f, &t, revision);
    taker_free(&t);
}

/* It is as of its begin, whatever is written, deleted and compacted meanwhile. */
static void test_beside_writes(void **state)
{
    struct fixture *f = *state;
    struct taker t;
    int64_t revision = fill(f);
    take(&t, f, true);
    RUN_UNTIL(f, t.messages > 0);
    for (int i = 0; i < 100; i++)
        put(f, "k1", "other");
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    r.revision = revision + 100;
    Etcdserverpb__CompactionResponse *answer =
        call(f, "/etcdserverpb.KV/Compact", &r, &etcdserverpb__compaction_response__descriptor);
    assert_non_null(answer);
    free_answer(answer);
    t.pauses = false;
    rpc_stream_resume(t.st);
    RUN_UNTIL(f, t.closed);
    assert_int_equal(t.status, 0);
    check_file(f, &t, revision);
    taker_free(&t);
}

/* Two at a time; one whose client goes away makes room. */
static void test_too_many(void **state)
{
    struct fixture *f = *state;
    struct taker t[4];
    fill(f);
    for (size_t i = 0; i < 2; i++) {
        take(&t[i], f, true);
        RUN_UNTIL(f, t[i].messages > 0);
    }
    take(&t[2], f, false);
    RUN_UNTIL(f, t[2].closed);
    assert_int_equal(t[2].status, 8);
    assert_string_equal(t[2].text, "etcdserver: too many requests");
    rpc_stream_cancel(t[0].st);
    t[0].st = NULL;
    do { /* the server hears of it in its time */
        take(&t[3], f, false);
        RUN_UNTIL(f, t[3].closed);
        taker_free(&t[3]);
    } while (t[3].status == 8);
    assert_int_equal(t[3].status, 0);
    for (size_t i = 0; i < 3; i++)
        taker_free(&t[i]);
}

/* A client that takes nothing any more is cut off, and compaction goes on. */
static void test_dead_client(void **state)
{
    struct fixture *f = *state;
    struct taker t;
    int64_t revision = fill(f);
    take(&t, f, true);
    RUN_UNTIL(f, t.messages > 0);
    Etcdserverpb__CompactionRequest r = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    r.revision = revision;
    r.physical = true;
    Etcdserverpb__CompactionResponse *answer =
        call(f, "/etcdserverpb.KV/Compact", &r, &etcdserverpb__compaction_response__descriptor);
    assert_non_null(answer); /* it waits for the snapshot's end */
    free_answer(answer);
    t.pauses = false;
    rpc_stream_resume(t.st);
    RUN_UNTIL(f, t.closed);
    assert_int_equal(t.status, 4);
    taker_free(&t);
}

/* The server ends while one is under way: answered, and nothing is left (the sanitizers look). */
static void test_server_stops(void **state)
{
    struct fixture *f = *state;
    struct taker t;
    fill(f);
    take(&t, f, true);
    RUN_UNTIL(f, t.messages > 0);
    t.pauses = false;
    rpc_stream_resume(t.st);
    server_stop(f->server);
    RUN_UNTIL(f, f->stopped && t.closed);
    assert_true(t.status != 0);
    taker_free(&t);
    rpc_channel_free(f->channel);
    fixture_serve(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_whole),       TEST(test_beside_writes), TEST(test_too_many),
        TEST(test_dead_client), TEST(test_server_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
