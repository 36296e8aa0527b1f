#!/usr/bin/env bash
# Includes point one way: a file may include only what its folder is allowed to see.
set -u
cd "$(dirname "$0")/.."

# <beginning of a path>: <beginnings of what it may see>; the longest that fits a file counts.
layers='
host/include/pleiad.h:
host/base/:             host/include/pleiad.h host/base/
quant/:                 host/base/cpu.h host/base/isa.h host/base/vec.h quant/
host/text/:             host/include/pleiad.h host/base/ host/text/
host/ops/:              host/include/pleiad.h host/base/ quant/ host/ops/
host/media/:            host/include/pleiad.h host/base/ host/media/
host/tower/:            host/include/pleiad.h host/base/ quant/ host/ops/ host/model/ host/tower/
host/cpu/:              host/include/pleiad.h host/base/ quant/ host/ops/ host/cpu/
cuda/:                  host/include/pleiad.h host/base/ quant/ host/ops/ host/cpu/pack.h host/cpu/panel.h cuda/
cuda/kd.cuh:            tests/cuda/emu.hpp
host/model/:            host/include/pleiad.h host/base/ quant/ host/ops/tensor.h host/text/tokenizer.h host/model/
host/grammar/:          host/include/pleiad.h host/base/ host/text/ host/grammar/
host/engine/:           host/include/pleiad.h host/base/ quant/ host/ops/ host/text/ host/grammar/ host/ops/backend.h host/model/ host/media/ host/tower/ host/engine/
host/serve/:            host/include/pleiad.h host/base/ host/media/ host/serve/
host/batch/:            host/include/pleiad.h host/base/ host/serve/ host/batch/
host/convert/:          host/include/pleiad.h host/base/ quant/ host/ops/tensor.h host/text/ host/model/ host/convert/
host/measure/:          host/include/pleiad.h host/base/ quant/ host/ops/ host/text/ host/grammar/ host/model/ host/engine/ host/convert/ host/measure/
tools/:                 host/include/pleiad.h host/base/ tools/
tools/cmd_transcribe:   host/include/pleiad.h host/base/ tools/ host/media/
tools/cmd_run:          host/include/pleiad.h host/base/ tools/ host/media/
tools/media_:           host/include/pleiad.h host/base/ tools/ host/media/
tools/frames:           host/include/pleiad.h host/base/ tools/ host/media/
tools/cmd_inspect:      host/include/pleiad.h host/base/ tools/ host/model/ host/tower/source.h host/engine/placement.h
tools/inspect_:         host/include/pleiad.h host/base/ tools/ host/model/ host/tower/source.h host/engine/placement.h
tools/cmd_bench:        host/include/pleiad.h host/base/ tools/ host/measure/ host/ops/
tools/bench_:           host/include/pleiad.h host/base/ tools/ host/measure/ host/ops/
tools/cmd_eval:         host/include/pleiad.h host/base/ tools/ host/measure/
tools/eval_:            host/include/pleiad.h host/base/ tools/ host/measure/
tools/measured_text:    host/include/pleiad.h host/base/ tools/ host/measure/
tools/cmd_imatrix:      host/include/pleiad.h host/base/ tools/ host/measure/ host/model/
tools/cmd_sensitivity:  host/include/pleiad.h host/base/ tools/ host/measure/ host/convert/
tools/cmd_quantize:     host/include/pleiad.h host/base/ quant/ tools/ host/model/ host/convert/ host/engine/memory.h
tools/quantize_:        host/include/pleiad.h host/base/ quant/ tools/ host/model/ host/convert/
tools/cmd_slice:        host/include/pleiad.h host/base/ tools/ host/model/ host/convert/
tools/cmd_serve:        host/include/pleiad.h host/base/ tools/ host/serve/
tools/serve_:           host/include/pleiad.h host/base/ tools/ host/serve/
tools/cmd_batch:        host/include/pleiad.h host/base/ tools/ host/serve/ host/batch/
tools/batch_:           host/include/pleiad.h host/base/ tools/ host/batch/ host/ops/devices.h
tools/cmd_debug:        host/include/pleiad.h host/base/ tools/ host/ops/backend.h host/model/ host/media/ host/tower/ host/engine/
tools/debug_:           host/include/pleiad.h host/base/ tools/ host/ops/backend.h host/model/ host/media/ host/tower/ host/engine/
'

# <header of a library>: <the only files that may include it>
libraries='
cuda:       cuda/ tests/cuda/ bench/card_
hwloc:      host/base/topology.c tests/topology/
jansson:    host/base/json_in host/text/ host/grammar/ host/model/ host/convert/ host/serve/ host/batch/ tests/
xxhash:     host/base/ host/text/ host/model/ host/batch/
mpi:        host/batch/ranks_mpi
histedit:   tools/
editline:   tools/
criterion:  tests/
jpeglib:    host/media/image_jpeg
spng:       host/media/image_png
webp:       host/media/image_webp
sndfile:    host/media/sound
soxr:       host/media/sound
libav:      tools/frames
libsw:      tools/frames
'

find host quant cuda tools bench tests -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.cu' -o -name '*.cuh' | sort |
    xargs grep -HnE '^[[:space:]]*#[[:space:]]*include' |
    awk -v layers="$layers" -v libraries="$libraries" '
function starts(text, list,    n, part, i) {
    n = split(list, part, " ")
    for (i = 1; i <= n; i++)
        if (index(text, part[i]) == 1)
            return 1
    return 0
}
function read_table(text, table,    n, line, i, at) {
    n = split(text, line, "\n")
    for (i = 1; i <= n; i++)
        if ((at = index(line[i], ":")) > 0)
            table[substr(line[i], 1, at - 1)] = substr(line[i], at + 1)
}
BEGIN { read_table(layers, sees); read_table(libraries, only) }
{
    split($0, part, ":")
    file = part[1]
    if (match($0, /["<][^">]*[">]/) == 0) {
        print file ":" part[2] ": an include that cannot be read"
        bad = 1
        next
    }
    kind = substr($0, RSTART, 1)
    name = substr($0, RSTART + 1, RLENGTH - 2)
    if (kind == "<") {
        for (library in only)
            if (index(name, library) == 1 && !starts(file, only[library])) {
                print file ":" part[2] ": <" name "> belongs only into" only[library]
                bad = 1
            }
        next
    }
    layer = ""
    for (l in sees)
        if (index(file, l) == 1 && length(l) > length(layer))
            layer = l
    if (layer != "" && !starts(name, sees[layer])) {
        print file ":" part[2] ": \"" name "\" is not among what " layer " may see:" sees[layer]
        bad = 1
    }
    if (index(name, "/") == 0 || (getline line < name) < 0) {
        print file ":" part[2] ": \"" name "\" is not a path from the root of the repository"
        bad = 1
    }
    close(name)
}
END { exit bad }'
