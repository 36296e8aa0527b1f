#!/usr/bin/env bash
# What the CUDA kernels take of a card, kernel by kernel, must be what cuda/resources.txt says; a spill is an error.
#   .ci/check_kernels.sh           compare
#   .ci/check_kernels.sh update    write the table anew
set -u
cd "$(dirname "$0")/.."

table=cuda/resources.txt
archs='75 80 86 89 90 120'

nvcc=$(command -v nvcc || ls "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" 2>/dev/null)
if [ -z "$nvcc" ]; then
    echo 'no nvcc: kernels are not compiled for cards here'
    exit 0
fi
mkdir -p build
version=$("$nvcc" --version | sed -nE 's/.*release ([0-9.]+).*/\1/p')

# Compiled as users have it, and for the other stages too; .ci/keep_report.sh makes a spill an error.
if ! { cmake --preset release -DCMAKE_CUDA_COMPILER_LAUNCHER="$PWD/.ci/keep_report.sh" &&
    cmake --build --preset release --target pl_cuda; } >build/kernels.log 2>&1; then
    grep -vE '^\[[0-9]+/[0-9]+\] Building|^-- ' build/kernels.log
    echo 'kernels do not compile, or spill; all of it in build/kernels.log'
    exit 1
fi

# One line for each kernel: registers by architecture, then the bytes of static shared memory and of stack, the most
# of all architectures.
summarise() {
    echo "# Kernels as nvcc $version compiles them: registers for sm_${archs// / }, static shared memory, stack (bytes)."
    echo '# Written by .ci/check_kernels.sh update'
    for source in cuda/*.cu; do
        c++filt <"build/release/CMakeFiles/pl_cuda.dir/$source.o.report" | awk -v file="$(basename "$source" .cu)" -v archs="$archs" '
            /Compiling entry function/ {
                n = split($0, part, "\047")
                arch = part[n - 1]
                sub(/sm_/, "", arch)
                name = part[2]
                gsub(/\(anonymous namespace\)::|_GLOBAL__N__[^:]*::|^void /, "", name)
                sub(/\(.*/, "", name)
                gsub(/, /, ",", name)
                seen[name] = 1
            }
            /bytes stack frame/ { if ($1 > stack[name]) stack[name] = $1 }
            /Used [0-9]+ registers/ {
                match($0, /Used [0-9]+/)
                registers[name, arch] = substr($0, RSTART + 5, RLENGTH - 5)
                if (match($0, /[0-9]+ bytes smem/)) {
                    bytes = substr($0, RSTART, RLENGTH) + 0
                    if (bytes > shared[name]) shared[name] = bytes
                }
            }
            END {
                n = split(archs, arch_of, " ")
                for (name in seen) {
                    line = sprintf("%-18s %-52s", file, name)
                    for (i = 1; i <= n; i++)
                        line = line sprintf(" %4d", registers[name, arch_of[i]])
                    printf "%s %6d %5d\n", line, shared[name] + 0, stack[name] + 0
                }
            }' | LC_ALL=C sort
    done
}

if [ "${1:-}" = update ]; then
    summarise >$table
    exit
fi
if [ ! -e $table ]; then
    echo "there is no $table: .ci/check_kernels.sh update"
    exit 1
fi
if ! grep -qF "nvcc $version compiles" $table; then
    echo "$table is of another nvcc than this one ($version): only spills were looked for"
    exit 0
fi
if ! summarise | diff $table -; then
    echo "kernels take other resources than $table says; if that is meant: .ci/check_kernels.sh update"
    exit 1
fi
