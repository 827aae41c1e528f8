/* The linearizability checker, with histories known to be good and known to be bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lib/base/memory.h"
#include "tests/sim/linear.h"

/* A register: writes set it, reads saw a value. */
struct access {
    bool write;
    int32_t value; /* written, or read */
};

static void init_register(void *state)
{
    *(int32_t *)state = 0;
}

static bool step_register(void *state, const struct linear_op *op)
{
    const struct access *a = op->op;
    if (a->write)
        *(int32_t *)state = a->value;
    return a->write || op->returned == LINEAR_PENDING || *(int32_t *)state == a->value;
}

static const struct linear_model model = {sizeof(int32_t), init_register, step_register};

#define W(v)                                                                                       \
    &(const struct access)                                                                         \
    {                                                                                              \
        true, v                                                                                    \
    }
#define R(v)                                                                                       \
    &(const struct access)                                                                         \
    {                                                                                              \
        false, v                                                                                   \
    }

static enum linear_verdict check(const struct linear_op *ops, size_t count)
{
    return linear_check(&model, ops, count, 1000000, NULL);
}

static void sequential_history_is_good(void **state)
{
    (void)state;
    const struct linear_op ops[] = {{1, 2, W(1)}, {3, 4, R(1)}, {5, 6, W(2)}, {7, 8, R(2)}};
    assert_int_equal(check(ops, ARRAY_LEN(ops)), LINEAR_YES);
    assert_int_equal(check(ops, 0), LINEAR_YES);
}

static void stale_read_is_bad(void **state)
{
    (void)state;
    const struct linear_op ops[] = {{1, 2, W(1)}, {3, 4, W(2)}, {5, 6, R(1)}};
    size_t stuck = 99;
    assert_int_equal(linear_check(&model, ops, ARRAY_LEN(ops), 1000, &stuck), LINEAR_NO);
    assert_int_equal(stuck, 2);
}

static void concurrent_write_may_be_seen_or_not(void **state)
{
    (void)state;
    const struct linear_op seen[] = {{1, 10, W(1)}, {2, 3, R(1)}, {4, 5, R(1)}};
    const struct linear_op unseen[] = {{1, 10, W(1)}, {2, 3, R(0)}, {4, 5, R(1)}};
    const struct linear_op back[] = {{1, 10, W(1)}, {2, 3, R(1)}, {4, 5, R(0)}};
    assert_int_equal(check(seen, 3), LINEAR_YES);
    assert_int_equal(check(unseen, 3), LINEAR_YES);
    assert_int_equal(check(back, 3), LINEAR_NO);
}

static void unknown_outcome_may_take_effect_late_or_never(void **state)
{
    (void)state;
    const struct linear_op late[] = {
        {1, LINEAR_PENDING, W(1)}, {2, 3, W(2)}, {4, 5, R(2)}, {6, 7, R(1)}};
    const struct linear_op never[] = {{1, LINEAR_PENDING, W(1)}, {2, 3, W(2)}, {4, 5, R(2)}};
    const struct linear_op twice[] = {
        {1, LINEAR_PENDING, W(1)}, {2, 3, R(1)}, {4, 5, W(2)}, {6, 7, R(1)}};
    const struct linear_op before_call[] = {{1, 2, R(1)}, {3, LINEAR_PENDING, W(1)}};
    assert_int_equal(check(late, ARRAY_LEN(late)), LINEAR_YES);
    assert_int_equal(check(never, ARRAY_LEN(never)), LINEAR_YES);
    assert_int_equal(check(twice, ARRAY_LEN(twice)), LINEAR_NO);
    assert_int_equal(check(before_call, ARRAY_LEN(before_call)), LINEAR_NO);
}

/* Two clients that never could agree on an order: each reads the other's value after its own (a store
 * buffer's litmus test, which a linearizable register forbids). */
static void split_brain_is_bad(void **state)
{
    (void)state;
    const struct linear_op ops[] = {
        {1, 2, W(1)}, {1, 2, W(2)}, {3, 4, R(1)}, {5, 6, R(2)}, {7, 8, R(1)}};
    assert_int_equal(check(ops, ARRAY_LEN(ops)), LINEAR_NO);
}

static uint64_t next_random(uint64_t *r)
{
    *r = *r * 6364136223846793005u + 1442695040888963407u;
    return *r >> 33;
}

/* They may slow the search down, and nothing else. */
static void give_random_hints(struct linear_op *ops, size_t count, uint64_t *r)
{
    for (size_t i = 0; i < count; i++)
        ops[i].hint = next_random(r) % 3 ? 1000 + i + next_random(r) % 4 : 0;
}

/* Histories made from a real register with random windows around each access are good; moving one read's value
 * to one that was overwritten before its call makes them bad. */
static void random_histories(void **state)
{
    (void)state;
    enum { COUNT = 200 };
    for (uint64_t seed = 1; seed <= 50; seed++) {
        uint64_t r = seed;
        struct access accesses[COUNT];
        struct linear_op ops[COUNT];
        int32_t value = 0;
        for (int i = 0; i < COUNT; i++) {
            bool write = next_random(&r) % 2;
            if (write)
                value = i + 1;
            accesses[i] = (struct access){write, value};
            uint64_t at = 1000 + (uint64_t)i * 10;
            ops[i] = (struct linear_op){at - next_random(&r) % 30, at + next_random(&r) % 30,
                                        &accesses[i]};
        }
        assert_int_equal(check(ops, COUNT), LINEAR_YES);
        give_random_hints(ops, COUNT, &r);
        assert_int_equal(check(ops, COUNT), LINEAR_YES);
        ops[COUNT - 1] = (struct linear_op){5000, 5001, &accesses[COUNT - 1]};
        accesses[COUNT - 1] = (struct access){false, value + COUNT};
        assert_int_equal(check(ops, COUNT), LINEAR_NO);
    }
}

/* Of forty unanswered writes every second one took effect, much later, in an order that is not that of the calls, and
 * each was read: without the order of the revisions the search gives up, with it it needs a step for each. */
static void hints_decide_among_unanswered_writes(void **state)
{
    (void)state;
    enum { COUNT = 40, STEPS = 3 * COUNT };
    struct access writes[COUNT], reads[COUNT];
    struct linear_op ops[2 * COUNT];
    for (int i = 0; i < COUNT; i++) {
        int place = i * 7 % COUNT; /* among those that took effect */
        writes[i] = (struct access){true, i + 1};
        ops[i] = (struct linear_op){(uint64_t)i, LINEAR_PENDING, &writes[i], LINEAR_LAST};
        if (i % 2 == 0)
            ops[i].hint = 2 * (uint64_t)place + 2;
        reads[place] = (struct access){false, i + 1};
    }
    size_t count = COUNT;
    for (int place = 0; place < COUNT; place++) {
        uint64_t at = 100 + 2 * (uint64_t)place;
        if (reads[place].value % 2 == 1)
            ops[count++] = (struct linear_op){at, at + 1, &reads[place], 2 * (uint64_t)place + 3};
    }
    assert_int_equal(linear_check(&model, ops, count, STEPS, NULL), LINEAR_YES);
    for (size_t i = 0; i < count; i++)
        ops[i].hint = 0;
    assert_int_equal(linear_check(&model, ops, count, STEPS, NULL), LINEAR_GAVE_UP);
}

static void gives_up_after_its_steps(void **state)
{
    (void)state;
    const struct linear_op ops[] = {{1, 2, W(1)}, {3, 4, R(1)}};
    assert_int_equal(linear_check(&model, ops, 2, 1, NULL), LINEAR_GAVE_UP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequential_history_is_good),
        cmocka_unit_test(stale_read_is_bad),
        cmocka_unit_test(concurrent_write_may_be_seen_or_not),
        cmocka_unit_test(unknown_outcome_may_take_effect_late_or_never),
        cmocka_unit_test(split_brain_is_bad),
        cmocka_unit_test(random_histories),
        cmocka_unit_test(hints_decide_among_unanswered_writes),
        cmocka_unit_test(gives_up_after_its_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
