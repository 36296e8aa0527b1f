#!/usr/bin/env bash
# Installs what Pleiad is built with and is missing here. Debian 12 and its relatives; elsewhere it says
# what to install.
#   tools/setup.sh          to build and run
#   tools/setup.sh video    also to read videos
#   tools/setup.sh ranks    also for batch jobs on many machines
#   tools/setup.sh tests    also for tools/test.sh
set -u

missing=()

# need <package> <command that succeeds when it is there>
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

has_file() { [ -e "$1" ]; }
compiles() { echo "$2" | $1 -x c -o /dev/null -; }

need gcc command -v gcc
need libc6-dev has_file /usr/include/stdio.h
need cmake command -v cmake
need ninja-build command -v ninja
need pkg-config command -v pkg-config
need libhwloc-dev pkg-config --exists hwloc
need libjansson-dev pkg-config --exists jansson
need libxxhash-dev pkg-config --exists libxxhash
need libedit-dev pkg-config --exists libedit
need libjpeg-dev pkg-config --exists libjpeg
need libspng-dev pkg-config --exists spng
need libwebp-dev pkg-config --exists libwebp
need libsndfile1-dev pkg-config --exists sndfile
need libsoxr-dev pkg-config --exists soxr

if [ "${1:-}" = video ] || [ "${1:-}" = tests ]; then
    for library in avformat avcodec avutil swscale swresample; do
        need "lib$library-dev" pkg-config --exists "lib$library"
    done
fi

if [ "${1:-}" = ranks ] || [ "${1:-}" = tests ]; then
    need libopenmpi-dev pkg-config --exists ompi-c
    need openmpi-bin command -v mpirun
fi

if [ "${1:-}" = tests ]; then
    need g++ command -v g++
    need clang command -v clang
    need clang-format command -v clang-format
    need clang-tidy command -v clang-tidy
    need libclang-rt-14-dev compiles 'clang -fsanitize=fuzzer-no-link,address' 'int main(void) { return 0; }'
    need libcriterion-dev pkg-config --exists criterion
    need python3 command -v python3
fi

[ ${#missing[@]} = 0 ] && exit 0

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
if ! command -v apt-get >/dev/null || { [ ${#as_root[@]} != 0 ] && ! command -v sudo >/dev/null; }; then
    echo "setup: missing here: ${missing[*]} (Debian's names); install them and start again" >&2
    exit 1
fi

echo "setup: installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${as_root[@]}" apt-get update >"$log" 2>&1 ||
    ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" \
        >>"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: apt-get could not install ${missing[*]}" >&2
    exit 1
fi
