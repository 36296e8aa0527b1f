#!/usr/bin/env bash
# Builds and checks everything, and says how it went.
#   tools/test.sh            all
#   tools/test.sh quick      what is worth running after each edit
#   tools/test.sh STAGE...   these stages, by name: see the list below
set -u
cd "$(dirname "$0")/.."

all='setup format layers headers forbidden dialect docs gcc clang asan tsan fuzz kernels cuda tidy page demo'
quick='format layers headers forbidden dialect docs gcc'

passed=0
failed=0
failures=''
logs=build/logs
mkdir -p $logs

build() {
    cmake --preset "$1" && cmake --build --preset "$1" ${2:+--target "$2"}
}

# tests <preset> [options of ctest]: ends with a line "cases: <passed> <failed>", as Criterion counts them.
tests() {
    local preset=$1
    shift
    ctest --preset "$preset" --no-tests=error -j "$(nproc)" "$@"
    local status=$?
    sed -nE 's/.*Tested: ([0-9]+) \| Passing: ([0-9]+).*/\1 \2/p' "build/$preset/Testing/Temporary/LastTest.log" |
        awk '{ tested += $1; passing += $2 } END { print "cases:", passing + 0, tested - passing }'
    return $status
}

stage_setup() { tools/setup.sh tests; }
stage_format() {
    find host quant cuda tools bench tests -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' |
        xargs clang-format --dry-run -Werror
}
stage_layers() { .ci/check_layers.sh; }
stage_headers() { .ci/check_headers.sh; }
stage_forbidden() { .ci/check_forbidden.sh; }
stage_dialect() { .ci/check_dialect.sh; }
stage_docs() { .ci/check_docs.sh; }
stage_gcc() { build check && tests check; }
stage_clang() { build clang; }
# program_folder runs the commands of program_demo; the others take long over what shorter tests do, too
stage_asan() { build asan && tests asan -E '^(program_batch_kills|program_demo|test_draft|test_fit|test_head_screen|test_sparse)$'; }
stage_tsan() { build tsan threaded_tests && tests tsan -L threads; }
stage_fuzz() { build fuzz fuzz_targets && .ci/fuzz_smoke.sh 2 build/fuzz; }
stage_kernels() { .ci/check_kernels.sh; }
stage_page() { tests/serve/ui/run.py; }
stage_tidy() { cmake --preset clang && .ci/tidy.sh build/clang; }
stage_demo() { tools/demo.sh 'What is the capital of France?' | tee /dev/stderr | grep -q Paris; }

# What users build, with the CUDA part where nvcc is found; stage gcc has the program without it. What stage kernels
# compiled is used again.
stage_cuda() { build release && build/release/pleiad inspect tools/demo_model/demo.gguf; }

# said_by_failed_tests <log>: what ctest shows of tests that failed, the first lines of it.
said_by_failed_tests() {
    awk '/^ *[0-9]+\/[0-9]+ Test +#/ { failed = /\*\*\*/ } /^ +Start +[0-9]+:/ { failed = 0 } failed' "$1" | head -n 60
}

run_stage() {
    local name=$1 log=$logs/$1.log start=$SECONDS status good bad note=''
    "stage_$name" >"$log" 2>&1
    status=$?
    read -r good bad < <(sed -n 's/^cases: //p' "$log"; echo 0 0)
    [ $((good + bad)) != 0 ] && note=" ($good of $((good + bad)) cases)"
    # The stage itself counts too: it also fails for what no test case shows, such as a build.
    if [ $status = 0 ]; then
        good=$((good + 1))
    elif [ "$bad" = 0 ]; then
        bad=1
    fi
    passed=$((passed + good))
    failed=$((failed + bad))
    if [ $status = 0 ]; then
        printf 'ok    %-10s %4d s%s\n' "$name" $((SECONDS - start)) "$note"
        sed -n 's/^skipped: /      /p' "$log"
        return
    fi
    failures="$failures $name"
    printf 'FAIL  %-10s %4d s%s; all of it in %s\n' "$name" $((SECONDS - start)) "$note" "$log"
    { said_by_failed_tests "$log" && tail -n 40 "$log"; } | sed 's/^/      /'
}

stages=${*:-all}
[ "$stages" = all ] && stages=$all
[ "$stages" = quick ] && stages=$quick
for name in $stages; do
    if ! declare -F "stage_$name" >/dev/null; then
        echo "test.sh: no stage '$name'; there are: all quick $all" >&2
        exit 2
    fi
done
for name in $stages; do
    run_stage "$name"
done

[ -n "$failures" ] && echo "failed:$failures"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
