"""What threads ask for at the same moment is done in one transaction, and nobody pays for another."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import psycopg2
import pytest

from llmchatlinker.db import together
from llmchatlinker.db.driver import Transaction
from llmchatlinker.db.sessions import Database
from llmchatlinker.db.together import PUT_OFF, PutOff, Together
from tests.fixtures.threads import at_once, eventually

INSERT = "INSERT INTO users (username) VALUES (%(name)s)"
TRANSACTION = "SELECT CAST(pg_current_xact_id() AS text)"


class Desk:
    """Adds users; the first transaction waits until it is let go, and others come meanwhile."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.go_on = threading.Event()
        self.sizes: list[int] = []
        self.together: Together[str, str] = Together(self.work)

    def work(self, rows: Transaction, names: Sequence[str]) -> list[str | PutOff | None]:
        """Returns the names of the transactions, and None for nobody."""
        self.sizes.append(len(names))
        if len(self.sizes) == 1:
            assert self.go_on.wait(10)
        found: list[str | PutOff | None] = []
        for name in names:
            if name == "defect":
                raise LookupError("no such thing")
            if name == "later" and len(names) > 1:
                found.append(PUT_OFF)
            elif name == "nobody":
                found.append(None)
            else:
                rows({"name": name}, INSERT)
                found.append(rows({}, TRANSACTION)[0][0])
        return found

    def do(self, *names: str) -> list[Any]:
        """One thread each: the first one is at it when the others come, in this order."""
        results: list[Any] = [None] * len(names)

        def one(place: int) -> None:
            try:
                results[place] = self.together.do(names[place])
            except Exception as error:
                results[place] = error

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(names))]
        for place, thread in enumerate(threads):
            thread.start()
            if place == 0:
                eventually(lambda: self.sizes)
            else:
                eventually(lambda place=place: len(self.together._line) == place)
        self.go_on.set()
        for thread in threads:
            thread.join(10)
        return results

    @property
    def users(self) -> set[str]:
        """Who was added."""
        return {row[0] for row in self.database.statement("SELECT username FROM users", {})}


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_who_comes_alone_waits_for_nobody(desk: Desk) -> None:
    desk.go_on.set()

    first, second = desk.together.do("ada"), desk.together.do("bob")

    assert desk.sizes == [1, 1]
    assert first != second
    assert desk.users == {"ada", "bob"}


def test_what_comes_during_a_transaction_is_done_in_the_next_one(desk: Desk) -> None:
    first, *others = desk.do("ada", "bob", "cyd", "dan")

    assert desk.sizes == [1, 3]
    assert len(set(others)) == 1
    assert first not in others
    assert desk.users == {"ada", "bob", "cyd", "dan"}


def test_a_transaction_is_no_larger_than_it_may_be(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "AT_MOST", 2)

    desk.do("ada", "bob", "cyd", "dan", "eve", "fay")

    assert desk.sizes == [1, 2, 2, 1]
    assert len(desk.users) == 6


def test_each_gets_what_came_of_its_own(desk: Desk) -> None:
    assert desk.do("ada", "bob", "nobody", "cyd")[2] is None
    assert desk.users == {"ada", "bob", "cyd"}


def test_what_fails_is_raised_where_it_was_asked_for_and_the_others_are_done(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    _, bob, defect, cyd = desk.do("ada", "bob", "defect", "cyd")

    assert isinstance(defect, LookupError)
    assert desk.users == {"ada", "bob", "cyd"}
    assert bob != cyd
    assert "3 can't be done together, so each alone" in caplog.text
    assert "no such thing" not in caplog.text


def test_two_at_the_same_thing_are_no_defect(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    _, *twice = desk.do("ada", "bob", "bob")

    assert [isinstance(found, psycopg2.IntegrityError) for found in twice].count(True) == 1
    assert desk.users == {"ada", "bob"}
    assert caplog.text == ""


def test_what_is_put_off_is_done_behind_the_others(desk: Desk) -> None:
    _, bob, later = desk.do("ada", "bob", "later")

    assert desk.sizes == [1, 2, 1]
    assert later not in (bob, None)
    assert desk.users == {"ada", "bob", "later"}


def test_when_all_have_gone_the_next_one_waits_for_nobody(desk: Desk) -> None:
    desk.do("ada", "defect", "bob")

    assert desk.together.do("cyd")
    assert desk.users == {"ada", "bob", "cyd"}


def test_after_a_fork_nobody_is_in_line(desk: Desk) -> None:
    desk.together._is_led = True  # by a thread of the parent's

    together._after_fork()
    desk.go_on.set()

    assert desk.together.do("ada")


def test_many_threads_get_their_own_each(desk: Desk) -> None:
    desk.go_on.set()
    names = [f"user-{number}" for number in range(200)]

    found = at_once([lambda name=name: desk.together.do(name) for name in names])

    assert all(found)
    assert desk.users == set(names)
    assert max(desk.sizes) <= together.AT_MOST
