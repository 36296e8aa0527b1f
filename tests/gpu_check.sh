#!/usr/bin/env bash
# Builds on a machine with an NVIDIA card, checks everything there against the CPU and measures it. No network is
# needed; what the machine lacks of Debian's packages can be carried in .debs/.
#   tests/gpu_check.sh               all stages but llama, within BUDGET_S seconds (530)
#   tests/gpu_check.sh --quick       fewer measurements
#   tests/gpu_check.sh STAGE...      these stages: see the list below
#   tests/gpu_check.sh --fetch-debs  on a machine with apt and a network: fills .debs/
# Results: a CSV file named after the card and a table; with all logs in $OUT (build/gpu_check), and where nothing
# failed in bench/results/ as well. Exit status: 0 all passed, 1 something failed, 3 the machine cannot run it.
#
# llama compares with llama.cpp: .peer/llama.tar.xz holds its sources in a folder llama/, with tools/llama-bench.
# shellcheck disable=SC2317 # stages are called by name
set -uo pipefail
cd "$(dirname "$0")/.." || exit 3

all='build ops model engine rates speed steps memory roofline opsbench sanitize'
known="$all llama"

root=$PWD
out=${OUT:-$root/build/gpu_check}
work=$root/build/card_models
budget=${BUDGET_S:-530}
quick=${QUICK:-}
debs=$root/build/debs
bin=$root/build/card
model=$work/e4b-q4_0.gguf
small=$work/e2b-q4_0.gguf
paths='e4b mix e2b'

die() {
    echo "gpu_check: $*" >&2
    exit 3
}

# ---- what the machine has ----

fetch_debs() {
    local closure
    command -v apt-get >/dev/null || die '--fetch-debs needs apt'
    # Neither the C library nor what every Debian has.
    closure=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances libcriterion-dev libhwloc-dev libjansson-dev libjpeg-dev libsndfile1-dev libsoxr-dev \
        libspng-dev libwebp-dev libxxhash-dev pkgconf ninja-build |
        grep '^[a-z]' | sort -u | grep -vE \
        '^(auto.*|debianutils|dpkg|gcc-.*|libacl1|libc6.*|libc-dev-bin|libgcc-s1|libstdc\+\+6|libselinux1|linux-libc-dev|m4|perl.*|libperl.*|tar|rpcsvc-proto|libcrypt-dev|libcrypt1|libdb5.*|libgdbm.*)$')
    mkdir -p .debs
    # shellcheck disable=SC2086 # names, one word each
    (cd .debs && apt-get download $closure) || die 'apt-get could not download the packages'
    du -sh .debs
}

# Makes the carried packages the ones that are built with, as soon as one is missing here.
use_debs() {
    local library missing=''
    for library in criterion hwloc jansson libjpeg libwebp libxxhash sndfile soxr spng; do
        pkg-config --exists $library 2>/dev/null || missing="$missing $library"
    done
    [ -n "$missing" ] || [ -n "${FORCE_DEBS:-}" ] || return 0
    compgen -G '.debs/*.deb' >/dev/null ||
        die "missing here:$missing (tools/setup.sh tests installs them; or carry them: --fetch-debs)"
    if [ ! -e "$debs/done" ]; then
        local deb
        mkdir -p "$debs"
        for deb in .debs/*.deb; do
            dpkg -x "$deb" "$debs" || die "$deb cannot be unpacked"
        done
        find "$debs" -name '*.pc' -exec sed -Ei "s,(=|-[LI])/usr,\1$debs/usr,g" {} +
        touch "$debs/done"
    fi
    local lib
    lib=$(dirname "$(find "$debs/usr/lib" -name 'libcriterion.so' | head -n 1)")
    export PKG_CONFIG_LIBDIR=$lib/pkgconfig:$debs/usr/share/pkgconfig
    export LD_LIBRARY_PATH=$lib:$debs${lib#"$debs/usr"}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export PATH=$PATH:$debs/usr/bin
    echo "packages: from .debs/ (missing here:${missing:- none})"
}

look_around() {
    local tool
    export PATH=$PATH:/usr/local/cuda/bin
    for tool in nvidia-smi nvcc cmake gcc g++ timeout; do
        command -v $tool >/dev/null || die "there is no $tool here"
    done
    nvidia-smi -L >/dev/null 2>&1 || die 'nvidia-smi finds no card'
    use_debs
    command -v ninja >/dev/null || command -v make >/dev/null || die 'there is neither ninja nor make here'
    card=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0)
    capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader -i 0 | tr -d .)
    nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.sm,clocks.mem,power.limit \
        --format=csv >"$out/card.csv"
    export card capability
}

# ---- stages: each runs as a process of its own, within its time ----

stage_build() {
    local generator=(-G Ninja)
    command -v ninja >/dev/null || generator=(-G 'Unix Makefiles')
    cmake --preset card "${generator[@]}" -DPLEIAD_CUDA_ARCHITECTURES="$capability-real" &&
        cmake --build build/card -j "$(nproc)" --target card_tests pleiad bench_card make_model roofline
}

on_the_card() { ctest --test-dir build/card --no-tests=error --output-on-failure "$@"; }
stage_ops() { on_the_card -L '^cuda$' -E 'engine|backend|ple_rows' -j 4 --timeout 60; }
# Where there is only one card, nothing asks for NCCL: what needs more is skipped.
stage_engine() { on_the_card -R '^test_cuda_(engine|engines|backend|ple_rows)$' --timeout 90; }

# collect <to> <file>...: tables of one head, as one.
collect() {
    local to=$1
    shift
    awk 'FNR == 1 && NR > 1 { next } 1' "$@" | tee "$to"
}

stage_model() {
    mkdir -p "$work"
    [ -e "$model" ] || "$bin/make_model" e4b q4_0 "$model" || return
    [ -n "$quick" ] || [ -e "$small" ] || "$bin/make_model" e2b q4_0 "$small" || return
    "$bin/pleiad" inspect "$model"
}

stage_rates() { "$bin/bench_card" rates | tee "$out/rates.csv"; }

stage_speed() {
    local placement path lengths=512,4096 list=() files=()
    [ -n "$quick" ] && lengths=512
    for path in $paths; do
        list+=(--path "$path")
    done
    for placement in vram pinned host disk; do
        if "$bin/pleiad" bench -m "$model" --backend cuda --ple "$placement" "${list[@]}" -p "$lengths" -n 128 -r 3 \
            -o csv -q >"$out/speed-$placement.csv"; then
            files+=("$out/speed-$placement.csv")
        elif [ "$placement" != vram ]; then # for which a card may be too small
            return 1
        fi
        [ -n "$quick" ] && list=(--path e4b)
        lengths=512
    done
    collect "$out/speed.csv" "${files[@]}"
}

stage_steps() {
    local path rows=1,2,4,8,16 files=()
    [ -n "$quick" ] && rows=1,16
    for path in e4b e2b; do
        files+=("$out/steps-$path.csv")
        "$bin/bench_card" steps "$model" "$path" host "$rows" >"${files[-1]}" || return
    done
    collect "$out/steps.csv" "${files[@]}"
}

stage_memory() {
    "$bin/bench_card" memory "$model" e4b host >"$out/memory-e4b.csv" || return
    [ -n "$quick" ] || "$bin/bench_card" memory "$small" e2b host >"$out/memory-e2b.csv" || return
    collect "$out/memory.csv" "$out"/memory-e?b.csv
}

# What the data sheets do not know is taken as measured.
stage_roofline() {
    local sheet=H200 name path copy bus launch files=()
    for name in 'RTX 3060' 'RTX 3090' 'RTX 4060' 'RTX 4090' 'RTX 5090' H200; do
        case $card in *"$name"*) sheet=$name ;; esac
    done
    copy=$(awk -F, '$2 == "copy" { print $(NF - 3) }' "$out/rates.csv")
    bus=$(awk -F, '$2 == "bus in" { print $(NF - 3) }' "$out/rates.csv")
    launch=$(awk -F, '$2 == "launch" { print $(NF - 4) }' "$out/rates.csv")
    if [ -z "$copy" ] || [ -z "$bus" ] || [ -z "$launch" ]; then
        echo 'roofline: no rates were measured'
        return 1
    fi
    for path in $paths; do # in the middle of the answers that `speed` measures
        files+=("$out/roofline-$path.csv")
        "$bin/roofline" "$model" --path "$path" --at 64 --card "$sheet" --bandwidth "$copy" --bus "$bus" \
            --launch "$launch" --csv >"${files[-1]}" || return
    done
    collect "$out/roofline.csv" "${files[@]}"
}

stage_opsbench() {
    local rows=1,2,4,8,16,512
    [ -n "$quick" ] && rows=1,16,512
    "$bin/bench_card" ops "$rows" | tee "$out/ops.csv"
}

stage_sanitize() {
    local tool test
    tool=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
    if [ ! -x "$tool" ]; then
        echo 'skipped: compute-sanitizer is not here'
        return 77
    fi
    for test in altup residual quantize_act ple_gate output; do
        "$tool" --tool memcheck --target-processes all --error-exitcode 9 "$bin/test_cuda_$test" --jobs 1 || return
    done
    for test in altup residual quantize_act; do
        "$tool" --tool racecheck --target-processes all --error-exitcode 9 "$bin/test_cuda_$test" --jobs 1 || return
    done
}

# The commands take several minutes to build: a call of its own, which goes on where the last one was cut.
stage_llama() {
    local peer=$root/build/peer amx='-mno-amx-tile -mno-amx-int8 -mno-amx-bf16'
    if [ ! -e .peer/llama.tar.xz ]; then
        echo 'skipped: there is no .peer/llama.tar.xz'
        return 77
    fi
    # shellcheck disable=SC2086 # several flags
    echo 'int main(void) { return 0; }' | gcc $amx -x c -o /dev/null - 2>/dev/null || amx=''
    mkdir -p "$peer"
    [ -e "$peer/llama/CMakeLists.txt" ] || tar -C "$peer" -xJf .peer/llama.tar.xz || return
    cmake -G Ninja -S "$peer/llama" -B "$peer/b" -DCMAKE_BUILD_TYPE=Release -DGGML_CUDA=ON \
        -DCMAKE_CUDA_ARCHITECTURES="$capability-real" -DGGML_CUDA_FA_ALL_QUANTS=OFF -DGGML_CUDA_NCCL=OFF \
        -DGGML_NATIVE=ON -DGGML_CCACHE=OFF -DBUILD_SHARED_LIBS=ON -DCMAKE_C_FLAGS="$amx" -DCMAKE_CXX_FLAGS="$amx" \
        -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF &&
        ninja -C "$peer/b" -j "$(nproc)" llama-bench &&
        "$peer/b/bin/llama-bench" -m "$model" -ngl 99 -fa on -p 512,4096 -n 128 -r 5 -o csv | tee "$out/llama.csv"
}

# ---- one after the other ----

limit_of() {
    case $1 in
        build) echo 300 ;;
        llama) echo 560 ;;
        rates | roofline | memory) echo 60 ;;
        *) echo 120 ;;
    esac
}

failed=0

run_stage() {
    local name=$1 start=$SECONDS limit left=$((budget - SECONDS)) status
    limit=$(limit_of "$name")
    if [ $left -lt 15 ]; then
        printf 'skip  %-9s %d s are left of %d\n' "$name" $left "$budget"
        return
    fi
    [ $left -lt "$limit" ] && limit=$left
    timeout -k 5 "$limit" "$root/tests/gpu_check.sh" --stage "$name" >"$out/$name.log" 2>&1
    status=$?
    case $status in
        0) printf 'ok    %-9s %4d s\n' "$name" $((SECONDS - start)) ;;
        77) printf 'skip  %-9s %s\n' "$name" "$(tail -n 1 "$out/$name.log" | sed 's/^skipped: //')" ;;
        124 | 137) printf 'FAIL  %-9s cut after %d s\n' "$name" "$limit" ;;
        *) printf 'FAIL  %-9s %4d s; all of it in %s\n' "$name" $((SECONDS - start)) "$out/$name.log" ;;
    esac
    [ $status = 0 ] || [ $status = 77 ] || {
        failed=1
        tail -n 15 "$out/$name.log" | sed 's/^/      /'
        [ "$name" = build ] && finish
    }
}

# Estimate beside measurement, for each path.
table() {
    echo
    echo "$card"
    [ -s "$out/rates.csv" ] && awk -F, '$1 == "rate" {
        printf "  %-8s %10s %s\n", $2, ($2 == "launch" ? $(NF - 4) : $(NF - 3)), ($2 == "launch" ? "us" : "GB/s") }' "$out/rates.csv"
    [ -s "$out/speed.csv" ] && tr -d '"' <"$out/speed.csv" | awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        $at["n_gen"] > 0 || $at["ple"] == "vram" { printf "  %-6s table %-7s %-12s %10.1f tokens/s\n", $at["path"], $at["ple"],
            ($at["n_gen"] > 0 ? "decode " $at["n_gen"] : "prompt " $at["n_prompt"]), $at["median"] }'
    [ -s "$out/steps.csv" ] && awk -F, '$1 == "step" { printf "  %-6s %2d sequences %12.1f tokens/s\n", $2, $(NF - 5), $NF }' "$out/steps.csv"
    [ -s "$out/memory.csv" ] && awk -F, '$1 == "memory" { printf "  %-6s %.2f GB of the card in use, 4096 tokens\n", $2, $(NF - 3) }' \
        "$out/memory.csv"
    [ -s "$out/roofline.csv" ] && [ -s "$out/speed.csv" ] && tr -d '"' <"$out/speed.csv" | awk -F, '
        FNR == 1 { split("", at); for (i = 1; i <= NF; i++) at[$i] = i; file++; next }
        file == 1 && $at["n_gen"] > 0 && !($at["path"] in measured) { measured[$at["path"]] = $at["median"] }
        file == 2 && ($at["path"] in measured) {
            printf "  %-6s estimate %.1f tokens/s, measured %.1f: %.0f %%\n", $at["path"], $at["tokens_per_s"],
                measured[$at["path"]], 100 * measured[$at["path"]] / $at["tokens_per_s"] }' - "$out/roofline.csv"
    return 0
}

finish() {
    local file name part
    name=$(echo "$card" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
    file=$out/$name.csv
    : >"$file"
    for part in card rates speed steps memory roofline ops llama; do
        [ -s "$out/$part.csv" ] || continue
        echo "# $part" >>"$file"
        cat "$out/$part.csv" >>"$file"
    done
    [ $failed = 0 ] && cp "$file" bench/results/
    table
    echo "results: $file; $SECONDS s"
    exit $failed
}

stages=''
while [ $# -gt 0 ]; do
    case $1 in
        --quick) quick=1 ;;
        --fetch-debs)
            fetch_debs
            exit
            ;;
        --stage) # by run_stage, in the surroundings that look_around() made
            "stage_$2"
            exit
            ;;
        -*) die "there is no option $1" ;;
        *) stages="$stages $1" ;;
    esac
    shift
done
for name in $stages; do
    case " $known " in *" $name "*) ;; *) die "no stage '$name'; there are: $known" ;; esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -n "$stages" ] || rm -f "$out"/*.csv "$out"/*.log
export OUT=$out QUICK=$quick
look_around
for name in ${stages:-$all}; do
    run_stage "$name"
done
finish
