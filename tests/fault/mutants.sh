#!/bin/sh
# The test of the fault tests: a daemon with a known bug (lib/base/mutant.h) must fail the power losses.
#   sh tests/fault/mutants.sh [MUTANT...]
set -u
cd "$(dirname "$0")/../.." || exit 1
build=build-mutant
[ -f $build/build.ninja ] || meson setup $build >/dev/null || exit 1
missed=0
for mutant in ${*:-ack-page-cache-only ack-before-local-sync lost-dir-sync}; do
    case $mutant in
    ack-before-local-sync) tests="test_power.PowerLoss.test_single_node" ;;
    *) tests="test_power.PowerLoss.test_single_node test_power.PowerLoss.test_the_rack test_power.PowerLoss.test_small_logs" ;;
    esac
    meson configure $build -Dmutant="$mutant" &&
        ninja -C $build daemon/quorumd tests/fault/history tests/fault/lossy.so tests/fault/lossy_undo >/dev/null || exit 1
    output=$(python3 tests/integration/run.py --build $build --folder tests/fault $tests)
    if printf '%s\n' "$output" | grep -q '^FAIL'; then
        reason=$(printf '%s\n' "$output" | grep -m 1 -E 'NOT LINEARIZABLE|^AssertionError')
        printf '%-28s caught: %s\n' "$mutant" "$reason"
    else
        printf '%-28s NOT CAUGHT\n' "$mutant"
        missed=$((missed + 1))
    fi
done
meson configure $build -Dmutant=
[ $missed = 0 ]
