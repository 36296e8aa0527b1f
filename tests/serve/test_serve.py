#!/usr/bin/env python3
"""`pleiad serve` as people start and end it.

    test_serve.py PLEIAD MODEL
"""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

PLEIAD, MODEL = sys.argv[1:3]
PATIENCE_S = 300
NAME = os.path.basename(MODEL).removesuffix(".gguf")
CHAT = {"model": NAME, "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


class Server:
    """A server on any free port; stopped at the end of the block."""

    def __init__(self, *options):
        self.process = subprocess.Popen([PLEIAD, "serve", "-m", MODEL, "--port", "0", "-t", "2", *options],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().removeprefix("listening on ").strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def connect(self):
        if self.address.startswith("unix:"):
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE_S)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self.address.removeprefix("unix:"))
            return connection
        return http.client.HTTPConnection("127.0.0.1", int(self.address.rsplit(":", 1)[1]), timeout=PATIENCE_S)

    def ask(self, method, path, body=None, headers=None):
        connection = self.connect()
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, err


class WebSocket:
    """A realtime session."""

    def __init__(self, server, headers=""):
        self.sock = socket.create_connection(("127.0.0.1", int(server.address.rsplit(":", 1)[1])), timeout=PATIENCE_S)
        self.file = self.sock.makefile("rb")
        self.sock.sendall("GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                          f"{headers}\r\n".encode())
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass

    def frame(self):
        """(kind, payload)"""
        kind, size = self.file.read(2)
        if size > 125:
            size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
        return kind & 15, self.file.read(size)

    def send(self, **event):
        data = json.dumps(event).encode()
        size = bytes([128 + len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        self.sock.sendall(b"\x81" + size + bytes(4) + data)

    def events(self, last):
        """Those up to the one of this type."""
        found = [{"type": ""}]
        while found[-1]["type"] != last:
            kind, data = self.frame()
            assert kind == 1, (kind, data)
            found.append(json.loads(data))
        return found[1:]

    def close(self):
        self.file.close()
        self.sock.close()


class Serve(unittest.TestCase):
    def test_answers_and_ends(self):
        with Server() as server:
            self.assertRegex(server.address, r"^http://127\.0\.0\.1:\d+$")
            self.assertEqual(server.ask("GET", "/health"), (200, '{"status":"ok"}'))
            self.assertEqual(server.ask("GET", "/ready"), (200, '{"status":"ready"}'))
            props = json.loads(server.ask("GET", "/props")[1])
            self.assertEqual(props["model"], NAME)
            self.assertIn("e2b", props["paths"])
            status, text = server.ask("POST", "/v1/chat/completions", CHAT)
            self.assertEqual(status, 200, text)
            self.assertIn("Paris", json.loads(text)["choices"][0]["message"]["content"])
            status, text = server.ask("GET", "/metrics")
            self.assertIn("\npleiad_requests_done_total 1\n", text)
            self.assertIn("<title>", server.ask("GET", "/")[1])
            self.assertEqual(server.end(), (0, ""))

    def test_realtime_answers_and_drains(self):
        content = [{"type": "input_text", "text": CHAT["messages"][0]["content"]}]
        with Server("--drain", "1000") as server:
            idle, session = WebSocket(server), WebSocket(server)
            session.send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
            session.send(type="response.create", response={"temperature": 0, "output_modalities": ["text"]})
            self.assertIn("Paris", session.events("response.output_text.done")[-1]["text"])
            self.assertEqual(session.events("response.done")[-1]["response"]["status"], "completed")
            session.send(type="response.create", response={"max_output_tokens": 200, "instructions": "Tell a story."})
            session.events("response.created")
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(idle.events("session.created")[0]["session"]["model"], NAME)
            self.assertEqual(idle.frame(), (8, b"\x03\xe9the server ends"))
            idle.close()
            session.events("response.done")
            self.assertEqual(session.frame(), (8, b"\x03\xe9the server ends"))
            session.close()
            err = server.process.communicate(timeout=PATIENCE_S)[1]  # it was asked once: twice would end it at once
            self.assertEqual((server.process.returncode, err), (0, ""))

    def test_drains(self):
        body = {**CHAT, "stream": True, "max_tokens": 400, "ignore_eos": True}
        with Server("--drain", "1000") as server:
            connection = server.connect()
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            response = connection.getresponse()
            response.read(20)
            ended = []
            thread = threading.Thread(target=lambda: ended.append(server.end()))
            thread.start()
            text = response.read().decode()
            thread.join()
            connection.close()
            self.assertTrue(text.endswith("data: [DONE]\n\n"), text[-300:])
            self.assertEqual(ended[0], (0, ""))

    def test_ends_at_once_when_asked_twice(self):
        body = {**CHAT, "stream": True, "max_tokens": 1500, "ignore_eos": True}
        with Server("--drain", "1000") as server:
            connections = [server.connect() for _ in range(16)]
            for connection in connections:
                connection.request("POST", "/v1/chat/completions", json.dumps(body))
            for connection in connections:
                self.assertEqual(connection.getresponse().status, 200)
            server.process.send_signal(signal.SIGINT)
            # until the first has arrived: two at once are one; reset: who stands in the queue of a socket that closes
            with self.assertRaises((ConnectionRefusedError, ConnectionResetError)):
                while True:
                    server.connect().connect()
            self.assertEqual(server.end(signal.SIGINT)[0], 0)
            for connection in connections:
                connection.close()

    def ask_twice(self, server):
        """Tokens reused of the first and the second of two equal requests, whose answers are right."""
        reused = []
        for _ in range(2):
            answer = json.loads(server.ask("POST", "/v1/chat/completions", {**CHAT, "path": "e4b"})[1])
            self.assertIn("Paris", answer["choices"][0]["message"]["content"])
            reused.append(answer["pleiad"]["reused"])
        return reused

    def test_keeps_prefixes_for_the_next(self):
        with tempfile.TemporaryDirectory() as folder:
            options = ("--prefix-cache", os.path.join(folder, "prefixes"))
            with Server(*options) as server:
                first, second = self.ask_twice(server)
                self.assertEqual(first, 0)
                self.assertGreater(second, 0)
                self.assertEqual(server.end(), (0, ""))
            with Server(*options) as server:
                self.assertEqual(self.ask_twice(server)[0], second)
                server.process.kill()  # the file stays as it was
            with Server(*options) as server:
                self.assertEqual(self.ask_twice(server)[0], second)
                self.assertEqual(server.end(), (0, ""))
            self.assertEqual(os.listdir(folder), ["prefixes"])
            os.truncate(options[1], 1000)
            with Server(*options) as server:
                self.assertEqual(self.ask_twice(server)[0], 0)
                server.process.kill()
                self.assertIn("kept prefixes are not used", server.process.communicate()[1])

    def test_prefixes_for_which_there_is_no_room(self):
        with Server("--prefix-cache", "/dev/full") as server:
            self.ask_twice(server)
            code, err = server.end()
            self.assertEqual(code, 0)
            self.assertIn("No space left on device", err)

    def test_keys(self):
        with tempfile.TemporaryDirectory() as folder:
            keys = os.path.join(folder, "keys")
            with open(keys, "w", encoding="ascii") as file:
                file.write("# for tests\n\n  secret-1 \r\nsecret-2\n")
            os.chmod(keys, 0o600)
            with Server("--api-key-file", keys) as server:
                self.assertEqual(server.ask("GET", "/props")[0], 401)
                self.assertEqual(server.ask("GET", "/health")[0], 200)
                self.assertEqual(server.ask("GET", "/props", None, {"Authorization": "Bearer secret-1"})[0], 200)
                self.assertEqual(server.ask("GET", "/props", None, {"x-api-key": "secret-2"})[0], 200)
                self.assertEqual(server.ask("GET", "/props", None, {"x-api-key": "# for tests"})[0], 401)
                for headers, status in ("", 401), ("Authorization: Bearer secret-1\r\n", 101):
                    session = WebSocket(server, headers)
                    self.assertEqual(session.status, status)
                    session.close()
                self.assertEqual(server.end(), (0, ""))
            os.chmod(keys, 0o644)
            with Server("--api-key-file", keys) as server:
                self.assertIn("chmod 600", server.end()[1])

    def test_options(self):
        with tempfile.TemporaryDirectory() as folder:
            place = os.path.join(folder, "socket")
            with Server("--host", place, "--alias", "mine", "--no-web", "--path", "e2b", "-c", "512", "--temp", "0.5",
                        "-v") as server:
                self.assertEqual(server.address, "unix:" + place)
                self.assertEqual(server.ask("GET", "/")[0], 404)
                props = json.loads(server.ask("GET", "/props")[1])
                self.assertEqual((props["model"], props["path"], props["context"]), ("mine", "e2b", 512))
                self.assertEqual(props["sampling"]["temperature"], 0.5)
                code, err = server.end()
                self.assertEqual(code, 0)
                self.assertRegex(err, r"uid \d+ GET / 404 [\d.]+ ms\n")
                self.assertFalse(os.path.exists(place))

    def test_kv_memory(self):
        tokens = []
        for options in [], ["--kv-memory", "8MB"], ["--kv-memory", "4MB"], ["--kv-memory", "1kB"]:
            with Server("-c", "512", *options) as server:
                metrics = server.ask("GET", "/metrics")[1]
                tokens.append(int(re.search(r"^pleiad_kv_tokens (\d+)$", metrics, re.M)[1]))
        self.assertEqual(tokens, sorted(set(tokens), reverse=True))
        self.assertEqual(tokens[-1], 512)

    def fails(self, code, words, *options):
        done = subprocess.run([PLEIAD, "serve", "-m", MODEL, *options], capture_output=True, text=True, timeout=PATIENCE_S,
                              check=False)
        self.assertEqual((done.returncode, done.stdout), (code, ""), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_says_what_is_wrong(self):
        with Server() as server:
            port = server.address.rsplit(":", 1)[1]
            self.fails(1, ["127.0.0.1", port, "in use"], "--port", port)
        self.fails(1, ["/nonexistent/keys"], "--api-key-file", "/nonexistent/keys")
        self.fails(1, ["no API key"], "--api-key-file", "/dev/null")
        self.fails(2, ["e3b"], "--port", "0", "--path", "e3b")
        self.fails(2, ["65536"], "--port", "65536")
        self.fails(2, ["--alias"], "--port", "0", "--alias=")
        self.fails(1, ["/nonexistent/prefixes"], "--port", "0", "--prefix-cache", "/nonexistent/prefixes")
        with Server("--host", "0.0.0.0") as server:
            self.assertIn("--api-key-file", server.end()[1])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], warnings="ignore")
