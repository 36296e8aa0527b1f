#!/usr/bin/env bash
# clang-tidy over every source that a build compiles (its compile_commands.json) and does not make itself, several at a time.
#   .ci/tidy.sh [folder of the build]
set -u
cd "$(dirname "$0")/.."
build=${1:-build/clang}
once=$(mktemp -d)
trap 'rm -rf "$once"' EXIT

# clang-tidy takes a source as often as the build compiles it: many tests share some. Once for each instruction set is enough.
python3 - "$build/compile_commands.json" >"$once/compile_commands.json" <<'END'
import json, re, sys

once = {}
for entry in json.load(open(sys.argv[1])):
    isa = re.search(r"-DPL_ISA=\w+", entry["command"])
    once.setdefault((entry["file"], isa and isa.group()), entry)
json.dump(list(once.values()), sys.stdout, indent=1)
END

grep -oE '"file": "[^"]+\.c"' "$once/compile_commands.json" | cut -d'"' -f4 | grep -v "/$build/" | sort -u |
    xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$once" 2>&1 |
    grep -vE '^[0-9]+ warnings? (generated|treated as errors)|^Suppressed |^Use -header-filter|^$'
exit "${PIPESTATUS[4]}"
