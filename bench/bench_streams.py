#!/usr/bin/env python3
"""Many open streams at once: how many are lost, when tokens come, and what the server costs beside the engine.

    bench/bench_streams.py PLEIAD MODEL [--streams 1000] [--answer 64] [--server-cores 0,1] [-- OPTIONS OF serve]

Starts the server, opens all streams together and reads every one to its end. The server's cost is the processor time
of its threads that do not compute (by their names in /proc): reading requests, writing events, forming steps are told
apart. Let this program run on other cores than the server (taskset), or its own work counts against it.
"""

import argparse
import asyncio
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "serve"))
from client import Closed, Connection  # noqa: E402


def thread_seconds(pid):
    """Processor seconds of each thread, by name."""
    seconds = {}
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        text = (task / "stat").read_text()
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        seconds[name] = seconds.get(name, 0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


async def stream(url, model, number, answer, times):
    """True when the stream came to its proper end with all its tokens."""
    connection = Connection(url.hostname, url.port)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Count from {number % 50} on."}],
        "max_tokens": answer, "ignore_eos": True, "temperature": 0, "stream": True,
        "stream_options": {"include_usage": True},
    }
    begin, first, last, tokens, ended = time.monotonic(), None, None, 0, False
    try:
        status, _ = await connection.send("POST", "/v1/chat/completions", body)
        if status != 200:
            return False
        async for _, data in connection.events():
            last = time.monotonic()
            first = first or last
            if data == "[DONE]":
                ended = True
            elif usage := json.loads(data).get("usage"):
                tokens = usage["completion_tokens"]
    except (Closed, ConnectionError):
        return False
    finally:
        connection.close()
    times.append((first - begin, (last - first) / max(1, tokens - 1)))
    return ended and tokens == answer


def quantile(values, share):
    values = sorted(values)
    return values[int(share * (len(values) - 1))]


async def run(url, pid, args):
    times = []
    connection = Connection(url.hostname, url.port)
    _, models = await connection.call("GET", "/v1/models")
    connection.close()
    model = models["data"][0]["id"]
    before, begin = thread_seconds(pid), time.monotonic()
    ends = await asyncio.gather(*(stream(url, model, i, args.answer, times) for i in range(args.streams)))
    wall = time.monotonic() - begin
    after = thread_seconds(pid)
    cost = {name: (after[name] - before.get(name, 0)) / wall for name in after}
    result = {
        "streams": args.streams, "lost": ends.count(False), "seconds": round(wall, 2),
        "tokens_s": round(sum(ends) * args.answer / wall, 1),
        "first_token_s": {q: round(quantile([t[0] for t in times], q), 3) for q in (0.5, 0.99)},
        "token_ms": {q: round(1e3 * quantile([t[1] for t in times], q), 1) for q in (0.5, 0.99)},
        "cores_by_thread": {name: round(share, 4) for name, share in sorted(cost.items())},
    }
    print(json.dumps(result, indent=1))
    return result["lost"] == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pleiad")
    parser.add_argument("model")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--server-cores", help="as taskset -c takes them")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, args.streams + 100)), hard))
    command = [args.pleiad, "serve", "-m", args.model, "--port", "0", *options]
    if args.server_cores:
        command = ["taskset", "-c", args.server_cores, *command]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = urlsplit(re.search(r"http://\S+", server.stdout.readline()).group(0))
    try:
        good = asyncio.run(run(url, server.pid, args))
    finally:
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
    sys.exit(0 if code == 0 and good else 1)


main()
