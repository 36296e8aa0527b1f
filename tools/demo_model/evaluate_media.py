"""How well the demo model sees and hears: held-out pictures and voices. Also makes the samples, and answers single questions.

    python evaluate_media.py score   --model demo.gguf               table in Markdown
    python evaluate_media.py samples --model demo.gguf --out samples the files of samples/ and samples/expected.json
    python evaluate_media.py ask     --model demo.gguf --image circle.png "What is this?"

Held out are six fonts, six voices, and every place, size, colour, pitch, pause and noise that is drawn anew. Clips are spoken
in one breath. An answer is exact as in evaluate.py. All numbers are taken with the values of the file, in float32.
"""
from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from pathlib import Path as File

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor

import pictures
import sounds
from export_gguf import load_media, load_text
from model import Gemma3n, Path, named_paths
from tokenizer import END, Chat
from towers import Media
from train_media import Prompts, merge, stack

PATHS = ("e4b", "mix", "e2b")


def see(m: Media, images: list[Image.Image]) -> list[Tensor]:
    pixels = np.stack([np.asarray(x.convert("RGB").resize((pictures.SIDE, pictures.SIDE), Image.Resampling.BILINEAR)) for x in images])
    with torch.no_grad():
        return list(m.see.soft(m.vision(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)))


def hear(m: Media, clip: np.ndarray) -> Tensor:
    """Rows of a clip, filled up as in a prompt."""
    with torch.no_grad():
        x = m.hear.soft(m.audio(torch.from_numpy(sounds.features(clip))[None]))[0]
        return torch.cat([x, m.hear.hard(-1).expand(max(0, m.cfg.audio_rows - len(x)), -1)])


def leads(text: Gemma3n, cases: list[tuple[list[int], list[bool], int]], rows: list[Tensor], end: Tensor, path: Path) -> list[float]:
    """Of each case the smallest lead of the right token over the best other one; below 0: the answer is another."""
    ids, own, places = stack(cases, max(len(c[0]) for c in cases))
    with torch.no_grad():
        h = text.hidden(ids, torch.zeros_like(ids), path, merge(text, ids, places, rows, end))[:, :-1]
        want = own[:, 1:]
        logits, target = text.logits(h[want]), ids[:, 1:][want]
    right = logits.gather(1, target[:, None])[:, 0]
    other = logits.scatter(1, target[:, None], -1e9).max(-1).values
    return [float(x.min()) for x in (right - other).split(want.sum(1).tolist())]


class Judge:
    def __init__(self, model: str, tokenizer: str):
        self.text, self.media = load_text(model), load_media(model)
        self.prompts = Prompts(Chat(tokenizer), self.media.cfg)
        self.paths = {n: named_paths(self.text.cfg)[n] for n in PATHS}

    def leads(self, rows: list[Tensor], asked: list[sounds.Question], heard: bool) -> dict[str, list[float]]:
        with torch.no_grad():
            end = (self.media.hear if heard else self.media.see).hard(0)
        cases = [self.prompts.around(q.text if q.before else "", len(x), "" if q.before else q.text, q.answer) for x, q in zip(rows, asked)]
        out = {}
        for name, path in self.paths.items():
            out[name] = [v for i in range(0, len(cases), 32) for v in leads(self.text, cases[i:i + 32], rows[i:i + 32], end, path)]
        return out

    def answer(self, rows: Tensor, q: sounds.Question, heard: bool, path: str) -> str:
        """By greedy decoding."""
        chat, said = self.prompts.chat, []
        with torch.no_grad():
            end = (self.media.hear if heard else self.media.see).hard(0)
            while len(said) < 80:
                ids, _, at = self.prompts.around(q.text if q.before else "", len(rows), "" if q.before else q.text, "")
                t = torch.tensor([ids[:-1] + said])
                h = self.text.hidden(t, torch.zeros_like(t), self.paths[path], merge(self.text, t, [at], [rows], end))
                said.append(int(self.text.logits(h[0, -1]).argmax()))
                if said[-1] == END:
                    break
        return chat.decode(said[:-1] if said[-1] == END else said)


def picture_cases(r: random.Random, count: int) -> tuple[list[Image.Image], list[tuple[int, str, sounds.Question]]]:
    """Pictures, and (which picture, task, question)."""
    whats = [pictures.draw_what(r) for _ in range(count)]
    images = [pictures.render(w, r, test=True) for w in whats]
    cases = []
    for i, w in enumerate(whats):
        for q, a in pictures.questions(w)[1 if r.random() < 0.5 else 0:]:
            task = "digits" if w.shape == "digit" else "shapes"
            if q not in ("What is this?", "What do you see?"):
                task += ": " + q
            cases.append((i, task, sounds.Question(q, a)))
    return images, cases


def test_clip(r: random.Random, s: sounds.Saying) -> np.ndarray:
    x = np.pad(sounds.whole(s, sounds.draw_voice(r, test=True)), (r.randint(800, 8000), r.randint(3200, 8000)))
    return sounds.dirty(r, x, len(x))


def sound_cases(r: random.Random, count: int) -> tuple[list[np.ndarray], list[tuple[int, str, sounds.Question]]]:
    sayings = [sounds.draw_saying(r) for _ in range(count)]
    cases = []
    for i, s in enumerate(sayings):
        asked = sounds.questions(s)
        kind = {"digits": "2 to 4 digits", "sum": "a sum", "pair": "two words"}.get(s.kind, "one word")
        cases.append((i, "words: " + kind, asked[r.randrange(2)]))
        for q in asked[3:]:
            cases.append((i, "speech: " + q.text, q))
    return [test_clip(r, s) for s in sayings], cases


def score(judge: Judge, seed: int, count: int) -> str:
    lines = ["| held-out | questions | " + " | ".join(PATHS) + " |", "| --- | ---: |" + " ---: |" * len(PATHS)]
    for heard in (False, True):
        r = random.Random(f"media {seed}")
        items, cases = sound_cases(r, count) if heard else picture_cases(r, count)
        rows = [hear(judge.media, x) for x in items] if heard else see(judge.media, items)
        got = judge.leads([rows[i] for i, _, _ in cases], [q for _, _, q in cases], heard)
        tasks: dict[str, list[int]] = defaultdict(list)
        for k, (_, task, _) in enumerate(cases):
            tasks[task].append(k)
        for task in sorted(tasks):
            cells = [f"{100 * np.mean([got[n][k] > 0 for k in tasks[task]]):.1f} %" for n in PATHS]
            lines.append(f"| {task} | {len(tasks[task])} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ---- samples -------------------------------------------------------------------------------------------------------

PICTURES = {"red-circle.png": pictures.Picture("circle", "red", 1), "blue-stars.jpg": pictures.Picture("star", "blue", 3),
            "green-triangles.png": pictures.Picture("triangle", "green", 2), "seven.png": pictures.Picture("digit", "black", 7)}
CLIPS = {"seven.wav": sounds.Saying("digit", ("seven",)), "three-plus-four.flac": sounds.Saying("sum", ("three", "plus", "four")),
         "france.ogg": sounds.Saying("country", ("France",)), "red-cat.wav": sounds.Saying("pair", ("red", "cat"))}
RENDERED = 192      # side of the pictures in samples


def sample_picture(p: pictures.Picture, r: random.Random, path: File) -> Image.Image:
    image = pictures.render(p, r, test=True, side=RENDERED)
    image.save(path, **({"quality": 88} if path.suffix == ".jpg" else {}))
    return Image.open(path)


def sample_clip(s: sounds.Saying, r: random.Random, path: File) -> np.ndarray:
    x = np.pad(sounds.whole(s, sounds.draw_voice(r, test=True)), (2400, 4800))
    soundfile.write(path, 0.6 * x / np.abs(x).max(), sounds.RATE)
    return read_clip(path)


def read_clip(path: File) -> np.ndarray:
    x, rate = soundfile.read(path, dtype="float32", always_2d=True)
    if rate != sounds.RATE:
        raise SystemExit(f"{path}: {rate} Hz; only {sounds.RATE} Hz is read here")
    return x.mean(1)


def samples(judge: Judge, folder: File, seed: int, margin: float) -> list[dict]:
    """Makes each file anew until its first question is answered rightly on every path, each token by a lead of `margin`.

    Returns the questions that are answered so.
    """
    folder.mkdir(exist_ok=True)
    expected = []
    for name, what in (PICTURES | CLIPS).items():
        heard = name in CLIPS
        asked = sounds.questions(what) if heard else [sounds.Question(*qa) for qa in pictures.questions(what)]
        for attempt in range(20):
            r = random.Random(f"{seed} {name} {attempt}")
            made = (sample_clip if heard else sample_picture)(what, r, folder / name)
            rows = hear(judge.media, made) if heard else see(judge.media, [made])[0]
            got = judge.leads([rows] * len(asked), asked, heard)
            sure = [k for k in range(len(asked)) if all(got[n][k] > margin for n in PATHS)]
            if 0 in sure:
                break
        else:
            raise SystemExit(f"{name}: no attempt is answered rightly")
        for k in sure:
            kind = "audio" if heard else "image"
            expected.append({kind: name, "before": asked[k].before, "question": asked[k].text, "answer": asked[k].answer})
    return expected


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("command", choices=("score", "samples", "ask"))
    p.add_argument("questions", nargs="*", help="questions for ask")
    p.add_argument("--model", default="demo.gguf")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="samples", help="folder (samples)")
    p.add_argument("--image", help="file (ask)")
    p.add_argument("--audio", help="file of 16 kHz (ask)")
    p.add_argument("--before", action="store_true", help="the question stands before the sound (ask)")
    p.add_argument("--count", type=int, default=300, help="pictures and clips (score)")
    p.add_argument("--margin", type=float, default=0.5, help="least lead of the right token (samples)")
    p.add_argument("--seed", type=int, default=20)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_intermixed_args()
    torch.set_num_threads(a.threads)
    judge = Judge(a.model, a.tokenizer)
    if a.command == "score":
        print(score(judge, a.seed, a.count))
    elif a.command == "samples":
        cases = samples(judge, File(a.out), a.seed, a.margin)
        (File(a.out) / "expected.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n", encoding="utf-8")
        print(f"{a.out}: {len(cases)} questions")
    else:
        rows = hear(judge.media, read_clip(File(a.audio))) if a.audio else see(judge.media, [Image.open(a.image)])[0]
        for q in a.questions:
            for name in PATHS:
                print(f"{name}: {q} -> {judge.answer(rows, sounds.Question(q, '', a.before), bool(a.audio), name)}")


if __name__ == "__main__":
    main()
