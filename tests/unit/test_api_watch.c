/* The Watch service end to end. */
#include "tests/unit/api_fixture.h"

#define WATCH "/etcdserverpb.Watch/Watch"

static void create(struct stream *s, const char *key, const char *end, int64_t start, int64_t id)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest c = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = &c;
    c.key = text_data(key);
    c.range_end = text_data(end);
    c.start_revision = start;
    c.watch_id = id;
    c.prev_kv = true;
    stream_send(s, &r);
}

static void cancel(struct stream *s, int64_t id)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCancelRequest c = ETCDSERVERPB__WATCH_CANCEL_REQUEST__INIT;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CANCEL_REQUEST;
    r.cancel_request = &c;
    c.watch_id = id;
    stream_send(s, &r);
}

static void ask_progress(struct stream *s, bool linearizable)
{
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchProgressRequest p = ETCDSERVERPB__WATCH_PROGRESS_REQUEST__INIT;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_PROGRESS_REQUEST;
    r.progress_request = &p;
    p.linearizable = linearizable;
    stream_send(s, &r);
}

static Etcdserverpb__WatchResponse *next(struct stream *s)
{
    return stream_next(s, &etcdserverpb__watch_response__descriptor);
}

static void expect_created(struct stream *s, int64_t id, const char *reason)
{
    Etcdserverpb__WatchResponse *r = next(s);
    assert_true(r->created);
    assert_int_equal(r->watch_id, id);
    assert_int_equal(r->canceled, reason[0] != 0);
    assert_string_equal(r->cancel_reason, reason);
    free_answer(r);
}

static void expect_event(struct stream *s, int64_t id, int64_t revision, const char *value,
                         const char *prev)
{
    Etcdserverpb__WatchResponse *r = next(s);
    assert_int_equal(r->watch_id, id);
    assert_int_equal(r->n_events, 1);
    assert_true(r->header->revision >= revision);
    Mvccpb__Event *e = r->events[0];
    assert_int_equal(e->kv->mod_revision, revision);
    assert_int_equal(e->type,
                     value ? MVCCPB__EVENT__EVENT_TYPE__PUT : MVCCPB__EVENT__EVENT_TYPE__DELETE);
    if (value)
        assert_memory_equal(e->kv->value.data, value, strlen(value));
    assert_int_equal(e->prev_kv != NULL, prev != NULL);
    if (prev)
        assert_memory_equal(e->prev_kv->value.data, prev, strlen(prev));
    free_answer(r);
}

static void expect_progress(struct stream *s, int64_t revision)
{
    Etcdserverpb__WatchResponse *r = next(s);
    assert_int_equal(r->watch_id, -1);
    assert_int_equal(r->n_events, 0);
    assert_int_equal(r->header->revision, revision);
    free_answer(r);
}

static void changes_arrive_in_order(void **state)
{
    struct fixture *f = *state;
    struct stream *s = stream_open(f, WATCH);
    create(s, "a", "", 0, 0);
    expect_created(s, 0, "");
    put(f, "a", "1");
    put(f, "b", "x");
    put(f, "a", "2");
    Etcdserverpb__DeleteRangeRequest d = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    d.key = text_data("a");
    free_answer(call(f, "/etcdserverpb.KV/DeleteRange", &d,
                     &etcdserverpb__delete_range_response__descriptor));
    expect_event(s, 0, 2, "1", NULL);
    expect_event(s, 0, 4, "2", "1");
    expect_event(s, 0, 5, NULL, "2");
    stream_free(s);
}

static void history_is_caught_up(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++)
        put(f, "a", "v");
    struct stream *s = stream_open(f, WATCH);
    create(s, "a", "", 3, 7);
    expect_created(s, 7, "");
    int64_t revision = 3;
    while (revision <= 6) {
        Etcdserverpb__WatchResponse *r = next(s);
        for (size_t i = 0; i < r->n_events; i++)
            assert_int_equal(r->events[i]->kv->mod_revision, revision++);
        free_answer(r);
    }
    put(f, "a", "w");
    expect_event(s, 7, 7, "w", "v");
    stream_free(s);
}

static void ids_and_ranges_are_checked(void **state)
{
    struct stream *s = stream_open(*state, WATCH);
    create(s, "a", "", 0, 5);
    expect_created(s, 5, "");
    create(s, "a", "", 0, 5);
    expect_created(s, -1, "mvcc: duplicate watch ID provided on the WatchStream");
    create(s, "b", "a", 0, 0);
    expect_created(s, -1, "mvcc: watcher range is empty");
    create(s, "a", "", 0, 0);
    expect_created(s, 0, "");
    create(s, "a", "", 0, 0);
    expect_created(s, 1, "");
    cancel(s, 99); /* unknown: no answer */
    cancel(s, 5);
    Etcdserverpb__WatchResponse *r = next(s);
    assert_true(r->canceled);
    assert_int_equal(r->watch_id, 5);
    free_answer(r);
    stream_free(s);
}

static void a_compacted_start_is_told(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 5; i++)
        put(f, "a", "v");
    Etcdserverpb__CompactionRequest c = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    c.revision = 4;
    free_answer(
        call(f, "/etcdserverpb.KV/Compact", &c, &etcdserverpb__compaction_response__descriptor));
    struct stream *s = stream_open(f, WATCH);
    create(s, "a", "", 2, 0);
    expect_created(s, 0, "");
    Etcdserverpb__WatchResponse *r = next(s);
    assert_true(r->canceled);
    assert_int_equal(r->compact_revision, 4);
    assert_int_equal(r->header->revision, 0); /* etcd's way */
    free_answer(r);
    stream_free(s);
}

/* The story of e#15220: a progress answer must not overtake an event. */
static void progress_comes_after_the_events(void **state)
{
    struct fixture *f = *state;
    struct stream *s = stream_open(f, WATCH);
    ask_progress(s, true); /* without a watch too */
    expect_progress(s, 1);
    create(s, "a", "z", 0, 0);
    expect_created(s, 0, "");
    for (int round = 0; round < 2; round++) {
        int64_t revision = put(f, "a", "v");
        ask_progress(s, round == 0);
        expect_event(s, 0, revision, "v", round ? "v" : NULL);
        expect_progress(s, revision);
    }
    for (int i = 0; i < 200; i++) /* more than may wait at a time */
        ask_progress(s, i % 2);
    for (int i = 0; i < 200; i++)
        expect_progress(s, 3);
    stream_free(s);
}

static void a_large_revision_is_fragmented(void **state)
{
    enum { KEYS = 40 };
    struct fixture *f = *state;
    Etcdserverpb__PutRequest puts[KEYS];
    Etcdserverpb__RequestOp ops[KEYS], *list[KEYS];
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    struct stream *s = stream_open(f, WATCH);
    char *value = xcalloc(1, 30000), keys[KEYS][8];
    memset(value, 'v', 29999);
    for (int i = 0; i < KEYS; i++) /* their values come back as prev_kv, which makes it large */
        put(f, (snprintf(keys[i], sizeof(keys[i]), "k%02d", i), keys[i]), value);
    Etcdserverpb__WatchRequest r = ETCDSERVERPB__WATCH_REQUEST__INIT;
    Etcdserverpb__WatchCreateRequest c = ETCDSERVERPB__WATCH_CREATE_REQUEST__INIT;
    r.request_union_case = ETCDSERVERPB__WATCH_REQUEST__REQUEST_UNION_CREATE_REQUEST;
    r.create_request = &c;
    c.key = text_data("k");
    c.range_end = text_data("l");
    c.prev_kv = c.fragment = true;
    stream_send(s, &r);
    expect_created(s, 0, "");
    for (int i = 0; i < KEYS; i++) {
        etcdserverpb__put_request__init(&puts[i]);
        etcdserverpb__request_op__init(&ops[i]);
        puts[i].key = text_data(keys[i]);
        ops[i].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
        ops[i].request_put = &puts[i];
        list[i] = &ops[i];
    }
    t.success = list;
    t.n_success = KEYS;
    free_answer(call(f, "/etcdserverpb.KV/Txn", &t, &etcdserverpb__txn_response__descriptor));
    size_t events = 0, messages = 0;
    for (bool more = true; more; messages++) {
        Etcdserverpb__WatchResponse *w = next(s);
        assert_true(protobuf_c_message_get_packed_size(&w->base) < 64 * 1024 + 600 * 1024);
        for (size_t i = 0; i < w->n_events; i++)
            assert_memory_equal(w->events[i]->kv->key.data, keys[events++], 3);
        more = w->fragment;
        free_answer(w);
    }
    assert_int_equal(events, KEYS);
    assert_true(messages > 1);
    free(value);
    stream_free(s);
}

static void half_close_ends_the_stream(void **state)
{
    struct fixture *f = *state;
    struct stream *s = stream_open(f, WATCH);
    create(s, "a", "", 0, 0);
    expect_created(s, 0, "");
    rpc_stream_half_close(s->st);
    RUN_UNTIL(f, s->closed);
    assert_int_equal(s->status, 0);
    stream_free(s);
}

static void a_stop_ends_the_stream(void **state)
{
    struct fixture *f = *state;
    struct stream *s = stream_open(f, WATCH);
    create(s, "a", "", 0, 0);
    expect_created(s, 0, "");
    server_stop(f->server);
    RUN_UNTIL(f, s->closed && f->stopped);
    assert_int_equal(s->status, 14);
    assert_string_equal(s->text, "etcdserver: server stopped");
    stream_free(s);
    rpc_channel_free(f->channel);
    fixture_serve(f);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(changes_arrive_in_order),         TEST(history_is_caught_up),
        TEST(ids_and_ranges_are_checked),      TEST(a_compacted_start_is_told),
        TEST(progress_comes_after_the_events), TEST(a_large_revision_is_fragmented),
        TEST(half_close_ends_the_stream),      TEST(a_stop_ends_the_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
