#!/usr/bin/env python3
"""Writes recipes.txt: the type that llama-quantize gives each matrix of Gemma 3n E4B.

    make_recipes.py LLAMA_QUANTIZE E4B.gguf IMATRIX.gguf > recipes.txt

A line: recipe, 1 with an importance matrix, tensor, GGUF's numbers of the types layer after layer ("14x4": four times).
The model's weights do not matter, only their names and shapes; its matrices are Q8_0, what is kept as it is F16.
"""
import re
import subprocess
import sys

RECIPES = ("q2_k q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k q4_0 q4_1 q5_0 q5_1 q8_0 iq4_nl iq4_xs").split()
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "q2_k": 10, "q3_k": 11, "q4_k": 12,
         "q5_k": 13, "q6_k": 14, "iq4_nl": 20, "iq4_xs": 23}
LINE = re.compile(r"\] (\S+)\.weight\s+- \[.*type =\s+(\w+),.*?(?:-> .*\((\w+)\))?\s*$")


def picked(quantize, model, recipe, imatrix):
    command = [quantize, "--allow-requantize", "--dry-run"] + (["--imatrix", imatrix] if imatrix else [])
    run = subprocess.run(command + [model, "none.gguf", recipe], capture_output=True, text=True, check=True)
    types = {}
    for line in (run.stdout + run.stderr).splitlines():
        match = LINE.search(line)
        if not match or "norm" in match[1] or re.search("altup_(router|correct|predict)", match[1]):
            continue
        layer = re.match(r"blk\.(\d+)\.(.*)", match[1])
        name, index = (layer[2], int(layer[1])) if layer else (match[1], 0)
        types.setdefault(name, {})[index] = TYPES[(match[3] or match[2]).lower()]
    return {name: [found[i] for i in range(len(found))] for name, found in types.items()}


def runs(values):
    out = []
    for value in values:
        if out and out[-1][0] == value:
            out[-1][1] += 1
        else:
            out.append([value, 1])
    return " ".join(str(v) if n == 1 else f"{v}x{n}" for v, n in out)


def main():
    quantize, model, imatrix = sys.argv[1:]
    for recipe in RECIPES:
        for flag in (0, 1):
            for name, types in sorted(picked(quantize, model, recipe, imatrix if flag else None).items()):
                print(recipe, flag, name, runs(types))


main()
