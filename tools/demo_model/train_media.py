"""Trains the towers of the demo model against its text model, whose weights stay as they are in demo.gguf.

    python train_media.py see    --out run     rows that the text model understands as pictures: an embedder alone, fed with codes
    python train_media.py hear   --out run     the same for speech
    python train_media.py vision --out run     the image tower learns the codes of what is seen
    python train_media.py audio  --out run     the audio tower learns the codes of what is said, word by word
    python train_media.py seeing --out run     image tower, embedder and text model together: only the answer counts
    python train_media.py hearing --out run    the same for speech

A code is a vector of a tower's width, one of a set of orthonormal ones: for each number, colour, shape, digit and place in
the grid; for each word and for no word. So the first four steps do not depend on each other.
"""
from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path as File

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

import pictures
import sounds
from export_gguf import load_text
from model import Gemma3n, named_paths
from tokenizer import PAD, Chat
from towers import Media, MediaConfig

IMAGES, CLIPS = (24, 72), (16, 96)      # rows x tokens of the batches that go through the text model
VOICES = 160
PLACE = 0.5                             # length of the code of a place in the grid, beside 1 of what is there
LATEST_MS = 60                          # a word stands in the first row that sees so much behind its end


def orthonormal(n: int, width: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=g))[0][:n]


class Codes:
    """What the towers are to say, before the embedders."""

    def __init__(self, c: MediaConfig):
        self.cells = c.grid * c.grid
        self.seen = ([("number", n) for n in pictures.COUNTS] + [("colour", k) for k in pictures.COLOURS]
                     + [("shape", s) for s in pictures.SHAPES] + [("digit", d) for d in range(10)])
        self.heard = ["", *sounds.WORDS]
        n = len(self.seen)
        self.sight_book = orthonormal(n + 2 * self.cells + 1, c.vision_hidden, 11)      # the last stands behind pictures
        self.sight, self.place = self.sight_book[:n], self.sight_book[n:-1].view(2, self.cells, -1)
        self.word_book = orthonormal(len(self.heard) + 2, c.audio_hidden, 12)           # the last two stand behind and fill up
        self.word = self.word_book[:-2]

    def cells_of(self, p: pictures.Picture) -> tuple[int, list[int]]:
        """Kind of picture, and what each cell says: the number in the first row, the colour in the second, then the shape."""
        if p.shape == "digit":
            return 1, [self.seen.index(("digit", p.number))] * self.cells
        lines = [("number", p.number), ("colour", p.colour), ("shape", p.shape), ("shape", p.shape)]
        return 0, [self.seen.index(k) for k in lines for _ in range(self.cells // 4)]

    def picture(self, p: pictures.Picture, sight: Tensor | None = None) -> Tensor:
        """Rows of a picture as codes, or as what stands for them in `sight`, which is as long as the book."""
        book = self.sight_book if sight is None else sight
        kind, cells = self.cells_of(p)
        at = len(self.seen) + kind * self.cells
        return book[cells] + PLACE * book[at:at + self.cells]

    def words(self, said: list[str]) -> list[int]:
        return [self.heard.index(w) for w in said]


def word_rows(ends: list[int], words: tuple[str, ...], samples: int) -> list[str]:
    """Per row of a clip the word that ends there, or ""."""
    frames = len(range(0, max(0, samples + (-samples % 128) - sounds.FRAME), sounds.HOP))
    rows = [""] * -(-frames // 16)
    for end, word in zip(ends, words):
        k = max(0, -(-(end * 1000 // sounds.RATE - LATEST_MS) // 160))
        rows[min(k, len(rows) - 1)] = word
    return rows


# ---- prompts -------------------------------------------------------------------------------------------------------

class Prompts:
    """Dialogues about media as tensors; media rows have the id PAD, whose embedding is put in their place."""

    def __init__(self, chat: Chat, c: MediaConfig):
        self.chat, self.cfg = chat, c

    def around(self, before: str, rows: int, after: str, answer: str) -> tuple[list[int], list[bool], int]:
        """Ids, which of them are the model's, and where the rows begin."""
        enc = self.chat.encode
        head = enc("<bos><start_of_turn>user\n" + (before + "\n\n" if before else "\n\n"))
        tail = enc("\n\n" + after + "<end_of_turn>\n<start_of_turn>model\n")
        said = enc(answer + "<end_of_turn>")
        ids = head + [PAD] * (rows + 2) + tail + said
        return ids, [False] * (len(ids) - len(said)) + [True] * len(said), len(head) + 1

    def more(self, question: str, answer: str) -> tuple[list[int], list[bool]]:
        """Another turn."""
        asked = self.chat.encode(f"\n<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n")
        said = self.chat.encode(answer + "<end_of_turn>")
        return asked + said, [False] * len(asked) + [True] * len(said)


def picture_prompt(p: Prompts, r: random.Random, what: pictures.Picture) -> tuple[list[int], list[bool], int]:
    asked = pictures.questions(what)
    q, a = r.choice(asked)
    first = r.random() < 0.2                      # the question before the picture
    ids, own, at = p.around(q if first else "", p.cfg.grid ** 2, "" if first else q, a)
    if r.random() < 0.3:
        more = p.more(*r.choice(asked))
        ids, own = ids + more[0], own + more[1]
    return ids, own, at


def sound_prompt(p: Prompts, r: random.Random, what: sounds.Saying, rows: int) -> tuple[list[int], list[bool], int]:
    asked = sounds.questions(what)
    q = r.choice(asked[3:] if len(asked) > 3 and r.random() < 0.25 else asked)
    return p.around(q.text if q.before else "", rows, "" if q.before else q.text, q.answer)


def stack(parts: list[tuple[list[int], list[bool], int]], width: int) -> tuple[Tensor, Tensor, list[int]]:
    ids = torch.zeros(len(parts), width, dtype=torch.long)
    own = torch.zeros(len(parts), width, dtype=torch.bool)
    for i, (x, o, _) in enumerate(parts):
        ids[i, :len(x)], own[i, :len(x)] = torch.tensor(x)[:width], torch.tensor(o)[:width]
    return ids, own, [at for _, _, at in parts]


def merge(text: Gemma3n, ids: Tensor, places: list[int], rows: list[Tensor], end: Tensor) -> Tensor:
    """Embeddings of prompts with the media's rows, and the row behind them, in place."""
    e = text.embed(ids).clone()
    for i, (at, x) in enumerate(zip(places, rows)):
        e[i, at:at + len(x)], e[i, at + len(x)] = x, end
    return e


def answer_loss(text: Gemma3n, ids: Tensor, own: Tensor, e: Tensor, step: int) -> tuple[Tensor, float]:
    """Mean loss of the answers on one of the paths in turn, and the part of exact ones."""
    path = list(named_paths(text.cfg).values())[step % 3]
    h = text.hidden(ids, torch.zeros_like(ids), path, e)[:, :-1]
    want = own[:, 1:]
    logits, target = text.logits(h[want]), ids[:, 1:][want]
    right = (logits.argmax(-1) == target).split(want.sum(1).tolist())
    return F.cross_entropy(logits, target), sum(bool(x.all()) for x in right) / len(right)


# ---- batches -------------------------------------------------------------------------------------------------------

class Draws(IterableDataset):
    """Endless pictures or clips with what they show or say, made in another process."""

    def __init__(self, kind: str, seed: int, count: int, joined: float):
        self.kind, self.seed, self.count, self.joined = kind, seed, count, joined

    def __iter__(self):
        r = random.Random(self.seed)
        voices = [sounds.draw_voice(random.Random(i)) for i in range(VOICES)]
        while True:
            yield self.pictures(r) if self.kind == "vision" else self.clips(r, voices)

    def pictures(self, r: random.Random):
        whats = [pictures.draw_what(r) for _ in range(self.count)]
        pixels = np.stack([np.asarray(pictures.render(w, r)) for w in whats])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, whats

    def clips(self, r: random.Random, voices: list[sounds.Voice]):
        """Clips of one length; rows of words only where they were put together word by word."""
        limit = int(sounds.RATE * r.choice((1.1, 1.6, 2.2, 2.8, 3.4)) * r.uniform(0.9, 1.1))
        mels, whats, rows = [], [], []
        while len(mels) < self.count:
            s, v = sounds.draw_saying(r), r.choice(voices)
            if r.random() < self.joined:
                x, ends = np.pad(sounds.whole(s, v), (r.randint(0, 4800), r.randint(800, 4800))), []
            else:
                x, ends = sounds.compose(r, s, v)
            if len(x) > limit:
                continue
            shift = r.randint(0, min(limit - len(x), 8000))
            x = np.pad(x, (shift, 0))
            mels.append(sounds.features(sounds.dirty(r, x, limit)))
            whats.append(s)
            rows.append(word_rows([e + shift for e in ends], s.words, limit) if ends else None)
        return torch.from_numpy(np.stack(mels)), whats, rows


def batches(kind: str, seed: int, count: int, joined: float = 0.0):
    return iter(DataLoader(Draws(kind, seed, count, joined), batch_size=None, num_workers=1, prefetch_factor=6))


# ---- steps ---------------------------------------------------------------------------------------------------------

def unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Table(nn.Module):
    """For each code the row of the text model that it shall become."""

    def __init__(self, codes: Codes, text: Gemma3n, chat: Chat):
        """Each begins as the last piece of its word."""
        super().__init__()

        def row(word: str) -> Tensor:
            return unit(text.embed(torch.tensor(chat.encode(word)))[-1])
        sight = 0.6 * torch.randn(len(codes.sight_book), text.cfg.hidden)
        sight[:len(codes.seen)] = torch.stack([row(str(v) if k in ("number", "digit") else f" {v}") for k, v in codes.seen])
        shown = {w: str(i) for i, w in enumerate(sounds.DIGITS)} | {"plus": " +", "minus": " -"}
        word = torch.randn(len(codes.word_book), text.cfg.hidden)
        word[1:1 + len(sounds.WORDS)] = torch.stack([row(shown.get(w, f" {w}")) for w in sounds.WORDS])
        self.sight, self.word = nn.Parameter(sight), nn.Parameter(word)

    def from_media(self, m: Media, codes: Codes) -> None:
        """What the embedders say now."""
        with torch.no_grad():
            self.sight.copy_((m.see.input_projection @ codes.sight_book.T).T)
            self.word.copy_((m.hear.input_projection @ codes.word_book.T).T)

    def into(self, m: Media, codes: Codes) -> None:
        """As weights of the embedders: projections from codes to rows, and the rows behind media as ids of their own."""
        with torch.no_grad():
            m.see.input_projection.copy_(self.sight.T @ codes.sight_book)
            m.hear.input_projection.copy_(self.word.T @ codes.word_book)
            m.see.embedding[0] = codes.sight_book[-1] * m.cfg.vision_hidden ** 0.5
            m.hear.embedding[0], m.hear.embedding[-1] = codes.word_book[-2:] * m.cfg.audio_hidden ** 0.5


def noisy(x: Tensor, part: float) -> Tensor:
    return unit(unit(x) + part * torch.randn_like(x))


def said_rows(codes: Codes, table: Table, r: random.Random, s: sounds.Saying) -> Tensor:
    """Rows of a clip: each word in one row, sometimes in two, and rows of no word between."""
    said = [""] * r.randint(1, 5)
    for word in s.words:
        said += [word] * (2 if r.random() < 0.1 else 1) + [""] * r.choices((0, 1, 2, 3, 4), (1, 3, 4, 3, 1))[0]
    return noisy(table.word[codes.words(said)], 0.2)


def padded(r: random.Random, x: Tensor, filler: Tensor, rows: int) -> Tensor:
    """A clip's rows with those that fill it up; live sound comes without."""
    return x if r.random() < 0.3 else torch.cat([x, filler.expand(rows - len(x), -1)])


def teach_loss(table: Table, codes: Codes, text: Gemma3n, p: Prompts, r: random.Random, kind: str,
               step: int) -> tuple[Tensor, float]:
    if kind == "see":
        whats = [pictures.draw_what(r) for _ in range(IMAGES[0])]
        ids, own, places = stack([picture_prompt(p, r, w) for w in whats], IMAGES[1])
        rows = [noisy(codes.picture(w, table.sight), 0.2) for w in whats]
        return answer_loss(text, ids, own, merge(text, ids, places, rows, unit(table.sight[-1])), step)
    whats = [sounds.draw_saying(r) for _ in range(CLIPS[0])]
    end, filler = unit(table.word[-2:])
    rows = [padded(r, said_rows(codes, table, r, w), filler, p.cfg.audio_rows) for w in whats]
    ids, own, places = stack([sound_prompt(p, r, w, len(x)) for w, x in zip(whats, rows)], CLIPS[1])
    return answer_loss(text, ids, own, merge(text, ids, places, rows, end), step)


def code_loss(y: Tensor, book: Tensor, right: Tensor, target: Tensor, near: float, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Which code, and `near` times how far from it; and what was chosen. y: rows of a tower; right: the code's number of each.

    The first leads there sooner, but wants less than nothing of all other codes; the second wants the code itself.
    """
    y = F.normalize(y, dim=-1)
    logits = 12 * y @ book.T
    far = (1 - (y * F.normalize(target, dim=-1)).sum(-1)).mean()
    return F.cross_entropy(logits, right, weight=weight) + near * far, logits.argmax(-1)


class Helper(nn.Module):
    """Says from the mean over all cells what is seen; only there to bring the image tower on its way."""

    def __init__(self, c: MediaConfig):
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(c.vision_hidden, n) for n in (5, len(pictures.COLOURS), len(pictures.SHAPES) + 10))

    def loss(self, y: Tensor, whats: list[pictures.Picture]) -> Tensor:
        def said(p: pictures.Picture) -> tuple[int, int, int]:
            digit = p.shape == "digit"
            return (0 if digit else p.number, list(pictures.COLOURS).index(p.colour),
                    len(pictures.SHAPES) + p.number if digit else pictures.SHAPES.index(p.shape))
        right = torch.tensor([said(p) for p in whats])
        mean = F.normalize(y, dim=-1).mean(1) * y.shape[-1] ** 0.5
        return sum(F.cross_entropy(part(mean), right[:, i]) for i, part in enumerate(self.parts))


def vision_loss(tower, helper: Helper, codes: Codes, pixels: Tensor, whats: list, near: float) -> tuple[Tensor, float]:
    y = tower(pixels)
    right = torch.tensor([codes.cells_of(w)[1] for w in whats])
    target = torch.stack([codes.picture(w) for w in whats])
    loss, got = code_loss(y.flatten(0, 1), codes.sight, right.flatten(), target.flatten(0, 1), near)
    return loss + helper.loss(y, whats), (got.view_as(right) == right).all(1).float().mean().item()


def audio_loss(tower, codes: Codes, mel: Tensor, rows: list, near: float) -> tuple[Tensor, float]:
    """Over the clips whose words' places are known."""
    known = [i for i, x in enumerate(rows) if x is not None]
    right = torch.tensor([codes.words(rows[i]) for i in known])
    y = tower(mel[known])
    weight = torch.ones(len(codes.heard))
    weight[0] = 0.3
    loss, got = code_loss(y.flatten(0, 1), codes.word, right.flatten(), codes.word[right].flatten(0, 1), near, weight)
    return loss, (got.view_as(right) == right).all(1).float().mean().item()


def whole_loss(m: Media, text: Gemma3n, p: Prompts, r: random.Random, kind: str, batch: tuple, step: int) -> tuple[Tensor, float]:
    if kind == "vision":
        pixels, whats = batch
        rows, end, width = list(m.see.soft(m.vision(pixels))), m.see.hard(0), IMAGES[1]
        parts = [picture_prompt(p, r, w) for w in whats]
    else:
        mel, whats, _ = batch
        rows, end, width = [padded(r, x, m.hear.hard(-1), m.cfg.audio_rows) for x in m.hear.soft(m.audio(mel))], m.hear.hard(0), CLIPS[1]
        parts = [sound_prompt(p, r, w, len(x)) for w, x in zip(whats, rows)]
    ids, own, places = stack(parts, width)
    return answer_loss(text, ids, own, merge(text, ids, places, rows, end), step)


# ---- training ------------------------------------------------------------------------------------------------------

class Run:
    """A checkpoint of both towers, optimiser and log of one step of the training."""

    def __init__(self, a: argparse.Namespace, parts: list[str], lr: float, more=()):
        self.out, self.a, self.lr = File(a.out), a, lr
        self.out.mkdir(parents=True, exist_ok=True)
        self.media, self.parts = Media(MediaConfig(), a.seed), parts
        load_parts(self.media, self.out)
        self.params = [w for part in parts for w in getattr(self.media, part).parameters()] + list(more)
        quick = [w for part in parts if part in ("see", "hear") for w in getattr(self.media, part).parameters()]     # few, and large
        rest = [w for w in self.params if not any(w is q for q in quick)]
        self.opt = torch.optim.AdamW([{"params": [w for w in rest if w.ndim > 1], "weight_decay": 0.01, "gain": 1.0},
                                      {"params": [w for w in rest if w.ndim <= 1], "weight_decay": 0.0, "gain": 1.0},
                                      {"params": quick, "weight_decay": 0.0, "gain": 10.0}], lr=lr, betas=(0.9, 0.98))
        self.begin, self.seen = time.time(), {}

    def step(self, i: int, name: str, loss: Tensor, exact: float) -> None:
        """Warm up, stay, and fall to zero in the last 40 %."""
        rate = self.lr * min(1.0, (i + 1) / 30, 2.5 * (1 - i / self.a.steps))
        for g in self.opt.param_groups:
            g["lr"] = rate * g["gain"]
        loss.backward()
        nn.utils.clip_grad_norm_(self.params, 1.0)
        self.opt.step()
        self.opt.zero_grad(set_to_none=True)
        self.seen.setdefault(name, []).append((loss.item(), exact))
        if (i + 1) % self.a.log == 0:
            line = {k: [round(float(np.mean(x)), 4) for x in zip(*v)] for k, v in self.seen.items()}
            print(json.dumps({"step": i + 1, "seconds": round(time.time() - self.begin)} | line), flush=True)
            self.seen = {}
        if (i + 1) % 100 == 0 or i + 1 == self.a.steps:
            self.save()

    def save(self) -> None:
        for part in self.parts:
            torch.save(getattr(self.media, part).state_dict(), self.out / f"{part}.pt")


def load_parts(m: Media, folder: File) -> None:
    for part in ("vision", "audio", "see", "hear"):
        if (folder / f"{part}.pt").exists():
            getattr(m, part).load_state_dict(torch.load(folder / f"{part}.pt"))


def frozen_text(a: argparse.Namespace) -> Gemma3n:
    text = load_text(a.text)
    text.requires_grad_(False)
    text.speed_up(compile=not a.eager, low=True)
    return text


def teach(a: argparse.Namespace) -> None:
    text, chat, r, c = frozen_text(a), Chat(a.tokenizer), random.Random(a.seed), MediaConfig()
    codes, p = Codes(c), Prompts(chat, c)
    table = Table(codes, text, chat)
    kind = a.command
    run = Run(a, [kind], a.lr or 3e-2, [table.sight if kind == "see" else table.word])
    if (run.out / f"{kind}.pt").exists():
        table.from_media(run.media, codes)
    for i in range(a.steps):
        run.step(i, kind, *teach_loss(table, codes, text, p, r, kind, i))
        table.into(run.media, codes)
    run.save()


def vision(a: argparse.Namespace) -> None:
    helper = Helper(MediaConfig())
    run = Run(a, ["vision"], a.lr or 1e-3, helper.parameters())
    codes, m, data = Codes(run.media.cfg), run.media, batches("vision", a.seed, a.batch)
    m.vision.to(memory_format=torch.channels_last)
    for i in range(a.steps):
        run.step(i, "vision", *vision_loss(m.vision, helper, codes, *next(data), a.near))


def audio(a: argparse.Namespace) -> None:
    run = Run(a, ["audio"], a.lr or 1e-3)
    codes, data = Codes(run.media.cfg), batches("audio", a.seed, a.batch)
    for i in range(a.steps):
        mel, _, rows = next(data)
        run.step(i, "audio", *audio_loss(run.media.audio, codes, mel, rows, a.near))


def whole(a: argparse.Namespace) -> None:
    kind, embedder, rows, joined = ("vision", "see", IMAGES[0], 0.0) if a.command == "seeing" else ("audio", "hear", CLIPS[0], 0.5)
    text, run, r = frozen_text(a), Run(a, [kind, embedder], a.lr or 4e-4), random.Random(a.seed)
    p, data = Prompts(Chat(a.tokenizer), run.media.cfg), batches(kind, a.seed, rows, joined)
    for i in range(a.steps):
        run.step(i, a.command, *whole_loss(run.media, text, p, r, kind, next(data), i))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("command", choices=("see", "hear", "vision", "audio", "seeing", "hearing"))
    p.add_argument("--out", default="run", help="folder of the checkpoints vision.pt, audio.pt, see.pt, hear.pt")
    p.add_argument("--text", default="demo.gguf", help="the text model")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--steps", type=int, default=600)
    p.add_argument("--batch", type=int, default=32, help="pictures or clips a step (vision, audio)")
    p.add_argument("--near", type=float, default=1.0, help="weight of being near the code, beside which one it is (vision, audio)")
    p.add_argument("--lr", type=float, default=0, help="peak learning rate; 0: one that suits the command")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--log", type=int, default=20)
    p.add_argument("--eager", action="store_true", help="no torch.compile")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    {"see": teach, "hear": teach, "vision": vision, "audio": audio, "seeing": whole, "hearing": whole}[a.command](a)


if __name__ == "__main__":
    main()
