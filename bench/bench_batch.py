#!/usr/bin/env python3
"""Tokens a second of `pleiad batch` beside a client that keeps another server busy with the same requests.

    bench/bench_batch.py --pleiad build/release/pleiad -m MODEL --server http://127.0.0.1:8081
                         [--requests 96] [--clients 16] [--rounds 3] [--words 120] [--answer 48] [--shared 0.5]
                         [-- options of batch]

The server speaks OpenAI's /v1/completions and knows ignore_eos, as llama-server does: all answers have the same length. Both
get the same prompts, one after the other in each round; medians count. The batch's time is that between its first line and
its last (its summary says it), since the server has its model loaded, too; the whole command's is printed beside it.
"""

import argparse
import asyncio
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "serve"))
from client import Connection  # noqa: E402

WORDS = (
    "river stone light window garden winter letter music bread morning road paper silver quiet market island "
    "teacher forest engine blue seven house story bridge yellow summer captain number water question"
).split()


def make_requests(args, seed):
    """Bodies of completions; the first part of each prompt is the same for all."""
    same, rng = random.Random(1), random.Random(seed)
    head = " ".join(same.choice(WORDS) for _ in range(int(args.words * args.shared)))
    bodies = []
    for _ in range(args.requests):
        tail = " ".join(rng.choice(WORDS) for _ in range(args.words - int(args.words * args.shared)))
        bodies.append({"model": "any", "prompt": f"{head} {tail}", "max_tokens": args.answer, "temperature": 0,
                       "ignore_eos": True})
    return bodies


def run_batch(args, bodies):
    """Answer tokens a second of the work, and of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        requests = pathlib.Path(folder, "in.jsonl")
        with requests.open("w", encoding="utf-8") as file:
            for i, body in enumerate(bodies):
                what = {"custom_id": str(i), "method": "POST", "url": "/v1/completions", "body": body}
                file.write(json.dumps(what) + "\n")
        begin = time.monotonic()
        command = [*args.launch.split(), args.pleiad, "batch", "-m", args.model, "-i", requests,
                   "-o", pathlib.Path(folder, "out.jsonl"), "--json", *args.options]
        done = subprocess.run(command, capture_output=True, text=True)
        whole = time.monotonic() - begin
    if done.returncode:
        sys.exit(f"pleiad batch: {done.stderr}")
    summary = json.loads(done.stdout)
    if summary["failed"]:
        sys.exit(f"pleiad batch: {summary['failed']} requests failed")
    return summary["answer_tokens_per_second"], summary["answer_tokens"] / whole


async def drive(url, args, bodies):
    left = list(reversed(bodies))
    tokens = 0

    async def client():
        nonlocal tokens
        connection = Connection(url.hostname, url.port)
        while left:
            status, answer = await connection.call("POST", "/v1/completions", left.pop())
            if status != 200:
                sys.exit(f"{url.geturl()}: {status}: {answer}")
            tokens += answer["usage"]["completion_tokens"]
        connection.close()

    begin = time.monotonic()
    await asyncio.gather(*(client() for _ in range(args.clients)))
    return tokens / (time.monotonic() - begin)


def main():
    arguments, options = sys.argv[1:], []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, options = arguments[:at], arguments[at + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pleiad", required=True)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--server", help="none: the batch alone")
    parser.add_argument("--launch", default="", help="what stands before the command: mpirun -np 2 ...")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=int, default=120)
    parser.add_argument("--answer", type=int, default=48)
    parser.add_argument("--shared", type=float, default=0.5)
    args = parser.parse_args(arguments)
    args.options = options
    works, wholes, others = [], [], []
    for turn in range(args.rounds):
        bodies = make_requests(args, turn + 2)
        work, whole = run_batch(args, bodies)
        works.append(work)
        wholes.append(whole)
        line = f"round {turn + 1}: batch {work:.1f} tokens/s ({whole:.1f} with loading)"
        if args.server:
            others.append(asyncio.run(drive(urlsplit(args.server), args, bodies)))
            line += f", server {others[-1]:.1f}, {work / others[-1]:.2f} times"
        print(line, flush=True)
    line = f"median: batch {statistics.median(works):.1f} tokens/s ({statistics.median(wholes):.1f} with loading)"
    if others:
        ratio = statistics.median(w / o for w, o in zip(works, others))
        line += f", server {statistics.median(others):.1f}, {ratio:.2f} times"
    print(line)


main()
