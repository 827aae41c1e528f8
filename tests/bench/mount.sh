#!/bin/sh
# open+read+close, stat and save a second on the mount (embedded store, and three members), next to the disk's own
# file system and to libfuse's passthrough example, in one run.
#   sh tests/bench/mount.sh [SECONDS]       seconds for each figure, 3 unless given
cd "$(dirname "$0")/../.." || exit 1
. tests/bench/lib.sh
seconds=${1:-3}

mounted() { # FOLDER
    tries=0
    until mountpoint -q "$1"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { echo "$1 was not mounted" >&2; exit 1; }
        sleep 0.1
    done
}

line() { # NAME FIGURES
    printf '  %-34s %10s %10s %10s\n' "$1" "$(field read "$2")" "$(field stat "$2")" "$(field save "$2")"
}

echo "operations a second                open+read+close     stat       save"
mkdir "$work/disk" "$work/embedded" "$work/cluster" "$work/passthrough"
line "the disk's own file system" "$("$build/tests/bench/mount" "$work/disk" "$seconds")"

examples=/usr/share/doc/libfuse3-dev/examples
for source in "$examples/passthrough_ll.c" "$examples/passthrough_ll.c.gz"; do
    [ -f "$source" ] || continue
    case "$source" in *.gz) gzip -dc "$source" ;; *) cat "$source" ;; esac >"$work/passthrough_ll.c"
    cp "$examples"/*.h "$work/" 2>/dev/null || true
    gcc -O2 -w "$work/passthrough_ll.c" -o "$work/passthrough_ll" $(pkg-config --cflags --libs fuse3) -lpthread
    "$work/passthrough_ll" -f -o source="$work/disk" "$work/passthrough" &
    pids="$pids $!"
    mounted "$work/passthrough"
    line "libfuse's passthrough_ll on it" "$("$build/tests/bench/mount" "$work/passthrough" "$seconds")"
    break
done

"$build/fuse/quorumfs" "$work/data" "$work/embedded" -f >"$work/embedded.log" 2>&1 &
pids="$! $pids"
mounted "$work/embedded"
line "quorumfs, embedded store" "$("$build/tests/bench/mount" "$work/embedded" "$seconds")"

start_cluster "$build/daemon/quorumd" member 3 17000
"$build/fuse/quorumfs" "$endpoints:/" "$work/cluster" -f >"$work/cluster.log" 2>&1 &
pids="$! $pids"
mounted "$work/cluster"
line "quorumfs, three members" "$("$build/tests/bench/mount" "$work/cluster" "$seconds")"
