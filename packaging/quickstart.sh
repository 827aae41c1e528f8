#!/bin/sh
# Builds quorumfs and starts it in the background, to try it out:
#
#   sh packaging/quickstart.sh [--nodes N] [--dir DIR] [--stop]
#
# N = 1 (the default): quorumfs with an embedded store, its data in DIR/data, mounted on DIR/mnt.
# N = 3 or 5: that many quorumd on 127.0.0.1 (client ports 2379, 22379, 32379, ...; peers one higher) and two
# mounts, DIR/mnt1 and DIR/mnt2, over different members. DIR is ./quickstart unless given.
# --stop ends exactly what was started in DIR; the data stay. Running it again goes on with them.
set -eu

fail() {
    echo "quickstart: $*" >&2
    exit 1
}

usage() {
    echo "usage: sh packaging/quickstart.sh [--nodes 1|3|5] [--dir DIR] [--stop]" >&2
    [ -z "${1:-}" ] || echo "quickstart: $1" >&2
    exit 2
}

nodes=""
dir=./quickstart
stop=no
while [ $# -gt 0 ]; do
    case "$1" in
    --nodes)
        [ $# -ge 2 ] || usage "--nodes needs a number"
        nodes=$2
        shift
        ;;
    --dir)
        [ $# -ge 2 ] || usage "--dir needs a folder"
        dir=$2
        shift
        ;;
    --stop) stop=yes ;;
    -h | --help) usage ;;
    *) usage "unknown argument '$1'" ;;
    esac
    shift
done
case "${nodes:-1}" in
1 | 3 | 5) ;;
*) usage "--nodes $nodes: a cluster has 1, 3 or 5 members (an even number survives no more failures)" ;;
esac

here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$dir" || fail "can't make the folder $dir"
dir=$(cd "$dir" && pwd)
run=$dir/run # one file a process: its pid and its start time, so that a reused pid is never taken for ours
mkdir -p "$run"

started_at() { # PID: the process's start time in clock ticks since boot, empty if there is none
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

alive() { # NAME
    [ -f "$run/$1" ] || return 1
    read -r pid since <"$run/$1" || return 1
    [ -n "$pid" ] && [ "$(started_at "$pid")" = "$since" ]
}

note() { # NAME PID
    echo "$2 $(started_at "$2")" >"$run/$1"
}

end() { # NAME: SIGTERM, and waits
    if alive "$1"; then
        read -r pid since <"$run/$1"
        kill "$pid" 2>/dev/null || true
        tries=0
        while alive "$1"; do
            tries=$((tries + 1))
            [ $tries -lt 300 ] || fail "process $pid ($1) doesn't end; its log is $dir/$1.log"
            sleep 0.1
        done
        echo "stopped $1"
    fi
    rm -f "$run/$1"
}

if [ $stop = yes ]; then
    for name in mnt mnt1 mnt2 node1 node2 node3 node4 node5; do # mounts before what they need
        [ -f "$run/$name" ] || continue
        end "$name"
        case "$name" in
        mnt*) if mountpoint -q "$dir/$name"; then fusermount3 -u "$dir/$name" 2>/dev/null || true; fi ;;
        esac
    done
    rm -f "$run/nodes"
    echo "Everything that was started in $dir is stopped; its data are kept there."
    exit 0
fi

if [ -f "$run/nodes" ]; then
    before=$(cat "$run/nodes")
    [ -z "$nodes" ] || [ "$nodes" = "$before" ] ||
        fail "$dir runs $before node(s) already; stop them first: sh packaging/quickstart.sh --dir '$dir' --stop"
    nodes=$before
fi
nodes=${nodes:-1}

sh "$here/packaging/deps.sh" build
[ -e /dev/fuse ] || fail "there is no /dev/fuse: load the kernel's module (modprobe fuse), then run this again"
[ -f "$here/build/build.ninja" ] || meson setup "$here/build" "$here" >/dev/null ||
    fail "meson could not set up $here/build"
ninja -C "$here/build" daemon/quorumd fuse/quorumfs ctl/quorumctl >"$dir/build.log" 2>&1 || {
    tail -n 30 "$dir/build.log" >&2
    fail "the build failed; the whole log is $dir/build.log"
}
quorumd=$here/build/daemon/quorumd
quorumfs=$here/build/fuse/quorumfs

wait_until() { # NAME WHAT COMMAND...: until the command succeeds or the process NAME has ended
    name=$1
    what=$2
    shift 2
    tries=0
    until "$@"; do
        alive "$name" || {
            tail -n 5 "$dir/$name.log" >&2
            fail "$name ended before $what; the whole log is $dir/$name.log"
        }
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "$what did not happen within a minute; see $dir/$name.log"
        sleep 0.1
    done
}

background() { # NAME COMMAND...
    name=$1
    shift
    setsid nohup "$@" >>"$dir/$name.log" 2>&1 </dev/null &
    note "$name" $!
}

mount_on() { # NAME SOURCE OPTIONS...
    name=$1
    source=$2
    shift 2
    alive "$name" && return 0
    if mountpoint -q "$dir/$name"; then # left by a process that was killed
        fusermount3 -u "$dir/$name" || fail "$dir/$name is mounted and busy: umount it first"
    fi
    mkdir -p "$dir/$name" 2>/dev/null || {
        fusermount3 -u "$dir/$name" 2>/dev/null || true
        mkdir -p "$dir/$name"
    }
    background "$name" "$quorumfs" "$source" "$dir/$name" -f "$@"
    wait_until "$name" "mounting $dir/$name" mountpoint -q "$dir/$name"
}

client_port() { # NUMBER of the member: 2379, 22379, 32379, ...
    if [ "$1" = 1 ]; then echo 2379; else echo "${1}2379"; fi
}

echo "$nodes" >"$run/nodes"
if [ "$nodes" = 1 ]; then
    mount_on mnt "$dir/data" -o listen=http://127.0.0.1:2379
    first=$dir/mnt second=$dir/mnt endpoints=127.0.0.1:2379
else
    cluster="" endpoints="" order="" i=1
    while [ $i -le "$nodes" ]; do
        port=$(client_port $i)
        cluster="$cluster,node$i=http://127.0.0.1:$((port + 1))"
        endpoints="$endpoints,127.0.0.1:$port"
        i=$((i + 1))
    done
    cluster=${cluster#,} endpoints=${endpoints#,}
    i=1
    while [ $i -le "$nodes" ]; do
        port=$(client_port $i)
        alive "node$i" || background "node$i" "$quorumd" --name "node$i" --data-dir "$dir/node$i" \
            --listen-client-urls "http://127.0.0.1:$port" --advertise-client-urls "http://127.0.0.1:$port" \
            --listen-peer-urls "http://127.0.0.1:$((port + 1))" \
            --initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" \
            --initial-cluster "$cluster" --initial-cluster-token quickstart
        i=$((i + 1))
    done
    order="${endpoints#*,},${endpoints%%,*}"
    mount_on mnt1 "$endpoints:/"
    mount_on mnt2 "$order:/"
    first=$dir/mnt1 second=$dir/mnt2
fi

echo "Written through the mount: $first/hello"
echo "hello from quorumfs" >"$first/hello" || fail "writing $first/hello failed; see the logs in $dir"
echo "Read through ${second}:"
sed 's/^/    /' "$second/hello"
echo "Read from the store:"
"$here/build/ctl/quorumctl" --endpoints "$endpoints" get /hello | sed 's/^/    /'
cat <<TEXT

It runs in the background. To try:
    echo 'level: debug' > $first/app.yaml          one save is one revision, committed by the leader
    inotifywait -m $second &                        and changes from anywhere raise events
    cat $first/.quorumfs/status                     members, quorum, failures tolerated
    $here/build/ctl/quorumctl --endpoints $endpoints get --prefix /      (or etcdctl, with the same words)
Stop it with:
    sh packaging/quickstart.sh --dir '$dir' --stop
TEXT
