/* Transactions: what they do, and what is refused before it is proposed, as in etcd 3.5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/apply_fixture.h"

/* ---- transactions ----------------------------------------------------------------------------------- */

static void compares(void **state)
{
    (void)state;
    put("a", "5");
    put("a", "5");
    put("b", "7");
    static const struct {
        const char *key, *end;
        int target, result;
        int64_t number;
        const char *value;
        bool holds;
    } table[] = {
        {"a", NULL, TARGET(VERSION), RESULT(EQUAL), 2, NULL, true},
        {"a", NULL, TARGET(VERSION), RESULT(NOT_EQUAL), 2, NULL, false},
        {"a", NULL, TARGET(CREATE), RESULT(EQUAL), 2, NULL, true},
        {"a", NULL, TARGET(MOD), RESULT(GREATER), 2, NULL, true},
        {"a", NULL, TARGET(MOD), RESULT(LESS), 3, NULL, false},
        {"a", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "5", true},
        {"a", NULL, TARGET(VALUE), RESULT(LESS), 0, "6", true},
        {"a", NULL, TARGET(LEASE), RESULT(EQUAL), 0, NULL, true},
        /* a missing key: zero, but no value */
        {"none", NULL, TARGET(VERSION), RESULT(EQUAL), 0, NULL, true},
        {"none", NULL, TARGET(CREATE), RESULT(LESS), 1, NULL, true},
        {"none", NULL, TARGET(MOD), RESULT(GREATER), 0, NULL, false},
        {"none", NULL, TARGET(LEASE), RESULT(EQUAL), 0, NULL, true},
        {"none", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "", false},
        {"none", NULL, TARGET(VALUE), RESULT(NOT_EQUAL), 0, "x", false},
        /* ranges: every key */
        {"a", "c", TARGET(MOD), RESULT(GREATER), 2, NULL, true},
        {"a", "c", TARGET(VALUE), RESULT(EQUAL), 0, "5", false},
        {"a", "\\0", TARGET(VERSION), RESULT(GREATER), 0, NULL, true},
        {"x", "z", TARGET(VERSION), RESULT(EQUAL), 0, NULL, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        Etcdserverpb__TxnRequest *t = when(txn(), table[i].key, table[i].end, table[i].target,
                                           table[i].result, table[i].number, table[i].value);
        Etcdserverpb__TxnResponse *m;
        struct error err;
        assert_int_equal(apply_read_txn(apply, t, &arena, &m, &err), ERR_OK);
        if (m->succeeded != table[i].holds)
            fail_msg("compare %zu", i);
    }
    /* All of them must hold. */
    Etcdserverpb__TxnRequest *t = when(txn(), "a", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "5");
    t = when(t, "b", NULL, TARGET(VALUE), RESULT(EQUAL), 0, "8");
    assert_false(run_txn(t)->succeeded);
    /* An operand of another kind than the target's is zero. */
    t = when(txn(), "none", NULL, TARGET(VERSION), RESULT(EQUAL), 5, NULL);
    t->compare[0]->target = TARGET(MOD);
    assert_true(run_txn(t)->succeeded);
}

static void transactions_are_one_revision(void **state)
{
    (void)state;
    put("a", "1");
    Etcdserverpb__TxnRequest *t = when(txn(), "a", NULL, TARGET(VERSION), RESULT(EQUAL), 1, NULL);
    then(t, op_range("a", "\\0", 0));
    then(t, op_put("b", "2"));
    then(t, op_range("a", "\\0", 0)); /* sees the put before it */
    then(t, op_delete("a", NULL));
    then(t, op_range("a", "\\0", 0));
    otherwise(t, op_put("c", "3"));
    const Etcdserverpb__TxnResponse *m = run_txn(t);
    assert_true(m->succeeded);
    assert_int_equal(m->header->revision, 3);
    assert_int_equal(m->n_responses, 5);
    assert_string_equal(show(m->responses[0]->response_range), "a=1@2 #1");
    assert_int_equal(m->responses[0]->response_range->header->revision, 2);
    assert_int_equal(m->responses[1]->response_put->header->revision, 3);
    assert_string_equal(show(m->responses[2]->response_range), "a=1@2 b=2@3 #2");
    assert_int_equal(m->responses[2]->response_range->header->revision, 3);
    assert_int_equal(m->responses[3]->response_delete_range->deleted, 1);
    assert_string_equal(show(m->responses[4]->response_range), "b=2@3 #1");
    m = run_txn(t);
    assert_false(m->succeeded);
    assert_int_equal(m->header->revision, 4);
    assert_string_equal(get("a", "\\0", 0), "b=2@3 c=3@4 #2");
    /* One that changes nothing leaves the revision alone. */
    assert_int_equal(run_txn(then(txn(), op_delete("x", "z")))->header->revision, 4);
}

/* The compares of nested transactions see the state before the outermost one. */
static void nested_transactions(void **state)
{
    (void)state;
    Etcdserverpb__TxnRequest *inner =
        when(txn(), "a", NULL, TARGET(VERSION), RESULT(EQUAL), 0, NULL);
    then(inner, op_put("inner", "absent"));
    otherwise(inner, op_put("inner", "present"));
    Etcdserverpb__TxnRequest *t = txn();
    then(t, op_put("a", "1"));
    then(t, op_txn(inner));
    then(t, op_txn(then(txn(), op_range("a", "\\0", 0))));
    const Etcdserverpb__TxnResponse *m = run_txn(t);
    assert_true(m->responses[1]->response_txn->succeeded);
    assert_int_equal(m->responses[1]->response_txn->header->revision, 0); /* as in etcd */
    const Etcdserverpb__TxnResponse *last = m->responses[2]->response_txn;
    assert_string_equal(show(last->responses[0]->response_range), "a=1@2 inner=absent@2 #2");
    m = run_txn(t);
    assert_false(m->responses[1]->response_txn->succeeded);
    assert_string_equal(get("inner", NULL, 0), "inner=present@3 #1");
}

/* A transaction fails as a whole, before it has done anything (e#18667). */
static void transactions_fail_as_a_whole(void **state)
{
    (void)state;
    put("a", "1");
    put("a", "2");
    put("a", "3");
    assert_int_equal(compact(3), ERR_OK);
    assert_int_equal(
        run_op(op_txn(then(then(txn(), op_put("b", "1")), op_range("a", NULL, 2)))).code,
        ERR_COMPACTED);
    assert_int_equal(
        run_op(op_txn(then(then(txn(), op_put("b", "1")), op_range("a", NULL, 5)))).code,
        ERR_FUTURE_REV);
    Etcdserverpb__RequestOp *keep = op_put("none", NULL);
    keep->request_put->ignore_value = true;
    assert_int_equal(run_op(op_txn(then(then(txn(), op_put("b", "1")), keep))).code,
                     ERR_KEY_NOT_FOUND);
    Etcdserverpb__RequestOp *leased = op_put("c", "1");
    leased->request_put->lease = 99;
    Etcdserverpb__TxnRequest *inner = then(txn(), leased);
    assert_int_equal(run_op(op_txn(then(then(txn(), op_put("b", "1")), op_txn(inner)))).code,
                     ERR_LEASE_NOT_FOUND);
    /* Puts are checked before ranges; the branch that isn't taken isn't checked. */
    assert_int_equal(run_op(op_txn(then(then(txn(), op_range("a", NULL, 2)), leased))).code,
                     ERR_LEASE_NOT_FOUND);
    run_txn(otherwise(txn(), leased));
    assert_string_equal(get("b", "\\0", 0), "#0");
    assert_int_equal(mvcc_revision(f.store), 4);
    assert_int_equal(mvcc_applied_index(f.store), 10);
}

/* ---- checks before the proposal --------------------------------------------------------------------- */

static enum errc check(Etcdserverpb__TxnRequest *t)
{
    return apply_check_txn(t, APPLY_TXN_OPS_MAX_DEFAULT);
}

static void no_key_is_changed_twice(void **state)
{
    (void)state;
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_put("b", "1"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_put("a", "1"))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(otherwise(otherwise(txn(), op_put("a", "1")), op_put("a", "1"))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(otherwise(then(txn(), op_put("a", "1")), op_put("a", "1"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("b", "1")), op_delete("a", "c"))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_put("c", "1")), op_delete("a", "c"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_delete("a", NULL))),
                     ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_delete("a", "c")), op_delete("a", "b"))), ERR_OK);
    /* etcd's interval of "\0" is an empty one. */
    assert_int_equal(check(then(then(txn(), op_put("b", "1")), op_delete("a", "\\0"))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_put("a", "1")), op_delete("a", "\\0"))), ERR_OK);

    Etcdserverpb__TxnRequest *both = otherwise(then(txn(), op_put("a", "1")), op_put("a", "2"));
    assert_int_equal(check(then(txn(), op_txn(both))), ERR_OK); /* branches exclude each other */
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_put("a", "3"))), ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_txn(both))), ERR_DUPLICATE_KEY);
    Etcdserverpb__TxnRequest *other = otherwise(txn(), op_put("a", "1"));
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_txn(other))), ERR_DUPLICATE_KEY);
    Etcdserverpb__TxnRequest *wipes = otherwise(txn(), op_delete("a", "z"));
    assert_int_equal(check(then(then(txn(), op_txn(wipes)), op_put("b", "1"))), ERR_DUPLICATE_KEY);
    assert_int_equal(check(then(then(txn(), op_txn(wipes)), op_txn(both))), ERR_DUPLICATE_KEY);
    /* etcd looks at nested puts before the deletes of later siblings. */
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_txn(wipes))), ERR_OK);
    assert_int_equal(check(then(then(txn(), op_txn(both)), op_delete("a", "z"))),
                     ERR_DUPLICATE_KEY);
}

static void sizes_and_keys(void **state)
{
    (void)state;
    Etcdserverpb__TxnRequest *t = txn();
    for (int i = 0; i < 128; i++) {
        then(t, op_range("a", NULL, 0));
        otherwise(t, op_range("a", NULL, 0));
        when(t, "a", NULL, TARGET(MOD), RESULT(EQUAL), 0, NULL);
    }
    assert_int_equal(check(t), ERR_OK);
    then(t, op_range("a", NULL, 0));
    assert_int_equal(check(t), ERR_TOO_MANY_OPS);
    /* A nested transaction has what its parents leave. */
    t = txn();
    for (int i = 0; i < 100; i++)
        then(t, op_range("a", NULL, 0));
    Etcdserverpb__TxnRequest *inner = txn();
    for (int i = 0; i < 27; i++)
        then(inner, op_range("a", NULL, 0));
    then(t, op_txn(inner)); /* 101 + 27 */
    assert_int_equal(check(t), ERR_OK);
    then(inner, op_range("a", NULL, 0));
    assert_int_equal(check(t), ERR_TOO_MANY_OPS);
    /* Width at every level is bounded by all operations together. */
    Etcdserverpb__TxnRequest *wide = then(txn(), op_range("a", NULL, 0));
    for (int depth = 0; depth < 15; depth++)
        wide = then(then(txn(), op_txn(wide)), op_txn(wide));
    assert_int_equal(check(wide), ERR_TOO_MANY_OPS);

    assert_int_equal(check(then(txn(), op_put("", "1"))), ERR_EMPTY_KEY);
    assert_int_equal(check(when(txn(), "", NULL, TARGET(MOD), RESULT(EQUAL), 0, NULL)),
                     ERR_EMPTY_KEY);
    assert_int_equal(
        check(then(txn(), NEW(Etcdserverpb__RequestOp, ETCDSERVERPB__REQUEST_OP__INIT))),
        ERR_KEY_NOT_FOUND);
    Etcdserverpb__PutRequest p = *op_put("a", "1")->request_put;
    p.ignore_value = true;
    assert_int_equal(apply_check_put(&p), ERR_VALUE_PROVIDED);
    p = *op_put("a", NULL)->request_put;
    p.ignore_lease = true;
    p.lease = 1;
    assert_int_equal(apply_check_put(&p), ERR_LEASE_PROVIDED);
    Etcdserverpb__RangeRequest r = *op_range("a", NULL, 0)->request_range;
    r.sort_target = 5;
    assert_int_equal(apply_check_range(&r), ERR_INVALID_SORT);
    r = *op_range(NULL, NULL, 0)->request_range;
    assert_int_equal(apply_check_range(&r), ERR_EMPTY_KEY);
}

static void depth_is_found_before_unpacking(void **state)
{
    (void)state;
    Etcdserverpb__TxnRequest *t = then(txn(), op_put("a", "1"));
    for (int i = 1; i < 20; i++)
        t = otherwise(then(txn(), op_put("a", "1")), op_txn(t));
    uint8_t packed[4096];
    size_t n = etcdserverpb__txn_request__pack(t, packed);
    assert_int_equal(apply_check_txn_depth(bytes_of(packed, n), 20), ERR_OK);
    assert_int_equal(apply_check_txn_depth(bytes_of(packed, n), 19), ERR_TOO_MANY_OPS);
    for (size_t cut = 1; cut < n; cut++) /* never reads beyond the end, whatever is there */
        apply_check_txn_depth(bytes_of(packed, n - cut), 20);
    assert_int_equal(apply_check_txn_depth(bytes_of(packed, n - 1), 20), ERR_INVALID);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(compares),
        T(transactions_are_one_revision),
        T(nested_transactions),
        T(transactions_fail_as_a_whole),
        T(no_key_is_changed_twice),
        T(sizes_and_keys),
        T(depth_is_found_before_unpacking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
