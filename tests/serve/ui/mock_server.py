"""A server that speaks as much of the API as the page uses, and answers what a test tells it to."""
import http.server
import json
import pathlib
import threading
import time

PAGE = pathlib.Path(__file__).resolve().parents[3] / "host/serve/ui"
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
POLICY = ("default-src 'self'; img-src 'self' data:; media-src 'self' data:; object-src 'none'; base-uri 'none'; "
          "form-action 'none'; frame-ancestors 'none'")
PROPS = {"model": "gemma-3n-mock", "version": "0", "paths": ["auto", "e4b", "mix", "e2b"], "context": 2048,
         "sampling": {"temperature": 1.0, "top_k": 64, "top_p": 0.95, "min_p": 0.0}}


class Answer:
    """pieces come one after another, `every` seconds apart; `gate`, an Event, holds back all but the first."""

    def __init__(self, *pieces, every=0.0, gate=None, status=200, error=None, headers=None, breaks=False,
                 prompt_tokens=20, finish="stop", path="e2b", reason="load"):
        self.pieces, self.every, self.gate, self.breaks = pieces, every, gate, breaks
        self.status, self.error, self.headers = status, error, headers or {}
        self.finish = finish
        self.usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(pieces),
                      "total_tokens": prompt_tokens + len(pieces)}
        self.served = {"path": path, "reason": reason, "queued_ms": 1.0, "prompt_ms": 20.0, "generate_ms": 100.0,
                       "tokens_per_second": 42.5, "reused": 0, "moved": 0}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def respond(self, status, kind, body, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def respond_json(self, status, value, headers=None):
        self.respond(status, "application/json", json.dumps(value).encode(), headers)

    def may(self):
        mock = self.server.mock
        if mock.key is None or self.headers.get("Authorization") == f"Bearer {mock.key}":
            return True
        self.respond_json(401, {"error": {"message": "You need an API key.", "code": "invalid_api_key"}})
        return False

    def do_GET(self):
        name = self.path.split("?")[0].lstrip("/") or "index.html"
        if name == "props":
            if self.may():
                self.respond_json(200, {**PROPS, "modalities": self.server.mock.modalities})
            return
        file = PAGE / name
        if "/" in name or not file.is_file():
            self.respond_json(404, {"error": {"message": "no such page"}})
            return
        self.respond(200, TYPES[file.suffix], file.read_bytes(),
                     {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mock = self.server.mock
        if not self.may():
            return
        mock.requests.append(body)
        answer = mock.answers.pop(0) if mock.answers else Answer("Fine", ".")
        if answer.status != 200:
            self.respond_json(answer.status, {"error": answer.error}, answer.headers)
            return
        try:
            self.stream(answer)
        except (BrokenPipeError, ConnectionResetError):
            mock.left += 1
        self.close_connection = True

    def send_event(self, value):
        self.wfile.write(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def chunk(self, choices, **more):
        self.send_event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": choices, **more})

    def stream(self, answer):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.chunk([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        for i, piece in enumerate(answer.pieces):
            while i and answer.gate and not answer.gate.is_set():
                answer.gate.wait(0.05)
                self.send_event_comment()
            time.sleep(answer.every)
            self.chunk([{"index": 0, "delta": {"content": piece}, "finish_reason": None}])
        if answer.breaks:
            return
        if answer.error:
            self.send_event({"error": answer.error})
            return
        self.chunk([{"index": 0, "delta": {}, "finish_reason": answer.finish}])
        self.chunk([], usage=answer.usage, pleiad=answer.served)
        self.send_event("[DONE]")

    def send_event_comment(self):
        self.wfile.write(b": waiting\n\n")
        self.wfile.flush()


class MockServer:
    """answers: what is said next, in order; requests: the bodies that came; left: clients that went away; key: if not
    None, the API key that is asked for; modalities: as /props tells them."""

    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.mock = self
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.reset()

    def reset(self):
        self.answers, self.requests, self.left, self.key = [], [], 0, None
        self.modalities = {"vision": True, "audio": True}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
