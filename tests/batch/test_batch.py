#!/usr/bin/env python3
"""`pleiad batch` as people start, stop and go on with it.

    test_batch.py PLEIAD MODEL
"""

import json
import os
import resource
import signal
import sys
import tempfile
import unittest

from job import Job, chat, kill_all, line, mixed_lines, said, wait_for_bytes

PLEIAD, MODEL = sys.argv[1:3]
PATIENCE_S = 300
FEW = [line(f"r{i}", chat(f"Count to {i}.", max_tokens=6)) for i in range(12)]
LONG = [line(f"r{i}", chat(f"Tell me a story, number {i}.", max_tokens=200)) for i in range(64)]


def small_disk():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))


class BatchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def job(self, lines):
        return Job(PLEIAD, MODEL, self.folder, lines)

    def answer(self, lines, *options):
        job = self.job(lines)
        status, _, err = job.run("-t", "2", *options)
        self.assertEqual(status, 0, err)
        self.assertEqual(job.leftovers(), [])
        return job.results()

    def wait_for(self, name, process):
        wait_for_bytes(os.path.join(self.folder, name), 1, process, PATIENCE_S)

    # ---- results ----

    def test_results_have_openai_s_form(self):
        result = self.answer([line("one", chat("What is the capital of France?", max_tokens=12))])[0]
        self.assertEqual(set(result), {"id", "custom_id", "response", "error"})
        self.assertTrue(result["id"].startswith("batch_req_"))
        self.assertEqual(result["custom_id"], "one")
        self.assertIsNone(result["error"])
        self.assertEqual(result["response"]["status_code"], 200)
        self.assertTrue(result["response"]["request_id"])
        body = result["response"]["body"]
        self.assertEqual(body["object"], "chat.completion")
        self.assertIn("Paris", body["choices"][0]["message"]["content"])

    def test_ordered_results_have_the_order_of_the_requests(self):
        lines = mixed_lines(60)
        results = self.answer(lines, "--ordered")
        self.assertEqual([r["custom_id"] for r in results], [json.loads(text)["custom_id"] for text in lines])

    def test_an_empty_file_has_no_results(self):
        self.assertEqual(self.answer([]), [])

    def test_the_summary_is_json(self):
        job = self.job(FEW + ["no request"])
        status, out, err = job.run("-t", "2", "--json")
        self.assertEqual(status, 0, err)
        summary = json.loads(out)
        self.assertEqual((summary["requests"], summary["answered"], summary["failed"]), (13, 12, 1))
        self.assertGreater(summary["answer_tokens"], 0)
        self.assertEqual(err, "")

    # ---- bad lines ----

    def test_a_bad_line_has_an_error_and_the_others_their_answers(self):
        good = line("good", chat("Say hello.", max_tokens=4))
        url = "/v1/chat/completions"
        bad = [
            ('{"custom_id": "cut", "method": "PO', "JSON"),
            ("[1, 2]", "object"),
            ('{"method": "POST", "url": "/v1/chat/completions", "body": {}}', "custom_id"),
            ('{"custom_id": 7, "method": "POST", "url": "/v1/chat/completions", "body": {}}', "custom_id"),
            ('{"custom_id": "a", "method": "GET", "url": "/v1/chat/completions", "body": {}}', "method"),
            ('{"custom_id": "a", "method": "POST", "url": "/v1/nothing", "body": {}}', "/v1/nothing"),
            ('{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions"}', "body"),
            ('{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": "text"}', "body"),
            (line("good", chat("Once more.")), "good"),
            (line("a", (url, chat("Hi.")[1] | {"stream": True})), "stream"),
            (line("a", (url, {"messages": "none"})), "messages"),
            (line("a", (url, {})), "messages"),
            (line("a", chat("Hi.", max_tokens="many")), "max_tokens"),
            (line("a", chat("Hi.", path="e9b")), "e9b"),
            (line("a", chat("word " * 60000, max_tokens=4)), "context"),
        ]
        for text, names in bad:
            with self.subTest(text[:60]), tempfile.TemporaryDirectory() as folder:
                job = Job(PLEIAD, MODEL, folder, [good, text, line("last", chat("Bye.", max_tokens=4))])
                status, _, err = job.run("-t", "2", "--ordered")
                self.assertEqual(status, 0, err)
                results = job.results()
                self.assertEqual(len(results), 3)
                for i in (0, 2):
                    self.assertEqual(results[i]["response"]["status_code"], 200)
                failed = results[1]
                where = failed["error"] or failed["response"]["body"]["error"]
                self.assertIn(names, json.dumps(where))
                if failed["error"]:
                    self.assertIsNone(failed["response"])
                    self.assertEqual(failed["error"]["line"], 2)
                else:
                    self.assertGreaterEqual(failed["response"]["status_code"], 400)

    def peak_kb(self, job):
        """Peak memory of a run that must go well."""
        process = job.start("-t", "1", "--ordered", "--overwrite", "-np", "2", "-c", "512",
                            "--max-body", "4MiB")
        _, err = process.stdout.close(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.stderr.close()
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, err)
        return usage.ru_maxrss

    def test_a_line_of_100_mb_is_refused_without_being_held(self):
        job = self.job(FEW)
        before = self.peak_kb(job)
        with open(job.input, "a", encoding="utf-8") as file:
            head, tail = line("huge", chat("here")).split("here")
            file.write(head)
            for _ in range(100):
                file.write("x" * 1_000_000)
            file.write(tail + "\n")
            file.write(FEW[0].replace('"r0"', '"after"') + "\n")
        self.assertLess(self.peak_kb(job) - before, 50_000)
        results = job.results()
        self.assertEqual(len(results), len(FEW) + 2)
        self.assertEqual(results[-2]["error"]["code"], "line_too_long")
        self.assertEqual(results[-1]["response"]["status_code"], 200)

    # ---- bad commands ----

    def refused(self, job, names, *options, **how):
        status, _, err = job.run("-t", "2", *options, **how)
        self.assertNotIn(status, (0, 130))
        self.assertIn(names, err)
        self.assertEqual(len(err.strip().splitlines()), 1, err)

    def test_an_output_that_is_there_is_not_lost(self):
        job = self.job(FEW)
        with open(job.output, "w", encoding="utf-8") as file:
            file.write("mine\n")
        self.refused(job, "--overwrite")
        with open(job.output, encoding="utf-8") as file:
            self.assertEqual(file.read(), "mine\n")
        self.assertEqual(job.run("-t", "2", "--overwrite")[0], 0)
        self.assertEqual(len(job.results()), len(FEW))

    def test_what_is_done_is_not_done_again(self):
        job = self.job(FEW + ["no request"])
        for options in (), ("--ordered",):
            self.assertEqual(job.run("-t", "2", *options)[0], 0)
        with open(job.output, encoding="utf-8") as file:
            before = file.read()
        status, _, err = job.run("-t", "2")
        self.assertEqual(status, 0, err)
        self.assertIn("already", err)
        with open(job.output, encoding="utf-8") as file:
            self.assertEqual(file.read(), before)
        self.refused(job, "--overwrite", "--temp", "0.5")
        self.refused(job, "--overwrite", "--path", "e2b")
        with open(job.output, "a", encoding="utf-8") as file:
            file.write(before.splitlines()[0] + "\n")
        self.refused(job, "--overwrite")

    def test_what_cannot_be_is_said(self):
        job = self.job(FEW)
        self.refused(job, "both", "--resume", "--overwrite")
        self.refused(job, "path", "--path", "e9b")
        self.refused(job, "deadline", "--path", "e2b", "--deadline", "1m")
        self.refused(job, "--deadline", "--deadline", "soon")
        self.refused(job, "file of requests", "-o", job.input)
        self.refused(job, "no-such", "-i", os.path.join(self.folder, "no-such.jsonl"))
        self.refused(job, "no-such", "-o", os.path.join(self.folder, "no-such", "out.jsonl"))
        self.refused(job, "/dev/stdout", "-o", "/dev/stdout")
        self.assertEqual(job.leftovers(), [])

    def test_two_jobs_cannot_have_the_same_output(self):
        job = self.job(LONG)
        first = job.start("-t", "1", "-np", "1")
        self.wait_for("out.jsonl.journal", first)
        self.refused(job, "another process")
        kill_all(first)

    # ---- interruptions ----

    def test_a_job_that_was_asked_to_end_goes_on(self):
        for number in signal.SIGINT, signal.SIGTERM:
            with self.subTest(number), tempfile.TemporaryDirectory() as folder:
                job = Job(PLEIAD, MODEL, folder, LONG)
                process = job.start("-t", "1", "-np", "1")
                self.folder = folder
                self.wait_for("out.jsonl.part", process)
                process.send_signal(number)
                _, err = process.communicate(timeout=PATIENCE_S)
                self.assertEqual(process.returncode, 130, err)
                self.assertIn("the same command goes on", err)
                self.assertFalse(os.path.exists(job.output))
                status, _, err = job.run("-t", "2")
                self.assertEqual(status, 0, err)
                self.assertIn("going on", err)
                self.assertEqual(sorted(r["custom_id"] for r in job.results()), sorted(f"r{i}" for i in range(64)))

    def test_a_job_does_not_go_on_with_other_requests_or_settings(self):
        job = self.job(LONG)
        process = job.start("-t", "1", "-np", "1")
        self.wait_for("out.jsonl.part", process)
        kill_all(process)
        self.refused(job, "--overwrite", "--temp", "0.5")
        with open(job.input, "a", encoding="utf-8") as file:
            file.write(FEW[0] + "\n")
        self.refused(job, "--overwrite")
        self.assertEqual(job.run("-t", "2", "--overwrite")[0], 0)

    def test_a_full_disk_loses_nothing(self):
        lines = mixed_lines(120)
        expected = {r["custom_id"]: said(r) for r in self.answer(lines)}
        with tempfile.TemporaryDirectory() as folder:
            job = Job(PLEIAD, MODEL, folder, lines)
            status, _, err = job.run("-t", "2", preexec_fn=small_disk)
            self.assertEqual(status, 1, err)
            self.assertIn("out.jsonl.part", err)
            status, _, err = job.run("-t", "2")
            self.assertEqual(status, 0, err)
            self.assertEqual({r["custom_id"]: said(r) for r in job.results()}, expected)
            self.assertEqual(len(job.results()), len(lines))

    def test_damage_is_named_and_mended(self):
        lines = mixed_lines(120)
        expected = {r["custom_id"]: said(r) for r in self.answer(lines)}
        with tempfile.TemporaryDirectory() as folder:
            job = Job(PLEIAD, MODEL, folder, lines)
            self.assertEqual(job.run("-t", "2", preexec_fn=small_disk)[0], 1)
            with open(job.output + ".part", "r+b") as file:
                file.seek(3000)
                file.write(b"#")
            status, _, err = job.run("-t", "2")
            self.assertEqual(status, 0, err)
            self.assertIn("damaged", err)
            self.assertEqual({r["custom_id"]: said(r) for r in job.results()}, expected)

    def test_a_deadline_chooses_the_path(self):
        results = self.answer(LONG, "--deadline", "1s")
        self.assertEqual(len(results), len(LONG))


unittest.main(argv=sys.argv[:1])
