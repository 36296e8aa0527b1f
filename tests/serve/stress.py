#!/usr/bin/env python3
"""A storm of mixed requests against `pleiad serve`: answers must be those of the same requests asked alone.

    tests/serve/stress.py PLEIAD MODEL [--requests 24000] [--clients 64] [--vanish 0] [--seed 1] [-- OPTIONS OF serve]

Each of some dozens of requests (all APIs, paths, prompts that begin alike, greedy and drawn, with and without schema and
stop strings) is first asked alone. Then clients ask them in any order, whole or streamed, while others leave in the
middle, send bodies that are wrong, ask for more than there is, or close at once; who is refused (429) asks again. At last
--vanish clients open streams without end and leave at any moment. In the end nothing may run, wait or hold K/V, and the server's
memory must not have grown since the storm's first quarter.
"""

import argparse
import asyncio
import json
import random
import re
import resource
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

from client import Closed, Connection

PREFIX = "The following is a quiet conversation about countries, their capitals, colours and small sums. "
QUESTIONS = [
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is two plus three?",
    "What colour is the sky?",
    "Name a fruit.",
    "Count from one to nine.",
]
PATHS = ["e4b", "e2b", "mix"]
AT_REST = ("pleiad_requests_running", "pleiad_requests_waiting", "pleiad_kv_used_tokens")
SAID_FOREVER = "1000"  # a token that is always seen, so that each one is an event
EMBEDDINGS = "/v1/embeddings"
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string", "maxLength": 24}, "sure": {"type": "boolean"}},
          "required": ["answer", "sure"], "additionalProperties": False}
BAD = [
    (b"{", 400),
    (b"[]", 400),
    (b'{"messages": 3}', 400),
    (b'{"messages": []}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "temperature": "hot"}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "n": 100000}', 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "no_such_field": 1}', 400),
    (b'{"model": "no-such-model", "messages": [{"role": "user", "content": "x"}]}', 404),
    (json.dumps({"messages": [{"role": "user", "content": "word " * 20000}]}).encode(), 400),
    (b'{"messages": [{"role": "user", "content": "x"}], "response_format": {"type": "json_schema", "json_schema": '
     b'{"name": "s", "schema": {"type": "nonsense"}}}}', 400),
]


def make_requests(model):
    requests = []
    for i, question in enumerate(QUESTIONS):
        for path in PATHS:
            chat = {"model": f"{model}:{path}", "temperature": 0, "max_tokens": 8 + 5 * i,
                    "messages": [{"role": "user", "content": question}]}
            requests.append(("/v1/chat/completions", chat))
            long = dict(chat, messages=[{"role": "user", "content": PREFIX * (1 + i) + question}])
            requests.append(("/v1/chat/completions", long))
        text = {"model": model, "path": PATHS[i % 3], "temperature": 0, "max_tokens": 20, "prompt": PREFIX * i + question}
        requests.append(("/v1/completions", text))
        requests.append(("/v1/completions", dict(text, stop=["e", "\n"])))
    shaped = {"model": f"{model}:e4b", "temperature": 0, "max_tokens": 60,
              "messages": [{"role": "user", "content": QUESTIONS[0]}],
              "response_format": {"type": "json_schema", "json_schema": {"name": "s", "strict": True, "schema": SCHEMA}}}
    drawn = {"model": f"{model}:mix", "temperature": 1.5, "top_p": 0.95, "seed": 7, "max_tokens": 24,
             "messages": [{"role": "user", "content": QUESTIONS[4]}]}
    message = {"model": f"{model}:e2b", "temperature": 0, "max_tokens": 30, "system": PREFIX * 3,
               "messages": [{"role": "user", "content": QUESTIONS[5]}]}
    response = {"model": f"{model}:e4b", "temperature": 0, "max_output_tokens": 30, "instructions": PREFIX * 2,
                "input": QUESTIONS[3]}
    embedding = {"model": f"{model}:e4b", "input": [PREFIX * 4, QUESTIONS[0]]}
    return requests + [("/v1/chat/completions", shaped), ("/v1/chat/completions", drawn), ("/v1/messages", message),
                       ("/v1/responses", response), (EMBEDDINGS, embedding)]


def text_of(path, answer):
    """(text, why it ended)"""
    if path == EMBEDDINGS:
        return json.dumps([item["embedding"] for item in answer["data"]]), None
    if path == "/v1/messages":
        return answer["content"][0]["text"], answer["stop_reason"]
    if path == "/v1/responses":
        return answer["output"][0]["content"][0]["text"], answer["status"]
    choice = answer["choices"][0]
    return (choice["text"] if path == "/v1/completions" else choice["message"]["content"]), choice["finish_reason"]


def piece_of(path, event):
    """(text, why it ended or None, whether nothing comes any more) of an event of a stream"""
    kind = event.get("type")
    if path == "/v1/messages":
        delta = event.get("delta", {})
        return delta.get("text", ""), delta.get("stop_reason"), kind == "message_stop"
    if path == "/v1/responses":
        text = event["delta"] if kind == "response.output_text.delta" else ""
        ended = kind in ("response.completed", "response.incomplete")
        return text, event["response"]["status"] if ended else None, ended
    text, reason = "", None
    for choice in event["choices"]:
        text += (choice["text"] if path == "/v1/completions" else choice["delta"].get("content")) or ""
        reason = choice["finish_reason"] or reason
    return text, reason, False


async def ask_whole(connection, path, body):
    status, answer = await connection.call("POST", path, body)
    return text_of(path, answer) if status == 200 else (status, answer)


async def ask_streamed(connection, path, body, leave_after=None):
    """The answer put together from its pieces; leaves after some events where told to."""
    status, _ = await connection.send("POST", path, dict(body, stream=True))
    if status != 200:
        return status, await connection.body()
    text, reason, ended, events = "", None, False, 0
    async for _, data in connection.events():
        events += 1
        if events == leave_after:
            connection.abort()
            return None
        if data == "[DONE]":
            ended = True
            continue
        more, why, last = piece_of(path, json.loads(data))
        text, reason, ended = text + more, why or reason, ended or last
    return (text, reason) if ended else ("cut short: " + text, reason)


class Storm:
    def __init__(self, host, port, requests, expected, seed):
        self.host, self.port, self.requests, self.expected, self.seed = host, port, requests, expected, seed
        self.counts = {}
        self.wrong = []

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def check(self, what, request, answer):
        self.count(what)
        if answer != self.expected[request] and len(self.wrong) < 10:
            self.wrong.append(f"{what} {self.requests[request]}: {answer!r}, alone {self.expected[request]!r}")

    async def taken(self, connection, rng, ask, *args, **named):
        """Asks until there is room."""
        while (answer := await ask(connection, *args, **named)) is not None and answer[0] == 429:
            self.count("refused")
            if int(connection.head.get("retry-after", 0)) < 1:
                self.wrong.append(f"429 without a time: {connection.head}")
            await asyncio.sleep(2 * rng.random())
        return answer

    async def any_path(self, connection, rng):
        """What is answered on a path of the server's choice is not known beforehand."""
        body = {"path": "auto", "quality": rng.choice(["quality", "balanced", "speed"]),
                "moves": rng.choice(["none", "exact", "fast"]), "latency_ms": {"first_token": 50, "per_token": 5},
                "priority": rng.randint(-2, 2), "max_tokens": 40, "messages": [{"role": "user", "content": PREFIX}]}
        text, reason = await self.taken(connection, rng, ask_streamed, "/v1/chat/completions", body)
        self.count("any path")
        if reason not in ("stop", "length"):
            self.wrong.append(f"any path: {text!r}, {reason}")

    async def one(self, connection, rng):
        i = rng.randrange(len(self.requests))
        path, body = self.requests[i]
        kind = rng.random()
        if kind < 0.36 or path == EMBEDDINGS:
            self.check("whole", i, await self.taken(connection, rng, ask_whole, path, body))
        elif kind < 0.40:
            await self.any_path(connection, rng)
        elif kind < 0.70:
            self.check("streamed", i, await self.taken(connection, rng, ask_streamed, path, body))
        elif kind < 0.82:
            leave = rng.randint(1, 12)
            answer = await self.taken(connection, rng, ask_streamed, path, body, leave_after=leave)
            self.count("left")
            if answer is not None:
                self.check("stayed", i, answer)
        elif kind < 0.88:
            try:  # leaves before there is an answer
                await asyncio.wait_for(connection.send("POST", path, body), rng.random() * 0.02)
            except asyncio.TimeoutError:
                pass
            connection.abort()
            self.count("gone at once")
        else:
            bad, status = rng.choice(BAD)
            got, answer = await self.taken(connection, rng, ask_whole, "/v1/chat/completions", bad)
            self.count("bad")
            if got != status or "error" not in answer:
                self.wrong.append(f"bad body {bad[:80]!r}: {got} {answer!r}, expected {status}")

    async def client(self, number, turns):
        rng = random.Random(self.seed * 100003 + number)
        connection = Connection(self.host, self.port)
        for _ in range(turns):
            try:
                await self.one(connection, rng)
            except (Closed, ConnectionError) as error:
                self.wrong.append(f"lost: {error!r}")
                connection.abort()
        connection.close()

    async def vanish(self, number):
        """Opens a stream that would go on for long, and is gone at any moment."""
        rng = random.Random(self.seed * 100003 - number)
        connection = Connection(self.host, self.port)
        body = {"path": rng.choice(PATHS), "temperature": 0, "logit_bias": {SAID_FOREVER: 100},
                "messages": [{"role": "user", "content": PREFIX * rng.randint(1, 8) + QUESTIONS[number % 6]}]}
        try:
            answer = await self.taken(connection, rng, ask_streamed, "/v1/chat/completions", body,
                                      leave_after=rng.randint(1, 1000))
            self.count("vanished")
            if answer is not None:
                self.wrong.append(f"a stream that should go on ended: {answer}")
        except (Closed, ConnectionError) as error:
            self.wrong.append(f"lost: {error!r}")
        connection.abort()


def resident(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) * 1024


async def metrics(host, port):
    connection = Connection(host, port)
    _, text = await connection.call("GET", "/metrics")
    connection.close()
    return {m.group(1): float(m.group(2)) for m in re.finditer(r"^(pleiad_\w+) (\S+)$", text.decode(), re.M)}


async def come_to_rest(storm):
    """Waits until the server does nothing, which must then hold nothing; returns (steps, seconds) that it took."""
    begin = time.monotonic()
    before = after = await metrics(storm.host, storm.port)
    while (sum(after[name] for name in AT_REST) > 0 or after["pleiad_http_exchanges"] > 1) and \
            time.monotonic() < begin + 100:
        after = await metrics(storm.host, storm.port)
    storm.wrong += [f"{name} is {after[name]} at rest" for name in AT_REST if after[name] != 0]
    if after["pleiad_http_exchanges"] != 1:
        storm.wrong.append(f"{after['pleiad_http_exchanges'] - 1} exchanges at rest")
    return after["pleiad_steps_total"] - before["pleiad_steps_total"], round(time.monotonic() - begin, 3)


async def run(host, port, pid, args):
    connection = Connection(host, port)
    _, models = await connection.call("GET", "/v1/models")
    requests = make_requests(models["data"][0]["id"])
    expected = [await ask_whole(connection, path, body) for path, body in requests]
    connection.close()
    for (path, body), answer in zip(requests, expected):
        if isinstance(answer[0], int):
            raise SystemExit(f"{path} {json.dumps(body)}: {answer}")
    storm = Storm(host, port, requests, expected, args.seed)
    begin, sizes = time.monotonic(), []
    for quarter in range(4):
        turns = max(1, args.requests // 4 // args.clients)
        await asyncio.gather(*(storm.client(quarter * args.clients + i, turns) for i in range(args.clients)))
        sizes.append(resident(pid))
    await come_to_rest(storm)
    freed = None
    if args.vanish:
        await asyncio.gather(*(storm.vanish(i) for i in range(args.vanish)))
        freed = await come_to_rest(storm)
    if args.memory and sizes[-1] > sizes[0] * 1.02 + (4 << 20):
        storm.wrong.append(f"memory grew: {sizes}")
    after = await metrics(host, port)
    print(json.dumps({"seconds": round(time.monotonic() - begin, 1), "requests": storm.counts, "resident": sizes,
                      "preemptions": after["pleiad_preemptions_total"], "reused": after["pleiad_reused_tokens_total"],
                      "steps, seconds until the last who vanished held nothing": freed, "wrong": storm.wrong}, indent=1))
    return not storm.wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pleiad")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=24000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--vanish", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="memory must stay flat (not with sanitizers)")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, args.vanish + args.clients + 100)), hard))
    server = subprocess.Popen([args.pleiad, "serve", "-m", args.model, "--port", "0", *options],
                              stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    address = re.search(r"http://\S+", line)
    if not address:
        raise SystemExit(f"the server did not say where it listens: {line!r}")
    url = urlsplit(address.group(0))
    try:
        good = asyncio.run(run(url.hostname, url.port, server.pid, args))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(300)
    if code != 0:
        print(f"the server ended with {code}")
    sys.exit(0 if good and code == 0 else 1)


main()
