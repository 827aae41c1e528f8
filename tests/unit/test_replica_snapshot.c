/* Replicas as a cluster: snapshots whose streams break. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lib/base/crc32c.h"
#include "tests/unit/replica_fixture.h"

static struct node *lags;

static int set_up(void **state)
{
    (void)state;
    cluster_open(3);
    cl.snapshot_entries = 20;
    cl.snapshot_chunk = 4096;
    for (size_t i = 0; i < 3; i++) {
        node_crash(&cl.nodes[i]);
        node_start(&cl.nodes[i]);
    }
    wait_leader();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    cluster_close();
    return 0;
}

static void put_more(size_t count)
{
    static char value[4000];
    memset(value, 'v', sizeof(value) - 1);
    char key[16];
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "key%zu", i);
        must_put(wait_leader(), key, value);
    }
}

/* One follower is down, and needs a snapshot of some hundred chunks when it comes back. */
static void let_one_lag(void)
{
    lags = follower_node();
    uint64_t last = 0;
    struct raft_status s;
    replica_status(lags->replica, &s);
    last = s.last_index;
    node_crash(lags);
    do {
        put_more(60);
        replica_status(wait_leader()->replica, &s);
    } while (s.first_index <= last + 1 || s.last_index < last + 150);
}

static uint64_t applied_at(const struct node *n)
{
    return n->replica ? mvcc_applied_index(replica_store(n->replica)) : 0;
}

static bool has_caught_up(void)
{
    return applied_at(lags) == applied_at(wait_leader());
}

static uint64_t snapshot_bytes(void)
{
    return mvcc_size_in_use(replica_store(wait_leader()->replica));
}

/* The link breaks every few chunks: before, that never ended. */
static void ends_though_every_stream_breaks(void **state)
{
    (void)state;
    let_one_lag();
    cl.stream_chunks_max = 3;
    node_start(lags);
    WAIT(has_caught_up());
    assert_all_equal();
    assert_int_equal(lags->snapshots_in, 1);
    assert_true(cl.streams > 20);
    assert_true(cl.bytes_carried < snapshot_bytes()); /* none of it twice */
    assert_non_null(strstr(wait_leader()->snapshot_note, "goes on from offset"));
}

static void wait_for_a_part(void)
{
    WAIT(wait_leader()->transfer.chunks >= 10);
}

static void the_receiver_restarts(void **state)
{
    (void)state;
    let_one_lag();
    for (int i = 0; i < 3; i++) {
        node_start(lags);
        wait_for_a_part();
        node_crash(lags);
    }
    node_start(lags);
    WAIT(has_caught_up());
    assert_all_equal();
    assert_int_equal(lags->snapshots_in, 1);
    assert_true(cl.bytes_carried < snapshot_bytes() + 6 * 4096);
}

static void the_sender_is_gone(void **state)
{
    (void)state;
    let_one_lag();
    node_start(lags);
    wait_for_a_part();
    struct node *old = wait_leader();
    node_crash(old);
    WAIT(leader_node() && leader_node() != old);
    cl.stream_chunks_max = 7;
    WAIT(has_caught_up());
    assert_all_equal();
    assert_non_null(strstr(lags->snapshot_note, "another one takes its place"));
    node_start(old);
    put_more(1);
}

/* A receiver that is away for long is given up, and what was read for it is free; it begins anew then. */
static void is_kept_for_a_bounded_time(void **state)
{
    (void)state;
    let_one_lag();
    node_start(lags);
    wait_for_a_part();
    struct node *leader = wait_leader();
    lags->cut = true;
    struct raft_status s;
    turns(TURNS_A_TICK * 100); /* 10 s */
    replica_status(leader->replica, &s);
    for (size_t i = 0; i < s.peer_count; i++) /* to the core it is under way (snapshot, 2) */
        assert_true(s.peers[i].id != lags->id || s.peers[i].state == 2);
    WAIT(strstr(leader->snapshot_note, "gives up"));
    replica_status(leader->replica, &s);
    for (size_t i = 0; i < s.peer_count; i++)
        assert_true(s.peers[i].id != lags->id || s.peers[i].state == 0);
    lags->cut = false;
    WAIT(has_caught_up());
    assert_all_equal();
}

/* What nobody goes on with doesn't stay. */
static void is_thrown_away_in_the_end(void **state)
{
    (void)state;
    let_one_lag();
    node_start(lags);
    wait_for_a_part();
    lags->cut = true;
    WAIT(strstr(lags->snapshot_note, "nobody goes on with it"));
    node_crash(lags);
    node_start(lags);
    assert_false(mvcc_has_partial(replica_store(lags->replica)));
    lags->cut = false;
    WAIT(has_caught_up());
    assert_all_equal();
}

static void not_called(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    (void)ctx, (void)code, (void)at;
    fail();
}

struct probe {
    enum errc code;
    struct mvcc_snapshot_at at;
    bool begun, stored;
};

static void on_probe_begun(void *ctx, enum errc code, struct mvcc_snapshot_at at)
{
    *(struct probe *)ctx = (struct probe){.code = code, .at = at, .begun = true};
}

static void on_probe_stored(void *ctx, enum errc code)
{
    struct probe *p = ctx;
    p->code = code;
    p->stored = true;
}

/* Streams of the test's own, at the receiver: it takes the newest, and each chunk only where it belongs. */
static void one_stream_at_a_time(void **state)
{
    (void)state;
    let_one_lag();
    node_start(lags);
    wait_for_a_part();
    struct transfer *t = &wait_leader()->transfer;
    struct replica_announcement a = t->announcement, older = a, foreign = a;
    transfer_break(t, ERR_OK);
    struct probe first = {0}, second = {0};
    struct replica_receiver to_first = {on_probe_begun, on_probe_stored, &first},
                            to_second = {on_probe_begun, on_probe_stored, &second},
                            to_nobody = {.begun = not_called};
    uint64_t stream, next, none;
    struct replica *r = lags->replica;
    assert_int_equal(replica_receive_snapshot_begin(r, &a, &to_first, &stream), ERR_OK);
    simworker_drain(&lags->store);
    assert_true(first.begun && first.at.offset > 0);
    struct replica_chunk chunk = {.data = bytes_str("x"), .offset = first.at.offset + 1};
    assert_int_equal(replica_receive_snapshot_chunk(r, stream, &chunk), ERR_INVALID);
    chunk.offset = 0;
    assert_int_equal(replica_receive_snapshot_chunk(r, stream, &chunk), ERR_INVALID);
    /* What comes late of a stream that was given up for this one. */
    older.message.snapshot_index--;
    older.id.index--;
    assert_int_equal(replica_receive_snapshot_begin(r, &older, &to_nobody, &none), ERR_BUSY);
    foreign.size = UINT64_MAX / 2; /* more than any disk has */
    assert_int_equal(replica_receive_snapshot_begin(r, &foreign, &to_nobody, &none), ERR_NO_SPACE);
    foreign.message.term--;
    assert_int_equal(replica_receive_snapshot_begin(r, &foreign, &to_nobody, &none), ERR_INVALID);
    /* A connection that is half open is taken over from, in the middle of a chunk. */
    chunk.offset = first.at.offset;
    assert_int_equal(replica_receive_snapshot_chunk(r, stream, &chunk), ERR_CORRUPT);
    chunk.sum = crc32c(first.at.sum, chunk.data.p, chunk.data.n);
    assert_int_equal(replica_receive_snapshot_chunk(r, stream, &chunk), ERR_OK);
    assert_int_equal(replica_receive_snapshot_begin(r, &a, &to_second, &next), ERR_OK);
    assert_true(first.stored && first.code == ERR_CANCELLED);
    simworker_drain(&lags->store);
    assert_true(second.begun && second.code == ERR_OK);
    assert_int_equal(second.at.offset, first.at.offset); /* half a chunk counts for nothing */
    assert_int_equal(replica_receive_snapshot_chunk(r, stream, &chunk), ERR_CANCELLED);
    replica_receive_snapshot_leave(r, stream); /* it isn't it any more */
    /* Another snapshot takes its place, from its begin. */
    a.id.serial++;
    assert_int_equal(replica_receive_snapshot_begin(r, &a, &to_first, &stream), ERR_OK);
    simworker_drain(&lags->store);
    assert_true(first.begun && first.code == ERR_OK && first.at.offset == 0);
    /* Damage is found, and what is there is thrown away: the true sender begins anew. */
    chunk = (struct replica_chunk){.data = bytes_str("this is no frame of a snapshot")};
    chunk.sum = crc32c(0, chunk.data.p, chunk.data.n);
    assert_int_equal(replica_receive_snapshot_chunk(r, stream, &chunk), ERR_OK);
    simworker_drain(&lags->store);
    assert_true(first.stored && first.code == ERR_CORRUPT);
    assert_non_null(strstr(lags->snapshot_note, "it is damaged"));
    WAIT(has_caught_up());
    assert_all_equal();
}

/* Its log goes on all the time, and is cut to 20 entries: but not to where the member hasn't come yet. */
static void no_second_snapshot_right_after(void **state)
{
    (void)state;
    let_one_lag();
    cl.stream_chunks_max = 5;
    node_start(lags);
    while (lags->snapshots_in == 0)
        put_more(1);
    lags->log_every = 50; /* it is slow, and the others are not */
    put_more(300);
    lags->log_every = 0;
    WAIT(has_caught_up());
    assert_all_equal();
    assert_int_equal(lags->snapshots_in, 1);
    /* Then nothing is held for it any more. */
    put_more(60);
    struct raft_status s;
    replica_status(wait_leader()->replica, &s);
    assert_true(s.last_index - s.first_index < 250);
}

/* The newest membership in the log counts, but what goes with the data is what they are as of. */
static void carries_the_membership_of_its_entry(void **state)
{
    (void)state;
    struct node *from = wait_leader();
    struct node *to = follower_node();
    char *urls[] = {"http://n4:2380"};
    struct replica_member m = {
        .id = 104, .name = "", .peer_urls = urls, .peer_url_count = 1, .learner = true};
    struct answer a = {0};
    do {
        a = (struct answer){0};
        replica_conf_change(from->replica, RAFT_CONF_ADD_LEARNER, &m, on_code, &a);
        turns(a.done);
    } while (a.done);
    struct raft_status status;
    replica_status(from->replica, &status);
    assert_int_equal(status.conf.learner_count, 1);
    struct replica_announcement announcement;
    struct replica_snapshot *s = replica_snapshot_open(from->replica, to->id, &announcement);
    assert_int_equal(announcement.message.snapshot_index, status.applied);
    assert_int_equal(announcement.message.snapshot_conf.learner_count, 0);
    replica_snapshot_sent(s, false);
    WAIT(a.done);
    assert_int_equal(a.code, ERR_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ends_though_every_stream_breaks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_receiver_restarts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_sender_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_kept_for_a_bounded_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(is_thrown_away_in_the_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(one_stream_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(no_second_snapshot_right_after, set_up, tear_down),
        cmocka_unit_test_setup_teardown(carries_the_membership_of_its_entry, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
