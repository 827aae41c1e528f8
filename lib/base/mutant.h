/* Known bugs, to be switched on one at a time: the test of the tests (docs/testing.md, tests/sim/mutants.sh).
 *
 * In a build with `-Dmutants=true`, QUORUMFS_MUTANT=vote-not-persisted in the environment makes
 * MUTANT(vote_not_persisted) true, and all others false. In every other build all of them are the
 * constant 0, and the compiler leaves nothing of them. */
#ifndef BASE_MUTANT_H
#define BASE_MUTANT_H

#include "lib/base/mutant_config.h" /* made by meson: defines MUTANTS, or not */

#ifdef MUTANTS
#include <stdbool.h>

bool mutant_chosen(const char *name); /* reads the environment */

#define MUTANT(name)                                                                               \
    ({                                                                                             \
        static int chosen_ = -1;                                                                   \
        if (chosen_ < 0)                                                                           \
            chosen_ = mutant_chosen(#name);                                                        \
        chosen_ > 0;                                                                               \
    })
#else
#define MUTANT(name) 0
#endif

#endif
