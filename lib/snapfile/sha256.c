#include "lib/snapfile/sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>

/* struct sha256 is OpenSSL's EVP_MD_CTX under a name of its own. */
static EVP_MD_CTX *context(struct sha256 *h)
{
    return (EVP_MD_CTX *)h;
}

/* It fails only without memory, or in a process whose OpenSSL has no SHA-256. */
static void must(int ok)
{
    if (ok != 1)
        abort();
}

struct sha256 *sha256_new(void)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    must(c != NULL && EVP_DigestInit_ex(c, EVP_sha256(), NULL) == 1);
    return (struct sha256 *)c;
}

void sha256_add(struct sha256 *h, const void *p, size_t n)
{
    if (n > 0)
        must(EVP_DigestUpdate(context(h), p, n));
}

void sha256_end(struct sha256 *h, uint8_t ret_digest[SHA256_BYTES])
{
    must(EVP_DigestFinal_ex(context(h), ret_digest, NULL));
}

void sha256_free(struct sha256 *h)
{
    EVP_MD_CTX_free(context(h));
}
