/* The simulator's randomness: splitmix64. The same seed gives the same numbers on every machine. */
#ifndef SIM_SIMRNG_H
#define SIM_SIMRNG_H

#include <stdbool.h>
#include <stdint.h>

struct simrng {
    uint64_t state; /* any seed */
};

static inline uint64_t simrng_next(struct simrng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* Uniform in 0 .. n-1, n > 0 (the bias of the modulus is of no matter here). */
static inline uint64_t simrng_below(struct simrng *r, uint64_t n)
{
    return simrng_next(r) % n;
}

/* True in `percent` of 100 calls. */
static inline bool simrng_chance(struct simrng *r, unsigned percent)
{
    return simrng_below(r, 100) < percent;
}

#endif
