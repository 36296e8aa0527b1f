"""Batch jobs for tests: files of requests, runs of `pleiad batch`, what came of them."""

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import time

QUESTIONS = [
    "What is the capital of France?", "What is 3 plus 4?", "Count to five.", "What colour is the sky?",
    "Say hello.", "Which animal says meow?", "What is the opposite of hot?", "Name a fruit.",
]
SYSTEM = "You answer in one short line. " * 12


def chat(text, system=None, **more):
    messages = [{"role": "system", "content": system}] if system else []
    body = {"model": "any", "messages": messages + [{"role": "user", "content": text}], "temperature": 0}
    return "/v1/chat/completions", body | more


def line(name, url_and_body):
    url, body = url_and_body
    return json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body})


def mixed_lines(n, seed=1):
    """Chats with and without a common beginning, completions, embeddings, another path, now and then a bad line."""
    rng = random.Random(seed)
    lines = []
    for i in range(n):
        question = f"{rng.choice(QUESTIONS)} ({rng.randrange(1000)})"
        kind = rng.randrange(12)
        most = rng.choice([1, 4, 8, 24])
        if kind < 4:
            what = chat(question, max_tokens=most)
        elif kind < 7:
            what = chat(question, SYSTEM, max_tokens=most)
        elif kind == 7:
            what = chat(question, max_tokens=most, path="e2b")
        elif kind < 10:
            what = "/v1/completions", {"model": "any", "prompt": question, "max_tokens": most, "temperature": 0}
        elif kind == 10:
            what = "/v1/embeddings", {"model": "any", "input": question}
        else:
            what = chat(question, max_tokens=-most)
        lines.append(line(f"request-{i}", what))
    return lines


class Job:
    """A file of requests in a folder, and the command that answers it."""

    def __init__(self, pleiad, model, folder, lines=None, launch=()):
        self.folder, self.launch = folder, list(launch)
        self.input, self.output = os.path.join(folder, "in.jsonl"), os.path.join(folder, "out.jsonl")
        self.command = [*self.launch, pleiad, "batch", "-m", model, "-i", self.input, "-o", self.output]
        if lines is not None:
            with open(self.input, "w", encoding="utf-8") as file:
                file.write("".join(text + "\n" for text in lines))

    def start(self, *options, **how):
        return subprocess.Popen([*self.command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True, **how)

    def run(self, *options, timeout=300, **how):
        process = self.start(*options, **how)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                kill_all(process)
        return process.returncode, out, err

    def results(self):
        with open(self.output, encoding="utf-8") as file:
            return [json.loads(text) for text in file]

    def leftovers(self):
        return sorted(set(os.listdir(self.folder)) - {"in.jsonl", "out.jsonl"})


def wait_for_bytes(path, n, process, patience_s):
    """Until the file has n bytes; an AssertionError where the process has ended, or time has run out, before."""
    until = time.monotonic() + patience_s
    while not os.path.exists(path) or os.path.getsize(path) < n:
        if process.poll() is not None:
            raise AssertionError(f"{process.args} ended before {path} had {n} bytes: {process.communicate()}")
        if time.monotonic() >= until:
            raise AssertionError(f"{path} has no {n} bytes after {patience_s} s")
        time.sleep(0.01)


def children(pid):
    found = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                if name.isdigit() and int(file.read().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(name))
        except OSError:
            pass  # not a process, or no longer one
    return found


def kill_all(process):
    """The process and all it has started, wherever it has put them: mpirun gives each rank a group of its own, and one
    that outlived it would hold the output's lock. Returns when all have ended."""
    doomed = [process.pid] if process.poll() is None else []
    ends = []
    for pid in doomed:  # which grows
        with contextlib.suppress(ProcessLookupError):
            ends.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGSTOP)  # so that it starts no more
            doomed += children(pid)
    for end in ends:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(end, signal.SIGKILL)
        select.select([end], [], [])
        os.close(end)
    process.communicate()


def said(result):
    """Of a result what must not depend on how the job went: all but ids and times."""
    response = result["response"]
    if response is None:
        return {"custom_id": result["custom_id"], "error": result["error"]}
    body = {key: value for key, value in response["body"].items() if key not in ("id", "created")}
    for key in ("pleiad", "timings", "usage"):
        body.pop(key, None)
    return {"custom_id": result["custom_id"], "status": response["status_code"], "body": body}
