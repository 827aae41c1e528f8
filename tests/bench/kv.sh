#!/bin/sh
# Puts and reads a second of quorumd next to the distribution's etcd, in one run, as ratios.
#   sh tests/bench/kv.sh [SECONDS]       seconds for each figure, 5 unless given
# Both run with one and with three members on this machine's disk; the load client is the same program.
cd "$(dirname "$0")/../.." || exit 1
. tests/bench/lib.sh
seconds=${1:-5}
for size in 1 3; do
    start_cluster "$build/daemon/quorumd" "quorumd$size-" "$size" $((13000 + size * 1000))
    ours=$urls
    start_cluster etcd "etcd$size-" "$size" $((14000 + size * 1000))
    theirs=$urls
    echo "$size member(s):           quorumd/s     etcd/s   ratio    p50 us           p99 us"
    for what in put get serializable; do
        for clients in 1 100; do
            # The two take turns, so that neither has the quieter machine.
            mine=$("$build/tests/bench/load" $what "$ours" $clients "$seconds")
            oracle=$("$build/tests/bench/load" $what "$theirs" $clients "$seconds")
            printf '  %-13s %3d clients %10.0f %10.0f   %5s    %6s / %-6s  %6s / %-6s%s\n' $what $clients \
                "$(field ops "$mine")" "$(field ops "$oracle")" \
                "$(ratio "$(field ops "$mine")" "$(field ops "$oracle")")" \
                "$(field p50_us "$mine")" "$(field p50_us "$oracle")" \
                "$(field p99_us "$mine")" "$(field p99_us "$oracle")" \
                "$([ "$(field errors "$mine")$(field errors "$oracle")" = 00 ] || echo "  errors $(field errors "$mine") / $(field errors "$oracle")")"
        done
    done
done
