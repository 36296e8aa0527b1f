#!/usr/bin/env python3
"""Batch jobs under mpirun on this machine: the results are those of one process, also after a rank or all of them were killed.

    test_ranks.py CREW_JOB"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from job import kill_all, wait_for_bytes

CREW_JOB = sys.argv[1]
MPIRUN = ["mpirun", "--oversubscribe"] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])
LINES = 1000
PATIENCE_S = 300


@unittest.skipUnless(shutil.which("mpirun"), "needs mpirun")
class RanksTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.input, self.output = (os.path.join(folder.name, name) for name in ("in.jsonl", "out.jsonl"))
        self.folder = folder.name
        with open(self.input, "w") as f:
            for i in range(LINES):
                body = {"prompt": "x" * (i % 50)}
                f.write(json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/completions", "body": body}) + "\n")

    def start(self, ranks, *more, line_us=500, program=CREW_JOB, output=None):
        launcher = MPIRUN + ["-n", str(ranks)] if ranks else []
        return subprocess.Popen([*launcher, program, self.input, output or self.output, str(line_us), *more],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)

    def run_job(self, ranks, *more, **how):
        process = self.start(ranks, *more, **how)
        out, _ = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out

    def expect_results(self):
        alone = os.path.join(self.folder, "alone.jsonl")
        code, out = self.run_job(0, line_us=1, output=alone)
        self.assertEqual(code, 0, out)
        with open(alone) as a, open(self.output) as b:
            self.assertEqual(sorted(a), sorted(b))
        self.assertEqual(sorted(os.listdir(self.folder)), ["alone.jsonl", "in.jsonl", "out.jsonl"])
        os.unlink(alone)

    def meet(self):
        """A folder for the ranks to meet in."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return f"meet={folder.name}"

    def ranks_of(self, out):
        return {r["rank"]: r for r in (json.loads(line) for line in out.splitlines() if line.startswith("{"))}

    def wait_for_results(self, process):
        wait_for_bytes(self.output + ".part", 2001, process, PATIENCE_S)

    def test_three_ranks_share_the_work(self):
        code, out = self.run_job(3, self.meet())
        self.assertEqual(code, 0, out)
        self.expect_results()
        taken = [r["taken"] for r in self.ranks_of(out).values()]
        self.assertEqual(sum(taken), LINES)
        self.assertGreater(min(taken), 0)

    def test_others_go_on_where_a_rank_has_no_engine(self):
        for bad in (0, 1):
            code, out = self.run_job(2, f"unable={bad}", self.meet(), line_us=50)
            self.assertEqual(code, 0, out)
            self.assertRegex(out, rf"rank {bad} on \S+ does not work: no engine here")
            self.expect_results()
            os.unlink(self.output)

    def test_a_rank_that_is_killed_ends_the_job_and_the_next_start_completes_it(self):
        for rank in (0, 1):
            code, out = self.run_job(3, f"die={rank}:50")
            self.assertNotEqual(code, 0, out)
            self.assertFalse(os.path.exists(self.output))
            self.assertTrue(os.path.exists(self.output + ".journal"))
            code, out = self.run_job(2, line_us=10)
            self.assertEqual(code, 0, out)
            self.assertLess(sum(r["taken"] for r in self.ranks_of(out).values()), LINES)
            self.expect_results()
            os.unlink(self.output)

    def test_a_signal_stops_all_ranks(self):
        process = self.start(3, self.meet(), "stay=2")
        self.wait_for_results(process)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_S)
        self.assertNotEqual(process.returncode, 0)
        self.assertIn("crew_job: rank 0: ", out)
        code, out = self.run_job(3, line_us=10)
        self.assertEqual(code, 0, out)
        self.expect_results()

    def test_all_processes_killed_at_once(self):
        process = self.start(3, self.meet(), "stay=2")
        self.wait_for_results(process)
        kill_all(process)
        code, out = self.run_job(2, line_us=10)
        self.assertEqual(code, 0, out)
        self.expect_results()

    def test_without_the_module_nothing_is_done_many_times(self):
        alone = shutil.copy(CREW_JOB, self.folder)
        code, out = self.run_job(2, program=alone)
        os.unlink(alone)
        self.assertNotEqual(code, 0)
        self.assertIn("started as 2 processes, which needs pleiad-mpi.so", out)
        self.assertEqual(os.listdir(self.folder), ["in.jsonl"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
