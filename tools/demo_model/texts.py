"""Writes the two texts that the quality of quantised demo models is measured with.

    python texts.py

heldout.txt       dialogues whose questions never occurred in training: for `pleiad eval`
calibration.txt   dialogues as in training: for `pleiad imatrix` and `pleiad sensitivity`
"""
from __future__ import annotations

import random
from pathlib import Path

import world
from tokenizer import render

HERE = Path(__file__).parent
BYTES = 48_000
TASKS = ["capital", "capital_of", "continent", "add", "subtract", "several", "multiply", "compare", "word_problem",
         "numbers", "define", "plural", "unit", "calendar", "spelling", "json"]


def heldout(r: random.Random) -> str:
    return render(world.test_dialogue(r, r.choice(TASKS)))


def calibration(r: random.Random) -> str:
    return render(world.dialogue(r))


def main() -> None:
    for name, one, seed in (("heldout.txt", heldout, 20261121), ("calibration.txt", calibration, 20261122)):
        r, text = random.Random(seed), ""
        while len(text) < BYTES:
            text += one(r)
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
