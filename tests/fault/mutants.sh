#!/bin/sh
# The test of the fault tests: a daemon with a known bug (lib/base/mutant.h) must fail the tests that are meant to find it.
#   sh tests/fault/mutants.sh [MUTANT...]
set -u
cd "$(dirname "$0")/../.." || exit 1
build=build-mutant
[ -f $build/build.ninja ] || meson setup $build -Dmutants=true >/dev/null || exit 1
meson configure $build -Dmutants=true && ninja -C $build >/dev/null || exit 1

tests_of() {
    power=test_power.PowerLoss deaths=test_deaths.Deaths faults=test_faults.Faults
    case $1 in
    ack-before-local-sync) echo $power.test_single_node ;;
    ack-page-cache-only | lost-dir-sync) echo $power.test_single_node $power.test_the_rack $power.test_small_logs ;;
    applied-index-separate-transaction | store-not-synced)
        echo $deaths ;;
    stalled-leader-revokes) echo $faults.test_stop_and_continue ;;
    read-without-quorum-round) echo test_clocks.SlowLeader ;;
    *) echo $faults.test_kill_the_leader_of_three_every_five_seconds $faults.test_rolling_restart ;;
    esac
}

missed=0
for mutant in ${*:-ack-page-cache-only ack-before-local-sync lost-dir-sync applied-index-separate-transaction \
    store-not-synced stalled-leader-revokes read-without-quorum-round \
    watch-goes-back watch-progress-ahead watch-skips-slow}; do
    # shellcheck disable=SC2046 # words
    output=$(QUORUMFS_MUTANT=$mutant FAULT_LEADER_KILLS=4 FAULT_DEATHS=30 python3 tests/integration/run.py \
        --build $build --folder tests/fault $(tests_of "$mutant"))
    if printf '%s\n' "$output" | grep -q '^FAIL'; then
        reason=$(printf '%s\n' "$output" | grep -m 1 -E 'NOT LINEARIZABLE|WRONG|^[A-Za-z.]*(AssertionError|Ended)')
        printf '%-36s caught: %s\n' "$mutant" "$reason"
    else
        printf '%-36s NOT CAUGHT\n' "$mutant"
        missed=$((missed + 1))
    fi
done
[ $missed = 0 ]
