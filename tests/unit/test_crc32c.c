/* CRC32C against RFC 3720 appendix B.4, on both paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "lib/base/crc32c.h"
#include "lib/base/crc32c_internal.h"
#include "lib/base/memory.h"

typedef uint32_t crc_function(uint32_t crc, const void *p, size_t n);

static void check_vectors(crc_function *sum)
{
    static const uint8_t read_command[48] = {
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18, 0x28, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    uint8_t p[32];
    memset(p, 0, sizeof(p));
    assert_true(sum(0, p, sizeof(p)) == 0x8a9136aa);
    memset(p, 0xff, sizeof(p));
    assert_true(sum(0, p, sizeof(p)) == 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        p[i] = (uint8_t)i;
    assert_true(sum(0, p, sizeof(p)) == 0x46dd794e);
    for (int i = 0; i < 32; i++)
        p[i] = (uint8_t)(31 - i);
    assert_true(sum(0, p, sizeof(p)) == 0x113fdb5c);
    assert_true(sum(0, read_command, sizeof(read_command)) == 0xd9963a56);
    assert_true(sum(0, "123456789", 9) == 0xe3069283);
    assert_true(sum(0, "", 0) == 0);
}

static void table_matches_the_rfc(void **state)
{
    (void)state;
    check_vectors(crc32c_table);
}

static void sse42_matches_the_rfc(void **state)
{
    (void)state;
    if (!crc32c_sse42_available())
        skip();
    check_vectors(crc32c_sse42);
}

static void dispatch_matches_the_rfc(void **state)
{
    (void)state;
    check_vectors(crc32c);
    assert_true(crc32c(7, NULL, 0) == 7);
}

/* Every length and alignment around the eight-byte steps, whole and in two parts. */
static void paths_agree_and_continue(void **state)
{
    (void)state;
    uint8_t p[80];
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof(p); i++) {
        seed = seed * 1103515245 + 12345;
        p[i] = (uint8_t)(seed >> 16);
    }
    for (size_t start = 0; start < 8; start++) {
        for (size_t n = 0; n <= 64; n++) {
            uint32_t whole = crc32c_table(0, p + start, n);
            if (crc32c_sse42_available())
                assert_true(crc32c_sse42(0, p + start, n) == whole);
            for (size_t cut = 0; cut <= n; cut++) {
                uint32_t part = crc32c(0, p + start, cut);
                assert_true(crc32c(part, p + start + cut, n - cut) == whole);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_matches_the_rfc),
        cmocka_unit_test(sse42_matches_the_rfc),
        cmocka_unit_test(dispatch_matches_the_rfc),
        cmocka_unit_test(paths_agree_and_continue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
