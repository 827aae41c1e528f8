#!/bin/sh
# The test of the tests: switches on one known bug at a time and counts the seeds until the simulator has
# found it; where the simulator can't reach, a unit test must fail. Prints a table; exit code 1 if one was
# not found.
#   sh tests/sim/mutants.sh [--fast] [--seeds MAX] [--results FILE] [MUTANT...]
# --fast: without those that take long, and in the scenario that each is for (tests/sim/scenario.h).
# --results FILE: for tests/run.sh, appends PASS and FAIL lines.
set -u
cd "$(dirname "$0")/../.." || exit 1
max=400 results='' fast=''
while :; do
    case "${1:-}" in
    --fast)
        fast=1
        shift
        continue
        ;;
    --seeds) max=$2 ;;
    --results) results=$2 ;;
    *) break ;;
    esac
    shift 2
done
build=build-mutant
[ -f $build/build.ninja ] || meson setup $build -Dmutants=true >/dev/null || exit 1
meson configure $build -Dmutants=true || exit 1
ninja -C $build tests/sim/sim >/dev/null || exit 1

# What needs thousands of something.
unit_of() {
    case "$1" in
    expiry-unbounded) echo test_replica_lease ;; # the simulator's members need no time to work on an entry
    refused-while-astray) echo test_replica_refused ;;
    snapshot-with-newest-membership) echo test_replica_snapshot ;; # it has to begin while a change waits for its commit
    esac
}

# What is made for it; without --fast the seeds draw their scenarios themselves.
scenario_of() {
    case "$1" in
    commit-earlier-term-by-counting) echo figure-8 ;;
    hung-leader-stays) echo hung-disk ;;
    prevote-of-older-term-ignored) echo prevote ;;
    conf-change-before-own-term-commit) echo two-changes ;;
    membership-counts-when-applied) echo lost-leader ;;
    corrupt-log-cut-as-torn) echo rotten-log ;;
    corrupt-row-served | short-revision-served) echo rotten-row ;;
    second-snapshot-replaces-first) echo two-snapshots ;;
    snapshot-resume-wrong-offset) echo broken-streams ;;
    forgetful-member-stays) echo lost-tail ;;
    stalled-leader-revokes) echo stalled-leader ;;
    truncation-not-recovered) echo short-log ;;
    esac
}

# What is so rare that the scenario is chosen in any case.
only_in() {
    case "$1" in
    restore-*) echo restore ;;
    *) [ -z "$fast" ] || scenario_of "$1" ;;
    esac
}

is_slow() {
    case "$1" in
    read-index-reused | restore-forgets-sessions) return 0 ;;
    *) return 1 ;;
    esac
}

# Both print where it was found, or nothing.
by_unit() { # MUTANT TEST
    ninja -C $build "tests/unit/$2" >/dev/null || exit 1
    if ! "$build/tests/unit/$2" >/dev/null 2>&1; then
        echo "$2 fails without it" >&2
    elif ! QUORUMFS_MUTANT=$1 "$build/tests/unit/$2" >/dev/null 2>&1; then
        echo "$2"
    fi
}

# Batches that grow: a mutant that is found at once costs no more than a few seeds.
by_seeds() { # MUTANT [SCENARIO]
    first=1 count=4
    while [ $first -le "$max" ]; do
        [ $((first + count)) -le $((max + 1)) ] || count=$((max + 1 - first))
        seed=$(QUORUMFS_MUTANT=$1 $build/tests/sim/sim --seed $first --seeds $count --until-failure \
            ${2:+--scenario "$2"} |
            sed -n 's/^FAILED seed \([0-9]*\)$/\1/p' | sort -n | head -1)
        if [ -n "$seed" ]; then
            echo "seed $seed${2:+ of scenario $2}"
            return
        fi
        first=$((first + count))
        count=$((count * 2))
    done
}

mutants=${*:-$(git grep -hoE 'MUTANT\([a-z_]+\)' -- daemon | sed 's/MUTANT(\(.*\))/\1/' | sort -u | tr _ -)}
missed=0
printf '%-40s %s\n' mutant 'found by'
for mutant in $mutants; do
    [ -z "$fast" ] || ! is_slow "$mutant" || continue
    unit=$(unit_of "$mutant")
    if [ -n "$unit" ]; then
        found=$(by_unit "$mutant" "$unit")
    else
        found=$(by_seeds "$mutant" $(only_in "$mutant"))
    fi
    printf '%-40s %s\n' "$mutant" "${found:-NOT FOUND in $max seeds}"
    [ -n "$found" ] || missed=$((missed + 1))
    if [ -n "$results" ]; then
        [ -n "$found" ] && echo "PASS sim:mutant-$mutant" >>"$results"
        [ -n "$found" ] || echo "FAIL sim:mutant-$mutant not found in $max seeds" >>"$results"
    fi
done
[ $missed = 0 ]
