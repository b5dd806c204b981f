"""execute behind decode in the same process: it reads nothing twice, and misses nothing."""

from __future__ import annotations

import pytest

from llmchatlinker import just_decoded, stages
from llmchatlinker.db.prepared import prepared
from llmchatlinker.errors import DeadlineExceeded
from llmchatlinker.results.reading import end
from tests.fixtures.cycles import Cycle
from tests.servers.proxy import Proxy

READING = f"EXECUTE {prepared(stages._READ).name} ".encode()


def test_what_only_reads_is_not_read_again_behind_its_decode(cycle: Cycle, db: Proxy) -> None:
    cycle.do("USER_CREATE", username="ada")
    reads = db.said.count(READING)

    assert [user["username"] for user in cycle.do("USER_LIST")["users"]] == ["ada"]
    assert db.said.count(READING) == reads


def test_what_was_decoded_long_ago_is_read_again(
    cycle: Cycle, db: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(just_decoded, "KEPT_SECONDS", -1.0)
    reads = db.said.count(READING)

    cycle.do("USER_LIST")

    assert db.said.count(READING) == reads + 1


def test_what_ended_behind_its_decode_keeps_its_end(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    end(instruction_id, DeadlineExceeded())
    ended = cycle.envelope(instruction_id)

    cycle.execute(instruction_id)
    cycle.store(instruction_id)

    assert cycle.envelope(instruction_id) == ended
    assert ended["error"]["code"] == "deadline_exceeded"


def test_what_was_executed_already_is_done_once(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    cycle.execute(instruction_id)
    cycle.do("USER_CREATE", username="ada")

    assert not cycle.decode(instruction_id) or cycle.execute(instruction_id)
    cycle.store(instruction_id)

    assert cycle.envelope(instruction_id)["data"]["users"] == []
