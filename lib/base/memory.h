/* Allocation that can't fail, and an arena for memory that lives as long as one request.
 *
 * Out of memory ends the process at one place, deliberately: a replica that goes on with half of a
 * state is worse than one that restarts and replays its log. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stddef.h>

void *xmalloc(size_t n) __attribute__((malloc));
void *xcalloc(size_t count, size_t n) __attribute__((malloc));
void *xrealloc(void *p, size_t n);
char *xstrdup(const char *s) __attribute__((malloc));
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2), malloc));

/* An arena: allocations die together in arena_free. One owner, one thread. */
struct arena_chunk;
struct arena {
    struct arena_chunk *chunks;
};
void *arena_alloc(struct arena *a, size_t n); /* aligned for any type, zeroed */
void arena_free(struct arena *a);             /* leaves an empty arena, usable again */

#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
