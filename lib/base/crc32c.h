/* CRC32C (Castagnoli, RFC 3720 appendix B.4), with SSE4.2 where the processor has it. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Continues `crc` (0 to begin) over n bytes: crc32c(crc32c(0, a), b) is the sum of a and b joined. */
uint32_t crc32c(uint32_t crc, const void *p, size_t n);

#endif
