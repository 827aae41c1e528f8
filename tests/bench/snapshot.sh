#!/bin/sh
# How long a new member takes to have a store of some size: quorumd next to the distribution's etcd, on loopback.
#   sh tests/bench/snapshot.sh [MB [ROUNDS]]     200 MB and 3 rounds unless given
# One member holds the data, in values of 1 MB; then so many small puts that neither has all of it in its log any
# more. A learner is added and started with an empty directory: the time is from its start until it has applied what
# the first member had. Rounds alternate; each has a new learner.
cd "$(dirname "$0")/../.." || exit 1
. tests/bench/lib.sh
mb=${1:-200} rounds=${2:-3}
# etcd keeps 5,000 entries behind its last snapshot, in any case.
export ETCD_SNAPSHOT_COUNT=1000 QUORUMD_SNAPSHOT_COUNT=1000

ctl() { # ENDPOINT ARG...
    endpoint=$1
    shift
    ETCDCTL_API=3 etcdctl --endpoints "$endpoint" "$@"
}

applied() { # ENDPOINT
    ctl "$1" endpoint status -w json 2>/dev/null | grep -o '"raftAppliedIndex":[0-9]*' | cut -d: -f2
}

now_ms() {
    echo $(($(date +%s%N) / 1000000))
}

begin() { # PROGRAM NAME PORT
    program=$1 name=$2 port=$3 cluster="$2"1=http://127.0.0.1:$(($3 + 11))
    start_member 1
    wait_healthy "127.0.0.1:$((port + 10))"
    head -c 1000000 /dev/urandom >"$work/value"
    i=0
    while [ "$i" -lt "$mb" ]; do
        ctl "127.0.0.1:$((port + 10))" put "/big/$i" <"$work/value" >/dev/null
        i=$((i + 1))
    done
    "$build/tests/bench/load" put "http://127.0.0.1:$((port + 10))" 32 5 >/dev/null
}

join() { # PROGRAM NAME PORT NUMBER: sets $took
    program=$1 name=$2 port=$3 first=127.0.0.1:$(($3 + 10)) own=127.0.0.1:$(($3 + 10 * $4))
    goal=$(applied "$first")
    peer=http://127.0.0.1:$((port + 10 * $4 + 1))
    ctl "$first" member add "$name$4" --peer-urls="$peer" --learner >"$work/added"
    cluster="${name}1=http://127.0.0.1:$((port + 11)),$name$4=$peer"
    begun=$(now_ms)
    ETCD_INITIAL_CLUSTER_STATE=existing QUORUMD_INITIAL_CLUSTER_STATE=existing start_member "$4"
    joined=$!
    until has=$(applied "$own") && [ -n "$has" ] && [ "$has" -ge "$goal" ]; do
        [ $(($(now_ms) - begun)) -lt 120000 ] || {
            tail -n 5 "$work/$name$4.log" >&2
            exit 1
        }
    done
    took=$(($(now_ms) - begun))
    ctl "$first" member remove "$(sed -n 's/^Member *\([0-9a-f]*\) added.*/\1/p' "$work/added")" >/dev/null
    kill "$joined" 2>/dev/null || true
    wait "$joined" 2>/dev/null || true
    rm -rf "${work:?}/$name$4"
}

ours_port=$((13000 + $$ % 400 * 10)) theirs_port=$((18000 + $$ % 400 * 10))
begin "$build/daemon/quorumd" ours $ours_port
begin etcd theirs $theirs_port
round=0
while [ "$round" -lt "$rounds" ]; do
    join "$build/daemon/quorumd" ours $ours_port $((round + 2))
    echo "$took" >>"$work/ours.ms"
    join etcd theirs $theirs_port $((round + 2))
    echo "$took" >>"$work/theirs.ms"
    round=$((round + 1))
done

median() {
    sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
a=$(median "$work/ours.ms") b=$(median "$work/theirs.ms")
echo "a new member has $mb MB after (ms, of $rounds rounds)"
echo "  quorumd: $(tr '\n' ' ' <"$work/ours.ms")median $a"
echo "  etcd:    $(tr '\n' ' ' <"$work/theirs.ms")median $b"
echo "  ratio    $(ratio "$a" "$b")"
