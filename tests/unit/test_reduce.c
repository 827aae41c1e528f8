/* The simulator makes a failing seed smaller, and keeps what it fails of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

#include "lib/base/memory.h"
#include "tests/sim/reduce.h"

#define TAMPERED_AT (3 * SECOND)

/* ---- names -------------------------------------------------------------------------------------- */

static void every_kind_has_a_name_that_is_understood(void **state)
{
    (void)state;
    char names[1024];
    uint64_t all = (1ull << without_count()) - 1, set = 0;
    without_print(all, names, sizeof(names));
    assert_true(without_parse(names, &set));
    assert_int_equal(set, all);
    assert_true(without_parse("loss", &set));
    without_print(set, names, sizeof(names));
    assert_string_equal(names, "loss");
    assert_false(without_parse("crash,los", &set));
    assert_false(without_parse("crash,,loss", &set));
}

/* Leaving out is no other draw: what is left of the seed is as it was. */
static void what_is_left_out_changes_nothing_else(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct sim_options o = {.seed = seed, .seconds = 60};
        struct sim_drawn whole, less;
        sim_draw(&o, &whole);
        for (size_t i = 0; i < without_count(); i++) {
            o.without = 1ull << i;
            sim_draw(&o, &less);
            assert_int_equal(less.kinds, whole.kinds & ~o.without);
            assert_int_equal(less.nodes, whole.nodes);
            assert_int_equal(less.clients, whole.clients);
        }
    }
}

/* ---- the search, with runs that are made up ----------------------------------------------------- */

struct fake {
    uint64_t needed; /* kinds: without one of them the run is good */
    uint64_t other;  /* without this one it breaks another promise */
    size_t nodes_min;
    uint64_t at_seconds;
    size_t runs;
};

static void fake_run(void *ctx, const struct sim_options *o, struct verdict *v)
{
    struct fake *f = ctx;
    f->runs++;
    *v = (struct verdict){.promise = "mine", .at_seconds = f->at_seconds};
    v->good = (o->without & f->needed) || (o->nodes && o->nodes < f->nodes_min) ||
              o->seconds < f->at_seconds + 18;
    if (o->without & f->other)
        strcpy(v->promise, "another one");
}

static const struct sim_drawn drawn = {.nodes = 5, .clients = 8, .kinds = 0xffffff};

static void what_is_not_needed_is_left_out(void **state)
{
    (void)state;
    struct fake f = {.needed = 1 << 3 | 1 << 17, .nodes_min = 3, .at_seconds = 12};
    struct sim_options o = {.seed = 7, .seconds = 60};
    struct verdict v = {.promise = "mine", .at_seconds = 12};
    struct reduction small;
    reduce(&o, &v, &drawn, fake_run, &f, &small);
    assert_int_equal(drawn.kinds & ~small.options.without, f.needed);
    assert_int_equal(small.options.seconds, 30);
    assert_int_equal(small.options.nodes, 3);
    assert_int_equal(small.options.clients, 1);
    assert_int_equal(small.options.seed, 7);
    assert_true(small.smaller);
    assert_true(small.tries == f.runs && f.runs <= REDUCE_TRIES_MAX);
}

/* Another promise that breaks is another bug, or none. */
static void a_run_that_breaks_something_else_is_not_taken(void **state)
{
    (void)state;
    struct fake f = {.needed = 1 << 3, .other = 1 << 9};
    struct sim_options o = {.seconds = 60};
    struct verdict v = {.promise = "mine"};
    struct reduction small;
    reduce(&o, &v, &drawn, fake_run, &f, &small);
    assert_int_equal(drawn.kinds & ~small.options.without, f.needed | f.other);
    assert_string_equal(small.verdict.promise, "mine");
}

static void the_tries_are_bounded(void **state)
{
    (void)state;
    struct fake f = {.needed = 0xffffff};
    struct sim_options o = {.seconds = 60};
    struct verdict v = {.promise = "mine", .at_seconds = 42};
    struct reduction small;
    reduce(&o, &v, &drawn, fake_run, &f, &small);
    assert_int_equal(small.options.without, 0);
    assert_true(f.runs <= REDUCE_TRIES_MAX);
    v.hung = true; /* each try would take minutes */
    f.runs = 0;
    reduce(&o, &v, &drawn, fake_run, &f, &small);
    assert_int_equal(f.runs, 0);
    assert_false(small.smaller);
}

/* ---- a real seed -------------------------------------------------------------------------------- */

/* No fault does this: what the newest change of a key was is remembered wrongly, so that the next answer is wrong. */
static void tamper(struct world *w, void *ctx, uint64_t a, uint64_t b)
{
    (void)w, (void)a, (void)b;
    struct sim *s = ctx;
    for (size_t i = s->model.count > 20 ? s->model.count - 20 : 0; i < s->model.count; i++)
        s->model.kvs[i].value++;
}

static void begun(struct sim *s)
{
    world_after(&s->world, TAMPERED_AT, tamper, s, 0, 0);
}

static void run_really(void *ctx, const struct sim_options *o, struct verdict *v)
{
    (void)ctx;
    struct runner r = {0};
    runner_run(&r, o, v);
    runner_free(&r);
}

static void a_failing_seed_becomes_smaller(void **state)
{
    (void)state;
    struct sim_options o = {.seed = 6, .seconds = 60, .begun = begun};
    struct sim_drawn d;
    struct verdict v;
    struct reduction small;
    sim_draw(&o, &d);
    run_really(NULL, &o, &v);
    assert_false(v.good);
    assert_null(strstr(v.promise, "signal"));
    assert_true(v.at_seconds >= TAMPERED_AT / SECOND);
    reduce(&o, &v, &d, run_really, NULL, &small);
    assert_string_equal(small.verdict.promise, v.promise);
    assert_true(small.options.without & d.kinds);
    assert_true(small.options.seconds < 60);
    struct verdict again;
    run_really(NULL, &small.options, &again); /* as the command would that is printed */
    assert_string_equal(again.promise, v.promise);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_a_name_that_is_understood),
        cmocka_unit_test(what_is_left_out_changes_nothing_else),
        cmocka_unit_test(what_is_not_needed_is_left_out),
        cmocka_unit_test(a_run_that_breaks_something_else_is_not_taken),
        cmocka_unit_test(the_tries_are_bounded),
        cmocka_unit_test(a_failing_seed_becomes_smaller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
