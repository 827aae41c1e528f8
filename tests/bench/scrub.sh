#!/bin/sh
# What it costs that store and log are read through for damage: puts a second of three single members with the same
# data, one that never does it, one with the default of an hour for a pass, one with a minute.
#   sh tests/bench/scrub.sh [MB [ROUNDS]]     200 MB and 5 rounds unless given; rounds alternate
cd "$(dirname "$0")/../.." || exit 1
. tests/bench/lib.sh
mb=${1:-200} rounds=${2:-5} first_port=$((13000 + $$ % 400 * 10))
head -c 1000000 /dev/urandom >"$work/value"

port=$first_port
for interval in 0 1h 1m; do
    export QUORUMD_SCRUB_INTERVAL=$interval
    start_cluster "$build/daemon/quorumd" "scrub$interval-" 1 $port
    i=0
    while [ "$i" -lt "$mb" ]; do
        ETCDCTL_API=3 etcdctl --endpoints "$endpoints" put "/big/$i" <"$work/value" >/dev/null
        i=$((i + 1))
    done
    eval "urls_$interval=\$urls"
    port=$((port + 100))
done

round=0
while [ "$round" -lt "$rounds" ]; do
    for interval in 0 1h 1m; do
        eval "urls=\$urls_$interval"
        field ops "$("$build/tests/bench/load" put "$urls" 32 4)" >>"$work/$interval.ops"
    done
    round=$((round + 1))
done

median() {
    sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
never=$(median "$work/0.ops")
echo "puts a second, 32 clients, $mb MB in the store, of $rounds rounds:"
for interval in 0 1h 1m; do
    ops=$(median "$work/$interval.ops")
    printf '  a pass in %-3s %s median %.0f ratio %s\n' "$interval" \
        "$(awk '{ printf "%.0f ", $1 }' "$work/$interval.ops")" "$ops" "$(ratio "$ops" "$never")"
done
