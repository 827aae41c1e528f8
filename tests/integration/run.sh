#!/bin/sh
# Runs the integration tests against both builds; appends PASS/FAIL/SKIP lines to the file RESULTS.
#   sh tests/integration/run.sh RESULTS [BUILD-FOLDER...]
set -u
cd "$(dirname "$0")/../.." || exit 1
results=$1
shift
for build in ${*:-build build-asan}; do
    python3 tests/integration/run.py --build "$build" --results "$results"
done
