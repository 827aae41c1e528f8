/* What a member may start from: configurations and stored states that make no sense are refused with the
 * reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "daemon/raft/raft.h"

static uint64_t seven(void *ctx)
{
    (void)ctx;
    return 7;
}

static const struct raft_config good_config = {.id = 1,
                                               .election_ticks = 10,
                                               .heartbeat_ticks = 1,
                                               .inflight_messages_max = 8,
                                               .inflight_bytes_max = 1000,
                                               .message_bytes_max = 1000,
                                               .uncommitted_bytes_max = 1000,
                                               .committed_batch_max = 8,
                                               .random = seven};

static struct raft_entry *e[3];
static struct raft_start good_start;

static int setup(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 3; i++)
        e[i] = raft_entry_new(2, 6 + i, RAFT_ENTRY_COMMAND, 40 + i, bytes_str("x"));
    good_start = (struct raft_start){.hard_state = {.term = 3, .vote = 2, .commit = 7},
                                     .conf = {.voters = {1, 2}, .voter_count = 2},
                                     .applied = 6,
                                     .applied_term = 2,
                                     .base_index = 5,
                                     .base_term = 1,
                                     .entries = e,
                                     .entry_count = 3};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        raft_entry_unref(e[i]);
    return 0;
}

static void test_start(void **state)
{
    (void)state;
    struct raft *r;
    struct raft_status s;
    assert_int_equal(raft_new(&good_config, &good_start, &r, NULL), ERR_OK);
    raft_status(r, &s);
    assert_int_equal(s.term, 3);
    assert_int_equal(s.vote, 2);
    assert_int_equal(s.commit, 7);
    assert_int_equal(s.applied, 6);
    assert_int_equal(s.persisted, 8);
    assert_int_equal(s.first_index, 6);
    assert_int_equal(s.last_index, 8);
    assert_int_equal(s.last_stamp, 42);
    assert_int_equal(raft_term_at(r, 5), 1);
    assert_int_equal(raft_term_at(r, 4), 0);
    struct raft_ready d;
    assert_true(raft_has_ready(r)); /* entry 7 is committed and not applied */
    raft_ready(r, &d);
    assert_int_equal(d.persist_token, 0);
    assert_int_equal(d.committed_count, 1);
    assert_int_equal(d.committed[0]->index, 7);
    raft_compact(r, 100); /* at most up to what is applied */
    raft_status(r, &s);
    assert_int_equal(s.first_index, 7);
    raft_free(r);
    raft_free(NULL);
}

static void refused_config(struct raft_config c)
{
    struct raft *r = NULL;
    struct error err = {0};
    assert_int_equal(raft_new(&c, &good_start, &r, &err), ERR_INVALID);
    assert_null(r);
    assert_true(strlen(err.message) > 10);
}

static void test_configurations(void **state)
{
    (void)state;
    struct raft_config c = good_config;
    c.id = 0;
    refused_config(c);
    c = good_config, c.heartbeat_ticks = 0;
    refused_config(c);
    c = good_config, c.election_ticks = c.heartbeat_ticks;
    refused_config(c);
    c = good_config, c.inflight_messages_max = 0;
    refused_config(c);
    c = good_config, c.uncommitted_bytes_max = 0;
    refused_config(c);
    c = good_config, c.committed_batch_max = 0;
    refused_config(c);
    c = good_config, c.random = NULL;
    refused_config(c);
}

static void refused_start(struct raft_start s, const char *reason)
{
    struct raft *r = NULL;
    struct error err = {0};
    assert_int_equal(raft_new(&good_config, &s, &r, &err), ERR_CORRUPT);
    assert_null(r);
    if (strstr(err.message, reason) == NULL)
        fail_msg("\"%s\" doesn't say \"%s\"", err.message, reason);
}

static void test_contradictions(void **state)
{
    (void)state;
    struct raft_start s = good_start;
    s.hard_state.commit = 9;
    refused_start(s, "committed");
    s = good_start, s.applied = 4;
    refused_start(s, "applied");
    s = good_start, s.applied = 9;
    refused_start(s, "applied");
    s = good_start, s.applied_term = 1;
    refused_start(s, "term");
    s = good_start, s.base_term = 0;
    refused_start(s, "begins");
    s = good_start, s.hard_state.term = 1;
    refused_start(s, "the member's term is 1");
    s = good_start, s.base_term = 3;
    refused_start(s, "go back");
    s = good_start, s.base_index = 4;
    refused_start(s, "entry 6 behind entry 4");
    s = good_start, s.conf.voters[1] = 1;
    refused_start(s, "membership");
    e[2]->term = 1;
    refused_start(good_start, "go back");
    e[2]->term = 2;
    e[2]->index = 9;
    refused_start(good_start, "entry 9 behind entry 7");
}

/* The store may be ahead of the commit index that the log remembers. */
static void test_commit_may_be_behind_applied(void **state)
{
    (void)state;
    struct raft *r;
    struct raft_status s;
    good_start.hard_state.commit = 5;
    assert_int_equal(raft_new(&good_config, &good_start, &r, NULL), ERR_OK);
    raft_status(r, &s);
    assert_int_equal(s.commit, 6);
    assert_false(raft_has_ready(r));
    raft_free(r);
}

static void test_entries_outlive_the_core(void **state)
{
    (void)state;
    struct raft *r;
    assert_int_equal(raft_new(&good_config, &good_start, &r, NULL), ERR_OK);
    assert_int_equal(e[0]->refs, 2);
    raft_free(r);
    assert_int_equal(e[0]->refs, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_start),
        T(test_configurations),
        T(test_contradictions),
        T(test_commit_may_be_behind_applied),
        T(test_entries_outlive_the_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
