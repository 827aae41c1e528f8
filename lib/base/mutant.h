/* Known bugs, to be switched on one at a time: the test of the tests (docs/testing.md, tests/sim/mutants.sh).
 *
 * `meson configure BUILD -Dmutant=vote-not-persisted` makes MUTANT(vote_not_persisted) true; all others
 * are the constant 0, and without the option all of them are: the compiler leaves nothing of them. Only
 * sources that include this header are built again when the option changes. */
#ifndef BASE_MUTANT_H
#define BASE_MUTANT_H

#include "lib/base/mutant_config.h" /* made by meson: defines MUTANT_chosen as 1 */

/* MUTANT_name is either 1 or not a macro; only the former makes a comma, which moves the 1 to the place
 * that is picked. */
#define MUTANT_PAIR_1 0,
#define MUTANT_PICK(ignored, value, ...) value
#define MUTANT_TAKE(pair) MUTANT_PICK(pair 1, 0, 0)
#define MUTANT_LOOK(flag) MUTANT_TAKE(MUTANT_PAIR_##flag)
#define MUTANT_VALUE(flag) MUTANT_LOOK(flag)
#define MUTANT(name) MUTANT_VALUE(MUTANT_##name)

#endif
