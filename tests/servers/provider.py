"""A provider of our own: a real HTTP server that speaks OpenAI's wire, and misbehaves on demand.

Each chat request takes the next script of a queue (``script``), or ``otherwise`` when the queue is
empty: it echoes the question. Scripts are in ``tests/servers/scripts.py``. By hand::

    python -m tests.servers.provider --port 12500

The shapes are those of https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers import HOST

CHAT = "/v1/chat/completions"
MODELS = "/v1/models"
PATIENCE = 20.0  # seconds that a waiting test is given
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: closing sends RST instead of FIN


@dataclass(frozen=True)
class Request:
    """A request as it came; ``headers`` by their names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def question(self) -> str:
        """What the user said last."""
        return str(self.body["messages"][-1]["content"])


class Stopped(Exception):
    """The server is being stopped while a script runs."""


class Exchange:
    """One request and the ways to answer it."""

    def __init__(self, handler: _Handler, request: Request) -> None:
        self.request = request
        self._handler = handler
        self._stopping = handler.server.provider.stopping

    def respond(self, status: int, body: bytes, **headers: str) -> None:
        """A whole answer; ``headers`` with ``_`` for ``-``, beside Content-Length."""
        self.start(status, **{"Content_Length": str(len(body))} | headers)
        self.write(body)

    def respond_json(self, status: int, document: Any, **headers: str) -> None:
        """A whole JSON answer, in ASCII: what else is in texts goes as JSON's escapes."""
        body = json.dumps(document).encode("ascii")
        self.respond(status, body, **{"Content_Type": "application/json"} | headers)

    def start(self, status: int, **headers: str) -> None:
        """Status and headers; the connection ends with the answer where its length is not said."""
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self._handler.close_connection = True
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        """Raw bytes, at once."""
        self._handler.wfile.write(data)

    def pause(self, seconds: float) -> None:
        """Wait; raises Stopped when the server is stopped meanwhile."""
        if self._stopping.wait(seconds):
            raise Stopped

    def hang_up(self, *, reset: bool = False) -> None:
        """Close the connection, whatever was promised; ``reset``: as a crash does."""
        connection = self._handler.connection
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._handler.close_connection = True
        self._handler.rfile.close()
        connection.close()


Script = Callable[[Exchange], None]


class ScriptedProvider:
    """The server; a context manager, too. Every method may be called from any thread."""

    def __init__(self, port: int = 0, models: Iterable[str] = ("echo",)) -> None:
        self.models = list(models)
        self.otherwise: Script = echo
        self.models_script: Script = self._list_models
        self.stopping = threading.Event()
        self._port = port
        self._scripts: deque[Script] = deque()
        self._requests: list[Request] = []
        self._changed = threading.Condition()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # --- what a test says and asks ------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """What ``api_endpoint`` takes."""
        return f"http://{HOST}:{self._port}/v1"

    def script(self, *scripts: Script) -> None:
        """How the next chat requests are answered, one script each."""
        with self._changed:
            self._scripts.extend(scripts)

    @property
    def requests(self) -> list[Request]:
        """Every request so far."""
        with self._changed:
            return list(self._requests)

    @property
    def calls(self) -> list[Request]:
        """The requests for an answer of an LLM."""
        return [request for request in self.requests if request.path == CHAT]

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return self._server.accepted if self._server else 0

    def wait_for_calls(self, count: int) -> None:
        """Return once that many chat requests have come; TimeoutError after 20 s."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: sum(request.path == CHAT for request in self._requests) >= count, PATIENCE
            )
        if not arrived:
            raise TimeoutError(f"{len(self.calls)} of {count} calls came within {PATIENCE} s")

    # --- its life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen."""
        self.stopping.clear()
        self._server = _Server((HOST, self._port), self)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="provider"
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is None or self._thread is None:
            return
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()  # joins the connections' threads
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _list_models(self, exchange: Exchange) -> None:
        models = [{"id": name, "object": "model"} for name in self.models]
        exchange.respond_json(200, {"object": "list", "data": models})

    def next_script(self, request: Request) -> Script:
        """For the server: keep the request, and say how it is answered."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            if request.path == MODELS and request.method == "GET":
                return self.models_script
            if request.path != CHAT or request.method != "POST":
                return lambda exchange: exchange.respond_json(404, {"error": {"message": "no"}})
            return self._scripts.popleft() if self._scripts else self.otherwise


def completion(request: Request, text: str | None, **message: Any) -> dict[str, Any]:
    """The document of a whole answer; ``message``: further fields of the assistant's message."""
    prompt = sum(len(str(item["content"]).split()) for item in request.body["messages"])
    words = len((text or "").split())
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text} | message,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": words,
            "total_tokens": prompt + words,
        },
    }


def echo(exchange: Exchange) -> None:
    """Say what the user said; tokens are counted as words."""
    request = exchange.request
    exchange.respond_json(200, completion(request, f"You said: {request.question}"))


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for them
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], provider: ScriptedProvider) -> None:
        self.provider = provider
        self.accepted = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
            self.accepted += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End what is idle or stuck: a reader gets its end of file."""
        with self._lock:
            for connection in self._open:
                if connection.fileno() >= 0:
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Else the second of two small pieces waits 40 ms for the first one's acknowledgement.
    disable_nagle_algorithm = True
    server: _Server

    def _handle(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, self.path, headers, _parsed(text))
        script = self.server.provider.next_script(request)
        try:
            script(Exchange(self, request))
        except (OSError, Stopped):
            self.close_connection = True

    do_GET = do_POST = _handle

    def log_message(self, format: str, *args: object) -> None:
        """Tests look at ``requests`` instead."""


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def main() -> None:
    """Run by hand until Ctrl-C."""
    parser = argparse.ArgumentParser(description="A provider that echoes, on OpenAI's wire.")
    parser.add_argument("--port", type=int, default=12_500)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--model", action="append", help="a model's name; may be repeated")
    chosen = parser.parse_args()
    with ScriptedProvider(chosen.port, chosen.model or ["echo"]) as provider:
        if chosen.delay:
            from tests.servers.scripts import after

            provider.otherwise = after(chosen.delay, echo)
        print(f"Serving {', '.join(provider.models)} at {provider.base_url}; Ctrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
