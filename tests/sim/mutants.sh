#!/bin/sh
# The test of the tests: switches on one known bug at a time and counts the seeds until the simulator has
# found it. Prints a table; exit code 1 if one was not found.
#   sh tests/sim/mutants.sh [--seeds MAX] [MUTANT...]
set -u
cd "$(dirname "$0")/../.." || exit 1
max=400
if [ "${1:-}" = --seeds ]; then
    max=$2
    shift 2
fi
build=build-mutant
[ -f $build/build.ninja ] || meson setup $build >/dev/null || exit 1
mutants=${*:-$(git grep -hoE 'MUTANT\([a-z_]+\)' -- daemon | sed 's/MUTANT(\(.*\))/\1/' | sort -u | tr _ -)}
missed=0
printf '%-42s %s\n' mutant 'found in'
for mutant in $mutants; do
    meson configure $build -Dmutant="$mutant" && ninja -C $build tests/sim/sim >/dev/null || exit 1
    # Batches that grow: a mutant that is found at once costs no more than a few seeds.
    first=1 count=10 found=
    while [ -z "$found" ] && [ $first -le "$max" ]; do
        [ $((first + count)) -le $((max + 1)) ] || count=$((max + 1 - first))
        found=$($build/tests/sim/sim --seed $first --seeds $count --until-failure |
            sed -n 's/^FAILED seed \([0-9]*\)$/\1/p' | sort -n | head -1)
        first=$((first + count))
        count=$((count * 3))
    done
    if [ -n "$found" ]; then
        printf '%-42s %s seeds\n' "$mutant" "$found"
    else
        printf '%-42s NOT FOUND in %s seeds\n' "$mutant" "$max"
        missed=$((missed + 1))
    fi
done
meson configure $build -Dmutant=
[ $missed = 0 ]
