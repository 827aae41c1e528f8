/* A member's progress as its leader sees it: states, window, stale answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/raft/progress.h"

static struct raft_progress progress(uint64_t next)
{
    struct raft_progress p;
    raft_progress_init(&p, 2, next, 3, 1000);
    return p;
}

static void test_probe_sends_one_at_a_time(void **state)
{
    (void)state;
    struct raft_progress p = progress(10);
    assert_false(raft_progress_paused(&p));
    raft_progress_sent(&p, 12, 3, 30);
    assert_true(raft_progress_paused(&p));
    assert_int_equal(p.next, 10); /* not optimistic yet */
    assert_true(raft_progress_reject(&p, 9, 4));
    assert_false(raft_progress_paused(&p));
    assert_int_equal(p.next, 5);
    raft_progress_free(&p);
}

static void test_probe_rejections(void **state)
{
    (void)state;
    struct raft_progress p = progress(10);
    p.match = 3;
    assert_false(raft_progress_reject(&p, 7, 1)); /* not the probe that is under way */
    assert_int_equal(p.next, 10);
    assert_true(raft_progress_reject(&p, 9, 20)); /* a hint ahead of the rejection: back by one */
    assert_int_equal(p.next, 9);
    assert_true(raft_progress_reject(&p, 8, 0)); /* never behind what it has */
    assert_int_equal(p.next, 4);
    raft_progress_free(&p);
}

static void test_replicate_runs_ahead_within_the_window(void **state)
{
    (void)state;
    struct raft_progress p = progress(10);
    assert_true(raft_progress_update(&p, 9));
    raft_progress_replicate(&p);
    assert_int_equal(p.next, 10);
    raft_progress_sent(&p, 10, 1, 10);
    raft_progress_sent(&p, 12, 2, 10);
    assert_int_equal(p.next, 13);
    assert_false(raft_inflight_full(&p.inflight));
    raft_progress_sent(&p, 13, 1, 10);
    assert_true(raft_inflight_full(&p.inflight));
    raft_inflight_free_to(&p.inflight, 12); /* frees the first two */
    assert_int_equal(p.inflight.count, 1);
    assert_int_equal(p.inflight.bytes, 10);
    raft_progress_sent(&p, 14, 1, 990); /* by bytes now */
    assert_true(raft_inflight_full(&p.inflight));
    raft_inflight_free_to(&p.inflight, 14);
    assert_int_equal(p.inflight.bytes, 0);
    raft_progress_free(&p);
}

static void test_replicate_goes_back_to_probe_on_rejection(void **state)
{
    (void)state;
    struct raft_progress p = progress(10);
    raft_progress_update(&p, 9);
    raft_progress_replicate(&p);
    raft_progress_sent(&p, 12, 3, 10);
    assert_false(raft_progress_reject(&p, 9, 3)); /* overtaken by the match */
    assert_int_equal(p.state, RAFT_REPLICATE);
    assert_true(raft_progress_reject(&p, 12, 9));
    assert_int_equal(p.state, RAFT_PROBE);
    assert_int_equal(p.next, 10);
    assert_int_equal(p.inflight.count, 0);
    raft_progress_free(&p);
}

static void test_stale_acknowledgement_changes_nothing(void **state)
{
    (void)state;
    struct raft_progress p = progress(10);
    assert_true(raft_progress_update(&p, 9));
    assert_false(raft_progress_update(&p, 5));
    assert_int_equal(p.match, 9);
    assert_int_equal(p.next, 10);
    raft_progress_free(&p);
}

static void test_snapshot_pauses_until_it_is_reported(void **state)
{
    (void)state;
    struct raft_progress p = progress(3);
    raft_progress_snapshot(&p, 20);
    assert_true(raft_progress_paused(&p));
    assert_false(raft_progress_reject(&p, 2, 0));
    raft_progress_probe(&p); /* delivered */
    assert_int_equal(p.next, 21);
    raft_progress_snapshot(&p, 30);
    p.pending_snapshot = 0;
    raft_progress_probe(&p); /* failed */
    assert_int_equal(p.next, 1);
    raft_progress_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_probe_sends_one_at_a_time),
        cmocka_unit_test(test_probe_rejections),
        cmocka_unit_test(test_replicate_runs_ahead_within_the_window),
        cmocka_unit_test(test_replicate_goes_back_to_probe_on_rejection),
        cmocka_unit_test(test_stale_acknowledgement_changes_nothing),
        cmocka_unit_test(test_snapshot_pauses_until_it_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
