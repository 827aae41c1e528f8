/* The table of error codes and its lookups. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "lib/base/error.h"

static void every_code_has_a_whole_row(void **state)
{
    (void)state;
    assert_int_equal(errc_grpc_code(ERR_OK), 0);
    assert_int_equal(errc_errno(ERR_OK), 0);
    for (int code = ERR_OK + 1; code < ERRC_COUNT; code++) {
        assert_in_range(errc_grpc_code(code), 1, 16);
        assert_true(errc_errno(code) > 0);
        assert_true(strlen(errc_text(code)) > 0);
    }
}

/* What a server sends, a client reads as the same code: no two rows may look alike on the wire. */
static void codes_survive_the_wire(void **state)
{
    (void)state;
    for (int code = ERR_OK; code < ERRC_COUNT; code++)
        assert_int_equal(errc_from_grpc(errc_grpc_code(code), errc_text(code)), code);
}

static void etcd_rows_are_etcds(void **state)
{
    (void)state;
    assert_string_equal(errc_text(ERR_COMPACTED),
                        "etcdserver: mvcc: required revision has been compacted");
    assert_int_equal(errc_grpc_code(ERR_COMPACTED), 11);
    assert_string_equal(errc_text(ERR_NO_SPACE), "etcdserver: mvcc: database space exceeded");
    assert_int_equal(errc_grpc_code(ERR_NO_SPACE), 8);
    assert_int_equal(errc_errno(ERR_NO_SPACE), ENOSPC);
}

static void unknown_texts_fall_back_on_the_status(void **state)
{
    (void)state;
    assert_int_equal(errc_from_grpc(0, "anything"), ERR_OK);
    assert_int_equal(errc_from_grpc(4, "some other wording"), ERR_DEADLINE);
    assert_int_equal(errc_from_grpc(14, NULL), ERR_UNAVAILABLE);
    assert_int_equal(errc_from_grpc(12, "unknown service"), ERR_UNIMPLEMENTED);
    assert_int_equal(errc_from_grpc(9, "no such text"), ERR_REMOTE);
    assert_int_equal(errc_from_grpc(17, "x"), ERR_REMOTE);
    assert_int_equal(errc_from_grpc(-1, NULL), ERR_REMOTE);
    /* The text alone isn't enough: another status is another error. */
    assert_int_equal(errc_from_grpc(13, errc_text(ERR_COMPACTED)), ERR_INTERNAL);
}

static void set_fills_cuts_and_returns(void **state)
{
    (void)state;
    struct error err;
    errno = ENOTTY;
    assert_int_equal(error_set(&err, ERR_IO, "read %s: %d", "a file", 7), ERR_IO);
    assert_int_equal(errno, ENOTTY);
    assert_int_equal(err.code, ERR_IO);
    assert_string_equal(err.message, "read a file: 7");
    assert_int_equal(error_set(NULL, ERR_BUSY, "%s", "nobody reads this"), ERR_BUSY);
    error_set(&err, ERR_INVALID, "%1000s", "x");
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_whole_row),
        cmocka_unit_test(codes_survive_the_wire),
        cmocka_unit_test(etcd_rows_are_etcds),
        cmocka_unit_test(unknown_texts_fall_back_on_the_status),
        cmocka_unit_test(set_fills_cuts_and_returns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
