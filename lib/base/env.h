/* Time and randomness, as an interface: production takes env_system(), the simulator its own. */
#ifndef BASE_ENV_H
#define BASE_ENV_H

#include <stdint.h>

struct env {
    uint64_t (*mono_ns)(struct env *); /* monotonic clock */
    uint64_t (*wall_ns)(struct env *); /* Unix time */
    uint64_t (*random)(struct env *);  /* 64 uniform bits */
};

struct env *env_system(void); /* the machine's clocks and getrandom(2); never freed */

static inline uint64_t env_mono_ms(struct env *e)
{
    return e->mono_ns(e) / 1000000;
}

#endif
