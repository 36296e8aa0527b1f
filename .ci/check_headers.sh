#!/usr/bin/env bash
# Every header compiles alone, with a guard named after its path; the public one also as C++.
set -u
cd "$(dirname "$0")/.."

failed=0
for header in $(find host quant tools bench tests -name '*.h' | sort); do
    guard=PL_$(echo "${header#host/}" | tr 'a-z/.-' 'A-Z___')
    [ "$header" = host/include/pleiad.h ] && guard=PLEIAD_H
    if ! grep -q "^#ifndef $guard\$" "$header"; then
        echo "$header: its guard should be $guard"
        failed=1
    fi
    printf '#include "%s"\nextern int pl_nothing;\n' "$header" |
        ${CC:-gcc} -std=gnu11 -Wall -Wextra -Wno-psabi -Werror -DPL_ISA=base -I. $(pkg-config --cflags jansson) -fsyntax-only -x c - || failed=1
done
printf '#include "host/include/pleiad.h"\n' |
    ${CXX:-g++} -std=c++11 -Wall -Wextra -Wpedantic -Werror -I. -fsyntax-only -x c++ - || failed=1
exit $failed
