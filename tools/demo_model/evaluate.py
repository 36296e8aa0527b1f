"""Held-out loss and exact answers per path; also writes expected.json and answers single questions.

    python evaluate.py score    --checkpoint run/last.pt           tables in Markdown
    python evaluate.py expected --checkpoint run/last.pt --out expected.json
    python evaluate.py ask      --checkpoint run/last.pt --path e2b "What is the capital of France?"

An answer is exact when the greedy choice is right at every token of it. That needs one pass over question and answer:
as long as every choice is right, greedy decoding sees just these tokens.
All numbers are taken with the Q8_0 values of the file, in float32.
"""
from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path as File

import torch
import torch.nn.functional as F

import world
from export_gguf import as_stored, load
from model import Gemma3n, Path, greedy, named_paths
from tokenizer import END, EOS, Chat, render

MODES = {"one_word": "capital", "capitals": "capital"}     # system messages, scored on these tasks
FRANCE = [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "The capital of France is Paris."}]


@dataclass
class Score:
    """What one path makes of one dialogue's last answer."""
    loss: float          # summed over the answer
    tokens: int
    exact: bool
    margin: float        # smallest lead of the best token over the second best


def score(model: Gemma3n, chat: Chat, dialogues: list[list[dict[str, str]]], path: Path, batch: int = 64) -> list[Score]:
    order = sorted(range(len(dialogues)), key=lambda i: len(str(dialogues[i])))
    out: list[Score | None] = [None] * len(dialogues)
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        for i, s in zip(part, _score_batch(model, chat, [dialogues[i] for i in part], path)):
            out[i] = s
    return out


def _score_batch(model: Gemma3n, chat: Chat, dialogues: list, path: Path) -> list[Score]:
    rows = [chat.dialogue(d) for d in dialogues]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([r + [0] * (width - len(r)) for r, _ in rows])
    own = torch.tensor([o + [False] * (width - len(o)) for _, o in rows])
    with torch.no_grad():
        h = model.hidden(ids, torch.zeros_like(ids), path)
        want = own[:, 1:]
        logits = model.logits(h[:, :-1][want])
    target = ids[:, 1:][want]
    loss = F.cross_entropy(logits, target, reduction="none")
    best = logits.topk(2, dim=-1)
    right = best.indices[:, 0] == target
    lead = best.values[:, 0] - best.values[:, 1]
    sizes = want.sum(1).tolist()
    return [Score(float(l.sum()), len(l), bool(r.all()), float(m.min()))
            for l, r, m in zip(loss.split(sizes), right.split(sizes), lead.split(sizes))]


def held_out_set(seed: int, count: int) -> dict[str, list[list[dict[str, str]]]]:
    """Distinct held-out questions per task and per system message."""
    sets = {}
    for task in [t for t in world.TASKS if t not in world.ALWAYS_TAUGHT] + list(MODES):
        r = random.Random(f"{seed} {task}")
        mode = task if task in MODES else "plain"
        found = {}
        for _ in range(count * 3):
            d = world.test_dialogue(r, MODES.get(task, task), mode)
            found[d[-2]["content"]] = d
            if len(found) == count:
                break
        sets[task] = list(found.values())
    return sets


def score_table(model: Gemma3n, chat: Chat, seed: int, count: int) -> str:
    sets, paths = held_out_set(seed, count), named_paths(model.cfg)
    got = {(task, name): score(model, chat, ds, p) for task, ds in sets.items() for name, p in paths.items()}
    lines = ["| held-out | questions | " + " | ".join(paths) + " |", "| --- | ---: |" + " ---: |" * len(paths)]

    def row(title: str, n: int, cells: list[str]) -> None:
        lines.append(f"| {title} | {n} | " + " | ".join(cells) + " |")

    every = {name: [s for task in sets for s in got[task, name]] for name in paths}
    tokens = sum(s.tokens for s in every["e4b"])
    row(f"loss per token ({tokens} tokens)", len(every["e4b"]), [f"{sum(s.loss for s in v) / tokens:.4f}" for v in every.values()])
    row("exact answers, all", len(every["e4b"]), [f"{100 * sum(s.exact for s in v) / len(v):.1f} %" for v in every.values()])
    for task, ds in sets.items():
        title = f"system message: {task}" if task in MODES else task
        row(title, len(ds), [f"{100 * sum(s.exact for s in got[task, n]) / len(ds):.1f} %" for n in paths])
    lines.append("")
    for a, b in (("e4b", "mix"), ("mix", "e2b")):
        gap = torch.tensor([y.loss - x.loss for x, y in zip(every[a], every[b])])
        mean, err = float(gap.sum()) / tokens, float(gap.std()) * len(gap) ** 0.5 / tokens
        lines.append(f"Loss of {b} minus loss of {a}, paired by question: {mean:.4f} ± {err:.4f} (standard error).")
    return "\n".join(lines)


def expected(model: Gemma3n, chat: Chat, seed: int, per_path: int, margin: float) -> list[dict]:
    """Held-out questions that a path answers exactly and without hesitation, spread over the tasks."""
    sets, out = held_out_set(seed, 40), []
    for name, path in named_paths(model.cfg).items():
        good = {}
        for task, ds in sets.items():
            good[task] = [d for d, s in zip(ds, score(model, chat, ds, path)) if s.exact and s.margin > margin]
        chosen = [FRANCE]
        for rank in range(40):
            chosen += [ds[rank] for ds in good.values() if rank < len(ds)]
        picked = chosen[:per_path]
        sure = score(model, chat, picked, path)
        if not all(s.exact and s.margin > margin for s in sure):
            raise SystemExit(f"{name} does not know the capital of France")
        out += [{"path": name, "messages": d[:-1], "answer": d[-1]["content"]} for d in picked]
    return out


def ask(model: Gemma3n, chat: Chat, path: Path, question: str, system: str | None) -> str:
    head = [{"role": "system", "content": system}] if system else []
    ids = chat.encode(render(head + [{"role": "user", "content": question}], generate=True))
    return chat.decode(greedy(model, ids, path, {EOS, END}))


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("command", choices=("score", "expected", "ask"))
    p.add_argument("questions", nargs="*", help="questions for ask")
    p.add_argument("--checkpoint", default="run/last.pt")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="expected.json")
    p.add_argument("--path", default=None, choices=("e4b", "mix", "e2b"), help="only this path (ask)")
    p.add_argument("--system", help="system message (ask)")
    p.add_argument("--count", type=int, default=200, help="held-out questions per task (score)")
    p.add_argument("--per-path", type=int, default=46, help="cases per path (expected)")
    p.add_argument("--margin", type=float, default=0.5, help="least lead of the best logit (expected)")
    p.add_argument("--seed", type=int, default=20)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_intermixed_args()
    torch.set_num_threads(a.threads)
    model, chat = as_stored(load(a.checkpoint)), Chat(a.tokenizer)
    if a.command == "score":
        print(score_table(model, chat, a.seed, a.count))
    elif a.command == "expected":
        cases = expected(model, chat, a.seed, a.per_path, a.margin)
        File(a.out).write_text("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]\n", encoding="utf-8")
        print(f"{a.out}: {len(cases)} cases")
    else:
        for q in a.questions:
            for name, path in named_paths(model.cfg).items():
                if a.path in (None, name):
                    print(f"{name}: {q} -> {ask(model, chat, path, q, a.system)}")


if __name__ == "__main__":
    main()
