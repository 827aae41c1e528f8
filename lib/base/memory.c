#include "lib/base/memory.h"

#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A chunk serves many small allocations; a larger one gets a chunk of its own. */
#define ARENA_CHUNK_SIZE 4096

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, cap;
    _Alignas(max_align_t) unsigned char data[];
};

static _Noreturn void out_of_memory(void)
{
    static const char text[] = "out of memory\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)ignored;
    abort();
}

void *xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p)
        out_of_memory();
    return p;
}

void *xcalloc(size_t count, size_t n)
{
    void *p = count && n ? calloc(count, n) : calloc(1, 1);
    if (!p)
        out_of_memory();
    return p;
}

void *xrealloc(void *p, size_t n)
{
    void *moved = realloc(p, n ? n : 1);
    if (!moved)
        out_of_memory();
    return moved;
}

char *xstrdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(xmalloc(n), s, n);
}

char *xasprintf(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *s;
    int n = vasprintf(&s, format, args);
    va_end(args);
    if (n < 0)
        out_of_memory();
    return s;
}

static struct arena_chunk *chunk_new(size_t cap)
{
    assert(cap <= SIZE_MAX - sizeof(struct arena_chunk));
    struct arena_chunk *chunk = xcalloc(1, sizeof(*chunk) + cap);
    chunk->cap = cap;
    return chunk;
}

void *arena_alloc(struct arena *a, size_t n)
{
    const size_t align = _Alignof(max_align_t);
    assert(n <= SIZE_MAX - align);
    n = (n + align - 1) / align * align;
    struct arena_chunk *chunk = a->chunks;
    if (!chunk || n > chunk->cap - chunk->used) {
        struct arena_chunk *fresh = chunk_new(n > ARENA_CHUNK_SIZE ? n : ARENA_CHUNK_SIZE);
        if (chunk && n > ARENA_CHUNK_SIZE / 2) {
            /* Behind the current chunk, whose free part stays in use. */
            fresh->next = chunk->next;
            chunk->next = fresh;
        } else {
            fresh->next = chunk;
            a->chunks = fresh;
        }
        chunk = fresh;
    }
    void *p = chunk->data + chunk->used;
    chunk->used += n;
    return p;
}

void arena_free(struct arena *a)
{
    while (a->chunks) {
        struct arena_chunk *chunk = a->chunks;
        a->chunks = chunk->next;
        free(chunk);
    }
}
