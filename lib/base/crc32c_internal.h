/* The two ways to compute a CRC32C, apart so that a test can run both. Not for other modules. */
#ifndef BASE_CRC32C_INTERNAL_H
#define BASE_CRC32C_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint32_t crc32c_table(uint32_t crc, const void *p, size_t n); /* on any processor */

bool crc32c_sse42_available(void);
uint32_t crc32c_sse42(uint32_t crc, const void *p, size_t n); /* only where it is available */

#endif
