"""Trains the demo model and all its nested paths at once (MatFormer style) on endless generated dialogues.

Even steps train the whole model, odd steps a smaller path: e2b, mix, or a random one. Resumes from its checkpoint.

    python train.py --out run --steps 6000
"""
from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path as File

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

import world
from model import Config, Gemma3n, Path, named_paths
from tokenizer import PAD, Chat

SHORT, LONG = (24, 128), (8, 384)     # rows x tokens of the two batch shapes; only two, as each is compiled
LONG_ONE_IN = 6


class Batches(Dataset):
    """Batch i is a function of (seed, i) alone, so a resumed run sees the same data."""

    def __init__(self, tokenizer: str, seed: int, first: int, last: int):
        self.tokenizer, self.seed, self.first, self.last = tokenizer, seed, first, last
        self.chat: Chat | None = None

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if self.chat is None:
            self.chat = Chat(self.tokenizer)
        step = self.first + i
        r = random.Random(self.seed * 1_000_003 + step)
        # Pairs of steps share a shape, so that the whole model and the small paths both see long dialogues.
        long = (step // 2) % LONG_ONE_IN == LONG_ONE_IN - 1
        return pack(self.chat, r, *(LONG if long else SHORT), long)


def pack(chat: Chat, r: random.Random, rows: int, width: int, long: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, doc, own): dialogues laid one after another, each in the first row with room for it."""
    ids = [[] for _ in range(rows)]
    doc = [[] for _ in range(rows)]
    own = [[] for _ in range(rows)]
    misses, n = 0, 0
    while misses < 8:
        tokens, mine = chat.dialogue(world.dialogue(r, long and r.random() < 0.7))
        tokens, mine, n = tokens[:width], mine[:width], n + 1
        row = next((k for k in range(rows) if len(ids[k]) + len(tokens) <= width), None)
        if row is None:
            misses += 1
            continue
        ids[row] += tokens
        doc[row] += [n] * len(tokens)
        own[row] += mine
    fill = [width - len(x) for x in ids]
    return (torch.tensor([x + [PAD] * k for x, k in zip(ids, fill)]), torch.tensor([x + [0] * k for x, k in zip(doc, fill)]),
            torch.tensor([x + [False] * k for x, k in zip(own, fill)]))


def pick_path(cfg: Config, r: random.Random, step: int) -> Path:
    paths = named_paths(cfg)
    if step % 2 == 0:
        return paths["e4b"]
    x = r.random()
    if x < 0.5:
        return paths["e2b"]
    if x < 0.8:
        return paths["mix"]
    widths = (cfg.ffn_e2b, (cfg.ffn + cfg.ffn_e2b) // 2, cfg.ffn)
    layers = paths["e4b"].layers if r.random() < 0.5 else paths["e2b"].layers
    return Path(layers, tuple(r.choice(widths) for _ in layers))


def loss_of(model: Gemma3n, ids: torch.Tensor, doc: torch.Tensor, own: torch.Tensor, path: Path) -> torch.Tensor:
    """Mean loss over the model's own turns; the head runs only where a target is."""
    h = model.hidden(ids, doc, path)[:, :-1]
    want = own[:, 1:]
    return F.cross_entropy(model.logits(h[want]), ids[:, 1:][want])


def optimizer(model: Gemma3n, decay: float) -> torch.optim.Optimizer:
    """Matrices decay, vectors do not; routers are large numbers (their input is norm / H) and need larger steps."""
    groups = {"matrix": [], "vector": [], "router": []}
    for name, p in model.named_parameters():
        kind = "router" if name.endswith("altup_router") else "vector" if p.ndim == 1 or "coef" in name else "matrix"
        groups[kind].append(p)
    return torch.optim.AdamW([
        {"params": groups["matrix"], "weight_decay": decay, "gain": 1.0},
        {"params": groups["vector"], "weight_decay": 0.0, "gain": 1.0},
        {"params": groups["router"], "weight_decay": 0.0, "gain": 5.0},
    ], lr=1.0, betas=(0.9, 0.98), eps=1e-9, fused=True)


def rate(step: int, steps: int, peak: float, decay: float, warmup: int = 100) -> float:
    """Warm up, stay, then fall linearly over the last `decay` part."""
    start = steps * (1 - decay)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak if step < start else peak * max(0.0, (steps - step) / (steps - start)) + 1e-5


def save(path: File, **state) -> None:
    tmp = path.with_suffix(".tmp")
    torch.save(state, tmp)
    os.replace(tmp, path)


def train(a: argparse.Namespace) -> None:
    out = File(a.out)
    out.mkdir(parents=True, exist_ok=True)
    cfg = Config()
    model = Gemma3n(cfg, a.seed)
    opt = optimizer(model, a.weight_decay)
    first, tokens, seconds = 0, 0, 0.0
    ckpt = out / "last.pt"
    if ckpt.exists():
        state = torch.load(ckpt)
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["opt"])
        first, tokens, seconds = state["step"], state["tokens"], state["seconds"]
    model.speed_up(compile=not a.eager, low=True)
    data = DataLoader(Batches(a.tokenizer, a.seed, first, a.steps), batch_size=None, num_workers=1, prefetch_factor=8)
    begin, seen = time.time(), {}
    for step, (ids, doc, own) in enumerate(data, first):
        path = pick_path(cfg, random.Random(a.seed * 7919 + step), step)
        for g in opt.param_groups:
            g["lr"] = g["gain"] * rate(step, a.steps, a.lr, a.decay)
        loss = loss_of(model, ids, doc, own, path)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        tokens += int((doc > 0).sum())
        seen.setdefault("e4b" if step % 2 == 0 else "small", []).append(loss.item())
        if (step + 1) % a.log == 0:
            line = {"step": step + 1, "tokens": tokens, "seconds": round(seconds + time.time() - begin)}
            line |= {k: round(sum(v) / len(v), 4) for k, v in seen.items()}
            print(json.dumps(line), flush=True)
            seen = {}
        if (step + 1) % a.save == 0 or step + 1 == a.steps:
            save(ckpt, model=model.state_dict(), opt=opt.state_dict(), step=step + 1, tokens=tokens,
                 seconds=seconds + time.time() - begin)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", default="run", help="folder of the checkpoint last.pt")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--steps", type=int, default=6000, help="total, resumed steps included")
    p.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    p.add_argument("--decay", type=float, default=0.4, help="last part of the steps in which the rate falls to zero")
    p.add_argument("--weight-decay", type=float, default=0.02)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--log", type=int, default=50)
    p.add_argument("--save", type=int, default=200)
    p.add_argument("--eager", action="store_true", help="no torch.compile (needs no C++ compiler, half the speed)")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    train(a)


if __name__ == "__main__":
    main()
