#!/bin/sh
# What a failing seed tells, with real bugs: for each of some mutants (mutants.sh) takes the first seed that fails, lets
# the simulator make it smaller, and looks for what the story must have. The smallest command must fail again.
#   sh tests/sim/stories.sh [--results FILE]
# --results FILE: for tests/run.sh, appends PASS and FAIL lines.
set -u
cd "$(dirname "$0")/../.." || exit 1
results=
[ "${1:-}" = --results ] && results=$2
build=build-mutant seeds=60
[ -f $build/build.ninja ] || meson setup $build -Dmutants=true >/dev/null || exit 1
meson configure $build -Dmutants=true || exit 1
ninja -C $build tests/sim/sim >/dev/null || exit 1
sim=$build/tests/sim/sim
failed=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

report() { # MUTANT PROBLEM: "" is none
    if [ -z "$2" ]; then
        echo "PASS sim:story-$1"
    else
        echo "FAIL sim:story-$1 $2"
        failed=$((failed + 1))
    fi
}

# check MUTANT PROMISE WORDS...: extended regular expressions that the story's lines must match.
check() {
    mutant=$1 promise=$2 problem=
    shift 2
    seed=$(QUORUMFS_MUTANT=$mutant $sim --seed 1 --seeds $seeds --jobs 1 |
        awk -v promise="$promise" '/^FAILED seed/ {seed = $3} $0 ~ "VIOLATION.*" promise {print seed; exit}')
    if [ -z "$seed" ]; then
        report "$mutant" "no seed up to $seeds breaks: $promise"
        return
    fi
    QUORUMFS_MUTANT=$mutant $sim --seed "$seed" >"$out"
    grep -qE "VIOLATION.*$promise" "$out" || problem="$problem; the smaller run breaks something else"
    grep -qE '^    left out: [a-z]' "$out" || problem="$problem; no fault was left out"
    for words in "$@"; do
        grep -qE "^ .*$words" "$out" || problem="$problem; the story lacks: $words"
    done
    [ "$(wc -l <"$out")" -le 80 ] || problem="$problem; the story is long"
    replay=$(sed -n 's/^    replay: QUORUMFS_MUTANT=[a-z-]* //p' "$out" | tail -1)
    # shellcheck disable=SC2086
    QUORUMFS_MUTANT=$mutant $replay --no-reduce 2>&1 | grep -qE "VIOLATION.*$promise" ||
        problem="$problem; the command does not replay it: $replay"
    report "$mutant" "${problem#; }"
}

all() {
    check vote-not-persisted 'election safety|two leaders|lost or removed' \
        'n[0-9]+ (loses its power|dies|is killed)' 'n[0-9]+ starts'
    check ack-page-cache-only 'finds damage|has acknowledged|lacks entry' \
        'n[0-9]+ loses its power' 'n[0-9]+ writes to log/' 'is on its disk'
    check watch-skips-slow 'is missing or out of order' \
        'watch [0-9]+ takes nothing more' 'revision [0-9]+, first on n[0-9]+: k[0-9]+' \
        'entry [0-9]+ of term [0-9]+ is new' 'watch [0-9]+ is given revisions'
    check read-without-quorum-round 'not linearizable' \
        'c[0-9]+ asks n[0-9]+' 'is the first to apply entry' 'cut links|leads term|for the leader' \
        'c[0-9]+ is answered by n[0-9]+: request [0-9]+ done, at revision'
}
all >"$out.report"
cat "$out.report"
[ -z "$results" ] || cat "$out.report" >>"$results"
failed=$(grep -c '^FAIL' "$out.report")
rm -f "$out.report"
[ "$failed" = 0 ]
