#!/usr/bin/env bash
# Kernels keep to the dialect of cuda/kd.cuh, so that the CPU runs the very source that cards run.
set -u
cd "$(dirname "$0")/.."

failed=0
kernels=$(ls cuda/*.cu cuda/*.cuh | grep -vxF -e cuda/devices.cu)

# forbid <why> <pattern> <files that may, a pattern>. Comments do not count.
forbid() {
    local found file
    for file in $(grep -vE -e "^($3)$" <<<"$kernels"); do
        found=$(awk '
            {
                line = $0
                while (1) {
                    if (comment) {
                        if ((at = index(line, "*/")) == 0) { line = ""; break }
                        line = substr(line, at + 2)
                        comment = 0
                    }
                    if ((at = index(line, "/*")) == 0) break
                    rest = substr(line, at + 2)
                    if ((end = index(rest, "*/")) == 0) { line = substr(line, 1, at - 1); comment = 1; break }
                    line = substr(line, 1, at - 1) " " substr(rest, end + 2)
                }
                sub(/\/\/.*/, "", line)
                print FILENAME ":" FNR ":" line
            }' "$file" | grep -E -e "^[^:]*:[0-9]*:.*($2)")
        if [ -n "$found" ]; then
            printf '%s:\n%s\n' "$1" "$found"
            failed=1
        fi
    done
}

both='cuda/(kd|ptx)\.cuh'
forbid 'inline assembly only in cuda/ptx.cuh, each with a twin' '\<(asm|__asm|__asm__)\>' 'cuda/ptx\.cuh'
forbid 'shared memory is KD_SHARED or KD_DYN_SHARED' '\<__shared__\>' 'cuda/kd\.cuh'
forbid 'launches are KD_LAUNCH' '<<<|\<cudaLaunch(Cooperative)?Kernel' 'cuda/kd\.cuh'
forbid 'no source is another one on the CPU' '\<(KD_EMU|__CUDACC__|__CUDA_ARCH__)\>|\<emu::' "$both"
forbid 'no constant, managed or device variables' \
    '\<(__constant__|__managed__)\>|^([^(]*:[0-9]*:)?[[:space:]]*(static[[:space:]]+)?__device__[^({]*(;|=)' nobody
forbid 'no cooperative groups, textures, libcu++, C++ library' \
    '\<(cooperative_groups|texture|cudaTextureObject_t|cuda::|std::)|include[[:space:]]*<(cuda/|cooperative_groups|[a-z_]+>)' \
    "$both"
forbid 'only the intrinsics with _sync' '\<__(shfl(_up|_down|_xor)?|ballot|any|all)[[:space:]]*\(' nobody
forbid 'a busy wait reads through ptx::ld_acquire' '\<volatile\>' 'cuda/ptx\.cuh'
forbid 'no allocation on the device' '\<(malloc|free|new|delete)[[:space:]]*[([]|=[[:space:]]*new\>' nobody
forbid 'no member or variable of the name of an index' '[.>](threadIdx|blockIdx|blockDim|gridDim|warpSize)\>' 'cuda/kd\.cuh'
exit $failed
