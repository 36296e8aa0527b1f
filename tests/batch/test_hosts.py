#!/usr/bin/env python3
"""Batch jobs on several machines (hosts.py): the results are those of one process, whatever the network does.

    test_hosts.py CREW_JOB [PLEIAD MODEL]

With PLEIAD the program itself runs, too; that takes a minute."""

import json
import os
import subprocess
import sys
import tempfile
import time
import unittest

import hosts

CREW_JOB = sys.argv[1]
PLEIAD, MODEL = sys.argv[2:4] if len(sys.argv) > 3 else (None, None)
LINES = 1500

# mpirun itself gives a silent machine up after minutes.
IMPATIENT = ("--mca", "oob_tcp_keepalive_time", "2", "--mca", "oob_tcp_keepalive_intvl", "1",
             "--mca", "oob_tcp_keepalive_probes", "2")


def prompt(i):
    return {"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions",
            "body": {"prompt": f"Once upon a time, {i}", "max_tokens": 12, "temperature": 0}}


@unittest.skipIf(hosts.missing(), f"machines in network namespaces: {hosts.missing()}")
class HostsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.input, self.output = self.path("in.jsonl"), self.path("out.jsonl")
        self.write(LINES)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, n):
        with open(self.input, "w") as f:
            for i in range(n):
                f.write(json.dumps(prompt(i)) + "\n")

    def results(self, path):
        with open(path) as f:
            return sorted(f)

    def crew_job(self, output, *more, line_us=500):
        return [CREW_JOB, self.input, output, str(line_us), *more]

    def alone(self):
        subprocess.run(self.crew_job(self.path("alone.jsonl"), line_us=1), check=True)
        return self.results(self.path("alone.jsonl"))

    def wait(self, process, seconds=300):
        try:
            out, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            self.fail(f"still running: {process.communicate()[0]}")
        return process.returncode, out

    def run_on(self, machines, ranks, args, **start):
        return self.wait(machines.start(ranks, args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **start))

    def test_three_machines_are_sent_the_model_and_work(self):
        model = self.path("model.bin")
        with open(model, "wb") as f:
            f.write(os.urandom(3_000_000))
        with hosts.Hosts(3) as machines:
            code, out = self.run_on(machines, 4, self.crew_job(self.output, f"model={model}", "share=always",
                                                                  f"meet={self.folder}"))
        self.assertEqual(code, 0, out)
        self.assertEqual(self.results(self.output), self.alone())
        self.assertEqual(sum("/proc/" in line for line in out.splitlines()), 2, out)
        taken = [json.loads(line)["taken"] for line in out.splitlines() if line.startswith("{")]
        self.assertEqual(len(taken), 4, out)
        self.assertGreater(min(taken), 0, out)

    def test_a_slow_link_that_loses_packets_changes_nothing(self):
        with hosts.Hosts(3, delay_s=0.02, loss=0.01) as machines:
            code, out = self.run_on(machines, 3, self.crew_job(self.output))
            self.assertGreater(machines.lost, 0)
        self.assertEqual(code, 0, out)
        self.assertEqual(self.results(self.output), self.alone())

    def test_a_machine_that_vanishes_ends_cleanly_and_the_rest_is_done_later(self):
        with hosts.Hosts(3) as machines:
            process = machines.start(3, self.crew_job(self.output, "lost=2", f"meet={self.folder}", "stay=2"), IMPATIENT,
                                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            part = self.output + ".part"
            while process.poll() is None and not (os.path.exists(part) and os.path.getsize(part) > 10000):
                time.sleep(0.01)
            machines.cut.add(2)
            code, out = self.wait(process)
        self.assertIn("is lost", out)
        if not os.path.exists(self.output):
            self.assertNotEqual(code, 0, out)
            subprocess.run(self.crew_job(self.output, line_us=1), check=True)
        self.assertEqual(self.results(self.output), self.alone())

    @unittest.skipUnless(PLEIAD, "without the program")
    def test_the_program_answers_the_same_on_three_machines(self):
        self.write(120)
        answers = []
        for machines in (1, 3):
            output = self.path(f"out{machines}.jsonl")
            command = [PLEIAD, "batch", "-m", MODEL, "-i", self.input, "-o", output, "-t", "1", "--quiet"]
            if machines == 1:
                subprocess.run(command, check=True)
            else:
                with hosts.Hosts(machines, delay_s=0.01, loss=0.01) as several:
                    code, out = self.run_on(several, machines, command + ["--share", "always"])
                self.assertEqual(code, 0, out)
            with open(output) as f:
                records = [json.loads(line) for line in f]
            answers.append({r["custom_id"]: r["response"]["body"]["choices"] for r in records})
        self.assertEqual(len(answers[0]), 120)
        self.assertEqual(answers[0], answers[1])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
