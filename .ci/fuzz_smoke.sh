#!/usr/bin/env bash
# Each fuzz target: all of its seeds, then a few seconds of its own ideas.
#   .ci/fuzz_smoke.sh [seconds] [folder of the targets]
set -u
cd "$(dirname "$0")/.."
seconds=${1:-5}
targets=${2:-build/fuzz}

passed=0
failed=0
for target in "$targets"/fuzz_*; do
    [ -x "$target" ] || continue
    what=${target##*/fuzz_}
    seeds=tests/fuzz/corpus/$what
    if [ ! -d "$seeds" ]; then
        echo "fuzz_$what: no seeds in $seeds"
        failed=$((failed + 1))
        continue
    fi
    found=$targets/found/$what
    mkdir -p "$found"
    if ! log=$("$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$found/" \
        "$found" "$seeds" 2>&1); then
        printf 'fuzz_%s:\n%s\n' "$what" "$log" | tail -n 60
        failed=$((failed + 1))
    else
        passed=$((passed + 1))
        echo "fuzz_$what: $(echo "$log" | grep -oE 'Done [0-9]+ runs.*' | tail -n 1)"
    fi
done
echo "cases: $passed $failed"
[ $failed = 0 ] && [ $passed != 0 ]
