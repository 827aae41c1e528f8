/* The paper's Figure 8: why a leader doesn't commit entries of earlier terms by counting replicas. Five
 * servers; the figure's S1 to S5 are members 1 to 5, its columns (a) to (e) the comments. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/raft_fixture.h"

static struct fixture f;

static void start_with(uint64_t id, uint64_t term, const uint64_t *terms, size_t n)
{
    fixture_crash(&f, id, 0);
    fixture_set_log(&f, id, term, terms, n);
    fixture_start(&f, id);
}

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, 5, 0, 0);
    /* (b): S1 led term 2 and replicated its entry to S2 only; S5 led term 3 and has an entry of its own
     * at index 2. S1 is back. */
    const uint64_t s1[] = {1, 2}, s3[] = {1}, s5[] = {1, 3};
    start_with(1, 3, s1, 2);
    start_with(2, 3, s1, 2);
    start_with(3, 3, s3, 1);
    start_with(4, 3, s3, 1);
    start_with(5, 3, s5, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_free(&f);
    return 0;
}

static void assert_log(uint64_t id, const char *terms)
{
    char text[256];
    fixture_log_text(&f, id, text, sizeof text);
    assert_string_equal(text, terms);
}

/* Delivers everything, appends without their entry of term 4. */
static void deliver_without_term_4(void)
{
    while (f.queue_count > 0) {
        const struct raft_message *m = &f.queue[0];
        if (m->type == RAFT_MSG_APPEND && m->entry_count > 0 &&
            m->entries[m->entry_count - 1]->term == 4) {
            struct raft_message cut = *m;
            cut.entry_count--; /* as if the append had ended before it */
            uint64_t to = m->to;
            assert_int_equal(fixture_step(&f, to, cut), ERR_OK);
            fixture_drop_at(&f, 0);
            continue;
        }
        fixture_deliver_at(&f, 0, false);
    }
}

/* (c): S1 leads term 4 and brings its entry of term 2 to S3: on a majority, but not committed. */
static void reach_c(void)
{
    fixture_isolate(&f, 4, true);
    fixture_isolate(&f, 5, true);
    raft_campaign(fixture_raft(&f, 1));
    fixture_ready(&f, 1);
    deliver_without_term_4();
    assert_int_equal(fixture_status(&f, 1).role, RAFT_LEADER);
    assert_int_equal(fixture_status(&f, 1).term, 4);
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    deliver_without_term_4();
    assert_log(1, "1 2 4");
    assert_log(2, "1 2");
    assert_log(3, "1 2");
    assert_int_equal(fixture_status(&f, 1).commit, 0);
}

/* (d): S1 crashes, S5 wins term 5 with votes of S3 and S4, and overwrites the entry of term 2. Had it
 * been committed in (c), the fixture would report two entries applied at index 2. */
static void test_d_entry_of_an_old_term_on_a_majority_is_overwritten(void **state)
{
    (void)state;
    reach_c();
    fixture_crash(&f, 1, 0);
    fixture_isolate(&f, 4, false);
    fixture_isolate(&f, 5, false);
    for (uint64_t id = 2; id <= 5; id++) /* the lease of the old leader runs out */
        fixture_tick(&f, id, FIXTURE_ELECTION_TICKS);
    fixture_clear(&f);
    fixture_elect(&f, 5);
    assert_int_equal(fixture_status(&f, 5).term, 5);
    for (uint64_t id = 2; id <= 5; id++) {
        assert_log(id, "1 3 5");
        assert_int_equal(fixture_status(&f, id).applied, 3);
    }
    fixture_start(&f, 1);
    fixture_tick_all(&f, 3 * FIXTURE_HEARTBEAT_TICKS);
    assert_log(1, "1 3 5");
}

/* (e): S1 replicates an entry of its own term 4 to a majority first: then all before it is committed,
 * and S5 can't win. */
static void test_e_an_entry_of_the_own_term_commits_all_before_it(void **state)
{
    (void)state;
    reach_c();
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    fixture_deliver(&f);
    assert_log(3, "1 2 4");
    assert_int_equal(fixture_status(&f, 1).commit, 3);
    fixture_crash(&f, 1, 0);
    fixture_isolate(&f, 4, false);
    fixture_isolate(&f, 5, false);
    for (uint64_t id = 2; id <= 5; id++)
        fixture_tick(&f, id, FIXTURE_ELECTION_TICKS);
    fixture_clear(&f);
    raft_campaign(fixture_raft(&f, 5));
    fixture_ready(&f, 5);
    fixture_deliver(&f);
    assert_int_not_equal(fixture_status(&f, 5).role, RAFT_LEADER);
    fixture_tick_all(&f, 40);
    assert_true(fixture_leader(&f) == 2 || fixture_leader(&f) == 3);
    for (uint64_t id = 2; id <= 5; id++)
        assert_int_equal(raft_term_at(fixture_raft(&f, id), 3), 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_d_entry_of_an_old_term_on_a_majority_is_overwritten,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_e_an_entry_of_the_own_term_commits_all_before_it,
                                        setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
