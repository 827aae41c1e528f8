#include "lib/base/env.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    int rc = clock_gettime(clock, &t);
    assert(rc == 0);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static uint64_t system_mono_ns(struct env *env)
{
    (void)env;
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t system_wall_ns(struct env *env)
{
    (void)env;
    return clock_ns(CLOCK_REALTIME);
}

static uint64_t system_random(struct env *env)
{
    (void)env;
    uint64_t bits;
    ssize_t n;
    do {
        n = getrandom(&bits, sizeof(bits), 0);
    } while (n < 0 && errno == EINTR);
    assert(n == sizeof(bits)); /* up to 256 bytes come whole (getrandom(2)) */
    return bits;
}

struct env *env_system(void)
{
    static struct env env = {system_mono_ns, system_wall_ns, system_random};
    return &env;
}
