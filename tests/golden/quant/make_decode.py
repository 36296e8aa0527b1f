#!/usr/bin/env python3
"""Writes decode.bin: blocks of every quantised type and the values that gguf-py's dequantiser gives them.

    make_decode.py [--blocks N] [--seed S] [--out FILE]      (needs numpy and gguf)

For each type: u32 GGUF type id, u32 number of blocks, the blocks, their values as f32. Blocks are random
bytes with scales of every size; the last ones are extreme: all bits set, none set, subnormal, infinite
and NaN scales.
"""
import argparse
import os

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Q
from gguf.quants import dequantize

# Where the f16 scales are; the scales of the last two are bytes.
SCALES = {Q.Q4_0: [0], Q.Q4_1: [0, 2], Q.Q5_0: [0], Q.Q5_1: [0, 2], Q.Q8_0: [0], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2],
          Q.Q6_K: [208], Q.Q2_K: [80, 82], Q.Q3_K: [108], Q.IQ4_NL: [0], Q.IQ4_XS: [0], Q.MXFP4: [], Q.NVFP4: []}
EXTREME_HALVES = [0x0000, 0x8000, 0x0001, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00]


def blocks_of(kind, n, rng):
    size = GGML_QUANT_SIZES[kind][1]
    extreme = len(EXTREME_HALVES)
    blocks = rng.integers(0, 256, (n + extreme + 2, size), dtype=np.uint8)
    for at in SCALES[kind]:
        halves = rng.standard_normal(len(blocks)) * 10.0 ** rng.uniform(-7, 4, len(blocks))
        halves = np.clip(halves, -65000, 65000).astype("<f2").view(np.uint16)
        halves[n:n + extreme] = EXTREME_HALVES
        blocks[:, at:at + 2] = halves.astype("<u2").view(np.uint8).reshape(-1, 2)
    blocks[-2] = 0xff
    blocks[-1] = 0
    return blocks


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--blocks", type=int, default=8)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "decode.bin"))
    args = ap.parse_args()
    rng = np.random.default_rng(args.seed)
    with open(args.out, "wb") as f, np.errstate(all="ignore"):
        for kind in SCALES:
            blocks = blocks_of(kind, args.blocks, rng)
            values = dequantize(blocks, kind).astype("<f4")
            f.write(np.array([int(kind), len(blocks)], "<u4").tobytes() + blocks.tobytes() + values.tobytes())


if __name__ == "__main__":
    main()
