#!/usr/bin/env python3
"""Requests a second and tokens a second of servers that speak OpenAI's API, side by side.

    bench/bench_serve.py --server pleiad=http://127.0.0.1:8080 --server llama.cpp=http://127.0.0.1:8081
                         [--clients 1,4,16,64] [--seconds 20] [--prompt-words 120] [--answer 48] [--model NAME] [--csv]

Each client sends one request after another, greedy, and without the end of an answer where the server can
(ignore_eos), so that all answers have the same length. "shared" prompts begin alike with three quarters of their words,
"own" ones have nothing in common. Servers are measured in turns, each point several times; medians count. Clients
cost processor time too: let them run on other cores than the servers (taskset).
"""

import argparse
import asyncio
import pathlib
import random
import statistics
import sys
import time
from urllib.parse import urlsplit

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "serve"))
from client import Connection  # noqa: E402

WORDS = (
    "river stone light window garden winter letter music bread morning road paper silver quiet market island "
    "teacher forest engine blue seven house story bridge yellow summer captain number water question"
).split()


def prompt(kind, words, rng):
    def text(count, source):
        return " ".join(source.choice(WORDS) for _ in range(count))

    if kind == "shared":
        return text(words * 3 // 4, random.Random(1)) + " " + text(words // 4, rng)
    return text(words, rng)


async def client(url, args, kind, rng, until, done):
    connection = Connection(url.hostname, url.port)
    while time.monotonic() < until:
        body = {
            "model": args.model,
            "prompt": prompt(kind, args.prompt_words, rng),
            "max_tokens": args.answer,
            "temperature": 0,
            "ignore_eos": True,
        }
        begin = time.monotonic()
        status, answer = await connection.call("POST", "/v1/completions", body)
        if status != 200:
            raise SystemExit(f"{url.geturl()}: {status}: {answer}")
        done.append((begin, time.monotonic(), answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]))
    connection.close()


async def measure(url, args, kind, clients, seed):
    """Answer tokens a second, and the median time of a request."""
    done = []
    begin = time.monotonic()
    until = begin + args.seconds
    await asyncio.gather(*(client(url, args, kind, random.Random(seed * 1000 + i), until, done) for i in range(clients)))
    # What ended within the time counts whole, what ended after it in part.
    tokens = sum(t * min(1.0, (until - b) / (e - b)) for b, e, _, t in done)
    prompts = sum(p * min(1.0, (until - b) / (e - b)) for b, e, p, _ in done)
    return tokens / args.seconds, prompts / args.seconds, statistics.median(e - b for b, e, _, _ in done)


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", action="append", required=True, metavar="NAME=URL")
    parser.add_argument("--clients", default="1,4,16,64")
    parser.add_argument("--kinds", default="shared,own")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-words", type=int, default=120)
    parser.add_argument("--answer", type=int, default=48)
    parser.add_argument("--model", default="default")
    parser.add_argument("--csv", action="store_true")
    args = parser.parse_args()
    servers = [(name, urlsplit(url)) for name, url in (s.split("=", 1) for s in args.server)]
    if args.csv:
        print("prompts,clients,server,answer_tokens_s,prompt_tokens_s,request_s,ratio", flush=True)
    else:
        print(f"{'prompts':8} {'clients':>7} {'server':12} {'answer t/s':>10} {'prompt t/s':>10} {'request s':>9} {'ratio':>6}")
    for kind in args.kinds.split(","):
        for clients in map(int, args.clients.split(",")):
            figures = {name: [] for name, _ in servers}
            for turn in range(args.rounds):
                for name, url in servers:
                    figures[name].append(await measure(url, args, kind, clients, turn + 1))
            medians = {name: [statistics.median(f) for f in zip(*figures[name])] for name, _ in servers}
            for name, _ in servers:
                answer, read, request = medians[name]
                ratio = answer / medians[servers[-1][0]][0]
                form = "{},{},{},{:.1f},{:.1f},{:.3f},{:.2f}" if args.csv else (
                    "{:8} {:7d} {:12} {:10.1f} {:10.1f} {:9.3f} {:6.2f}")
                print(form.format(kind, clients, name, answer, read, request, ratio), flush=True)


asyncio.run(main())
