#include "lib/base/bytes.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/base/memory.h"

/* The first allocation of a buffer: most messages and log lines fit without growing. */
#define BUF_CAP_MIN 256

int bytes_compare(struct bytes a, struct bytes b)
{
    size_t common = a.n < b.n ? a.n : b.n;
    int order = common ? memcmp(a.p, b.p, common) : 0;
    if (order)
        return order < 0 ? -1 : 1;
    return (a.n > b.n) - (a.n < b.n);
}

uint8_t *bytes_dup(struct bytes s)
{
    assert(s.n < SIZE_MAX);
    uint8_t *copy = xmalloc(s.n + 1);
    if (s.n)
        memcpy(copy, s.p, s.n);
    copy[s.n] = 0;
    return copy;
}

void buf_reserve(struct buf *b, size_t extra)
{
    assert(b->n <= b->cap);
    if (extra <= b->cap - b->n)
        return;
    assert(extra <= SIZE_MAX / 2 - b->n); /* no memory has it, and doubling can't overflow */
    size_t cap = b->cap ? b->cap : BUF_CAP_MIN;
    while (cap < b->n + extra)
        cap *= 2;
    b->p = xrealloc(b->p, cap);
    b->cap = cap;
}

void buf_append(struct buf *b, const void *p, size_t n)
{
    if (n == 0)
        return;
    buf_reserve(b, n);
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void buf_printf(struct buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    buf_reserve(b, 1);
    int n = vsnprintf((char *)b->p + b->n, b->cap - b->n, format, args);
    assert(n >= 0); /* our formats have no wide characters, the one cause of failure */
    if ((size_t)n >= b->cap - b->n) {
        buf_reserve(b, (size_t)n + 1);
        vsnprintf((char *)b->p + b->n, b->cap - b->n, format, again);
    }
    b->n += (size_t)n;
    va_end(again);
    va_end(args);
}

void buf_consume(struct buf *b, size_t n)
{
    assert(n <= b->n);
    if (n == 0)
        return;
    b->n -= n;
    if (b->n)
        memmove(b->p, b->p + n, b->n);
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

void put_le32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

void put_le64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

void put_be32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * (3 - i));
}

void put_be64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> 8 * (7 - i));
}

uint32_t get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

uint64_t get_be64(const uint8_t *p)
{
    return (uint64_t)get_be32(p) << 32 | (uint64_t)get_be32(p + 4);
}
