/* The state machine: requests and what etcd 3.5 answers to them. Transactions are in test_txn.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/apply_fixture.h"

/* ---- range ---------------------------------------------------------------------------------------- */

static void range_options(void **state)
{
    (void)state;
    put("a", "3"); /* 2 */
    put("b", "1"); /* 3 */
    put("c", "2"); /* 4 */
    put("a", "3"); /* 5: version 2, created at 2 */
    assert_string_equal(get("a", NULL, 0), "a=3@5 #1");
    assert_string_equal(get("a", "c", 0), "a=3@5 b=1@3 #2");
    assert_string_equal(get("b", "\\0", 0), "b=1@3 c=2@4 #2");
    assert_string_equal(get("a", "\\0", 3), "a=3@2 b=1@3 #2");
    assert_string_equal(get("x", "a", 0), "#0");
    assert_string_equal(get("a", NULL, 6), errc_text(ERR_FUTURE_REV));
    assert_string_equal(get("a", NULL, -1), "a=3@5 #1");

    Etcdserverpb__RangeRequest r = *op_range("a", "\\0", 0)->request_range;
    r.limit = 2;
    assert_string_equal(range(&r), "a=3@5 b=1@3 +#3");
    r.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    assert_string_equal(range(&r), "c=2@4 b=1@3 +#3");
    r.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__ASCEND;
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VALUE;
    assert_string_equal(range(&r), "b=1@3 c=2@4 +#3");
    r.keys_only = true;
    assert_string_equal(range(&r), "b=@3 c=@4 +#3");
    r.keys_only = false;
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__MOD;
    assert_string_equal(range(&r), "b=1@3 c=2@4 +#3");
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__VERSION;
    r.sort_order = ETCDSERVERPB__RANGE_REQUEST__SORT_ORDER__DESCEND;
    assert_string_equal(range(&r), "a=3@5 b=1@3 +#3");
    r.sort_target = ETCDSERVERPB__RANGE_REQUEST__SORT_TARGET__CREATE;
    r.limit = 0;
    assert_string_equal(range(&r), "c=2@4 b=1@3 a=3@5 #3");
    r = *op_range("a", "\\0", 0)->request_range;
    r.min_mod_revision = 4;
    assert_string_equal(range(&r), "a=3@5 c=2@4 #3");
    r.max_mod_revision = 4;
    assert_string_equal(range(&r), "c=2@4 #3");
    r.min_mod_revision = r.max_mod_revision = 0;
    r.max_create_revision = 3;
    r.limit = 1;
    assert_string_equal(range(&r), "a=3@5 +#3");
    r.min_create_revision = 3;
    assert_string_equal(range(&r), "b=1@3 #3");
    r = *op_range("a", "\\0", 0)->request_range;
    r.count_only = true;
    assert_string_equal(range(&r), "#3");
    assert_int_equal(compact(4), ERR_OK);
    assert_string_equal(get("a", NULL, 3), errc_text(ERR_COMPACTED));
    assert_string_equal(get("a", NULL, 4), "a=3@2 #1");
}

/* ---- put and delete -------------------------------------------------------------------------------- */

static void put_options(void **state)
{
    (void)state;
    Etcdserverpb__RequestOp *op = op_put("k", "1");
    op->request_put->prev_kv = true;
    struct apply_result r = run_op(op);
    const Etcdserverpb__PutResponse *m = (const Etcdserverpb__PutResponse *)r.message;
    assert_int_equal(m->header->revision, 2);
    assert_null(m->prev_kv);
    r = run_op(op);
    m = (const Etcdserverpb__PutResponse *)r.message;
    assert_int_equal(m->header->revision, 3);
    assert_int_equal(m->prev_kv->mod_revision, 2);
    assert_int_equal(m->prev_kv->value.len, 1);
    assert_int_equal(m->prev_kv->stamp, 1001);

    op = op_put("none", NULL);
    op->request_put->ignore_value = true;
    assert_int_equal(run_op(op).code, ERR_KEY_NOT_FOUND);
    op = op_put("k", NULL);
    op->request_put->ignore_value = true;
    op->request_put->lease = 7;
    assert_int_equal(run_op(op).code, ERR_LEASE_NOT_FOUND);
    assert_int_equal(grant(7, 10), ERR_OK);
    assert_int_equal(run_op(op).code, ERR_OK);
    assert_string_equal(get("k", NULL, 0), "k=1@4 #1");
    op = op_put("k", "2");
    op->request_put->ignore_lease = true;
    assert_int_equal(run_op(op).code, ERR_OK);
    assert_string_equal(get("k", NULL, 0), "k=2@5 #1");
    struct lease_info info;
    lessor_info(lessor, 7, 0, &info);
    assert_int_equal(info.key_count, 1);
    put("k", "3");
    lessor_info(lessor, 7, 0, &info);
    assert_int_equal(info.key_count, 0);
}

static void deletes(void **state)
{
    (void)state;
    put("a", "1");
    put("b", "2");
    put("c", "3");
    Etcdserverpb__RequestOp *op = op_delete("a", "c");
    op->request_delete_range->prev_kv = true;
    struct apply_result r = run_op(op);
    const Etcdserverpb__DeleteRangeResponse *m =
        (const Etcdserverpb__DeleteRangeResponse *)r.message;
    assert_int_equal(m->header->revision, 5);
    assert_int_equal(m->deleted, 2);
    assert_int_equal(m->n_prev_kvs, 2);
    assert_int_equal(m->prev_kvs[1]->mod_revision, 3);
    r = run_op(op_delete("a", "c"));
    m = (const Etcdserverpb__DeleteRangeResponse *)r.message;
    assert_int_equal(m->header->revision, 5); /* nothing changed */
    assert_int_equal(m->deleted, 0);
    assert_string_equal(get("a", "\\0", 0), "c=3@4 #1");
}

/* ---- leases, alarms, sessions ----------------------------------------------------------------------- */

static void revoking_is_one_revision(void **state)
{
    (void)state;
    assert_int_equal(grant(7, 10), ERR_OK);
    assert_int_equal(grant(7, 10), ERR_LEASE_EXISTS);
    for (int i = 0; i < 3; i++) {
        Etcdserverpb__RequestOp *op = op_put(i == 0 ? "b" : i == 1 ? "a" : "c", "1");
        op->request_put->lease = 7;
        assert_int_equal(run_op(op).code, ERR_OK);
    }
    put("c", "2"); /* no longer on the lease */
    struct apply_result r = revoke_lease(7);
    assert_int_equal(r.code, ERR_OK);
    assert_int_equal(((const Etcdserverpb__LeaseRevokeResponse *)r.message)->header->revision, 6);
    assert_string_equal(get("a", "\\0", 0), "c=2@5 #1");
    assert_int_equal(revoke_lease(7).code, ERR_LEASE_NOT_FOUND);
}

static void leases_come_back_after_a_restart(void **state)
{
    (void)state;
    assert_int_equal(grant(7, 1000), ERR_OK);
    assert_int_equal(grant(8, 1000), ERR_OK);
    Etcdserverpb__RequestOp *op = op_put("k", "1");
    op->request_put->lease = 7;
    run_op(op);
    revoke_lease(8);
    Etcdserverpb__LeaseCheckpoint c = ETCDSERVERPB__LEASE_CHECKPOINT__INIT, *cs[] = {&c};
    c.id = 7;
    c.remaining_ttl = 400;
    Etcdserverpb__LeaseCheckpointRequest q = ETCDSERVERPB__LEASE_CHECKPOINT_REQUEST__INIT;
    q.checkpoints = cs;
    q.n_checkpoints = 1;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_LEASE_CHECKPOINT;
    r.lease_checkpoint = &q;
    assert_int_equal(run(&r).code, ERR_OK);
    restart();
    struct lease_info info;
    assert_int_equal(lessor_info(lessor, 7, 0, &info), ERR_OK);
    assert_int_equal(info.granted_ttl, 1000);
    assert_int_equal(info.key_count, 1);
    assert_int_equal(lessor_stored_remaining(lessor, 7), 400);
    assert_int_equal(lessor_count(lessor), 1);
}

static size_t set_alarm(int action, uint64_t member, int type)
{
    Etcdserverpb__AlarmRequest a = ETCDSERVERPB__ALARM_REQUEST__INIT;
    a.action = action;
    a.memberid = member;
    a.alarm = type;
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_ALARM;
    r.alarm = &a;
    struct apply_result result = run(&r);
    assert_int_equal(result.code, ERR_OK);
    return ((const Etcdserverpb__AlarmResponse *)result.message)->n_alarms;
}

static void alarms(void **state)
{
    (void)state;
    enum { GET, ON, OFF, NOSPACE = 1, CORRUPT = 2 };
    put("a", "1");
    assert_int_equal(set_alarm(ON, 5, NOSPACE), 1);
    assert_int_equal(set_alarm(ON, 5, NOSPACE), 1);
    assert_int_equal(set_alarm(ON, 6, NOSPACE), 1);
    assert_int_equal(set_alarm(GET, 0, 0), 2);
    assert_int_equal(run_op(op_put("b", "1")).code, ERR_NO_SPACE);
    assert_int_equal(grant(9, 5), ERR_NO_SPACE);
    assert_int_equal(run_op(op_txn(otherwise(txn(), op_put("b", "1")))).code, ERR_NO_SPACE);
    assert_int_equal(run_op(op_txn(then(txn(), op_delete("b", NULL)))).code, ERR_OK);
    assert_int_equal(run_op(op_delete("a", NULL)).code, ERR_OK);
    restart();
    assert_true(apply_alarm_nospace(apply));
    assert_int_equal(set_alarm(OFF, 5, NOSPACE), 1);
    assert_int_equal(set_alarm(OFF, 5, NOSPACE), 0);
    assert_true(apply_alarm_nospace(apply));
    assert_int_equal(set_alarm(OFF, 6, NOSPACE), 1);
    put("b", "1");
    /* Another member's data are damaged: this one goes on, in the log as in answers. */
    assert_int_equal(set_alarm(ON, 5, CORRUPT), 1);
    assert_false(apply_alarm_corrupt(apply));
    put("c", "1");
    assert_int_equal(run_op(op_delete("c", NULL)).code, ERR_OK);
    /* Its own: what is committed is applied as everywhere, but nothing is answered. */
    assert_int_equal(set_alarm(ON, MEMBER_ID, CORRUPT), 1);
    assert_true(apply_alarm_corrupt(apply));
    assert_int_equal(run_op(op_delete("b", NULL)).code, ERR_OK);
    assert_string_equal(get("b", NULL, 0), errc_text(ERR_CORRUPT));
    restart();
    assert_true(apply_alarm_corrupt(apply));
}

static struct apply_result named(uint64_t client, uint64_t seq, Etcdserverpb__PutRequest *p)
{
    Raftpb__InternalRequest r = RAFTPB__INTERNAL_REQUEST__INIT;
    r.client_id = client;
    r.client_seq = seq;
    r.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    r.put = p;
    return run(&r);
}

static void retries_get_the_first_outcome(void **state)
{
    (void)state;
    Etcdserverpb__PutRequest p = *op_put("k", "1")->request_put;
    Etcdserverpb__PutRequest bad = *op_put("k", "2")->request_put;
    p.prev_kv = true;
    bad.lease = 99;
    put("k", "0");
    for (int i = 0; i < 3; i++) {
        struct apply_result r = named(1, 1, &p);
        assert_int_equal(r.code, ERR_OK);
        const Etcdserverpb__PutResponse *m = (const Etcdserverpb__PutResponse *)r.message;
        assert_int_equal(m->header->revision, 3);
        assert_int_equal(m->prev_kv->mod_revision, 2);
        put("other", "x");
        if (i == 1)
            restart();
    }
    assert_int_equal(named(1, 2, &bad).code, ERR_LEASE_NOT_FOUND);
    assert_int_equal(grant(99, 10), ERR_OK);
    assert_int_equal(named(1, 2, &bad).code, ERR_LEASE_NOT_FOUND); /* as the first time */
    assert_int_equal(named(1, 1, &p).code, ERR_INVALID);           /* long past */
    assert_int_equal(named(1, 3, &bad).code, ERR_OK);
    assert_string_equal(get("k", NULL, 0), "k=2@7 #1");
}

/* The oldest sessions go first, by the log alone: a restart in between changes nothing. */
static void sessions_are_bounded(void **state)
{
    (void)state;
    Etcdserverpb__PutRequest p = *op_put("k", "1")->request_put;
    for (uint64_t i = 1; i <= APPLY_SESSIONS_MAX; i++)
        named(i * 7919, 1, &p);
    named(1 * 7919, 2, &p); /* used again: now the youngest */
    restart();
    named(1, 1, &p); /* one too many: the second goes */
    int64_t revision = mvcc_revision(f.store);
    named(1 * 7919, 2, &p);
    named(3 * 7919, 1, &p);
    assert_int_equal(mvcc_revision(f.store), revision);
    named(2 * 7919, 1, &p);
    assert_int_equal(mvcc_revision(f.store), revision + 1);
}

static void garbage_ends_the_process_not_the_state(void **state)
{
    (void)state;
    struct error err;
    struct apply_result result;
    struct raft_entry *e = raft_entry_new(3, 1, RAFT_ENTRY_COMMAND, 1, bytes_str("\xff\xff\xff"));
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_UNIMPLEMENTED);
    raft_entry_unref(e);
    e = raft_entry_new(3, 1, RAFT_ENTRY_COMMAND, 1, BYTES_EMPTY);
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_UNIMPLEMENTED);
    raft_entry_unref(e);
    e = raft_entry_new(3, 1, RAFT_ENTRY_NOOP, 1, BYTES_EMPTY);
    assert_int_equal(apply_entry(apply, e, &arena, &result, &err), ERR_OK);
    raft_entry_unref(e);
    assert_int_equal(mvcc_applied_index(f.store), 1);
    assert_int_equal(mvcc_revision(f.store), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(range_options),
        T(put_options),
        T(deletes),
        T(revoking_is_one_revision),
        T(leases_come_back_after_a_restart),
        T(alarms),
        T(retries_get_the_first_outcome),
        T(sessions_are_bounded),
        T(garbage_ends_the_process_not_the_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
