"""How a ``ScriptedProvider`` answers: the good, the bad, and the never ending."""

from __future__ import annotations

import gzip
import json
import threading
from typing import Any, Literal

from tests.servers.provider import Exchange, Script, completion, echo
from tests.servers.shapes import Said, openai_chunk

__all__ = ["echo"]  # what is here beside what is defined here

PAGE = b"<!doctype html><title>502 Bad Gateway</title><h1>nginx</h1>"


# --- answers ------------------------------------------------------------------------------------


def answer(text: str | None, *, usage: bool = True, finish: str = "stop", **message: Any) -> Script:
    """A fixed text, as it was asked for; ``message``: further fields, such as tool_calls."""
    calls = message.pop("tool_calls", None) or []
    said = Said(text, message.pop("reasoning_content", None), calls, finish, usage, message)
    return lambda exchange: exchange.say(said)


def slow(tokens: int, per_second: float) -> Script:
    """That many words, so many a second: ``0 1 2 …``, in pieces where that is asked for."""
    said = Said(" ".join(map(str, range(tokens))))
    return lambda exchange: exchange.say(said, interval=1 / per_second)


def stream(*steps: bytes | float, ending: Literal["end", "reset", "stall"] = "end") -> Script:
    """Any pieces of a stream, as they are; a number is a pause of so many seconds.

    ``ending``: the connection ends as it should, is reset, or stays open in silence.
    """

    def run(exchange: Exchange) -> None:
        exchange.start_stream()
        for step in steps:
            if isinstance(step, bytes):
                exchange.write(step)
            else:
                exchange.pause(step)
        if ending == "stall":
            exchange.pause(3_600)
        elif ending == "reset":
            exchange.hang_up(reset=True)
        else:
            exchange.end_stream()

    return run


def endless_stream(exchange: Exchange) -> None:
    """Pieces without an end, on OpenAI's wire, as fast as they can be read."""
    exchange.start_stream()
    while True:
        exchange.write(openai_chunk({"content": "and on "}) * 1_000)


def document(value: Any, status: int = 200) -> Script:
    """Any JSON document."""
    return lambda exchange: exchange.respond_json(status, value)


def raw(body: bytes, status: int = 200, **headers: str) -> Script:
    """Any bytes."""
    return lambda exchange: exchange.respond(status, body, **headers)


def gzipped(text: str) -> Script:
    """A compressed answer."""

    def run(exchange: Exchange) -> None:
        body = gzip.compress(json.dumps(completion(exchange.request, text)).encode())
        exchange.respond(200, body, Content_Type="application/json", Content_Encoding="gzip")

    return run


def with_headers(**headers: str) -> Script:
    """The echo, with headers of its own."""

    def run(exchange: Exchange) -> None:
        whole = completion(exchange.request, exchange.request.question)
        exchange.respond_json(200, whole, **headers)

    return run


def without_length(text: str, *, interval: float = 0.0) -> Script:
    """An answer that ends with the connection; ``interval``: seconds between two bytes."""

    def run(exchange: Exchange) -> None:
        body = json.dumps(completion(exchange.request, text)).encode()
        exchange.start(200, Content_Type="application/json")
        if interval:
            _slowly(exchange, body, interval)
        else:
            exchange.write(body)

    return run


def after(seconds: float, then: Script) -> Script:
    """The same, later."""

    def run(exchange: Exchange) -> None:
        exchange.pause(seconds)
        then(exchange)

    return run


class Gate:
    """A script that holds every request until the test opens it."""

    def __init__(self, then: Script = echo) -> None:
        self._then = then
        self._opened = threading.Event()

    def open(self) -> None:
        """Let the requests go on."""
        self._opened.set()

    def __call__(self, exchange: Exchange) -> None:
        while not self._opened.wait(0.01):
            exchange.pause(0)
        self._then(exchange)


# --- refusals -----------------------------------------------------------------------------------


def error(status: int, message: str = "the model is on fire", **headers: str) -> Script:
    """An error as OpenAI writes it."""
    whole = {"error": {"message": message, "type": "test", "code": None}}
    return lambda exchange: exchange.respond_json(status, whole, **headers)


def html(status: int) -> Script:
    """A page of a proxy's."""
    return raw(PAGE, status, Content_Type="text/html")


def redirect(location: str) -> Script:
    """Elsewhere."""
    return raw(b"", 307, Location=location)


# --- broken answers -----------------------------------------------------------------------------


def half(exchange: Exchange) -> None:
    """Half of what Content-Length promised, then the end of the connection."""
    body = json.dumps(completion(exchange.request, "never whole")).encode()
    exchange.start(200, Content_Type="application/json", Content_Length=str(len(body)))
    exchange.write(body[: len(body) // 2])
    exchange.hang_up()


def reset(exchange: Exchange) -> None:
    """The connection is reset before anything was answered."""
    exchange.hang_up(reset=True)


def drip(interval: float) -> Script:
    """A right answer, a byte at a time."""

    def run(exchange: Exchange) -> None:
        body = json.dumps(completion(exchange.request, "patience " * 1_000)).encode()
        exchange.start(200, Content_Type="application/json", Content_Length=str(len(body)))
        _slowly(exchange, body, interval)

    return run


def drip_headers(interval: float) -> Script:
    """The headers themselves, a byte at a time."""

    def run(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nX-Patience: ")
        _slowly(exchange, b"x" * 10_000, interval)

    return run


def stall(first: bytes, delay: float) -> Script:
    """Something after ``delay`` seconds, and then silence."""

    def run(exchange: Exchange) -> None:
        exchange.start(200, Content_Type="application/json", Content_Length="1000000")
        exchange.pause(delay)
        exchange.write(first)
        exchange.pause(3_600)

    return run


def endless(exchange: Exchange) -> None:
    """An answer without an end, as fast as it can be read."""
    exchange.start(200, Content_Type="application/json")
    exchange.write(b'{"choices": [{"message": {"content": "')
    while True:
        exchange.write(b"and on " * 10_000)


def _slowly(exchange: Exchange, data: bytes, interval: float) -> None:
    for number in range(len(data)):
        exchange.write(data[number : number + 1])
        exchange.pause(interval)
