#!/bin/sh
# Runs the fault tests; appends PASS/FAIL/SKIP lines to the file RESULTS.
#   sh tests/fault/run.sh RESULTS [BUILD-FOLDER...]
set -u
cd "$(dirname "$0")/../.." || exit 1
results=$1
shift
for build in ${*:-build}; do
    python3 tests/integration/run.py --build "$build" --results "$results" --folder tests/fault
done
