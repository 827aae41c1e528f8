/* Proposals that the leader does not take: whoever asked at a follower is answered at once, and truly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

#define UNCOMMITTED_MAX 1000

static char big[UNCOMMITTED_MAX + 1]; /* nothing more is taken while it isn't committed */

static int open_limited(void **state)
{
    (void)state;
    size_t count = *(size_t *)*state;
    cluster_open(count);
    cl.uncommitted_bytes_max = UNCOMMITTED_MAX;
    for (size_t i = 0; i < count; i++) {
        node_crash(&cl.nodes[i]);
        node_start(&cl.nodes[i]);
    }
    memset(big, 'b', UNCOMMITTED_MAX);
    return 0;
}

static void hang_all_but(const struct node *a, const struct node *b, bool hang)
{
    for (size_t i = 0; i < cl.count; i++) {
        if (&cl.nodes[i] != a && &cl.nodes[i] != b)
            cl.nodes[i].log_hangs = hang;
    }
}

static int64_t version(struct node *n, const char *key)
{
    struct mvcc_kv *kv = mvcc_get(replica_store(n->replica), bytes_str(key), true);
    int64_t v = kv ? kv->version : 0;
    mvcc_kv_unref(kv);
    return v;
}

static void a_limit_is_answered_at_once(void **state)
{
    (void)state;
    struct node *leader = wait_leader(), *f = follower_node();
    must_put(f, "before", "1");
    WAIT(all_even());
    hang_all_but(leader, NULL, true);
    struct answer first, second;
    propose_put(leader, "big", big, 0, &first);
    turns(2);
    uint64_t begun = cl.now_ms;
    propose_put(f, "refused", "1", 0, &second);
    WAIT(second.done);
    assert_int_equal(second.code, ERR_TOO_MANY_REQUESTS);
    assert_true(cl.now_ms - begun < 2 * TICK_MS); /* two messages; not the request's timeout */
    assert_false(first.done);
    hang_all_but(leader, NULL, false);
    WAIT(first.done);
    assert_int_equal(first.code, ERR_OK);
    must_put(f, "after", "1");
    assert_all_equal();
    assert_null(local_value(leader, "refused"));
    assert_int_equal(second.calls, 1);
}

static void a_transfer_is_waited_for(void **state)
{
    (void)state;
    struct node *leader = wait_leader(), *f = follower_node(), *third = NULL;
    for (size_t i = 0; i < 3; i++) {
        if (&cl.nodes[i] != leader && &cl.nodes[i] != f)
            third = &cl.nodes[i];
    }
    must_put(f, "before", "1");
    third->cut = true; /* it won't take over */
    assert_int_equal(replica_transfer_leader(leader->replica, third->id), ERR_OK);
    struct answer a;
    propose_put(f, "once", "1", 0, &a);
    turns(TURNS_A_TICK);
    assert_false(a.done);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    assert_ptr_equal(leader_node(), leader);
    third->cut = false;
    assert_all_equal();
    assert_int_equal(version(f, "once"), 1);
}

/* The first copy is on its way somewhere, and may yet get into a log: nobody may say that the request has
 * failed because a second copy is refused. */
static void what_may_still_be_applied_is_not_called_refused(void **state)
{
    (void)state;
    struct node *old = wait_leader(), *f = follower_node();
    must_put(f, "before", "1");
    WAIT(all_even());
    f->log_hangs = true;
    struct answer named, first;
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = (ProtobufCBinaryData){4, (uint8_t *)"once"};
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.client_id = 77;
    request.client_seq = 1;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    request.put = &put;
    named = (struct answer){0};
    replica_propose(f->replica, &request, on_answer, &named);
    replica_poll(f->replica); /* sends it */
    old->cut = true;
    struct node *now = wait_leader(); /* three of five; f learns of nothing yet */
    hang_all_but(now, NULL, true);
    propose_put(now, "big", big, 0, &first);
    turns(2);
    f->log_hangs = false; /* it hears of the new leader, whose limit is reached */
    turns(3 * TURNS_A_TICK);
    assert_int_equal(f->leader, now->id);
    assert_false(first.done);
    assert_false(named.done);
    hang_all_but(NULL, NULL, false);
    old->cut = false;
    WAIT(named.done && first.done);
    assert_int_equal(named.code, ERR_OK);
    assert_all_equal();
    assert_int_equal(version(f, "once"), 1);
}

static size_t three = 3, five = 5;
#define LIMITED(name, count)                                                                       \
    cmocka_unit_test_prestate_setup_teardown(name, open_limited, close_all, &(count))

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIMITED(a_limit_is_answered_at_once, three),
        LIMITED(a_transfer_is_waited_for, three),
        LIMITED(what_may_still_be_applied_is_not_called_refused, five),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
