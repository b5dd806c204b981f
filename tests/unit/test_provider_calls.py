"""Calls against the clock, and the connections that they can be broken off on."""

from __future__ import annotations

import select
import socket
import threading
import time

import pytest

from llmchatlinker.providers.calls import Call, _watchdog, under_way
from llmchatlinker.providers.connections import CallAdapter
from tests.fixtures.threads import eventually


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_through_a_proxy_can_be_broken_off_too(scheme: str) -> None:
    manager = CallAdapter().proxy_manager_for("http://proxy.test:3128")

    pool = manager.connection_from_url(f"{scheme}://provider.test/v1")

    assert hasattr(pool.ConnectionCls, "let_go")


def test_a_call_has_its_time_and_says_which_ran_out() -> None:
    with under_way(Call(), 0.05) as call:
        eventually(lambda: call.aborted)

    assert (call.reason, call.cancelled) == ("total_timeout", False)


def test_a_call_that_is_given_more_time_goes_on() -> None:
    with under_way(Call(), 60.0) as call:
        call.allow(4.0, "first_token_timeout")
        for _ in range(5):
            time.sleep(1.0)  # by the clock, which is what a call is held against: 5 s in all
            call.allow(4.0, "read_timeout")
        assert not call.aborted
        eventually(lambda: call.aborted)

    assert call.reason == "read_timeout"


def test_a_call_that_is_given_less_time_ends_sooner() -> None:
    with under_way(Call(), 60.0) as call:
        call.allow(30.0, "first_token_timeout")
        call.allow(0.05, "read_timeout")
        eventually(lambda: call.aborted)

    assert call.reason == "read_timeout"


def test_nothing_gives_it_more_time_than_it_has_in_all() -> None:
    with under_way(Call(), 0.05) as call:
        call.allow(60.0, "read_timeout")
        eventually(lambda: call.aborted)

    assert call.reason == "total_timeout"


def test_the_first_reason_stays() -> None:
    call = Call()
    call.cancel()
    call.abort("total_timeout")

    assert (call.reason, call.cancelled) == ("cancelled", True)


def test_a_call_that_is_over_is_not_cancelled_any_more() -> None:
    with under_way(Call(), 60.0) as call:
        pass
    call.cancel()

    assert not call.aborted
    assert not call.cancelled


def test_a_call_is_for_one_exchange() -> None:
    with under_way(Call(), 60.0) as call:
        pass

    with pytest.raises(RuntimeError), under_way(call, 60.0):
        pass


def test_calls_that_are_over_are_forgotten() -> None:
    with under_way(Call(), 1.0):  # of all of them the first that is due
        for _ in range(1_000):
            with under_way(Call(), 300.0):
                pass

        assert len(_watchdog._heap) < 1_000


def test_many_calls_have_one_thread_that_looks_after_them() -> None:
    with under_way(Call(), 60.0), under_way(Call(), 60.0):
        watchers = [thread for thread in threading.enumerate() if thread.name == "calls"]

    assert len(watchers) == 1


def test_a_provider_that_is_held_up_by_a_full_buffer_sees_that_the_call_was_broken_off() -> None:
    """What it sent is read to the end before the connection is closed, and it may not send more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        with theirs:
            theirs.setblocking(False)
            _fill(theirs)
            call = Call()
            call.uses(ours)

            call.cancel()
            while ours.recv(2**20):
                pass
            ours.close()

            theirs.settimeout(60)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                theirs.sendall(bytes(2**22))


def _fill(sender: socket.socket) -> None:
    """Until nothing goes in any more, and for long enough that the other side has said so."""
    full_since = None
    while full_since is None or time.monotonic() - full_since < 0.3:
        try:
            sender.send(bytes(2**20))
            full_since = None
        except BlockingIOError:
            full_since = full_since or time.monotonic()
            select.select([], [sender], [], 0.1)
