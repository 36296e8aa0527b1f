#!/usr/bin/env python3
"""Makes tokenizer.json, for the checkpoint of random weights, and prompts.json, what Gemma3nProcessor makes of chats with
images and sound, with the tokenizer of ../text/e4b in place of the published one.

make_text.py PUBLISHED   PUBLISHED: the oracle's prompts.json (messages and rendered texts)
"""
import json
import os
import sys

from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
E4B = os.path.join(HERE, "../text/e4b/tokenizer.json")
IMAGE_ROWS, AUDIO_ROWS = 256, 188
NAMES = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 9: "\n", 10: "\n\n", 250: "<start_of_image>", 251: "<start_of_audio>",
         256: "<end_of_image>", 257: "<image_soft_token>", 272: "<end_of_audio>", 273: "<audio_soft_token>"}


def around(name, rows):
    return f"\n\n<start_of_{name}>" + f"<{name}_soft_token>" * rows + f"<end_of_{name}>\n\n"


def run_length(ids):
    runs = []
    for i in ids:
        if runs and runs[-1][0] == i:
            runs[-1][1] += 1
        else:
            runs.append([i, 1])
    return runs


def prompts(published):
    tokenizer = Tokenizer.from_file(E4B)
    cases = json.load(open(published))
    for case in cases.values():
        text = case.get("rendered", case.get("text"))
        text = text.replace("<image_soft_token>", around("image", IMAGE_ROWS))
        text = text.replace("<audio_soft_token>", around("audio", AUDIO_ROWS))
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if "text" in case:
            ids = [2] + ids
        case["ids_run_length"], case["length"] = run_length(ids), len(ids)
        del case["token_types_run_length"]
    return cases


def tokenizer():
    base = json.load(open(E4B))
    special = [i for i, name in NAMES.items() if name.startswith("<")]
    base["added_tokens"] = [dict(id=i, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False,
                                 special=i in special) for i, name in sorted(NAMES.items())]
    free = [i for i in range(288) if i not in NAMES]
    pieces = [f"<0x{b:02X}>" for b in range(256)] + list("abcdefghijklmnopqrst")
    base["model"]["vocab"] = {**{name: i for i, name in NAMES.items()}, **dict(zip(pieces, free))}
    base["model"]["merges"] = []
    return base


def write(name, value):
    with open(os.path.join(HERE, name), "w") as f:
        json.dump(value, f, indent=None, separators=(",", ":"))
        f.write("\n")


write("tokenizer.json", tokenizer())
write("prompts.json", prompts(sys.argv[1]))
