#!/bin/sh
# Runs the simulator.
#   sh tests/sim/run.sh [--seeds N] [--seed S] [--minutes M] [--seconds T] ...   as build/tests/sim/sim takes it
#   sh tests/sim/run.sh RESULTS      for tests/run.sh: appends PASS and FAIL lines to the file RESULTS
set -u
cd "$(dirname "$0")/../.." || exit 1
case "${1:-}" in
"" | --*)
    [ -f build/build.ninja ] || meson setup build || exit 1
    ninja -C build tests/sim/sim || exit 1
    exec build/tests/sim/sim "$@"
    ;;
esac
results=$1

# The same seeds in every run, so that a red one is the fault of a change; new ones are for longer runs by hand:
# without --seed the simulator draws its first seed and prints it.
seeds() { # NAME PROGRAM ARGUMENTS...
    name=$1
    shift
    out=$(mktemp)
    "$@" >"$out" 2>&1
    code=$?
    cat "$out"
    sed -n "s/^FAILED seed \([0-9]*\)$/FAIL sim:seed-\1 of $name/p" "$out" >>"$results"
    if [ $code = 0 ]; then
        echo "PASS sim:$name" >>"$results"
    elif ! grep -q '^FAILED seed' "$out"; then
        echo "FAIL sim:$name exit code $code" >>"$results"
    fi
    rm -f "$out"
}

seeds fixed-seeds build/tests/sim/sim --seed 1 --seeds "${SIM_SEEDS:-2000}"
# Are known bugs found? Those that take few seeds; each stops at its first one.
before=$(wc -l <"$results")
sh tests/sim/mutants.sh --fast --seeds 60 --results "$results" || [ "$(wc -l <"$results")" != "$before" ] ||
    echo "FAIL sim:mutants could not be built" >>"$results"
# Three simulated hours of steady load: nothing may grow. tests/sim/steady.h
seeds steady-hours build/tests/sim/sim --steady --hours "${SIM_HOURS:-3}" --seed 1
if [ -x build-asan/tests/sim/sim ]; then
    seeds seeds-sanitized build-asan/tests/sim/sim --seed 1 --seeds "${SIM_SEEDS_SANITIZED:-10}"
else
    echo "SKIP sim:seeds-sanitized build-asan has no simulator" >>"$results"
fi
