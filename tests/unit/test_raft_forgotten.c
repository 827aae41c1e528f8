/* A member whose disk lost what it had acknowledged: it learns of it, and from then on nobody hears of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "tests/unit/raft_fixture.h"

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    fixture_init(&f, 5, 0, 0);
    fixture_elect(&f, 1);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fixture_free(&f);
    return 0;
}

static void comes_back_without(uint64_t id, uint64_t index)
{
    fixture_crash(&f, id, SIZE_MAX);
    fixture_forget(&f, id, index);
    fixture_clear(&f);
    f.out.n = 0;
    fixture_start(&f, id);
}

static size_t said_by(uint64_t id)
{
    size_t n = 0;
    for (size_t i = 0; i < f.queue_count; i++)
        n += f.queue[i].from == id;
    return n;
}

static size_t times_told(void)
{
    size_t n = 0;
    buf_append(&f.out, (const uint8_t *)"", 1);
    for (const char *p = (const char *)f.out.p; (p = strstr(p, "had acknowledged")); p++)
        n++;
    f.out.n--;
    return n;
}

static void it_falls_silent(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++)
        fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    comes_back_without(2, 3);
    fixture_tick_all(&f, 3 * FIXTURE_ELECTION_TICKS);
    struct raft_status s = fixture_status(&f, 2);
    assert_int_equal(s.forgotten, 6);
    assert_int_equal(s.last_index, 3);
    assert_int_equal(s.leader, 0);
    assert_int_equal(times_told(), 1);
    assert_int_equal(fixture_leader(&f), 1);
    /* It answers nobody, whatever they want. */
    fixture_clear(&f);
    uint64_t index;
    const struct raft_message asks[] = {
        {.type = RAFT_MSG_VOTE, .from = 3, .term = 9, .index = 99, .log_term = 8},
        {.type = RAFT_MSG_PREVOTE, .from = 3, .term = 9, .index = 99, .log_term = 8},
        {.type = RAFT_MSG_HEARTBEAT, .from = 1, .term = 1},
        {.type = RAFT_MSG_APPEND, .from = 1, .term = 1, .index = 3, .log_term = 1},
        {.type = RAFT_MSG_TIMEOUT_NOW, .from = 1, .term = 1},
    };
    for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++)
        assert_int_equal(fixture_step(&f, 2, asks[i]), ERR_OK);
    assert_int_equal(raft_campaign(fixture_raft(&f, 2)), ERR_BUSY);
    raft_report_peer_gone(fixture_raft(&f, 2), 1);
    assert_int_equal(raft_propose(fixture_raft(&f, 2), bytes_str("x"), 0, &index), ERR_NO_LEADER);
    assert_int_equal(raft_read_index(fixture_raft(&f, 2), 7), ERR_NO_LEADER);
    fixture_tick(&f, 2, 3 * FIXTURE_ELECTION_TICKS);
    assert_int_equal(said_by(2), 0);
    assert_int_equal(fixture_status(&f, 2).term, 1);
}

/* What it acknowledged need not be committed: it counts as much. */
static void uncommitted_entries_count_too(void **state)
{
    (void)state;
    for (uint64_t id = 3; id <= 5; id++)
        fixture_isolate(&f, id, true);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 1).commit, 1);
    comes_back_without(2, 1);
    fixture_tick(&f, 1, FIXTURE_HEARTBEAT_TICKS);
    fixture_deliver(&f);
    assert_int_equal(fixture_status(&f, 2).forgotten, 2);
}

/* What it acknowledged to an earlier leader is no evidence for this one, whose log may differ there. */
static void another_leader_has_no_word_of_it(void **state)
{
    (void)state;
    for (uint64_t id = 3; id <= 5; id++)
        fixture_isolate(&f, id, true);
    fixture_propose(&f, 1, "x");
    fixture_deliver(&f);
    comes_back_without(2, 1);
    fixture_isolate(&f, 1, true);
    for (uint64_t id = 3; id <= 5; id++) {
        for (uint64_t other = 2; other <= 5; other++)
            fixture_cut(&f, id, other, false);
    }
    fixture_clear(&f);
    fixture_tick_all(&f, 4 * FIXTURE_ELECTION_TICKS);
    assert_int_not_equal(fixture_leader(&f), 1);
    fixture_propose(&f, fixture_leader(&f), "y");
    fixture_deliver(&f);
    fixture_tick_all(&f, FIXTURE_ELECTION_TICKS);
    assert_int_equal(fixture_status(&f, 2).forgotten, 0);
    assert_int_equal(fixture_status(&f, 2).last_index,
                     fixture_status(&f, fixture_leader(&f)).last_index);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(it_falls_silent),
        T(uncommitted_entries_count_too),
        T(another_leader_has_no_word_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
