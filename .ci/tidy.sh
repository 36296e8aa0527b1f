#!/usr/bin/env bash
# clang-tidy over every source that a build compiles (its compile_commands.json) and does not make itself, several at a time.
#   .ci/tidy.sh [folder of the build]
set -u
cd "$(dirname "$0")/.."
build=${1:-build/clang}

grep -oE '"file": "[^"]+\.c"' "$build/compile_commands.json" | cut -d'"' -f4 | grep -v "/$build/" | sort -u |
    xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$build" 2>&1 |
    grep -vE '^[0-9]+ warnings? (generated|treated as errors)|^Suppressed |^Use -header-filter|^$'
exit "${PIPESTATUS[4]}"
