#!/usr/bin/env bash
# Things that do not belong into the sources, and names that stand twice.
set -u
cd "$(dirname "$0")/.."

failed=0

# forbid <why> <pattern> <files that may, a pattern>: no other source line may match.
forbid() {
    local found
    found=$(find host quant cuda tools bench tests -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' | grep -vE -e "^($3)" |
        xargs grep -HnE -e "$2")
    if [ -n "$found" ]; then
        printf '%s:\n%s\n' "$1" "$found"
        failed=1
    fi
}

forbid 'the environment is read only in host/base/options.c' '\<(secure_)?getenv *\(' 'host/base/options\.c'
forbid 'assembly only in cuda/ptx.cuh, where stacks are switched, and where sums are kept in order' \
    '\<(asm|__asm|__asm__)\>' 'cuda/ptx\.cuh|tests/cuda/fiber\.cpp|host/cpu/in_order\.h'
forbid 'unfinished work belongs into the issues' '\<(TODO|FIXME|XXX|HACK)\>' 'nobody'
forbid 'unbounded or unchecked text functions' \
    '\<(gets|strcpy|strcat|stpcpy|sprintf|vsprintf|atoi|atol|atoll|atof|strtok|alloca) *\(' 'tests/'
forbid 'random numbers come from host/base/rng.h' '\<(s?rand|random|drand48) *\(' 'nobody'

if grep -nE -e '-march=|-mtune=|-ffast-math|-Ofast' CMakeLists.txt CMakePresets.json; then
    echo 'flags that tie the result to the machine or change arithmetic'
    failed=1
fi

twice=$(find host quant cuda tools bench tests -name '*.c' -o -name '*.cpp' -o -name '*.cu' |
    sed 's|.*/||' | sort | uniq -d)
if [ -n "$twice" ]; then
    printf 'source names that stand more than once:\n%s\n' "$twice"
    failed=1
fi

# Sources that no target builds are dead.
for source in $(find host quant cuda tools bench tests -name '*.c' -o -name '*.cpp' -o -name '*.cu'); do
    list=CMakeLists.txt name=$source
    case $source in
        tests/topology/*) continue ;; # made the recorded machines, by hand
        tests/fuzz/fuzz_*) list=tests/CMakeLists.txt name=${source##*/fuzz_} name="pl_fuzz(${name%.c})" ;;
        tests/cuda/*) list=tests/cuda/CMakeLists.txt name=${source#tests/cuda/} ;;
        tests/*) list=tests/CMakeLists.txt name=${source#tests/} ;;
        tools/*) list=tools/CMakeLists.txt name=${source#tools/} ;;
        bench/*) list=bench/CMakeLists.txt name=${source#bench/} name=${name%.c} ;;
    esac
    grep -qwF -e "$name" $list && continue
    echo "$source: not in $list"
    failed=1
done
exit $failed
