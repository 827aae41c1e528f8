#!/bin/sh
# Installs what is missing from the distribution's packages (Debian 12 or later).
#
#   sh packaging/deps.sh run | build | test
#
# run: what the programs need; build: that and the compiler and headers; test: that and what the tests use.
# Idempotent: when nothing is missing it asks for nothing and changes nothing. Needs root or sudo otherwise.
set -eu

run_packages="fuse3 libfuse3-3 libprotobuf-c1 libuv1 libsqlite3-0 libnghttp2-14 libssl3 libjansson4"
build_packages="gcc libc6-dev meson ninja-build pkg-config protobuf-compiler protobuf-c-compiler
    libprotobuf-c-dev libuv1-dev libnghttp2-dev libsqlite3-dev libfuse3-dev libssl-dev libjansson-dev"
test_packages="libcmocka-dev clang clang-format libclang-rt-14-dev etcd-server etcd-client inotify-tools
    sqlite3 python3 vim rsync git nodejs attr iproute2 nftables procps diffutils"

case "${1:-}" in
run) wanted=$run_packages ;;
build) wanted="$run_packages $build_packages" ;;
test) wanted="$run_packages $build_packages $test_packages" ;;
*)
    echo "usage: sh packaging/deps.sh run|build|test" >&2
    exit 2
    ;;
esac

missing=""
for package in $wanted; do
    # dpkg-query knows the name even after a removal, so its status is asked for as well. A command that
    # came from elsewhere (a newer node, say) is as good as the package.
    case "$package" in
    nodejs) command -v node >/dev/null 2>&1 && continue ;;
    esac
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=""
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "deps.sh: packages are missing and there is neither root nor sudo to install them." >&2
        echo "deps.sh: as root, run: apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    as_root="sudo"
fi
echo "deps.sh: installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 -- the lists are meant to be split into words
if ! { $as_root apt-get update -q && $as_root apt-get install -y -q --no-install-recommends $missing; } >&2; then
    echo "deps.sh: installing failed; the lines above say why. By hand: apt-get install$missing" >&2
    exit 1
fi
