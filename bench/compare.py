#!/usr/bin/env python3
"""Speed on a CPU against llama.cpp: the same files, threads and processors, run in turn (A B A B ...).

    python bench/compare.py --all --pleiad build/release/pleiad --llama .peer/llama.cpp/build/bin \
        --cpus 0,1 --threads 2 --models e2b-q4_0.gguf e4b-q4_0.gguf ...

That repeats what docs/performance.md shows ("On a CPU"), on files that bench/make_model or llama-quantize made. It
writes OUT/cpu.csv (every single run), OUT/cpu-ops.csv (pleiad bench --ops) and OUT/cpu.md (medians of the paired runs);
bench/plot.py draws the first two. Without --all: only the table.

Each round runs every engine once on each model; a ratio is the median over the rounds of the ratios within one. What an
engine does first (mapping the file, repacking it, the first tokens) is not counted for either. --other adds more builds
of llama.cpp as columns, with a remark. Nothing else should run on the machine: OpenMP's threads, which llama.cpp uses,
lose far more by sharing a processor than ours.
"""
from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS = ["set", "round", "model", "engine", "threads", "test", "tokens_per_s", "bandwidth_share", "peak_share"]


def run(args: argparse.Namespace, line: list, lib: str | None = None) -> str:
    env = dict(os.environ, LD_LIBRARY_PATH=lib) if lib else None
    line = ["taskset", "-c", args.cpus, *map(str, line)]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(line)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def name_test(prompt: int, gen: int, parallel: int = 1, depth: int = 0) -> str:
    return (f"pp{prompt}" if prompt else f"tg{gen}") + (f" x{parallel}" if parallel > 1 else "") + \
        (f" @{depth}" if depth else "")


def joined(values: list[int]) -> str:
    return ",".join(map(str, values))


class Pleiad:
    name = "Pleiad"

    def __init__(self, program: str):
        self.program = program

    def measure(self, args, model, threads, prompts=(), gens=(), depths=(0,), parallel=(1,), more=()) -> list[dict]:
        out = run(args, [self.program, "bench", "-m", model, "--backend", "cpu", "-t", threads, "-r", 1, "-q", "-o",
                         "json", "-p", joined(prompts) or 0, "-n", joined(gens) or 0, "-d", joined(depths), "-np",
                         joined(parallel), *more])
        return [{"test": name_test(r["n_prompt"], r["n_gen"], r["parallel"], r["depth"]), "tokens_per_s": r["mean"],
                 "bandwidth_share": r["bandwidth_share"], "peak_share": r["peak_share"]} for r in json.loads(out)]

    def ops(self, args, model, prompts, gens) -> str:
        return run(args, [self.program, "bench", "-m", model, "--backend", "cpu", "-t", args.threads, "-r", 2, "-q",
                          "-o", "csv", "-p", joined(prompts), "-n", joined(gens), "--ops"])


class Llama:
    def __init__(self, name: str, folder: str):
        self.name, (self.folder, _, self.lib) = name, folder.partition(":")
        self.lib = self.lib or self.folder

    def measure(self, args, model, threads, prompts=(), gens=(), depths=(0,), parallel=(1,)) -> list[dict]:
        found, together = [], [n for n in parallel if n > 1]
        if prompts or 1 in parallel:
            found += self.alone(args, model, threads, list(prompts), list(gens) if 1 in parallel else [], depths)
        for gen in gens if together else ():
            found += self.together(args, model, threads, gen, together)
        return found

    # Short tests before the long ones warm up; llama-bench's own would read each prompt twice.
    def alone(self, args, model, threads, prompts, gens, depths) -> list[dict]:
        warm = [32] if prompts else []
        out = run(args, [f"{self.folder}/llama-bench", "-m", model, "-ngl", 0, "--no-warmup", "-t", threads, "-r", 1,
                         "-o", "json", "-p", joined(warm + prompts) or 0, "-n", joined([4] + gens), "-d",
                         joined(depths)], self.lib)
        return [{"test": name_test(r["n_prompt"], r["n_gen"], 1, r["n_depth"]), "tokens_per_s": r["avg_ts"]}
                for r in json.loads(out) if r["n_prompt"] in prompts or r["n_gen"] in gens]

    def together(self, args, model, threads, gen, parallel) -> list[dict]:
        room = max(parallel) * (gen + 2) + 512
        out = run(args, [f"{self.folder}/llama-batched-bench", "-m", model, "-ngl", 0, "-t", threads, "-tb", threads,
                         "-npp", 1, "-ntg", gen, "-npl", joined(parallel), "-c", room, "--output-format", "jsonl"],
                  self.lib)
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return [{"test": name_test(0, r["tg"], r["pl"]), "tokens_per_s": r["speed_tg"]} for r in rows]


class Record:
    """Rows of OUT/cpu.csv, written as they come."""

    def __init__(self, path: Path):
        self.rows, self.file = [], path.open("w", newline="")
        self.csv = csv.DictWriter(self.file, COLUMNS)
        self.csv.writeheader()

    def add(self, group, round_, model, engine, threads, found):
        for r in found:
            row = {"set": group, "round": round_, "model": Path(model).stem, "engine": engine.name,
                   "threads": threads, **r}
            row = {k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()}
            self.rows.append(row)
            self.csv.writerow(row)
            print(f"{row['set']:8} {round_} {row['model']:14} {engine.name:16} {threads} {row['test']:12} "
                  f"{row['tokens_per_s']} tokens/s", flush=True)
        self.file.flush()


def measure_other(args, model, engine, kinds) -> list[dict]:
    """A build that may not run this model at all."""
    try:
        return engine.measure(args, model, args.threads, **kinds)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return []


def as_fast(found: list[dict]) -> list[dict]:
    return [{**r, "test": r["test"] + " fast"} for r in found if r["test"].startswith("pp")]


def measure_table(args, record, pleiad, llama, others):
    for round_ in range(args.rounds):
        for model in args.models:
            kinds = {"prompts": args.prompts, "gens": args.gens, "parallel": [1] + args.parallel}
            record.add("table", round_, model, pleiad, args.threads,
                       pleiad.measure(args, model, args.threads, **kinds))
            found = llama.measure(args, model, args.threads, **kinds)
            record.add("table", round_, model, llama, args.threads, found)
            if args.fast_prompts:
                record.add("table", round_, model, llama, args.threads, as_fast(found))
                fast = pleiad.measure(args, model, args.threads, prompts=args.prompts, more=["--fast-prompts"])
                record.add("table", round_, model, pleiad, args.threads, as_fast(fast))
            for engine in others if round_ < args.other_rounds else ():
                record.add("table", round_, model, engine, args.threads, measure_other(args, model, engine, kinds))


def measure_curves(args, record, pleiad, llama):
    """Against threads, context and batch, on the first model."""
    model = args.models[0]
    most = len(args.cpus.split(",")) if "-" not in args.cpus else args.threads
    for threads in sorted({1, args.threads, most} | set(range(2, most, 2))):
        for engine in (pleiad, llama):
            record.add("threads", 0, model, engine, threads,
                       engine.measure(args, model, threads, prompts=args.prompts[:1], gens=args.gens[:1]))
    for engine, depths in ((pleiad, args.depths), (llama, [d for d in args.depths if d <= args.llama_depth])):
        record.add("depth", 0, model, engine, args.threads,
                   engine.measure(args, model, args.threads, gens=args.gens[:1], depths=depths))
    for engine in (pleiad, llama):
        record.add("batch", 0, model, engine, args.threads,
                   engine.measure(args, model, args.threads, gens=[16], parallel=args.batches))


def median_cell(values: list[float]) -> str:
    spread = f" ({min(values):.3g} to {max(values):.3g})" if len(values) > 1 else ""
    return f"{statistics.median(values):.3g}{spread}"


def write_tables(args, rows, out: Path, names: list[str]):
    """One table a kind of test: model, medians with their spread, ratio of the first to each other."""
    table = [r for r in rows if r["set"] == "table"]
    with out.open("w") as file:
        for test in dict.fromkeys(r["test"] for r in table):
            head = ["", *[f"{n}, tokens/s" for n in names], *[f"ratio to {n}" for n in names[1:]], "of bandwidth",
                    "of peak"]
            print(f"\n**{test}**\n\n| {' | '.join(head)} |\n|-|{'-:|' * (len(head) - 1)}", file=file)
            for model in dict.fromkeys(r["model"] for r in table):
                here = [r for r in table if r["test"] == test and r["model"] == model]
                by = {n: {r["round"]: float(r["tokens_per_s"]) for r in here if r["engine"] == n} for n in names}
                cells = [median_cell(list(by[n].values())) if by[n] else "" for n in names]
                for n in names[1:]:
                    pairs = [by[names[0]][k] / v for k, v in by[n].items() if k in by[names[0]]]
                    cells.append(f"{statistics.median(pairs):.2f}" if pairs else "")
                for key in ("bandwidth_share", "peak_share"):
                    shares = [float(r[key]) for r in here if r["engine"] == names[0] and float(r.get(key) or 0) > 0]
                    cells.append(f"{100 * statistics.median(shares):.0f} %" if shares else "")
                print(f"| {model} | {' | '.join(cells)} |", file=file)


def parse() -> argparse.Namespace:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pleiad", default="build/release/pleiad")
    p.add_argument("--llama", required=True, metavar="DIR[:LIB]", help="folder of llama-bench and llama-batched-bench, "
                                                                       "and of their libraries where it is another")
    p.add_argument("--other", action="append", default=[], metavar="NAME=DIR[:LIB]", help="another build; repeatable")
    p.add_argument("--models", nargs="+", required=True, type=Path)
    p.add_argument("--cpus", default="0,1", help="processors, as taskset takes them")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--other-rounds", type=int, default=1)
    p.add_argument("--prompts", type=int, nargs="*", default=[512])
    p.add_argument("--gens", type=int, nargs="*", default=[32])
    p.add_argument("--parallel", type=int, nargs="*", default=[4])
    p.add_argument("--depths", type=int, nargs="*", default=[0, 1024, 4096, 16384])
    p.add_argument("--llama-depth", type=int, default=1024, help="llama.cpp is not measured behind more tokens")
    p.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    p.add_argument("--fast-prompts", action="store_true",
                   help="prompts also with this option of Pleiad's: tests named fast")
    p.add_argument("--all", action="store_true", help="also the curves and the ops")
    p.add_argument("--out", type=Path, default=ROOT / "bench" / "results")
    return p.parse_args()


def main():
    args = parse()
    pleiad, llama = Pleiad(args.pleiad), Llama("llama.cpp", args.llama)
    others = [Llama(*other.split("=", 1)) for other in args.other]
    if os.getloadavg()[0] > 0.5:
        print(f"load average {os.getloadavg()[0]:.1f}: something else is running", file=sys.stderr)
    args.out.mkdir(parents=True, exist_ok=True)
    begin, record = time.monotonic(), Record(args.out / "cpu.csv")
    if args.all:
        (args.out / "cpu-ops.csv").write_text(pleiad.ops(args, args.models[0], args.prompts[:1], args.gens[:1]))
        measure_curves(args, record, pleiad, llama)
    measure_table(args, record, pleiad, llama, others)
    write_tables(args, record.rows, args.out / "cpu.md", [e.name for e in (pleiad, llama, *others)])
    print(f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
