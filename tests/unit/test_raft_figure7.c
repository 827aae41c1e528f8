/* The paper's Figure 7: a new leader of term 8 and six followers whose logs differ from its own in every
 * possible way. All of them end with the leader's log. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/raft_fixture.h"

#define LEADER_LOG 1, 1, 1, 4, 4, 5, 5, 6, 6, 6

struct follower {
    const char *name;
    uint64_t terms[12];
    size_t n;
    size_t
        rejections_max; /* fast back-up: a round trip for each term that differs, not for each entry */
};

static const struct follower followers[] = {
    {"a", {1, 1, 1, 4, 4, 5, 5, 6, 6}, 9, 1},
    {"b", {1, 1, 1, 4}, 4, 1},
    {"c", {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6}, 11, 0},
    {"d", {1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7}, 12, 0},
    {"e", {1, 1, 1, 4, 4, 4, 4}, 7, 2},
    {"f", {1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3}, 11, 1},
};

/* The leader (1), one of the followers (2), and one with the leader's log that helps it win (3). */
static void check(const struct follower *fo)
{
    struct fixture f;
    fixture_init(&f, 3, 0, 0);
    const uint64_t leader[] = {LEADER_LOG};
    for (uint64_t id = 1; id <= 3; id++) {
        fixture_crash(&f, id, 0);
        if (id == 2)
            fixture_set_log(&f, id, 7, fo->terms, fo->n);
        else
            fixture_set_log(&f, id, 7, leader, 10);
        fixture_start(&f, id);
    }
    f.show_messages = true;
    fixture_elect(&f, 1);
    char text[256];
    for (uint64_t id = 1; id <= 3; id++) {
        fixture_log_text(&f, id, text, sizeof text);
        assert_string_equal(text, "1 1 1 4 4 5 5 6 6 6 8");
        assert_int_equal(fixture_status(&f, id).commit, 11);
    }
    buf_append(&f.out, "", 1);
    size_t rejections = 0;
    for (const char *p = (char *)f.out.p; (p = strstr(p, "2>1 APPEND_REPLY")) != NULL; p++) {
        const char *end = strchr(p, '\n');
        rejections += end - p > 6 && memcmp(end - 6, "reject", 6) == 0;
    }
    if (rejections > fo->rejections_max)
        fail_msg("follower %s refused %zu times:\n%s", fo->name, rejections, (char *)f.out.p);
    fixture_free(&f);
}

static void test_all_followers_end_with_the_leaders_log(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof followers / sizeof *followers; i++)
        check(&followers[i]);
}

/* All seven at once, as in the figure. */
static void test_the_whole_cluster(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f, 7, 0, 0);
    const uint64_t leader[] = {LEADER_LOG};
    for (uint64_t id = 1; id <= 7; id++) {
        fixture_crash(&f, id, 0);
        if (id == 1)
            fixture_set_log(&f, id, 7, leader, 10);
        else
            fixture_set_log(&f, id, 7, followers[id - 2].terms, followers[id - 2].n);
        fixture_start(&f, id);
    }
    fixture_elect(&f, 1); /* a, b, e and f vote for it; c and d have more up-to-date logs */
    fixture_tick_all(&f, 4);
    for (uint64_t id = 1; id <= 7; id++) {
        char text[256];
        fixture_log_text(&f, id, text, sizeof text);
        assert_string_equal(text, "1 1 1 4 4 5 5 6 6 6 8");
    }
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_followers_end_with_the_leaders_log),
        cmocka_unit_test(test_the_whole_cluster),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
