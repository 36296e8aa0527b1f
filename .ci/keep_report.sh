#!/usr/bin/env bash
# Stands before nvcc in a build (CMAKE_CUDA_COMPILER_LAUNCHER): warnings and spills are errors, and what ptxas says of the
# object's kernels is kept beside it, in OBJECT.report.
#   .ci/keep_report.sh nvcc ... -o OBJECT ...
set -u

for ((i = 1; i < $#; i++)); do
    [ "${!i}" = -o ] && next=$((i + 1)) && report=${!next}.report
done
"$@" -Werror all-warnings -Xptxas -v,--warn-on-spills,-Werror >"$report" 2>&1 && exit
status=$?
grep -vE '^ptxas info|bytes stack frame' "$report" >&2
exit $status
