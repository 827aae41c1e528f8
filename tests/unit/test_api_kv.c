/* The KV service end to end: answers and error texts are etcd's. */
#include "tests/unit/api_fixture.h"

static Etcdserverpb__RangeResponse *get(struct fixture *f, const char *key, int64_t revision)
{
    Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
    r.key = text_data(key);
    r.revision = revision;
    return call(f, "/etcdserverpb.KV/Range", &r, &etcdserverpb__range_response__descriptor);
}

static void a_put_is_read_back(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(put(f, "a", "1"), 2);
    assert_int_equal(put(f, "a", "2"), 3);
    Etcdserverpb__RangeResponse *r = get(f, "a", 0);
    assert_int_equal(r->header->cluster_id, 0xcdf818194e3a8c32);
    assert_int_equal(r->header->member_id, 0x8e9e05c52164694d);
    assert_int_equal(r->header->revision, 3);
    assert_true(r->header->raft_term > 0);
    assert_int_equal(r->count, 1);
    assert_int_equal(r->kvs[0]->version, 2);
    assert_int_equal(r->kvs[0]->create_revision, 2);
    assert_memory_equal(r->kvs[0]->value.data, "2", 1);
    free_answer(r);
    r = get(f, "a", 2);
    assert_memory_equal(r->kvs[0]->value.data, "1", 1);
    free_answer(r);
}

static void expect_failure(struct fixture *f, void *answer, int status, const char *text)
{
    assert_null(answer);
    assert_int_equal(f->status, status);
    assert_string_equal(f->text, text);
}

static void failures_have_etcds_words(void **state)
{
    struct fixture *f = *state;
    put(f, "a", "1");
    expect_failure(f, get(f, "", 0), 3, "etcdserver: key is not provided");
    expect_failure(f, get(f, "a", 99), 11,
                   "etcdserver: mvcc: required revision is a future revision");
    Etcdserverpb__CompactionRequest c = ETCDSERVERPB__COMPACTION_REQUEST__INIT;
    c.revision = 2;
    c.physical = true;
    void *answer =
        call(f, "/etcdserverpb.KV/Compact", &c, &etcdserverpb__compaction_response__descriptor);
    assert_non_null(answer);
    free_answer(answer);
    expect_failure(f, get(f, "a", 1), 11, "etcdserver: mvcc: required revision has been compacted");
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    p.key = text_data("k");
    p.lease = 77;
    expect_failure(f, call(f, "/etcdserverpb.KV/Put", &p, &etcdserverpb__put_response__descriptor),
                   5, "etcdserver: requested lease not found");
    answer = call(f, "/etcdserverpb.KV/None", &p, &etcdserverpb__put_response__descriptor);
    assert_null(answer);
    assert_int_equal(f->status, 12);
}

static void a_large_request_is_refused(void **state)
{
    struct fixture *f = *state;
    size_t n = 64 * 1024;
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    p.key = text_data("k");
    p.value = (ProtobufCBinaryData){n, xcalloc(1, n)};
    expect_failure(f, call(f, "/etcdserverpb.KV/Put", &p, &etcdserverpb__put_response__descriptor),
                   3, "etcdserver: request is too large");
    free(p.value.data);
    p.value = (ProtobufCBinaryData){n + 1024 * 1024, xcalloc(1, n + 1024 * 1024)};
    assert_null(call(f, "/etcdserverpb.KV/Put", &p, &etcdserverpb__put_response__descriptor));
    assert_int_equal(f->status, 8);
    free(p.value.data);
    assert_int_equal(put(f, "k", "small"), 2);
}

static void garbage_is_answered(void **state)
{
    struct fixture *f = *state;
    f->answered = false;
    rpc_unary(f->channel, "/etcdserverpb.KV/Put", bytes_str("\xff\xff\xff"), 0, NULL, 0,
              fixture_done, f);
    RUN_UNTIL(f, f->answered);
    assert_int_equal(f->status, 13);
    assert_int_equal(put(f, "k", "v"), 2);
}

/* A retry of a named request gets the first outcome and changes nothing. */
static void a_named_request_is_applied_once(void **state)
{
    struct fixture *f = *state;
    struct rpc_header header = {bytes_str("quorumfs-request-id"), bytes_str("ab12/1")};
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    p.key = text_data("k");
    for (int i = 0; i < 3; i++) {
        Etcdserverpb__PutResponse *r = call_with(
            f, "/etcdserverpb.KV/Put", &p, &etcdserverpb__put_response__descriptor, &header, 1);
        assert_non_null(r);
        assert_int_equal(r->header->revision, 2);
        free_answer(r);
    }
    assert_int_equal(put(f, "k", "other"), 3);
}

static void a_transaction_takes_its_branch(void **state)
{
    struct fixture *f = *state;
    put(f, "a", "1");
    Etcdserverpb__Compare compare = ETCDSERVERPB__COMPARE__INIT, *compares[] = {&compare};
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__RequestOp op = ETCDSERVERPB__REQUEST_OP__INIT, *ops[] = {&op};
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    compare.key = text_data("a");
    compare.target = ETCDSERVERPB__COMPARE__COMPARE_TARGET__VERSION;
    compare.target_union_case = ETCDSERVERPB__COMPARE__TARGET_UNION_VERSION;
    compare.version = 1;
    p.key = text_data("b");
    op.request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    op.request_put = &p;
    t.n_compare = t.n_success = 1;
    t.compare = compares;
    t.success = ops;
    for (int i = 0; i < 2; i++) {
        Etcdserverpb__TxnResponse *r =
            call(f, "/etcdserverpb.KV/Txn", &t, &etcdserverpb__txn_response__descriptor);
        assert_non_null(r);
        assert_int_equal(r->succeeded, i == 0);
        assert_int_equal(r->header->revision, 3);
        assert_int_equal(r->n_responses, i == 0);
        free_answer(r);
        compare.version = 2;
    }
}

/* The story: a deletion of "everything from k on" hides from etcd's check of duplicate keys, and this request
 * panics every member of an etcd 3.4 cluster, and again at each restart. */
static void a_put_that_keeps_what_was_just_deleted(void **state)
{
    struct fixture *f = *state;
    put(f, "k", "v");
    Etcdserverpb__PutRequest p = ETCDSERVERPB__PUT_REQUEST__INIT;
    Etcdserverpb__DeleteRangeRequest d = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    Etcdserverpb__RequestOp ops[] = {ETCDSERVERPB__REQUEST_OP__INIT,
                                     ETCDSERVERPB__REQUEST_OP__INIT};
    Etcdserverpb__RequestOp *list[] = {&ops[0], &ops[1]};
    Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
    p.key = d.key = text_data("k");
    d.range_end = (ProtobufCBinaryData){1, (uint8_t *)"\0"};
    p.ignore_value = true;
    ops[0].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
    ops[0].request_delete_range = &d;
    ops[1].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
    ops[1].request_put = &p;
    t.success = list;
    t.n_success = 2;
    expect_failure(f, call(f, "/etcdserverpb.KV/Txn", &t, &etcdserverpb__txn_response__descriptor),
                   3, "etcdserver: key not found");
    assert_int_equal(put(f, "k", "w"), 3); /* nothing was done, and all goes on */
}

/* More keys than one slice has; the answer is as of one revision. */
static void a_large_range_is_whole(void **state)
{
    enum { BATCH = 100, BATCHES = 12, KEYS = BATCH * BATCHES };
    struct fixture *f = *state;
    Etcdserverpb__PutRequest puts[BATCH];
    Etcdserverpb__RequestOp ops[BATCH], *list[BATCH];
    char keys[BATCH][32];
    for (int batch = 0; batch < BATCHES; batch++) {
        Etcdserverpb__TxnRequest t = ETCDSERVERPB__TXN_REQUEST__INIT;
        t.success = list;
        for (int i = 0; i < BATCH; i++) {
            etcdserverpb__put_request__init(&puts[i]);
            etcdserverpb__request_op__init(&ops[i]);
            snprintf(keys[i], sizeof(keys[i]), "k%06d", batch * BATCH + i);
            puts[i].key = puts[i].value = text_data(keys[i]);
            ops[i].request_case = ETCDSERVERPB__REQUEST_OP__REQUEST_REQUEST_PUT;
            ops[i].request_put = &puts[i];
            list[t.n_success++] = &ops[i];
        }
        free_answer(call(f, "/etcdserverpb.KV/Txn", &t, &etcdserverpb__txn_response__descriptor));
    }
    for (int64_t limit = 0; limit <= KEYS; limit += 550) {
        Etcdserverpb__RangeRequest r = ETCDSERVERPB__RANGE_REQUEST__INIT;
        r.key = text_data("k");
        r.range_end = text_data("l");
        r.limit = limit;
        r.keys_only = limit == 550;
        Etcdserverpb__RangeResponse *a =
            call(f, "/etcdserverpb.KV/Range", &r, &etcdserverpb__range_response__descriptor);
        assert_non_null(a);
        assert_int_equal(a->header->revision, 1 + BATCHES);
        assert_int_equal(a->count, KEYS);
        assert_int_equal(a->more, limit != 0);
        assert_int_equal(a->n_kvs, limit ? limit : KEYS);
        for (size_t i = 0; i < a->n_kvs; i++) {
            snprintf(keys[0], sizeof(keys[0]), "k%06zu", i);
            assert_memory_equal(a->kvs[i]->key.data, keys[0], 7);
            assert_int_equal(a->kvs[i]->value.len, r.keys_only ? 0 : 7);
        }
        free_answer(a);
    }
}

/* What was acknowledged is there after a restart, under the same identity. */
static void a_restart_keeps_everything(void **state)
{
    struct fixture *f = *state;
    put(f, "a", "1");
    put(f, "a", "2");
    fixture_end(f);
    fixture_serve(f);
    Etcdserverpb__RangeResponse *r = get(f, "a", 0);
    assert_non_null(r);
    assert_int_equal(r->header->revision, 3);
    assert_int_equal(r->header->cluster_id, 0xcdf818194e3a8c32);
    assert_memory_equal(r->kvs[0]->value.data, "2", 1);
    free_answer(r);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_put_is_read_back),
        TEST(failures_have_etcds_words),
        TEST(a_large_request_is_refused),
        TEST(garbage_is_answered),
        TEST(a_named_request_is_applied_once),
        TEST(a_transaction_takes_its_branch),
        TEST(a_put_that_keeps_what_was_just_deleted),
        TEST(a_large_range_is_whole),
        TEST(a_restart_keeps_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
