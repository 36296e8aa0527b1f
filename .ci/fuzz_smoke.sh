#!/usr/bin/env bash
# Each fuzz target: all of its seeds, then a few seconds of its own ideas; several targets at a time.
#   .ci/fuzz_smoke.sh [seconds] [folder of the targets]
set -u
cd "$(dirname "$0")/.."
seconds=${1:-5}
targets=${2:-build/fuzz}

# smoke <target>: one line when it passes.
smoke() {
    local what=${1##*/fuzz_} log
    local seeds=tests/fuzz/corpus/$what found=$targets/found/$what
    if [ ! -d "$seeds" ]; then
        echo "fuzz_$what: no seeds in $seeds"
        return 1
    fi
    mkdir -p "$found"
    if ! log=$("$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$found/" \
        "$found" "$seeds" 2>&1); then
        printf 'fuzz_%s:\n%s\n' "$what" "$log" | tail -n 60
        return 1
    fi
    echo "fuzz_$what: passed, $(echo "$log" | grep -oE 'Done [0-9]+ runs.*' | tail -n 1)"
}
export -f smoke
export seconds targets

all=$(find "$targets" -maxdepth 1 -name 'fuzz_*' -type f -executable | sort)
said=$(echo "$all" | xargs -r -P "$(nproc)" -I{} bash -c 'smoke {}')
echo "$said"
passed=$(echo "$said" | grep -cE '^fuzz_[a-z_0-9]+: passed, ')
failed=$(($(echo "$all" | grep -c .) - passed))
echo "cases: $passed $failed"
[ $failed = 0 ] && [ $passed != 0 ]
