#!/usr/bin/env python3
"""Makes golden.json: what Hugging Face tokenizers and transformers do with the small model's tokenizer.

    make_golden.py [FOLDER] > golden.json

FOLDER holds tokenizer.json, tokenizer_config.json and chat_template.jinja (default: ../text/e4b).

    cases   [[text, ids, ids with control tokens as text (null: the same), decoded (null: the text),
              decoded without special tokens (null: the same)]]
    decode  [[ids, text, text without special tokens]]
    chat    [[messages, add_generation_prompt, rendered; null: the template refuses it]]
"""
import json
import os
import random
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

META = "\u2581"
TEXTS = [
    "", "a", " ", "  ", "Hello, world!", " hello", "hello ", "   hello   world   ", "\n", "\n\n", "a\n\n\n\n\nb", "\n" * 31, "\n" * 32,
    "\n" * 64 + "x", "\t", "\t\tx", "\t" * 31, "\t" * 40 + "y", " " * 31, " " * 32, " " * 33 + "x", " " * 63, "y" + " " * 100 + "z",
    "\n \n  \n", " \n  \n   \n", "\t \t  \t", "a\r\nb\rc", "a\x0bb\x0cc", "a\u00a0b\u3000c", "a\u2028b\u2029c\u0085d", META, META * 2, META * 3,
    META * 31, META * 32, META * 40 + "x", "a" + META + "b " + META + " c", META + " " + META, " " + META + META, "a " + META * 2 + " b",
    "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n", "a<bos>b", "a<eos>b<pad>", "<unk><mask>[multimodal]",
    "<start_of_turn <start_of_turn> start_of_turn>", "<<start_of_turn>><bos<bos>>", "<BOS>", "< bos ><bos >< bos>", "<unused0><unused98><unused99>",
    "<unused9999>", "<table><tr><td>x</td></tr></table><p><br/>", "<h1>T</h1><h7></h7><b><i><u>", "<0x41><0xE2><0x96><0x81> <0xGG>",
    "<image_soft_token><audio_soft_token>", "<start_of_image><end_of_image><start_of_audio><end_of_audio>", "<end_of_turn><end_of_turn> <end_of_turn>x",
    " <bos> x <end_of_turn> ", "\n\n<start_of_turn>\n\n\n", "<|im_start|>", "> </td>", ">  </td>", "a> </b", "<td> </td>",
    "Falsches \u00dcben von Xylophonmusik qu\u00e4lt jeden gr\u00f6\u00dferen Zwerg.", "\u0421\u044a\u0435\u0448\u044c \u0435\u0449\u0451 \u0431\u0443\u043b\u043e\u043a",
    "\u5929\u5730\u7384\u9ec3\uff0c\u5b87\u5b99\u6d2a\u8352\u3002", "\u0646\u0635 \u062d\u0643\u064a\u0645", "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f44d\U0001f3fd", "e\u0301n\u0303",
    "\ud55c \u1112\u1161\u11ab", "\ufffd\ufffe\U0010ffff", "\x00", "a\x00b\x01\x7f", "\x1b[31mred", "x\u00b2+y\u00b3", "123456789012345678901234567890",
    "3.14159 -42 0xDEADBEEF", "def f(x: int = 3) -> str:\n    return f\"{x!r:>10}\"  # ok\n", "int main(void)\n{\n\treturn 0;\n}\n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "thequickbrownfoxjumpsoverthelazydogthequickbrownfoxjumps",
    "The engine keeps core weights in device memory. That is the whole idea.", "https://example.com/a/b?c=d&e=%20f#frag",
]
BLANKS = ["\t", "\n", "\x0b", "\x0c", "\r", "\x1c", "\x1d", "\x1e", "\x1f", " ", "\x85", "\xa0", "\u1680", "\u2000", "\u2007", "\u200a", "\u2028", "\u2029", "\u202f",
          "\u205f", "\u3000"]
NOT_BLANK = ["\u200b", "\u2060", "\ufeff", "\x00", "\x1b", "\u180e"]


def random_text(rng, atoms):
    return "".join(rng.choice(atoms) for _ in range(rng.randint(1, 25)))


def texts(rng, tokenizer):
    n = tokenizer.get_vocab_size()
    atoms = [" ", "  ", "\n", "\t", META, ">", "<", "</", "td>", "<td>", "the", "e", "n", "t ", "ing", "\u00e9", "\u4e16", "\U0001f600", "<bos>", " " * 33, "\x00"]
    words = [w for text in TEXTS for w in text.split()]
    found = [random_text(rng, atoms) for _ in range(60)] + [random_text(rng, words + [" ", " ", "\n"]) for _ in range(30)]
    glued = [tokenizer.decode([rng.randrange(n) for _ in range(rng.randint(1, 30))], skip_special_tokens=False) for _ in range(30)]
    return TEXTS + found + glued


def decodings(rng, tokenizer):
    byte = lambda *values: [238 + v for v in values]  # noqa: E731
    fixed = [
        [], [1], [2, 105, 107, 106], byte(0xE4, 0xB8, 0x96), byte(0xE4, 0xB8), byte(0x96), byte(0xE4, 0xB8, 0x96, 0xE4), byte(0xFF, 0x41),
        byte(0xF0, 0x9F, 0x98, 0x80), byte(0xC0, 0x80), byte(0xED, 0xA0, 0x80), byte(0xF4, 0x90, 0x80, 0x80), byte(0xE0, 0x80, 0x80), byte(0x20),
        byte(0xE2, 0x96, 0x81), byte(0xE2, 0x96) + [138] + byte(0x81), byte(0xE4) + [2] + byte(0xB8, 0x96), byte(0xE4) + [2, 106] + byte(0xB8),
        byte(0x41) + [495] + byte(0x42), [138], [167, 138], [0, 1, 2, 3, 4, 5], [106, 106, 107, 108], byte(0), byte(0xF0, 0x9F) + [4] + byte(0x98, 0x80),
    ]
    n = tokenizer.get_vocab_size()
    for _ in range(60):
        pick = lambda: rng.choice([rng.randrange(n), 238 + rng.randrange(256), 238 + rng.choice([0xE4, 0xB8, 0x96, 0xC3, 0xA9]), rng.randrange(494), 2])  # noqa: E731
        fixed.append([pick() for _ in range(rng.randint(1, 14))])
    return fixed


def chats(rng):
    def padded():
        pad = lambda: "".join(rng.choice(BLANKS + NOT_BLANK) for _ in range(rng.randrange(4)))  # noqa: E731
        return pad() + rng.choice(TEXTS[:90]) + pad()

    def content():
        if rng.random() < 0.6:
            return padded()
        kinds = ["image", "audio", "video"]
        return [{"type": "text", "text": padded()} if rng.random() < 0.7 else {"type": rng.choice(kinds)} for _ in range(rng.randrange(5))]

    every_blank = "".join(BLANKS)
    found = [([], True), ([{"role": "user", "content": every_blank + "x" + every_blank}], True), ([{"role": "user", "content": every_blank}], False)]
    found += [([{"role": "user", "content": c + "x" + c}], True) for c in NOT_BLANK]
    for _ in range(100):
        turns = [{"role": "system", "content": content()}] if rng.random() < 0.4 else []
        for i in range(rng.randrange(5)):
            role = "user" if i % 2 == 0 else rng.choice(["assistant", "model"])
            if rng.random() < 0.06:
                role = rng.choice(["user", "assistant", "system", "tool"])
            turns.append({"role": role, "content": content()})
        found.append((turns, rng.random() < 0.7))
    return found


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "text", "e4b")
    tokenizer = Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    rng = random.Random(1)
    cases = []
    for text in texts(rng, tokenizer):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        without = tokenizer.decode(ids, skip_special_tokens=True)
        cases.append([text, ids, None if plain == ids else plain, None if decoded == text else decoded, None if without == decoded else without])
    decode = [[ids, tokenizer.decode(ids, skip_special_tokens=False), tokenizer.decode(ids, skip_special_tokens=True)]
              for ids in decodings(rng, tokenizer)]
    chat_tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = []
    for messages, prompt in chats(rng):
        try:
            rendered = chat_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        except Exception:  # jinja2's and the template's own
            rendered = None
        chat.append([messages, prompt, rendered])
    lines = [f'"{name}":[\n' + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]"
             for name, rows in (("cases", cases), ("decode", decode), ("chat", chat))]
    print("{" + ",\n".join(lines) + "}")


if __name__ == "__main__":
    main()
