/* Leases: the set of keys, deadlines, who judges, checkpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/lease/lease.h"
#include "lib/base/memory.h"

static struct lessor *lessor;

static int setup(void **state)
{
    (void)state;
    lessor = lessor_new();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lessor_free(lessor);
    return 0;
}

static void grants_are_checked(void **state)
{
    (void)state;
    assert_int_equal(lessor_grant(lessor, 0, 10, 0), ERR_LEASE_NOT_FOUND);
    assert_int_equal(lessor_grant(lessor, 1, LEASE_TTL_MAX + 1, 0), ERR_LEASE_TTL_TOO_LARGE);
    assert_int_equal(lessor_grant(lessor, 1, 10, 0), ERR_OK);
    assert_int_equal(lessor_grant(lessor, 1, 20, 0), ERR_LEASE_EXISTS);
    assert_true(lessor_exists(lessor, 1));
    assert_false(lessor_exists(lessor, 2));
    assert_int_equal(lessor_count(lessor), 1);
}

static void revoke_hands_over_keys_in_order(void **state)
{
    (void)state;
    const char *names[] = {"m", "a", "z", "c", "a"};
    assert_int_equal(lessor_grant(lessor, 7, 10, 0), ERR_OK);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        lessor_attach(lessor, 7, bytes_str(names[i]));
    lessor_detach(lessor, 7, bytes_str("m"));
    lessor_detach(lessor, 7, bytes_str("never attached"));
    struct bytes *keys;
    size_t count;
    assert_int_equal(lessor_revoke(lessor, 7, &keys, &count), ERR_OK);
    assert_int_equal(count, 3);
    const char *expect[] = {"a", "c", "z"};
    for (size_t i = 0; i < count; i++) {
        assert_true(bytes_equal(keys[i], bytes_str(expect[i])));
        free((void *)keys[i].p);
    }
    free(keys);
    assert_int_equal(lessor_revoke(lessor, 7, &keys, &count), ERR_LEASE_NOT_FOUND);
}

static void only_the_primary_lets_leases_end(void **state)
{
    (void)state;
    int64_t ids[8], ttl;
    lessor_grant(lessor, 1, 5, 0);
    assert_int_equal(lessor_expired(lessor, 1000000, 1, ids, 8), 0);
    assert_int_equal(lessor_renew(lessor, 1, 0, &ttl), ERR_NOT_LEADER);
    lessor_promote(lessor, 1000000);
    assert_int_equal(lessor_expired(lessor, 1004999, 1000, ids, 8), 0);
    assert_int_equal(lessor_expired(lessor, 1005000, 1000, ids, 8), 1);
    assert_int_equal(ids[0], 1);
    /* Its revoke is under way: again only after the retry time, and a renewal comes too late. */
    assert_int_equal(lessor_expired(lessor, 1005999, 1000, ids, 8), 0);
    assert_int_equal(lessor_renew(lessor, 1, 1005100, &ttl), ERR_LEASE_NOT_FOUND);
    lessor_revoke_unsent(lessor, 1); /* it isn't: nobody took it */
    assert_int_equal(lessor_expired(lessor, 1005000, 1000, ids, 8), 1);
    assert_int_equal(lessor_expired(lessor, 1006000, 1000, ids, 8), 1);
    lessor_demote(lessor);
    assert_int_equal(lessor_expired(lessor, 9000000, 1000, ids, 8), 0);
}

static void renewal_moves_the_deadline(void **state)
{
    (void)state;
    int64_t ids[8], ttl;
    lessor_promote(lessor, 0);
    lessor_grant(lessor, 1, 5, 0);
    lessor_grant(lessor, 2, 6, 0);
    assert_int_equal(lessor_renew(lessor, 1, 4000, &ttl), ERR_OK);
    assert_int_equal(ttl, 5);
    assert_int_equal(lessor_expired(lessor, 8999, 1000, ids, 8), 1);
    assert_int_equal(ids[0], 2);
    struct lease_info info;
    assert_int_equal(lessor_info(lessor, 1, 8500, &info), ERR_OK);
    assert_int_equal(info.granted_ttl, 5);
    assert_int_equal(info.remaining_ttl, 1);
}

static void a_batch_is_bounded_and_ordered(void **state)
{
    (void)state;
    int64_t ids[10];
    lessor_promote(lessor, 0);
    for (int64_t i = 1; i <= 1000; i++)
        lessor_grant(lessor, i, 1 + (i * 7919) % 1000, 0);
    int64_t last_ttl = 0;
    for (size_t seen = 0; seen < 1000; seen += 10) {
        assert_int_equal(lessor_expired(lessor, 2000000, 10000000, ids, 10), 10);
        for (size_t k = 0; k < 10; k++) {
            int64_t ttl = 1 + (ids[k] * 7919) % 1000;
            assert_true(ttl >= last_ttl);
            last_ttl = ttl;
        }
    }
    assert_int_equal(lessor_expired(lessor, 2000000, 10000000, ids, 10), 0);
}

/* A new leader goes on with the checkpointed time, and a renewal takes the checkpoint back. */
static void checkpoints(void **state)
{
    (void)state;
    int64_t ids[8], remaining[8], ttl;
    lessor_promote(lessor, 0);
    lessor_grant(lessor, 1, 1000, 0);
    lessor_grant(lessor, 2, 10, 0); /* over before a checkpoint is worth it */
    assert_int_equal(lessor_checkpoints_due(lessor, 299999, 300000, ids, remaining, 8), 0);
    assert_int_equal(lessor_checkpoints_due(lessor, 300000, 300000, ids, remaining, 8), 1);
    assert_int_equal(ids[0], 1);
    assert_int_equal(remaining[0], 700);
    assert_int_equal(lessor_checkpoint(lessor, 1, 700), ERR_OK);
    assert_int_equal(lessor_checkpoints_due(lessor, 300002, 300000, ids, remaining, 8), 0);

    lessor_demote(lessor);
    lessor_promote(lessor, 500000);
    struct lease_info info;
    lessor_info(lessor, 1, 500000, &info);
    assert_int_equal(info.remaining_ttl, 700);
    /* ... which is taken back before the answer. */
    assert_int_equal(lessor_renew(lessor, 1, 600000, &ttl), ERR_BUSY);
    assert_int_equal(lessor_checkpoint(lessor, 1, 0), ERR_OK);
    assert_int_equal(lessor_stored_remaining(lessor, 1), 0);
    assert_int_equal(lessor_renew(lessor, 1, 600001, &ttl), ERR_OK);
    assert_int_equal(ttl, 1000);
}

/* A checkpoint that is proposed when the renewal comes would shorten the lease under the next leader. */
static void a_checkpoint_under_way_keeps_a_lease_from_renewal(void **state)
{
    (void)state;
    int64_t ids[8], remaining[8], ttl;
    lessor_promote(lessor, 0);
    lessor_grant(lessor, 1, 1000, 0);
    assert_int_equal(lessor_checkpoints_due(lessor, 400000, 300000, ids, remaining, 8), 1);
    assert_int_equal(lessor_renew(lessor, 1, 400001, &ttl), ERR_BUSY);
    assert_int_equal(lessor_checkpoint(lessor, 1, remaining[0]), ERR_OK);
    assert_int_equal(lessor_renew(lessor, 1, 400002, &ttl), ERR_BUSY);
    assert_int_equal(lessor_checkpoint(lessor, 1, 0), ERR_OK);
    assert_int_equal(lessor_renew(lessor, 1, 400003, &ttl), ERR_OK);
    /* One that could not be proposed is none. */
    assert_int_equal(lessor_checkpoints_due(lessor, 800000, 300000, ids, remaining, 8), 1);
    lessor_checkpoints_unsent(lessor, ids, 1);
    assert_int_equal(lessor_checkpoints_due(lessor, 800000, 300000, ids, remaining, 8), 1);
    lessor_checkpoints_unsent(lessor, ids, 1);
    assert_int_equal(lessor_renew(lessor, 1, 800001, &ttl), ERR_OK);
}

static void clear_forgets_everything(void **state)
{
    (void)state;
    int64_t ids[8];
    lessor_promote(lessor, 0);
    for (int64_t i = 1; i <= 200; i++) {
        lessor_grant(lessor, i, 1, 0);
        lessor_attach(lessor, i, bytes_str("k"));
    }
    lessor_clear(lessor);
    assert_int_equal(lessor_count(lessor), 0);
    assert_int_equal(lessor_expired(lessor, 1000000, 1, ids, 8), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(grants_are_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(revoke_hands_over_keys_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_primary_lets_leases_end, setup, teardown),
        cmocka_unit_test_setup_teardown(renewal_moves_the_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(a_batch_is_bounded_and_ordered, setup, teardown),
        cmocka_unit_test_setup_teardown(checkpoints, setup, teardown),
        cmocka_unit_test_setup_teardown(a_checkpoint_under_way_keeps_a_lease_from_renewal, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(clear_forgets_everything, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
