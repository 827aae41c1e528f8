/* Replicas as a cluster: writes, reads, crashes, changes of leader, leases, snapshots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/replica_fixture.h"

static void one_node_writes_and_reads(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    assert_int_equal(must_put(n, "a", "1"), 2);
    assert_int_equal(must_put(n, "a", "2"), 3);
    assert_int_equal(read_point(n), ERR_OK);
    assert_string_equal(local_value(n, "a"), "2");
}

/* Nothing is acknowledged before the own log is synced, alone or not (e#14370). */
static void no_answer_before_the_sync(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    turns(50);
    simworker_drain(&n->log);
    struct answer a;
    propose_put(n, "a", "1", 0, &a);
    for (int i = 0; i < 100; i++)
        replica_poll(n->replica);
    assert_false(a.done);
    assert_null(local_value(n, "a"));
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
}

static void acknowledged_writes_survive_a_crash(void **state)
{
    (void)state;
    char key[16];
    struct node *n = wait_leader();
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 40; i++) {
            snprintf(key, sizeof(key), "k%d", round * 40 + i);
            must_put(n, key, key);
        }
        node_crash(n);
        node_start(n);
        n = wait_leader();
    }
    assert_int_equal(read_point(n), ERR_OK);
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_string_equal(local_value(n, key), key);
    }
    assert_int_equal(mvcc_revision(replica_store(n->replica)), 201);
}

static void members_publish_name_and_urls(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    size_t count;
    for (size_t i = 0; i < 3; i++)
        WAIT(replica_members(n->replica, &count)[i].client_url_count == 1);
    const struct replica_member *m = replica_members(n->replica, &count);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "n%zu", i);
        assert_int_equal(m[i].id, 101 + i);
        assert_string_equal(m[i].name, name);
        assert_string_equal(m[i].peer_urls[0], peer_urls[i][0]);
        assert_string_equal(m[i].client_urls[0], "http://127.0.0.1:2379");
    }
}

static void followers_forward(void **state)
{
    (void)state;
    struct node *f = follower_node();
    must_put(f, "a", "1");
    assert_string_equal(local_value(f, "a"), "1"); /* answered when applied here */
    struct node *leader = wait_leader();
    must_put(leader, "a", "2");
    assert_int_equal(read_point(f), ERR_OK);
    assert_string_equal(local_value(f, "a"), "2");
    assert_all_equal();
}

/* Requests may come in before there is a leader. */
static void requests_wait_for_a_leader(void **state)
{
    (void)state;
    struct answer put, read = {0};
    propose_put(&cl.nodes[1], "early", "1", 0, &put);
    replica_read(cl.nodes[2].replica, on_code, &read);
    WAIT(put.done && read.done);
    assert_int_equal(put.code, ERR_OK);
    assert_int_equal(read.code, ERR_OK);
}

static void the_leader_dies_and_nothing_acknowledged_is_lost(void **state)
{
    (void)state;
    char key[16];
    struct node *old = wait_leader();
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        must_put(old, key, "v");
    }
    struct node *f = follower_node();
    struct answer a;
    propose_put(f, "under way", "v", 0, &a);
    node_crash(old);
    WAIT(leader_node());
    WAIT(a.done);
    assert_true(a.code == ERR_OK || a.code == ERR_TIMEOUT_LEADER_FAIL);
    struct node *now = wait_leader();
    assert_int_equal(read_point(now), ERR_OK);
    for (int i = 0; i < 50; i++) {
        snprintf(key, sizeof(key), "k%d", i);
        assert_string_equal(local_value(now, key), "v");
    }
    must_put(now, "after", "v");
    node_start(old);
    WAIT(local_value(old, "after"));
    assert_all_equal();
}

/* A leader that is cut off answers no read and acknowledges no write; what it took and couldn't commit is
 * proposed again when it is back and its successor's log has replaced it. */
static void a_deposed_leader_serves_nothing(void **state)
{
    (void)state;
    struct node *old = wait_leader();
    must_put(old, "a", "old");
    old->cut = true;
    struct answer put, read = {0};
    propose_put(old, "b", "1", 0, &put);
    replica_read(old->replica, on_code, &read);
    struct node *now = wait_leader();
    assert_ptr_not_equal(now, old);
    must_put(now, "a", "new");
    assert_false(put.done);
    assert_false(read.done);
    old->cut = false;
    WAIT(put.done && read.done);
    assert_int_equal(put.code, ERR_OK);
    assert_int_equal(put.calls, 1);
    assert_int_equal(read.code, ERR_OK);
    assert_string_equal(local_value(old, "a"), "new");
    assert_all_equal();
}

static void without_a_quorum_requests_time_out(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    must_put(n, "a", "1");
    for (size_t i = 0; i < 3; i++)
        cl.nodes[i].cut = true;
    struct answer put, read = {0}, cancelled;
    uint64_t begun = cl.now_ms;
    propose_put(n, "a", "2", 0, &put);
    replica_read(n->replica, on_code, &read);
    replica_cancel(propose_put(n, "a", "3", 0, &cancelled));
    WAIT(put.done && read.done);
    assert_int_equal(errc_grpc_code(put.code), 14);
    assert_int_equal(errc_grpc_code(read.code), 14);
    assert_in_range(cl.now_ms - begun, 7000, 7300);
    assert_false(cancelled.done);
}

/* ---- sessions ------------------------------------------------------------------------------------ */

static void propose_named(struct node *n, uint64_t client, uint64_t seq, const char *key,
                          struct answer *a)
{
    Etcdserverpb__PutRequest put = ETCDSERVERPB__PUT_REQUEST__INIT;
    put.key = (ProtobufCBinaryData){strlen(key), (uint8_t *)key};
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.client_id = client;
    request.client_seq = seq;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_PUT;
    request.put = &put;
    *a = (struct answer){0};
    replica_propose(n->replica, &request, on_answer, a);
}

static void a_named_request_is_applied_once(void **state)
{
    (void)state;
    struct answer first, again;
    propose_named(wait_leader(), 77, 1, "k", &first);
    WAIT(first.done);
    node_crash(leader_node());
    propose_named(follower_node(), 77, 1, "k", &again);
    WAIT(again.done);
    assert_int_equal(again.code, ERR_OK);
    assert_int_equal(again.revision, first.revision);
    assert_int_equal(mvcc_revision(replica_store(wait_leader()->replica)), first.revision);
    propose_named(wait_leader(), 77, 2, "k", &again);
    WAIT(again.done);
    assert_int_equal(again.revision, first.revision + 1);
}

/* ---- snapshots and the log ----------------------------------------------------------------------- */

static void put_many(size_t count, const char *prefix)
{
    char key[32];
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "%s%zu", prefix, i % 300);
        must_put(wait_leader(), key, prefix);
    }
}

/* Big enough for the store to have checkpoints, which let the log be cut. */
static void put_until_log_begins_behind(uint64_t index)
{
    static char value[4000];
    memset(value, 'v', sizeof(value) - 1);
    struct raft_status s = {0};
    for (size_t i = 0; s.first_index <= index; i++) {
        assert_true(i < 10000);
        must_put(wait_leader(), i % 2 ? "big1" : "big2", value);
        replica_status(wait_leader()->replica, &s);
    }
}

static void not_begun(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    (void)ctx, (void)code, (void)at;
    fail();
}

static void a_member_that_lags_gets_a_snapshot(void **state)
{
    (void)state;
    cl.snapshot_entries = 20;
    for (size_t i = 0; i < 3; i++) { /* again, with the short log */
        node_crash(&cl.nodes[i]);
        node_start(&cl.nodes[i]);
    }
    int64_t lease = grant(wait_leader(), 100);
    struct node *f = follower_node();
    node_crash(f);
    put_many(300, "x");
    put_until_log_begins_behind(300);
    node_start(f);
    struct replica_announcement another = {0};
    while (f->snapshots_in == 0) {
        struct node *from = leader_node();
        if (from && from->transfer.begun)
            another = from->transfer.announcement;
        turn();
    }
    another.id.serial++;
    while (applied(f) < 300) { /* a second one that comes meanwhile has to wait (e#18055) */
        struct replica_receiver receiver = {.begun = not_begun};
        uint64_t stream;
        enum errc code = replica_receive_snapshot_begin(f->replica, &another, &receiver, &stream);
        assert_true(code == ERR_BUSY || code == ERR_EXISTS);
        turn();
    }
    assert_string_equal(local_value(f, "x7"), "x");
    assert_true(lessor_exists(replica_lessor(f->replica), lease));
    size_t count;
    replica_members(f->replica, &count);
    assert_int_equal(count, 3);
    put_many(20, "y");
    assert_all_equal();
    /* Its log was reset: it starts again from it, and never from what was there before. */
    node_crash(f);
    node_start(f);
    put_many(20, "z");
    assert_all_equal();
    /* And it can lead. */
    WAIT(leader_node());
    assert_int_equal(replica_transfer_leader(leader_node()->replica, f->id), ERR_OK);
    WAIT(leader_node() == f);
    put_many(5, "w");
    assert_all_equal();
}

/* A leader that was cut off had appended a put without a name; its successor committed it, and the old one
 * gets a snapshot that holds it. Proposed again, it would be applied twice (simulator, seed 575 of its day). */
static void what_a_snapshot_may_hold_is_not_proposed_again(void **state)
{
    (void)state;
    cl.snapshot_entries = 20;
    cl.request_timeout_ms = 600000;
    for (size_t i = 0; i < 3; i++) {
        node_crash(&cl.nodes[i]);
        node_start(&cl.nodes[i]);
    }
    struct node *old = wait_leader();
    must_put(old, "before", "1");
    struct answer a;
    propose_put(old, "once", "1", 0, &a);
    replica_poll(old->replica); /* it is on its way to the others, whose answers won't come back */
    old->cut = true;
    struct raft_status s;
    replica_status(old->replica, &s);
    WAIT(leader_node());
    assert_string_equal(local_value(leader_node(), "once"), "1");
    put_until_log_begins_behind(s.last_index);
    assert_false(a.done);
    old->cut = false;
    WAIT(old->snapshots_in > 0 && a.done);
    assert_int_equal(a.code, ERR_TIMEOUT_LEADER_FAIL);
    assert_int_equal(a.calls, 1);
    put_many(5, "after");
    struct mvcc_kv *kv = mvcc_get(replica_store(leader_node()->replica), bytes_str("once"), true);
    assert_int_equal(kv->version, 1);
    mvcc_kv_unref(kv);
    assert_all_equal();
}

/* ---- membership ---------------------------------------------------------------------------------- */

static enum errc conf_change(enum raft_conf_change_type type, const struct replica_member *m)
{
    struct answer a;
    do {
        a = (struct answer){0};
        replica_conf_change(wait_leader()->replica, type, m, on_code, &a);
        WAIT(a.done);
        turns(1);
    } while (a.code == ERR_BUSY || a.code == ERR_UNHEALTHY);
    return a.code;
}

static void members_join_and_leave(void **state)
{
    (void)state;
    put_many(100, "x");
    struct replica_member m = {
        .id = 104, .name = "", .peer_urls = peer_urls[3], .peer_url_count = 1, .learner = true};
    struct replica_member same_url = {
        .id = 999, .name = "", .peer_urls = peer_urls[0], .peer_url_count = 1};
    assert_int_equal(conf_change(RAFT_CONF_ADD_LEARNER, &same_url), ERR_PEER_URL_EXISTS);
    assert_int_equal(conf_change(RAFT_CONF_REMOVE, &m), ERR_MEMBER_NOT_FOUND);
    assert_int_equal(conf_change(RAFT_CONF_ADD_LEARNER, &m), ERR_OK);
    assert_int_equal(conf_change(RAFT_CONF_ADD_LEARNER, &m), ERR_MEMBER_EXISTS);
    assert_int_equal(conf_change(RAFT_CONF_ADD_VOTER, &m), ERR_LEARNER_NOT_READY);
    struct node *n = node_add(104, true);
    node_start(n);
    WAIT(local_value(n, "x99"));
    WAIT(all_even());
    turns(TURNS_A_TICK); /* its answers reach the leader */
    assert_int_equal(conf_change(RAFT_CONF_ADD_VOTER, &m), ERR_OK);
    assert_all_equal();
    size_t count;
    assert_false(replica_members(n->replica, &count)[3].learner);
    assert_int_equal(count, 4);

    struct node *first = &cl.nodes[0];
    struct replica_member gone = {.id = first->id};
    assert_int_equal(conf_change(RAFT_CONF_REMOVE, &gone), ERR_OK);
    WAIT(first->removed);
    WAIT(leader_node() && leader_node() != first);
    put_many(20, "y");
    /* Its id doesn't come back (e#20967). */
    struct replica_member back = {
        .id = 101, .name = "", .peer_urls = peer_urls[0], .peer_url_count = 1};
    assert_int_equal(conf_change(RAFT_CONF_ADD_VOTER, &back), ERR_MEMBER_EXISTS);
    assert_all_equal();
}

static enum errc promote(uint64_t id)
{
    struct answer a = {0};
    struct replica_member m = {.id = id};
    replica_conf_change(wait_leader()->replica, RAFT_CONF_ADD_VOTER, &m, on_code, &a);
    WAIT(a.done);
    return a.code;
}

/* With three voters, one of them away, four with the promoted one have their majority of three. */
static void a_learner_is_promoted_while_a_voter_is_away(void **state)
{
    (void)state;
    struct replica_member m = {
        .id = 104, .name = "", .peer_urls = peer_urls[3], .peer_url_count = 1, .learner = true};
    assert_int_equal(conf_change(RAFT_CONF_ADD_LEARNER, &m), ERR_OK);
    struct node *n = node_add(104, true);
    node_start(n);
    WAIT(all_even());
    struct node *away = follower_node();
    node_crash(away);
    turns(2 * ELECTION_TICKS * TURNS_A_TICK); /* nobody hears it any more */
    n->cut = true;
    turns(2 * ELECTION_TICKS * TURNS_A_TICK);
    assert_int_equal(promote(104), ERR_UNHEALTHY); /* two of four would be none */
    n->cut = false;
    enum errc code;
    do {
        code = promote(104);
        turns(1);
    } while (code == ERR_UNHEALTHY || code == ERR_LEARNER_NOT_READY);
    assert_int_equal(code, ERR_OK);
    must_put(wait_leader(), "after", "1");
    struct replica_member fifth = {
        .id = 105, .name = "", .peer_urls = peer_urls[4], .peer_url_count = 1};
    struct answer a = {0}; /* a new voter is another matter: it isn't there yet */
    replica_conf_change(wait_leader()->replica, RAFT_CONF_ADD_VOTER, &fifth, on_code, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_UNHEALTHY);
    node_start(away);
    assert_all_equal();
}

/* ---- space --------------------------------------------------------------------------------------- */

static int open_small(void **state)
{
    (void)state;
    cluster_open(1);
    node_crash(&cl.nodes[0]);
    cl.quota_bytes = 4 * 1024 * 1024;
    node_start(&cl.nodes[0]);
    return 0;
}

static void a_full_store_refuses_puts_only(void **state)
{
    (void)state;
    struct node *n = wait_leader();
    static char value[20000];
    memset(value, 'v', sizeof(value) - 1);
    char key[16];
    struct answer a;
    int i = 0;
    do {
        snprintf(key, sizeof(key), "k%d", i++);
        propose_put(n, key, value, 0, &a);
        WAIT(a.done);
    } while (a.code == ERR_OK && i < 1000);
    assert_int_equal(a.code, ERR_NO_SPACE);
    WAIT(apply_alarm_nospace(replica_apply(n->replica)));
    Etcdserverpb__DeleteRangeRequest d = ETCDSERVERPB__DELETE_RANGE_REQUEST__INIT;
    d.key = (ProtobufCBinaryData){2, (uint8_t *)"k0"};
    Raftpb__InternalRequest request = RAFTPB__INTERNAL_REQUEST__INIT;
    request.request_case = RAFTPB__INTERNAL_REQUEST__REQUEST_DELETE_RANGE;
    request.delete_range = &d;
    a = (struct answer){0};
    replica_propose(n->replica, &request, on_answer, &a);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
    assert_int_equal(read_point(n), ERR_OK);
}

/* A store that is full of history makes room by itself. */
static void old_history_goes_when_the_quota_comes_near(void **state)
{
    (void)state;
    static char value[600];
    memset(value, 'v', sizeof(value) - 1);
    struct node *n = wait_leader();
    for (int i = 0; i < 9000; i++)
        must_put(n, i % 2 ? "a" : "b", value);
    assert_true(mvcc_compact_revision(replica_store(n->replica)) > 1000);
}

#define ONE(name) cmocka_unit_test_setup_teardown(name, open_one, close_all)
#define THREE(name) cmocka_unit_test_setup_teardown(name, open_three, close_all)
#define SMALL(name) cmocka_unit_test_setup_teardown(name, open_small, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ONE(one_node_writes_and_reads),
        ONE(no_answer_before_the_sync),
        ONE(acknowledged_writes_survive_a_crash),
        THREE(members_publish_name_and_urls),
        THREE(followers_forward),
        THREE(requests_wait_for_a_leader),
        THREE(the_leader_dies_and_nothing_acknowledged_is_lost),
        THREE(a_deposed_leader_serves_nothing),
        THREE(without_a_quorum_requests_time_out),
        THREE(a_named_request_is_applied_once),
        THREE(a_member_that_lags_gets_a_snapshot),
        THREE(what_a_snapshot_may_hold_is_not_proposed_again),
        THREE(members_join_and_leave),
        THREE(a_learner_is_promoted_while_a_voter_is_away),
        SMALL(a_full_store_refuses_puts_only),
        SMALL(old_history_goes_when_the_quota_comes_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
