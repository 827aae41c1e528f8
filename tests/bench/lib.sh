# Shared by the benchmarks: builds, starts quorumd and etcd with the same flags in a folder of their own, and ends
# exactly these. Sourced with the working folder at the project's root.
set -eu
build=${BUILD:-build}
work=$(mktemp -d)
pids=""

cleanup() {
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in $pids; do
        wait "$pid" 2>/dev/null || true
    done
    rm -rf "$work"
}
trap cleanup EXIT

start_cluster() { # PROGRAM NAME SIZE FIRST-PORT: sets $urls, $endpoints and $cluster_pids
    program=$1 name=$2 size=$3 port=$4
    cluster="" urls="" endpoints="" cluster_pids="" i=1
    while [ "$i" -le "$size" ]; do
        cluster="$cluster,$name$i=http://127.0.0.1:$((port + 10 * i + 1))"
        urls="$urls,http://127.0.0.1:$((port + 10 * i))"
        endpoints="$endpoints,127.0.0.1:$((port + 10 * i))"
        i=$((i + 1))
    done
    cluster=${cluster#,} urls=${urls#,} endpoints=${endpoints#,}
    i=1
    while [ "$i" -le "$size" ]; do
        start_member "$i"
        cluster_pids="$cluster_pids $!"
        i=$((i + 1))
    done
    wait_healthy "$endpoints"
}

start_member() { # NUMBER, of the cluster that start_cluster is about; the pid is $!
    client=http://127.0.0.1:$((port + 10 * $1)) peer=http://127.0.0.1:$((port + 10 * $1 + 1))
    "$program" --name "$name$1" --data-dir "$work/$name$1" --listen-client-urls "$client" \
        --advertise-client-urls "$client" --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
        --initial-cluster "$cluster" --initial-cluster-token "$name" >>"$work/$name$1.log" 2>&1 &
    pids="$pids $!"
}

wait_healthy() {
    tries=0
    until ETCDCTL_API=3 etcdctl --endpoints "$1" endpoint health >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || {
            echo "the cluster did not become healthy; see its log:" >&2
            tail -n 5 "$work"/*.log >&2
            exit 1
        }
        sleep 0.1
    done
}

field() { # NAME LINE: the value of NAME=value
    printf '%s\n' "$2" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

ratio() {
    awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'
}
