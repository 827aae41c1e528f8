#!/bin/sh
# The longest time without a write when the leader is killed (kill -9), of quorumd next to the distribution's etcd.
#   sh tests/bench/failover.sh [KILLS]      12 unless given, one every 5 seconds
# Both clusters of three run at the same time, with default settings, under the same writer (failover.c); they take
# turns in being hit. The killed member is started again at once.
cd "$(dirname "$0")/../.." || exit 1
. tests/bench/lib.sh
kills=${1:-12}

begin() { # PROGRAM NAME FIRST-PORT FD
    start_cluster "$1" "$2" 3 "$3"
    eval "$2_cluster=\$cluster $2_pids=\$cluster_pids $2_endpoints=\$endpoints"
    mkfifo "$work/$2.in"
    "$build/tests/bench/failover" "$urls" <"$work/$2.in" >"$work/$2.out" &
    pids="$pids $!"
}

leader_number() { # of the cluster at $endpoints: the place of its leader, from 1; empty: none
    ETCDCTL_API=3 etcdctl --endpoints "$endpoints" endpoint status 2>/dev/null | tr -d ' ' |
        awk -F, -v all="$endpoints" '
            # 3.4 prints endpoint, id, version, size, is leader, is learner, ...
            $5 == "true" { n = split(all, e, ","); for (i = 1; i <= n; i++) if (e[i] == $1) print i }' | head -1
}

hit() { # NAME PROGRAM FIRST-PORT
    name=$1 program=$2 port=$3
    eval "cluster=\$$1_cluster endpoints=\$$1_endpoints cluster_pids=\$$1_pids"
    wait_healthy "$endpoints"
    number=$(leader_number)
    while [ -z "$number" ]; do
        sleep 0.1
        number=$(leader_number)
    done
    pid=$(echo "$cluster_pids" | cut -d' ' -f "$number")
    kill -9 "$pid"
    wait "$pid" 2>/dev/null || true
    start_member "$number"
    cluster_pids=$(echo "$cluster_pids" | awk -v n="$number" -v p="$!" '{ $n = p; print }')
    eval "$1_pids=\$cluster_pids"
    sleep 2.5
}

begin "$build/daemon/quorumd" ours $((13000 + $$ % 500 * 4))
exec 3>"$work/ours.in"
begin etcd theirs $((17000 + $$ % 500 * 4))
exec 4>"$work/theirs.in"
ours_pids=$(echo $ours_pids) theirs_pids=$(echo $theirs_pids) # single blanks
sleep 1
echo >&3
echo >&4 # what was before the first kill is not counted
i=0
while [ "$i" -lt "$kills" ]; do
    hit ours "$build/daemon/quorumd" $((13000 + $$ % 500 * 4))
    echo >&3
    hit theirs etcd $((17000 + $$ % 500 * 4))
    echo >&4
    i=$((i + 1))
done
exec 3>&- 4>&-
sleep 0.5
echo "the longest time without a write after kill -9 of the leader, ms:"
for name in ours theirs; do
    sed -n "2,$((kills + 1))p" "$work/$name.out" | sed 's/gap_ms=\([0-9]*\).*/\1/' >"$work/$name.gaps"
done
paste "$work/ours.gaps" "$work/theirs.gaps" | awk '
    BEGIN { printf "  %4s %10s %10s %8s\n", "kill", "quorumd", "etcd", "ratio" }
    { printf "  %4d %10d %10d %8.2f\n", NR, $1, $2, $1 / $2 }'
median() {
    sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)], v[NR] }'
}
set -- $(median "$work/ours.gaps") $(median "$work/theirs.gaps")
printf '  %-4s %8s %10s %8s\n  %-4s %8s %10s %8s\n' median "$1" "$3" "$(ratio "$1" "$3")" longest "$2" "$4" "$(ratio "$2" "$4")"
