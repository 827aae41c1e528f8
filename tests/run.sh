#!/bin/sh
# Installs what is missing, builds (a second time with AddressSanitizer and UBSan) and runs the tests.
#
#   sh tests/run.sh [style] [unit] [sim] [integration] [fault]      without a name: all of them
#
# No test is skipped in silence: what can't run here is a SKIP line and counted. The last line is
# `N passed, N failed, N skipped`; the exit code is 0 only if none failed.
set -u
cd "$(dirname "$0")/.." || exit 1
components="${*:-style unit sim integration fault}"
for component in $components; do
    case "$component" in
    style | unit | sim | integration | fault) ;;
    *)
        echo "run.sh: no component named '$component'; there are: style unit sim integration fault" >&2
        exit 2
        ;;
    esac
done

results=$(mktemp)
trap 'rm -f "$results"' EXIT

finish() {
    passed=$(grep -c '^PASS ' "$results")
    failed=$(grep -c '^FAIL ' "$results")
    skipped=$(grep -c '^SKIP ' "$results")
    grep -E '^(FAIL|SKIP) ' "$results"
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
    exit
}

record() { # PASS|FAIL|SKIP NAME [REASON]
    echo "$*" | tee -a "$results"
}

step() { # NAME COMMAND...: one test that is a command; its output is shown when it fails
    name=$1
    shift
    if output=$("$@" 2>&1); then
        record PASS "$name"
    else
        printf '%s\n' "$output" | tail -n 60
        record FAIL "$name"
    fi
}

build() { # DIR MESON-OPTIONS...
    dir=$1
    shift
    [ -f "$dir/build.ninja" ] || meson setup "$dir" "$@" || return 1
    ninja -C "$dir"
}

sh packaging/deps.sh test || { record FAIL deps; finish; }
step build:gcc build build
grep -q '^FAIL' "$results" && finish
step build:sanitizers build build-asan -Db_sanitize=address,undefined -Db_lundef=false
grep -q '^FAIL' "$results" && finish

export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:exitcode=99:detect_stack_use_after_return=0"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:exitcode=99"

unit() {
    for dir in build build-asan; do
        meson test -C "$dir" --no-rebuild --suite unit --print-errorlogs --timeout-multiplier 5
        python3 tests/meson_results.py "$dir" >>"$results"
    done
}

style() {
    step style:clang-format sh -c 'git ls-files "*.c" "*.h" | xargs clang-format --dry-run -Werror'
    step build:clang env CC=clang sh -c '[ -f build-clang/build.ninja ] || meson setup build-clang &&
        ninja -C build-clang'
}

for component in $components; do
    case "$component" in
    style) style ;;
    unit) unit ;;
    *)
        if [ -f "tests/$component/run.sh" ]; then
            sh "tests/$component/run.sh" "$results"
        else
            record FAIL "$component" "tests/$component/run.sh is missing"
        fi
        ;;
    esac
done
finish
