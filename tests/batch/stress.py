#!/usr/bin/env python3
"""Batch jobs that are killed again and again, and go on: in the end each request has exactly one result, the one that a job
that nobody disturbs gives.

    stress.py PLEIAD MODEL [--lines 300] [--kills 5] [--ranks 1] [--check 20] [-- options of batch]

--ranks: by mpirun. --check: so many answers are compared with `pleiad run`, too.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time

from job import Job, kill_all, mixed_lines, said


def fail(text):
    sys.exit(f"stress.py: {text}")


def launcher(ranks):
    if ranks == 1:
        return []
    return ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]


def check_once(lines, results):
    names = [json.loads(text)["custom_id"] for text in lines]
    found = [result["custom_id"] for result in results]
    if sorted(names) != sorted(found):
        missing, more = set(names) - set(found), [name for name in found if found.count(name) > 1]
        fail(f"{len(found)} results for {len(names)} requests; missing {sorted(missing)[:5]}, doubled {more[:5]}")


def disturb(job, args, rng, whole_s):
    """Kills the job at random moments, then lets it end. Returns how many kills met it at work."""
    met = 0
    for _ in range(args.kills):
        process = job.start(*args.options)
        time.sleep(rng.uniform(0.05, max(0.5, 1.6 * whole_s / args.kills)))
        if process.poll() is None:
            met += 1
        elif process.returncode == 0:
            kill_all(process)
            return met
        kill_all(process)
    status, _, err = job.run(*args.options, timeout=1800)
    if status != 0:
        fail(f"the last start ended with {status}: {err}")
    return met


def check_answers(args, lines, results, rng):
    """Greedy chats and completions, as `pleiad run` answers them."""
    by_name = {result["custom_id"]: result for result in results}
    plain = [json.loads(text) for text in lines]
    plain = [r for r in plain if r["url"] != "/v1/embeddings" and r["body"]["max_tokens"] > 0]
    for request in rng.sample(plain, min(args.check, len(plain))):
        body = request["body"]
        command = [args.pleiad, "run", "-m", args.model, "--temp", "0", "-n", str(body["max_tokens"]), "-q",
                   "--path", body.get("path", args.path)]
        if request["url"] == "/v1/completions":
            command += ["--no-chat", "-p", body["prompt"]]
        else:
            command += ["-p", body["messages"][-1]["content"]]
            if len(body["messages"]) > 1:
                command += ["--sys", body["messages"][0]["content"]]
        expected = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        choice = by_name[request["custom_id"]]["response"]["body"]["choices"][0]
        answer = choice["text"] if "text" in choice else choice["message"]["content"]
        if answer.strip() != expected.strip():
            fail(f"{request['custom_id']}: {answer!r}, pleiad run says {expected!r}")


def main():
    arguments = sys.argv[1:]
    options = []
    if "--" in arguments:
        at = arguments.index("--")
        arguments, options = arguments[:at], arguments[at + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pleiad")
    parser.add_argument("model")
    parser.add_argument("--lines", type=int, default=300)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--check", type=int, default=20)
    parser.add_argument("--path", default="e4b")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(arguments)
    args.options = options
    rng = random.Random(args.seed)
    lines = mixed_lines(args.lines, args.seed)
    with tempfile.TemporaryDirectory() as calm, tempfile.TemporaryDirectory() as rough:
        quiet = Job(args.pleiad, args.model, calm, lines)
        begin = time.monotonic()
        status, _, err = quiet.run(*options, timeout=1800)
        whole_s = time.monotonic() - begin
        if status != 0:
            fail(f"the undisturbed job ended with {status}: {err}")
        check_once(lines, quiet.results())
        job = Job(args.pleiad, args.model, rough, lines, launcher(args.ranks))
        met = disturb(job, args, rng, whole_s)
        results = job.results()
        check_once(lines, results)
        expected = {result["custom_id"]: said(result) for result in quiet.results()}
        for result in results:
            if said(result) != expected[result["custom_id"]]:
                fail(f"{result['custom_id']}: {said(result)}, undisturbed {expected[result['custom_id']]}")
        if job.leftovers():
            fail(f"left behind: {job.leftovers()}")
        check_answers(args, lines, results, rng)
    print(f"{args.lines} requests, {args.ranks} ranks, {met} kills at work: each result there once, and the same")


main()
