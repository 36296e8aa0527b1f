#!/usr/bin/env python3
"""Quality against size: quantises a model to many types, measures each on each path, and writes docs/quality.

    python bench/quality.py --pleiad build/release/pleiad --chat --out docs/quality

That repeats what docs/quality.md shows, on the demo model. For a published checkpoint:

    python bench/quality.py --pleiad build/release/pleiad --model gemma-3n-E4B-it --text wiki.test.txt \
        --calibration calibration.txt --paths e4b e2b --types q8 q6 q5 q4 q3 q4_k_m --out quality-e4b

Writes OUT/results.json (everything that was measured), OUT/tables.md and the plots. Needs matplotlib for the plots.
"""
from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "tools" / "demo_model"
OURS = ["q3", "q4", "q5", "q6", "q8"]
RIVALS = ["q2_k", "q3_k_m", "q4_k_s", "q4_k_m", "q5_k_m", "q6_k"]
KEPT = ["perplexity", "reference_perplexity", "kl", "kl_error", "kl_max", "dp_rms", "same_top", "same_top_error"]
SINGLE = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "f16", "bf16"]


class Pleiad:
    def __init__(self, program: str, threads: int):
        self.program, self.threads = program, threads

    def __call__(self, command: str, *args: str | Path) -> str:
        line = [self.program, command, *map(str, args), "-t", str(self.threads), "-q"]
        return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout

    def json(self, command: str, *args: str | Path) -> dict:
        return json.loads(self(command, *args, "--json"))


def paths_of(args: argparse.Namespace) -> list[str]:
    return [word for path in args.paths for word in ("--path", path)]


def measure(args: argparse.Namespace, pleiad: Pleiad, work: Path) -> dict:
    """One entry a type, with and without the importance matrix: size, error of each part, quality on each path."""
    matrix, out = work / "imatrix.gguf", []
    chat = ["--chat"] if args.chat else []
    pleiad("imatrix", "-m", args.model, "-f", args.calibration, "-o", matrix, "-c", args.ctx, *chat, *paths_of(args))
    for name in args.types:
        for importance in (False, True):
            file = work / f"{name}.gguf"
            with_matrix = ["--imatrix", matrix] if importance else []
            made = pleiad.json("quantize", args.model, file, "--type", name, *with_matrix)
            found = pleiad.json("eval", "-m", file, "--reference", args.model, "-f", args.text, "-c", args.ctx, *chat,
                                *paths_of(args))
            out.append({"type": name, "importance": importance, "bytes": made["bytes"],
                        "card": made["card"]["weights"], "bits": made["bits_per_weight"],
                        "predicted": made["predicted_divergence"],
                        "parts": [{key: part[key] for key in ("part", "bytes", "relative_error")}
                                  for part in made["parts"]],
                        "paths": {r["path"]: {key: r[key] for key in KEPT} for r in found["results"]}})
            file.unlink()
            print(f"{name}{' with importance' if importance else ''}: {made['bytes'] / 1e6:.2f} MB, KL " +
                  ", ".join(f"{r['path']} {r['kl']:.2g}" for r in found["results"]), flush=True)
    return {"model": Path(args.model).name, "text": Path(args.text).name, "chat": args.chat, "ctx": args.ctx,
            "types": out}


TITLE = """# Quality of each type: tables

Measured on {model} with {text}, pieces of {ctx} tokens, by bench/quality.py; [what they mean](../quality.md).
+i: with the importance matrix.

"""
ERRORS = """
## Error of each quantised product

Root mean square of the error over that of the result, of the weights as stored, weighted by the importance matrix: what
each matrix product of that part is off by.

"""


# ---- tables ---------------------------------------------------------------------------------------------------------


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["-"] + ["-:"] * (len(head) - 1)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def quality_table(found: dict, paths: list[str]) -> str:
    head = ["type", "file, MB", "bits"] + [f"{p}: KL" for p in paths] + [f"{p}: same top" for p in paths]
    rows = []
    for t in found["types"]:
        name = t["type"] + (" +i" if t["importance"] else "")
        rows.append([name, f"{t['bytes'] / 1e6:.2f}", f"{t['bits']:.2f}"] +
                    [f"{t['paths'][p]['kl']:.1e} ± {t['paths'][p]['kl_error']:.0e}" for p in paths] +
                    [f"{100 * t['paths'][p]['same_top']:.2f} %" for p in paths])
    return table(head, rows)


def error_table(found: dict) -> str:
    chosen = [t for t in found["types"] if t["importance"]]
    parts = [p["part"] for p in chosen[0]["parts"]]
    rows = []
    for t in chosen:
        errors = {p["part"]: p["relative_error"] for p in t["parts"]}
        rows.append([t["type"]] + [f"{100 * errors[p]:.2g} %" if errors.get(p) else "0" for p in parts])
    return table(["type"] + parts, rows)


# ---- plots ----------------------------------------------------------------------------------------------------------


def plot(found: dict, paths: list[str], out: Path) -> None:
    import matplotlib
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams.update({"svg.hashsalt": "pleiad", "font.size": 9, "svg.fonttype": "none"})
    groups = {"Pleiad's sizes": (OURS, "o-", (-16, -11)), "llama.cpp's recipes": (RIVALS, "s--", (5, 5)),
              "one type": (SINGLE, ".", (5, -3))}
    for path in paths:
        figure, axes = plt.subplots(figsize=(7.5, 5))
        for label, (names, style, offset) in groups.items():
            points = sorted((t["bytes"] / 1e6, t["paths"][path]["kl"], t["type"]) for t in found["types"]
                            if t["type"] in names and t["importance"] and t["bits"] < 9 and
                            t["paths"][path]["kl"] > 0)
            axes.plot([p[0] for p in points], [p[1] for p in points], style, label=label)
            for x, y, name in points:
                axes.annotate(name, (x, y), textcoords="offset points", xytext=offset, fontsize=7)
        axes.set(yscale="log", xlabel="file, MB", ylabel="mean KL divergence, nats a token",
                 title=f"Path {path}: quality against size")
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(out / f"kl-{path}.svg", metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pleiad", default="pleiad")
    p.add_argument("--model", default=DEMO / "demo.gguf")
    p.add_argument("--text", default=DEMO / "heldout.txt")
    p.add_argument("--calibration", default=DEMO / "calibration.txt")
    p.add_argument("--paths", nargs="+", default=["e4b", "mix", "e2b"])
    p.add_argument("--types", nargs="+", default=OURS + RIVALS + SINGLE)
    p.add_argument("--chat", action="store_true", help="the texts hold chats; as for pleiad eval")
    p.add_argument("--ctx", default="512")
    p.add_argument("--threads", type=int, default=0)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--again", action="store_true", help="tables and plots from OUT/results.json, nothing is measured")
    args = p.parse_args()
    results = args.out / "results.json"
    if not args.again:
        work = args.out / "work"
        work.mkdir(parents=True, exist_ok=True)
        found = measure(args, Pleiad(args.pleiad, args.threads), work)
        (work / "imatrix.gguf").unlink()
        work.rmdir()
        results.write_text(json.dumps(found) + "\n", encoding="utf-8")
    found = json.loads(results.read_text(encoding="utf-8"))
    (args.out / "tables.md").write_text(
        TITLE.format(**found) + quality_table(found, args.paths) + ERRORS + error_table(found),
        encoding="utf-8")
    plot(found, args.paths, args.out)


if __name__ == "__main__":
    main()
