/* The story of a failure has what concerns its subject, in words, and little else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/error.h"
#include "lib/base/memory.h"
#include "tests/sim/runner.h"

#define STORY_LINES_ALL 60 /* with its head, and all that is wrong at the end */

static struct world *world_new(void)
{
    struct world *w = xcalloc(1, sizeof(*w));
    world_init(w, 1);
    return w;
}

static void world_delete(struct world *w)
{
    world_free(w);
    free(w);
}

static char *story_of(const struct world *w, const struct about *about)
{
    char *text;
    size_t n;
    FILE *out = open_memstream(&text, &n);
    story_print(&w->trace, about, out);
    fclose(out);
    return text;
}

static size_t lines_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += *text == '\n';
    return n;
}

static void check_words(const char *story, const char *words, bool wanted)
{
    if ((strstr(story, words) != NULL) == wanted)
        return;
    print_error("the story %s \"%s\":\n", wanted ? "lacks" : "has", words);
    for (const char *at = story; *at; at++)
        print_error("%c", *at);
    fail();
}

static void assert_has(const char *story, const char *words)
{
    check_words(story, words, true);
}

static void assert_lacks(const char *story, const char *words)
{
    check_words(story, words, false);
}

/* ---- words -------------------------------------------------------------------------------------- */

static void numbers_become_words(void **state)
{
    (void)state;
    struct world *w = world_new();
    char text[TRACE_TEXT_MAX];
    const struct trace_line *l = w->trace.recent;
    TRACE5(w, ">%c asks %m to put %k (request %v, %y)", 2, 3, 7, 30, true);
    trace_text(&w->trace, &l[0], text);
    assert_string_equal(text, "c2 asks n3 to put k007 (request 30, yes)");
    NOTE2(w, "*%m writes to %f", 1, trace_file(&w->trace, "data/member/log/1.wal"));
    trace_text(&w->trace, &l[1], text);
    assert_string_equal(text, "n1 writes to log/1.wal");
    NOTE3(w, "%e, %e, after %d", ERR_OK, ERR_UNAVAILABLE, 1500 * MS);
    trace_text(&w->trace, &l[2], text);
    assert_string_equal(text, "done, unavailable, after 1500.000 ms");
    NOTE2(w, "!%g on one side, %g on the other", 1 << 2 | 1 << 5, 1 << 1);
    trace_text(&w->trace, &w->trace.landmarks[0], text);
    assert_string_equal(text, "n2 n5 on one side, n1 on the other");
    NOTE3(w, "%llu %lld %llx", 12, -12, 255); /* as printf's */
    trace_text(&w->trace, &l[3], text);
    assert_string_equal(text, "12 -12 ff");
    world_delete(w);
}

static void file_names_are_few_and_known_again(void **state)
{
    (void)state;
    struct world *w = world_new();
    uint64_t first = trace_file(&w->trace, "data/member/store/a");
    for (int i = 0; i < 1000; i++) {
        char path[32];
        snprintf(path, sizeof(path), "file-%d", i);
        trace_file(&w->trace, path);
    }
    assert_int_equal(trace_file(&w->trace, "data/member/store/a"), first);
    assert_int_equal(trace_file(&w->trace, "file-999"), 0); /* "a file" */
    world_delete(w);
}

/* What is only noted is not in the hash, what is traced is. */
static void notes_leave_the_hash_alone(void **state)
{
    (void)state;
    struct world *w = world_new();
    uint64_t hash = w->hash;
    NOTE1(w, "%m has something to say", 1);
    assert_int_equal(w->hash, hash);
    TRACE1(w, "%m has something to say", 1);
    assert_int_not_equal(w->hash, hash);
    world_delete(w);
}

/* ---- one entry ---------------------------------------------------------------------------------- */

static void traffic(struct world *w, uint64_t entry)
{
    w->now += MS;
    TRACE4(w, ">%c asks %m to put %k (request %v)", 2, 2, 9, 3 * entry + 3000);
    NOTE5(w, "+entry %i of term %t is new, in the log of %m: put %k (request %v)", entry, 2, 1, 9,
          3 * entry + 3000);
    TRACE5(w, ">%m gets entries %i to %j from %m, its leader in term %t", 3, entry, entry, 1, 2);
    NOTE2(w, "*%m writes to %f", 3, trace_file(&w->trace, "log/1.wal"));
    NOTE2(w, "*%m: all up to entry %a is on its disk, it believes", 3, entry);
    TRACE4(w, ">%m hears from %m that all up to entry %a is on its disk (term %t)", 1, 3, entry, 2);
    TRACE2(w, ".%m gets a message of %m", 2, 1);
}

/* c1 puts k005, entry 21; n2 says that it has it, and loses it with its power. */
static struct world *lost_entry(void)
{
    struct world *w = world_new();
    uint64_t file = trace_file(&w->trace, "data/member/log/1.wal");
    TRACE2(w, "!%m starts (its life number %u)", 2, 0);
    TRACE2(w, "=%m leads term %t", 1, 2);
    for (uint64_t i = 1; i <= 20; i++)
        traffic(w, i);
    w->now += MS;
    TRACE4(w, ">%c asks %m to put %k (request %v)", 1, 1, 5, 66);
    NOTE5(w, "+entry %i of term %t is new, in the log of %m: put %k (request %v)", 21, 2, 1, 5, 66);
    TRACE5(w, ">%m gets entries %i to %j from %m, its leader in term %t", 2, 20, 23, 1, 2);
    NOTE2(w, "*%m writes to %f", 2, file);
    NOTE2(w, "*%m writes to %f", 2, file);
    NOTE2(w, "*%m: all up to entry %a is on its disk, it believes", 2, 23);
    NOTE2(w, "*%m syncs %f", 2, file); /* after it said so, and of something else */
    TRACE4(w, ">%m hears from %m that all up to entry %a is on its disk (term %t)", 1, 2, 23, 2);
    NOTE4(w, "+revision %r, first on %m: %k has the value of request %v", 16, 1, 5, 66);
    TRACE4(w, ">%c is answered by %m: request %v, at revision %r", 1, 1, 66, 16);
    for (uint64_t i = 24; i <= 30; i++)
        traffic(w, i);
    TRACE2(w, "!%m loses its power (life %u)", 2, 0);
    TRACE2(w, "!%m starts (its life number %u)", 2, 1);
    TRACE4(w, ">%m hears from %m that all up to entry %a is on its disk (term %t)", 1, 2, 24, 2);
    return w;
}

static void check_lost_entry(const struct about *about)
{
    struct world *w = lost_entry();
    char *story = story_of(w, about);
    assert_has(story, "c1 asks n1 to put k005 (request 66)");
    assert_has(story, "entry 21 of term 2 is new, in the log of n1: put k005 (request 66)");
    assert_has(story, "n2 gets entries 20 to 23 from n1");
    assert_has(story, "n2 writes to log/1.wal (2 times)");
    assert_has(story, "n1 hears from n2 that all up to entry 23");
    assert_has(story, "revision 16, first on n1: k005");
    assert_has(story, "c1 is answered by n1: request 66, at revision 16");
    assert_has(story, "n2 loses its power");
    assert_has(story, "n1 hears from n2 that all up to entry 24"); /* news, since it had died */
    assert_has(story, "n1 leads term 2");                          /* how things stood before */
    assert_lacks(story, "k009");
    assert_lacks(story, "entry 22 ");
    assert_lacks(story, "n2 syncs");
    assert_lacks(story, "message");
    free(story);
    world_delete(w);
}

static void a_story_is_found_by_the_entry(void **state)
{
    (void)state;
    check_lost_entry(ABOUT(.member = 2, .index = 21));
}

static void a_story_is_found_by_the_revision(void **state)
{
    (void)state;
    check_lost_entry(ABOUT(.revision = 16));
}

static void a_story_is_found_by_the_request(void **state)
{
    (void)state;
    check_lost_entry(ABOUT(.value = 66, ABOUT_KEY(5)));
}

/* ---- other subjects ----------------------------------------------------------------------------- */

static void two_leaders_of_a_term_are_told_by_their_votes(void **state)
{
    (void)state;
    struct world *w = world_new();
    for (uint64_t term = 2; term <= 6; term++) {
        w->now += SECOND;
        TRACE4(w, "?%m is asked by %m for its vote in term %t (last entry %u)", 2, 1, term, 9);
        TRACE3(w, "?%m gets the vote of %m in term %t", 1, 2, term);
        TRACE2(w, "=%m leads term %t", 1, term);
    }
    TRACE1(w, "!%m loses its power", 2);
    TRACE1(w, "!%m loses its power", 4);
    TRACE3(w, "?%m gets the vote of %m in term %t", 3, 2, 6);
    char *story = story_of(w, ABOUT(.member = 3, .other = 1, .term = 6));
    assert_has(story, "n2 is asked by n1 for its vote in term 6");
    assert_has(story, "n1 gets the vote of n2 in term 6");
    assert_has(story, "n1 leads term 6");
    assert_has(story, "n2 loses its power");
    assert_has(story, "n3 gets the vote of n2 in term 6");
    assert_lacks(story, "the vote of n2 in term 5");
    free(story);
    world_delete(w);
}

static void a_watch_is_told_with_the_revision_that_it_missed(void **state)
{
    (void)state;
    struct world *w = world_new();
    for (uint64_t r = 2; r <= 9; r++) {
        w->now += MS;
        if (r == 5)
            NOTE2(w, "watch %w takes nothing more of %m for a while", 3, 1);
        NOTE4(w, "+revision %r, first on %m: %k has the value of request %v", r, 1, r, 3 * r);
        NOTE4(w, "watch %w is given revisions %r to %s, with %u events", 2, r, r, 1);
    }
    NOTE4(w, "watch %w is given revisions %r to %s, with %u events", 3, 5, 9, 1);
    char *story = story_of(w, ABOUT(.watch = 3, .member = 1, .revision = 6, ABOUT_KEY(6)));
    assert_has(story, "watch 3 takes nothing more of n1");
    assert_has(story, "revision 6, first on n1: k006");
    assert_has(story, "watch 3 is given revisions 5 to 9");
    assert_lacks(story, "k007");
    free(story);
    world_delete(w);
}

/* ---- bounds ------------------------------------------------------------------------------------- */

static void a_long_story_keeps_its_begin_and_its_end(void **state)
{
    (void)state;
    struct world *w = world_new();
    for (uint64_t i = 0; i < 3000; i++) {
        w->now += MS;
        TRACE5(w, ">%m gets entries %i to %j from %m, its leader in term %t", 2, 7, 7 + i, 1, 2);
    }
    char *story = story_of(w, ABOUT(.index = 7));
    assert_true(lines_of(story) <= STORY_LINES + 3);
    assert_has(story, "n2 gets entries 7 to 7 ");
    assert_has(story, "n2 gets entries 7 to 3006 ");
    assert_has(story, "lines that tell less");
    free(story);
    world_delete(w);
}

static void landmarks_outlive_the_traffic(void **state)
{
    (void)state;
    struct world *w = world_new();
    TRACE1(w, "!%m loses its power", 2);
    for (uint64_t i = 0; i < 3 * TRACE_RECENT; i++)
        TRACE2(w, ".%m gets a message of %m", 2, 1);
    NOTE4(w, "+revision %r, first on %m: %k has the value of request %v", 6, 2, 7, 33);
    size_t count;
    const struct trace_line **lines = trace_lines(&w->trace, &count);
    assert_int_equal(count, TRACE_RECENT + 2);
    assert_string_equal(lines[0]->format, "!%m loses its power");
    free(lines);
    char *story = story_of(w, ABOUT(.revision = 6));
    assert_has(story, "n2 loses its power");
    free(story);
    world_delete(w);
}

static void without_a_subject_the_last_lines_are_told(void **state)
{
    (void)state;
    struct world *w = world_new();
    char *story = story_of(w, NULL);
    assert_string_equal(story, "");
    free(story);
    for (uint64_t i = 1; i <= 500; i++)
        traffic(w, i);
    story = story_of(w, NULL);
    assert_has(story, "entry 500 ");
    assert_true(lines_of(story) <= STORY_LINES + 3);
    free(story);
    world_delete(w);
}

/* ---- a real run --------------------------------------------------------------------------------- */

/* No fault does this: the model forgets how a key was written last, so that the next answer about it is wrong. */
static void tamper(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct sim *s = ctx;
    for (size_t i = s->model.count > 20 ? s->model.count - 20 : 0; i < s->model.count; i++)
        s->model.kvs[i].value += 3;
}

static void begun(struct sim *s)
{
    world_after(&s->world, 4 * SECOND, tamper, s, 0, 0);
}

static char *output_of(struct runner *r)
{
    char *text;
    size_t n, got;
    char part[4096];
    FILE *out = open_memstream(&text, &n);
    rewind(r->output);
    while ((got = fread(part, 1, sizeof(part), r->output)) > 0)
        fwrite(part, 1, got, out);
    fclose(out);
    return text;
}

static void a_failing_seed_tells_its_story(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct sim_options o = {.seed = seed, .seconds = 40, .begun = begun};
        struct runner r = {0};
        struct verdict v;
        runner_run(&r, &o, &v);
        assert_false(v.good);
        char *text = output_of(&r);
        assert_has(text, "the story, of members n");
        assert_has(text, "; revision ");
        assert_has(text, " n1 ");
        assert_has(text, "at this moment");
        assert_has(text, "faults: ");
        assert_has(text, "VIOLATION at ");
        assert_true(lines_of(text) <= STORY_LINES_ALL + 10);
        free(text);
        runner_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_become_words),
        cmocka_unit_test(file_names_are_few_and_known_again),
        cmocka_unit_test(notes_leave_the_hash_alone),
        cmocka_unit_test(a_story_is_found_by_the_entry),
        cmocka_unit_test(a_story_is_found_by_the_revision),
        cmocka_unit_test(a_story_is_found_by_the_request),
        cmocka_unit_test(two_leaders_of_a_term_are_told_by_their_votes),
        cmocka_unit_test(a_watch_is_told_with_the_revision_that_it_missed),
        cmocka_unit_test(a_long_story_keeps_its_begin_and_its_end),
        cmocka_unit_test(landmarks_outlive_the_traffic),
        cmocka_unit_test(without_a_subject_the_last_lines_are_told),
        cmocka_unit_test(a_failing_seed_tells_its_story),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
