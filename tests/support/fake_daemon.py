"""A small server with the part of the daemon's API that commands call."""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RESULT = {
    "result": "Paris\x1b[2J.",
    "session_id": None,
    "profile": "default",
    "model": "m.gguf",
    "usage": {
        "prompt_tokens": 31,
        "completion_tokens": 12,
        "total_tokens": 43,
        "prompt_tokens_details": {"cached_tokens": 7},
    },
    "finish_reason": "stop",
    "turns_in_prompt": 0,
    "seed": 5,
    "timings": {"queue_ms": 10, "prefill_ms": 250, "decode_ms": 500},
}
STATUS = {
    "version": "9.9",
    "uptime_s": 93_784,
    "state": "ready",
    "reason": None,
    "progress": 1.0,
    "model": "m.gguf",
    "profile": "default",
    "context_tokens": 4096,
    "cpu_variant": "haswell",
    "threads": 4,
    "sequences": {"running": 2, "waiting": 1, "max": 8},
    "streams": {"active": 2, "queued": 0, "max": 8, "max_queue": 64},
    "tokens_per_s": 17.25,
    "restarts": 0,
    "sessions": 3,
}


def error(message: str, code: str) -> dict[str, Any]:
    """Return the body of an error response."""
    fields = {"message": message, "type": "t", "param": None, "code": code}
    return {"error": fields, "message": message}


def event(name: str, data: object) -> str:
    """Return one server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


class FakeDaemon(ThreadingHTTPServer):
    """Respond as the attributes say, and record the requests.

    If `stalls_after` is a number, a stream stops after that many events until the client has gone.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        tokens = [event("token", {"text": text}) for text in ("Paris", "\x1b[2J", ".")]
        self.stream = [": ping\n\n", *tokens, event("done", RESULT)]
        self.stalls_after: int | None = None
        self.client_gone = threading.Event()
        self.broken: list[str] = []
        self.answer: tuple[int, object] = (200, RESULT)
        self.health: tuple[int, object] = (200, {"status": "ok", "model": "m.gguf"})
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    def handle_error(self, *args: Any) -> None:
        """Record a broken connection, instead of printing a traceback."""
        self.broken.append(repr(sys.exception()))

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeDaemon

    def log_message(self, *args: Any) -> None:
        """Log nothing."""

    def _send(self, status: int, body: object) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.server.keys.append(self.headers["authorization"])
        answers = {"/health": self.server.health, "/status": (200, STATUS)}
        self._send(*answers.get(self.path, (404, error("no such route", "unknown_route"))))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.keys.append(self.headers["authorization"])
        self.server.asked.append(body)
        if not body.get("stream") or self.server.answer[0] != 200:
            self._send(*self.server.answer)
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for index, text in enumerate(self.server.stream):
            if index == self.server.stalls_after:
                self.connection.recv(1)
                self.server.client_gone.set()
                self.close_connection = True
                return
            self._chunk(text)
        self._chunk("")

    def _chunk(self, text: str) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(text.encode()), text.encode()))
