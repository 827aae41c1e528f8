#include "lib/base/crc32c.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "lib/base/bytes.h"
#include "lib/base/crc32c_internal.h"

/* The Castagnoli polynomial with its bits in reverse, as RFC 3720 feeds the lowest bit first. */
#define CRC32C_POLYNOMIAL 0x82f63b78u

/* tables[k][b]: the sum of byte b followed by k zero bytes; eight of them take eight bytes a step. */
static uint32_t tables[8][256];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? CRC32C_POLYNOMIAL : 0);
        tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
}

uint32_t crc32c_table(uint32_t crc, const void *p, size_t n)
{
    pthread_once(&tables_once, make_tables);
    const uint8_t *at = p;
    crc = ~crc;
    for (; n >= 8; at += 8, n -= 8) {
        uint64_t v = get_le64(at) ^ crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= tables[7 - k][v >> 8 * k & 0xff];
    }
    for (; n; n--)
        crc = crc >> 8 ^ tables[0][(crc ^ *at++) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)

bool crc32c_sse42_available(void)
{
    return __builtin_cpu_supports("sse4.2");
}

__attribute__((target("sse4.2"))) uint32_t crc32c_sse42(uint32_t crc, const void *p, size_t n)
{
    const uint8_t *at = p;
    uint64_t wide = ~crc;
    for (; n >= 8; at += 8, n -= 8) {
        uint64_t v;
        memcpy(&v, at, 8);
        wide = __builtin_ia32_crc32di(wide, v);
    }
    uint32_t narrow = (uint32_t)wide;
    for (; n; n--)
        narrow = __builtin_ia32_crc32qi(narrow, *at++);
    return ~narrow;
}

#else

bool crc32c_sse42_available(void)
{
    return false;
}

uint32_t crc32c_sse42(uint32_t crc, const void *p, size_t n)
{
    assert(!"called only where it is available");
    return crc32c_table(crc, p, n);
}

#endif

uint32_t crc32c(uint32_t crc, const void *p, size_t n)
{
    if (n == 0)
        return crc;
    return crc32c_sse42_available() ? crc32c_sse42(crc, p, n) : crc32c_table(crc, p, n);
}
