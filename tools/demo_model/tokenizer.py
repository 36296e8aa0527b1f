"""Gemma-style tokenizer for the demo model: learning the pieces, tokenizer.json, chat rendering.

    python tokenizer.py --out tokenizer.json
"""
from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SPACE = "\u2581"
BOS, EOS, PAD, UNK = 2, 1, 0, 3
START, END, NEWLINE = 105, 106, 107
FIRST_BYTE, FIRST_PIECE = 238, 494
TABS = 31
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja")
_CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>"]


def _html() -> list[str]:
    groups = ["table caption thead tbody tfoot tr th td", "h1 h2 h3 h4 h5 h6 blockquote", "strong em b i u s sub sup code",
              "a html body img span bbox ul li div iframe footer"]
    return [mark.format(tag) for g in groups for mark in ("<{}>", "</{}>") for tag in g.split()]


def fixed_pieces() -> list[str]:
    """Ids 0..493, the same as in the published vocabulary."""
    low = _CONTROL + ["<mask>", "[multimodal]"] + [f"<unused{i}>" for i in range(99)] + ["<start_of_turn>", "<end_of_turn>"]
    low += ["\n" * n for n in range(1, 32)] + [SPACE * n for n in range(2, 32)] + _html()
    assert len(low) == FIRST_BYTE
    return low + [f"<0x{b:02X}>" for b in range(256)]


def learn_pieces(texts: list[str], count: int, chars: list[str], taken: set[str]) -> list[str]:
    """Frequent pieces in merge order.

    A space joins only lower-case words, so that a name is the same tokens after a space and after a quotation mark;
    digits and single marks stay alone, so that sums and JSON are regular.
    """
    tk = Tokenizer(models.BPE())
    tk.normalizer = normalizers.Replace(" ", SPACE)
    tk.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{SPACE}?[a-z]+|{SPACE}?[=+*-]|[A-Z][a-z]*|[A-Z]+|[^A-Za-z0-9{SPACE}]+|[0-9]|{SPACE}"), "removed", invert=True)
    trainer = trainers.BpeTrainer(vocab_size=count + 2000, initial_alphabet=chars, limit_alphabet=len(chars), show_progress=False,
                                  max_token_length=14)
    tk.train_from_iterator(texts, trainer)
    learned: list[str] = []
    seen = taken | set(chars)
    for pair in json.loads(tk.to_str())["model"]["merges"]:
        piece = "".join(pair)
        if piece not in seen and not any(c.isdigit() for c in piece):
            learned.append(piece)
            seen.add(piece)
    return learned[:count]


def build(texts: list[str], vocab: int) -> dict:
    """The whole tokenizer.json as a dictionary."""
    fixed = fixed_pieces()
    tail = ["\t" * n for n in range(1, TABS + 1)]
    chars = [chr(c) for c in range(33, 127)] + [SPACE]
    learned = learn_pieces(texts, vocab - len(fixed) - len(tail) - len(chars), chars, set(fixed) | set(tail))
    pieces = fixed + learned + chars + tail
    if len(pieces) != vocab or len(set(pieces)) != vocab:
        raise ValueError(f"{len(pieces)} pieces instead of {vocab}: the corpus is too small for this vocabulary")
    ids = {p: i for i, p in enumerate(pieces)}
    added = list(range(FIRST_BYTE)) + list(range(vocab - TABS, vocab))
    special = {PAD, EOS, BOS, UNK, START, END}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    decoder = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
                                                {"type": "ByteFallback"}, {"type": "Fuse"}]}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": pieces[i], "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                          "special": i in special} for i in added],
        "normalizer": replace,
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                    {"SpecialToken": {"id": "<bos>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}}},
        "decoder": decoder,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": ids, "merges": _merges(learned, ids)},
    }


def _merges(learned: list[str], ids: dict[str, int]) -> list[list[str]]:
    """Whitespace runs first, longest first; then every two-way cut of every piece, longest left part first."""
    merges = [[ch * left, ch * (n - left)] for n in range(31, 1, -1) for left in range(n - 1, 0, -1) for ch in ("\n", SPACE, "\t")]
    for piece in learned:
        merges += [[piece[:cut], piece[cut:]] for cut in range(len(piece) - 1, 0, -1) if piece[:cut] in ids and piece[cut:] in ids]
    return merges


def render(messages: list[dict[str, str]], generate: bool = False) -> str:
    """The chat template, for text messages."""
    prefix = ""
    if messages[0]["role"] == "system":
        prefix, messages = messages[0]["content"] + "\n\n", messages[1:]
    text = "<bos>"
    for m in messages:
        role = "model" if m["role"] == "assistant" else m["role"]
        text += f"<start_of_turn>{role}\n{prefix}{m['content'].strip()}<end_of_turn>\n"
        prefix = ""
    return text + ("<start_of_turn>model\n" if generate else "")


class Chat:
    """Encodes dialogues, and marks the tokens that the model has to produce."""

    def __init__(self, path: str | Path):
        self.tk = Tokenizer.from_file(str(path))
        self.open_model = self.tk.encode("<start_of_turn>model\n", add_special_tokens=False).ids

    def encode(self, text: str) -> list[int]:
        return self.tk.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int]) -> str:
        return self.tk.decode(ids, skip_special_tokens=False)

    def dialogue(self, messages: list[dict[str, str]]) -> tuple[list[int], list[bool]]:
        """Ids, and for each id whether it belongs to a model turn (its <end_of_turn> included)."""
        ids = self.encode(render(messages))
        mine, own, n = [], False, len(self.open_model)
        for i, t in enumerate(ids):
            mine.append(own)
            if t == END:
                own = False
            elif ids[i - n + 1:i + 1] == self.open_model:
                own = True
        return ids, mine


def main() -> None:
    from world import corpus
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="tokenizer.json")
    p.add_argument("--vocab", type=int, default=2048)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--dialogues", type=int, default=30000, help="size of the corpus the pieces are learned from")
    a = p.parse_args()
    data = build(corpus(a.seed, a.dialogues), a.vocab)
    Path(a.out).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    print(f"{a.out}: {len(data['model']['vocab'])} pieces, {len(data['model']['merges'])} merges")


if __name__ == "__main__":
    main()
