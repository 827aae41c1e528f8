/* SHA-256 in pieces (OpenSSL's, which uses the processor's instructions where there are any). */
#ifndef SNAPFILE_SHA256_H
#define SNAPFILE_SHA256_H

#include "lib/base/bytes.h"

#define SHA256_BYTES 32

struct sha256; /* on the heap: OpenSSL's state is opaque */
struct sha256 *sha256_new(void);
void sha256_add(struct sha256 *h, const void *p, size_t n);
void sha256_end(struct sha256 *h, uint8_t ret_digest[SHA256_BYTES]); /* once, last before free */
void sha256_free(struct sha256 *h);                                  /* NULL is fine */

#endif
