"""A provider of our own: a real HTTP server that speaks OpenAI's, Anthropic's and Ollama's wires,
and misbehaves on demand.

Each chat request takes the next script of a queue (``script``), or ``otherwise`` when the queue is
empty: it echoes the question, in pieces where that is asked for. Scripts are in
``tests/servers/scripts.py``, the shapes in ``tests/servers/shapes.py``. By hand::

    python -m tests.servers.provider --port 12500
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
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers import HOST
from tests.servers.shapes import (
    CHATS,
    OLLAMA,
    OPENAI,
    Said,
    frames,
    is_streamed,
    said_in,
    whole,
)

CHAT = OPENAI
MODELS = "/v1/models"
TAGS = "/api/tags"
PATIENCE = 60.0  # seconds that a waiting test is given
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
        """What the user said last; of parts their text."""
        return said_in(self.body["messages"][-1]["content"])


class Stopped(Exception):
    """The server is being stopped while a script runs."""


class Left(Exception):
    """The client has closed the connection while a script runs."""


class Exchange:
    """One request and the ways to answer it."""

    def __init__(self, handler: _Handler, request: Request) -> None:
        self.request = request
        self._handler = handler
        self._provider = handler.server.provider
        self._chunked = False

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
        self._chunked = headers.get("Transfer_Encoding") == "chunked"
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and not self._chunked:
            self._handler.close_connection = True
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        """Raw bytes, at once; behind ``start_stream`` as a chunk."""
        if self._chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self._handler.wfile.write(data)

    def start_stream(self) -> None:
        """The headers of an answer in pieces, which ``end_stream`` ends."""
        lines = self.request.path == OLLAMA
        kind = "application/x-ndjson" if lines else "text/event-stream; charset=utf-8"
        self.start(200, Content_Type=kind, Transfer_Encoding="chunked")

    def end_stream(self) -> None:
        """The end, behind which the connection may be used again."""
        self._handler.wfile.write(b"0\r\n\r\n")
        self._chunked = False

    def say(self, said: Said, *, interval: float = 0.0) -> None:
        """The answer as it was asked for: whole, or with ``interval`` seconds before each token."""
        path, body = self.request.path, self.request.body
        if not is_streamed(path, body):
            self.respond_json(200, whole(path, body, said))
            return
        self.start_stream()
        for frame in frames(path, body, said):
            if interval and frame.is_token:
                self.pause(interval)
            self.write(frame.data)
        self.end_stream()

    def pause(self, seconds: float) -> None:
        """Wait; raises Stopped when the server is stopped meanwhile, Left when the client leaves."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if self._provider.stopping.wait(max(0.0, min(left, 0.01))):
                raise Stopped
            if self._handler.client_has_left():
                raise Left
            if left <= 0:
                return

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
        self._left: list[float] = []
        self._changed = threading.Condition()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # --- what a test says and asks ------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """What ``api_endpoint`` takes, of kind ``openai``."""
        return f"{self.root_url}/v1"

    @property
    def root_url(self) -> str:
        """What ``api_endpoint`` takes, of the other kinds."""
        return f"http://{HOST}:{self._port}"

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
        return [request for request in self.requests if request.path in CHATS]

    @property
    def connections(self) -> int:
        """How many connections were opened."""
        return self._server.accepted if self._server else 0

    def wait_for_calls(self, count: int) -> None:
        """Return once that many chat requests have come; TimeoutError after a minute."""
        with self._changed:
            arrived = self._changed.wait_for(
                lambda: sum(request.path in CHATS for request in self._requests) >= count, PATIENCE
            )
        if not arrived:
            raise TimeoutError(f"{len(self.calls)} of {count} calls came within {PATIENCE} s")

    def wait_for_leaving(self, count: int = 1) -> float:
        """Return once that many clients have left in the middle; when the last of these did, by
        ``time.monotonic``. A script notices while it pauses or writes."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._left) >= count, PATIENCE):
                raise TimeoutError(f"{len(self._left)} of {count} clients left within {PATIENCE} s")
            return self._left[count - 1]

    @property
    def left(self) -> int:
        """How many clients have closed their connection in the middle of a script."""
        with self._changed:
            return len(self._left)

    def note_left(self) -> None:
        """For the server: a client has gone."""
        with self._changed:
            self._left.append(time.monotonic())
            self._changed.notify_all()

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
        if exchange.request.path == TAGS:
            tags = [{"name": name, "model": name} for name in self.models]
            exchange.respond_json(200, {"models": tags})
            return
        models = [{"id": name, "object": "model"} for name in self.models]
        exchange.respond_json(200, {"object": "list", "data": models})

    def next_script(self, request: Request) -> Script:
        """For the server: keep the request, and say how it is answered."""
        with self._changed:
            self._requests.append(request)
            self._changed.notify_all()
            if request.path.partition("?")[0] in (MODELS, TAGS) and request.method == "GET":
                return self.models_script
            if request.path not in CHATS or request.method != "POST":
                return lambda exchange: exchange.respond_json(404, {"error": {"message": "no"}})
            return self._scripts.popleft() if self._scripts else self.otherwise


def completion(request: Request, text: str | None, **message: Any) -> dict[str, Any]:
    """OpenAI's document of a whole answer; ``message``: further fields of the message."""
    return whole(OPENAI, request.body, Said(text, more=message))


def echo(exchange: Exchange) -> None:
    """Say what the user said; tokens are counted as words."""
    exchange.say(Said(f"You said: {exchange.request.question}"))


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
                    with suppress(OSError):  # the other side has reset it
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
        except (OSError, Stopped, Left) as ended:
            self.close_connection = True
            if not isinstance(ended, Stopped):
                self.server.provider.note_left()

    do_GET = do_POST = _handle

    def client_has_left(self) -> bool:
        """Whether the other side has closed the connection."""
        try:
            return self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

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
