"""A call is broken off from another thread, at any moment, and is over at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from llmchatlinker.errors import Cancelled, LLMChatLinkerError, ProviderError
from llmchatlinker.providers import connections
from llmchatlinker.providers.base import ChatAnswer, Delta, Endpoint, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.registry import wire
from tests.fixtures.threads import eventually
from tests.fixtures.wires import REQUEST
from tests.servers import HOST, scripts
from tests.servers.provider import Script, ScriptedProvider
from tests.servers.shapes import event, openai_chunk

HELLO = openai_chunk({"content": "Hello"})
#: Half a second is the promise; a loaded machine is given more, and every other end is far later.
SOON = 15.0


class Running:
    """A chat in a thread of its own."""

    def __init__(self, endpoint: Endpoint, *, streamed: bool = True) -> None:
        self.call = Call()
        self.deltas: list[Delta] = []
        self.ended_at = 0.0
        self.outcome: ChatAnswer | BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=[endpoint, streamed])
        self._thread.start()

    def _run(self, endpoint: Endpoint, streamed: bool) -> None:
        on_delta = self.deltas.append if streamed else None
        try:
            self.outcome = wire("openai").chat(endpoint, REQUEST, self.call, on_delta)
        except BaseException as error:
            self.outcome = error
        self.ended_at = time.monotonic()

    def cancelled(self) -> float:
        """Cancel, see that this is what comes of it, and when it was asked for."""
        asked_at = time.monotonic()
        self.call.cancel()
        self._thread.join(60)
        assert isinstance(self.outcome, Cancelled), self.outcome
        assert self.ended_at - asked_at < SOON
        return asked_at

    def join(self) -> Any:
        """What comes of it by itself."""
        self._thread.join(60)
        return self.outcome


STAGES: dict[str, tuple[Script, Callable[[Running], bool]]] = {
    "waiting for headers": (scripts.after(100, scripts.echo), lambda _: True),
    "in the middle of the headers": (scripts.drip_headers(0.05), lambda _: True),
    "before the first piece": (scripts.stream(b": hi\n\n", ending="stall"), lambda _: True),
    "in the middle": (scripts.stream(HELLO, ending="stall"), lambda run: bool(run.deltas)),
    "while it is fast": (scripts.endless_stream, lambda run: len(run.deltas) > 100),
    "while it is slow": (scripts.slow(1_000, 50), lambda run: len(run.deltas) > 3),
    "behind its end": (
        scripts.stream(HELLO, openai_chunk({}, "stop"), ending="stall"),
        lambda run: bool(run.deltas),
    ),
}


@pytest.mark.parametrize(("script", "is_there"), STAGES.values(), ids=STAGES.keys())
def test_a_cancelled_stream_ends_at_once_and_hangs_up(
    provider: ScriptedProvider,
    endpoint: Endpoint,
    script: Script,
    is_there: Callable[[Running], bool],
) -> None:
    provider.script(script)
    running = Running(replace(endpoint, answer_bytes=10**9))
    provider.wait_for_calls(1)
    eventually(lambda: is_there(running))

    asked_at = running.cancelled()

    assert provider.wait_for_leaving() - asked_at < SOON
    assert len(provider.calls) == 1


@pytest.mark.parametrize(
    "script",
    [scripts.after(100, scripts.echo), scripts.drip(0.05), scripts.stall(b"{", 0.1)],
    ids=["silence", "drip", "stall"],
)
def test_a_cancelled_answer_that_is_not_streamed_ends_at_once_too(
    provider: ScriptedProvider, endpoint: Endpoint, script: Script
) -> None:
    provider.script(script)
    running = Running(endpoint, streamed=False)
    provider.wait_for_calls(1)

    asked_at = running.cancelled()

    assert provider.wait_for_leaving() - asked_at < SOON


def test_a_call_that_is_cancelled_before_it_begins_makes_no_request(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    call = Call()
    call.cancel()

    with pytest.raises(Cancelled):
        wire("openai").chat(endpoint, REQUEST, call, lambda _: None)

    assert provider.connections == 0


def test_a_piece_that_is_cancelled_upon_is_the_last_one(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    provider.script(scripts.stream(HELLO * 100, ending="stall"))
    call = Call()
    deltas: list[Delta] = []

    def on_delta(delta: Delta) -> None:
        deltas.append(delta)
        call.cancel()

    with pytest.raises(Cancelled):
        wire("openai").chat(endpoint, REQUEST, call, on_delta)

    assert len(deltas) == 1


def test_what_was_counted_until_then_is_known(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    counted = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1}})
    provider.script(scripts.stream(counted, HELLO, ending="stall"))
    running = Running(endpoint)
    eventually(lambda: running.deltas)

    running.cancelled()

    assert running.call.usage == Usage(7, 1, 8)


def test_a_cancel_behind_the_end_changes_nothing(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    running = Running(endpoint)
    answer = running.join()

    running.call.cancel()

    assert answer.content == "You said: Hello"
    assert not running.call.cancelled
    assert Running(endpoint).join() == answer
    assert provider.connections == 1


def test_a_late_cancel_does_not_reach_the_call_that_has_the_connection_now(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    """Between the end of the body and the end of the call the connection is back in the pool."""
    seen: list[Any] = []

    class Late(Call):
        def end(self) -> None:
            # Exactly there: another call takes the connection, and then this one is cancelled.
            if not seen:
                seen.append(None)
                gate = scripts.Gate()
                provider.script(gate)
                other = Running(endpoint)
                provider.wait_for_calls(2)
                self.cancel()
                gate.open()
                seen.append(other.join())
            super().end()

    wire("openai").chat(endpoint, REQUEST, Late())

    assert isinstance(seen[1], ChatAnswer)
    assert provider.connections == 1


def test_a_call_that_is_aborted_is_no_cancelled_one(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    provider.script(scripts.stream(HELLO, ending="stall"))
    running = Running(endpoint)
    eventually(lambda: running.deltas)

    running.call.abort()

    error = running.join()
    assert (type(error), error.details["reason"]) == (ProviderError, "aborted")
    provider.wait_for_leaving()


# --- before there is a connection ---------------------------------------------------------------


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A server whose queue of connections is full: it answers no more of them."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server
        for client in waiting:
            client.close()


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A server that accepts connections and says nothing on them."""
    with socket.socket() as server:
        server.bind((HOST, 0))
        server.listen(5)
        yield server


def at(endpoint: Endpoint, server: socket.socket, scheme: str = "http") -> Endpoint:
    return replace(endpoint, url=f"{scheme}://{HOST}:{server.getsockname()[1]}/v1")


def eventually_under_way(running: Running) -> None:
    """It has begun, and has had the time to hang."""
    eventually(lambda: running.call.elapsed > 0.2)


def test_a_cancel_while_it_connects_ends_it(endpoint: Endpoint, deaf: socket.socket) -> None:
    running = Running(at(replace(endpoint, connect_timeout=20.0), deaf))
    eventually_under_way(running)

    running.cancelled()


def test_a_server_that_does_not_accept_is_given_up(endpoint: Endpoint, deaf: socket.socket) -> None:
    error = Running(at(replace(endpoint, connect_timeout=0.3), deaf)).join()

    assert error.details["reason"] == "connect_timeout"


def test_a_cancel_in_the_tls_handshake_ends_it(endpoint: Endpoint, mute: socket.socket) -> None:
    running = Running(at(replace(endpoint, connect_timeout=20.0), mute, "https"))
    client, _ = mute.accept()
    assert client.recv(1)  # the handshake has begun

    running.cancelled()

    client.settimeout(SOON)
    while client.recv(4096):
        pass
    client.close()


def test_a_tls_handshake_without_an_end_is_given_up(
    endpoint: Endpoint, mute: socket.socket
) -> None:
    error = Running(at(replace(endpoint, connect_timeout=0.3), mute, "https")).join()

    assert error.details["reason"] == "connect_timeout"


@pytest.fixture
def hanging_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A resolver that does not answer."""
    answered = threading.Event()
    real = socket.getaddrinfo

    def look_up(*args: Any, **kwargs: Any) -> Any:
        if args[0] == "hanging.test":
            if len(args) > 4:
                raise socket.gaierror(socket.EAI_NONAME, "no number")
            answered.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return real(*args, **kwargs)

    monkeypatch.setattr(connections.socket, "getaddrinfo", look_up)
    yield
    answered.set()


@pytest.mark.usefixtures("hanging_names")
def test_a_cancel_while_a_name_is_looked_up_ends_it(endpoint: Endpoint) -> None:
    running = Running(replace(endpoint, url="http://hanging.test/v1", connect_timeout=20.0))
    eventually_under_way(running)

    running.cancelled()


@pytest.mark.usefixtures("hanging_names")
def test_a_name_that_is_not_found_in_time_is_given_up(endpoint: Endpoint) -> None:
    error = Running(replace(endpoint, url="http://hanging.test/v1", connect_timeout=0.3)).join()

    assert isinstance(error, LLMChatLinkerError)
    assert error.details["reason"] == "connect_timeout"


# --- many ---------------------------------------------------------------------------------------


def test_fifty_cancelled_at_once_all_end_and_all_hang_up(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    provider.otherwise = scripts.stream(HELLO, ending="stall")
    running = [Running(endpoint) for _ in range(50)]
    eventually(lambda: all(run.deltas for run in running))

    for run in running:
        run.call.cancel()

    assert {type(run.join()) for run in running} == {Cancelled}
    provider.wait_for_leaving(50)
