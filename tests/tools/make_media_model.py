#!/usr/bin/env python3
"""Writes a small model with both towers and a tokenizer for any text, of random weights, as a Hugging Face folder: the one of
tests/golden/multimodal with 512 words instead of 256.

make_media_model.py FOLDER
"""
import array
import json
import os
import random
import sys

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../golden/multimodal")
WORDS, EACH = 512, 16  # words; ids of each tower
SPECIAL = {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 240: "<start_of_turn>", 241: "<end_of_turn>",
           250: "<start_of_image>", 251: "<start_of_audio>", WORDS: "<end_of_image>", WORDS + 1: "<image_soft_token>",
           WORDS + EACH: "<end_of_audio>", WORDS + EACH + 1: "<audio_soft_token>"}


def config():
    c = json.load(open(os.path.join(GOLDEN, "config.json")))
    c["text_config"].update(vocab_size=WORDS + 2 * EACH, vocab_size_per_layer_input=WORDS, max_position_embeddings=2048)
    c["vision_config"]["vocab_offset"] = WORDS
    c["audio_config"]["vocab_offset"] = WORDS + EACH
    c.update(eoi_token_id=WORDS, image_token_id=WORDS + 1, eoa_token_id=WORDS + EACH, audio_token_id=WORDS + EACH + 1)
    return c


def tokenizer():
    names = dict(SPECIAL)
    names.update({9: "\n", 10: "\n\n", 11: "\u2581"})
    names.update({12 + i: chr(33 + i) for i in range(94)})
    names.update({256 + i: f"<0x{i:02X}>" for i in range(256)})
    t = json.load(open(os.path.join(GOLDEN, "tokenizer.json")))
    t["added_tokens"] = [dict(id=i, content=name, single_word=False, lstrip=False, rstrip=False, normalized=False,
                              special=i in SPECIAL) for i, name in sorted(names.items()) if i in SPECIAL or i in (9, 10)]
    t["model"]["vocab"] = {names.get(i, chr(0x4E00 + i)): i for i in range(WORDS + 2 * EACH)}
    return t


def write_tensors(path):
    tensors = json.load(open(os.path.join(GOLDEN, "manifest.json")))["tensors"]
    tensors["model.language_model.embed_tokens.weight"]["shape"][0] = WORDS + 2 * EACH
    tensors["model.language_model.embed_tokens_per_layer.weight"]["shape"][0] = WORDS
    header, at, noise = {}, 0, random.Random(1)
    with open(path + ".data", "wb") as data:
        for name, t in tensors.items():
            n = 1
            for side in t["shape"]:
                n *= side
            array.array("f", (t["center"] + t["half"] * (2 * noise.random() - 1) for _ in range(n))).tofile(data)
            header[name] = dict(dtype="F32", shape=t["shape"], data_offsets=[at, at + 4 * n])
            at += 4 * n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out, open(path + ".data", "rb") as data:
        out.write(len(text).to_bytes(8, "little") + text + data.read())
    os.remove(path + ".data")


folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)
json.dump(config(), open(os.path.join(folder, "config.json"), "w"))
json.dump(tokenizer(), open(os.path.join(folder, "tokenizer.json"), "w"))
write_tensors(os.path.join(folder, "model.safetensors"))
