#!/usr/bin/env python3
"""Draws what bench/compare.py measured: bench/results/cpu*.csv to docs/plots/*.svg. Needs matplotlib.

    python bench/plot.py [--results bench/results] [--out docs/plots]
"""
from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT = Path(__file__).parent.parent
GREY = "#808080"  # readable on white and on black
COLORS = {"Pleiad": "#2f81f7", "llama.cpp": "#d9822b"}
SPARE = ["#3fa34d", "#a371f7", "#c9515b", "#8a7f3d"]
LABELLED = 0.01  # share of a step from which on an op has its name in the plot
APART = 0.08  # between names in the roofline, in powers of ten upwards
STYLE = {"svg.hashsalt": "pleiad", "svg.fonttype": "none", "font.size": 9, "text.color": GREY, "axes.edgecolor": GREY,
         "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "legend.frameon": False,
         "savefig.transparent": True, "axes.spines.top": False, "axes.spines.right": False}


def read(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(figure, path: Path):
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def value_of(row: dict, kind: str) -> int:
    """What the x axis says: threads, tokens before, or sequences side by side."""
    if kind == "threads":
        return int(row["threads"])
    parts = {p[0]: p[1:] for p in row["test"].split()[1:]}
    return int(parts.get("@", 0)) if kind == "depth" else int(parts.get("x", 1))


def draw_curve(rows: list[dict], kind: str, label: str, out: Path):
    """A panel for prompts and one for answers, where there are any."""
    rows = [r for r in rows if r["set"] == kind]
    panels = [(what, [r for r in rows if r["test"].startswith(what)]) for what in ("pp", "tg")]
    panels = [(what, found) for what, found in panels if found]
    if not panels:
        return
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3.8 * len(panels) + 0.6, 3.2), squeeze=False)
    for axes, (what, found) in zip(all_axes[0], panels):
        for i, engine in enumerate(dict.fromkeys(r["engine"] for r in found)):
            points = sorted((value_of(r, kind), float(r["tokens_per_s"])) for r in found if r["engine"] == engine)
            axes.plot(*zip(*points), marker="o", label=engine, color=COLORS.get(engine, SPARE[i % len(SPARE)]))
        axes.set_xlabel(label)
        axes.set_ylabel("tokens/s")
        axes.set_title(found[0]["test"].split()[0] + ", " + found[0]["model"], color=GREY, fontsize=9)
        axes.set_ylim(bottom=0)
        if kind != "depth":
            axes.set_xticks(sorted({value_of(r, kind) for r in found}))
        axes.grid(color=GREY, alpha=0.25, linewidth=0.5)
        axes.legend(labelcolor=GREY)
    save(figure, out / f"cpu-{kind}.svg")


def draw_roofline(rows: list[dict], out: Path):
    """Operations a second over operations a byte, the area of a dot by its share of the step."""
    steps = dict.fromkeys((int(r["n_prompt"]), int(r["n_gen"])) for r in rows)
    bandwidth, peak = float(rows[0]["bandwidth_bytes_per_s"]), float(rows[0]["peak_ops_per_s"])
    figure, axes = plt.subplots(figsize=(7.5, 4.4))
    limits = [0.1, 1e5]
    axes.plot([limits[0], peak / bandwidth, limits[1]], [limits[0] * bandwidth / 1e9, peak / 1e9, peak / 1e9],
              color=GREY, linewidth=1)
    axes.annotate(f"{bandwidth / 1e9:.0f} GB/s", (0.3, 0.3 * bandwidth / 1e9), rotation=27, xytext=(0, 6),
                  textcoords="offset points")
    axes.annotate(f"{peak / 1e12:.1f} Top/s, {rows[0]['peak']}", (limits[1], peak / 1e9), xytext=(0, 4), ha="right",
                  textcoords="offset points")
    for color, (prompt, gen) in zip(("#d9822b", "#2f81f7"), steps):
        found = [r for r in rows if (int(r["n_prompt"]), int(r["n_gen"])) == (prompt, gen)]
        found = [r for r in found if r["op"] != "all" and float(r["bytes"]) > 0 and float(r["ops"]) > 0]
        x = [float(r["ops"]) / float(r["bytes"]) for r in found]
        y = [float(r["ops"]) / float(r["us"]) / 1e3 for r in found]
        axes.scatter(x, y, s=[max(6, 700 * float(r["time_share"])) for r in found], color=color, alpha=0.6,
                     label=f"prompt of {prompt}" if prompt else "decode")
        names = {}  # by place: of ops side by side the one that takes longest is named
        for r, at in sorted(zip(found, zip(x, y)), key=lambda pair: -float(pair[0]["time_share"])):
            place = next((p for p in names if abs(math.log10(at[0] / p[0])) < 0.5 and
                          abs(math.log10(at[1] / p[1])) < APART), at)
            if float(r["time_share"]) >= LABELLED:
                names.setdefault(place, []).append(r["op"].removeprefix("matmul "))
        for at, ops in names.items():
            more = f" and {len(ops) - 1} more" if ops[1:] else ""
            axes.annotate(ops[0] + more, at, xytext=(8, 4), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", yscale="log", xlim=limits, xlabel="operations a byte of weights and K/V", ylabel="Gop/s")
    axes.legend(labelcolor=GREY, loc="lower right", markerscale=0.5)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.5)
    save(figure, out / "cpu-roofline.svg")


def draw_ops(rows: list[dict], out: Path):
    """Where the time of a step goes."""
    steps = dict.fromkeys((int(r["n_prompt"]), int(r["n_gen"])) for r in rows)
    figure, all_axes = plt.subplots(1, len(steps), figsize=(4.6 * len(steps), 4.2), squeeze=False)
    for axes, (prompt, gen) in zip(all_axes[0], steps):
        found = [r for r in rows if (int(r["n_prompt"]), int(r["n_gen"])) == (prompt, gen)]
        total = next(float(r["us"]) for r in found if r["op"] == "all")
        found = [r for r in found if r["op"] != "all" and float(r["time_share"]) >= LABELLED / 2][::-1]
        axes.barh([r["op"] for r in found], [100 * float(r["time_share"]) for r in found],
                  color="#d9822b" if prompt else "#2f81f7")
        axes.set_title(f"{'prompt of ' + str(prompt) if prompt else 'decode'}: {total / 1e3:.1f} ms a step", color=GREY,
                       fontsize=9)
        axes.set_xlabel("% of the step")
        axes.tick_params(axis="y", labelsize=7)
    save(figure, out / "cpu-ops.svg")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--results", type=Path, default=ROOT / "bench" / "results")
    p.add_argument("--out", type=Path, default=ROOT / "docs" / "plots")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update(STYLE)
    rows = read(args.results / "cpu.csv")
    draw_curve(rows, "threads", "threads", args.out)
    draw_curve(rows, "depth", "tokens of context", args.out)
    draw_curve(rows, "batch", "sequences side by side", args.out)
    ops = read(args.results / "cpu-ops.csv")
    draw_roofline(ops, args.out)
    draw_ops(ops, args.out)


if __name__ == "__main__":
    main()
