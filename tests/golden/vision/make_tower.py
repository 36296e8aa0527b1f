#!/usr/bin/env python3
"""Keeps of the oracle's recordings what the tests of the image tower compare with.

make_tower.py DIR    DIR: what `vision_oracle.py --out DIR` wrote
"""
import os
import sys

from safetensors.numpy import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
LEFT_OUT = ("block.0.0", "block.1.0", "block.1.1", "msfa.pooled")

case = load_file(os.path.join(sys.argv[1], "case192.safetensors"))
save_file({k: v for k, v in case.items() if k not in LEFT_OUT}, os.path.join(HERE, "case192.safetensors"))
sizes = load_file(os.path.join(sys.argv[1], "sizes.safetensors"))
save_file({k: v for k, v in sizes.items() if "tower" not in k}, os.path.join(HERE, "sizes.safetensors"))
