"""The queueing model, against values that are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.errors import InvalidData
from llmchatlinker.sizing import (
    Costs,
    Load,
    costs_of,
    cycles_per_second,
    erlang_c,
    mean_wait,
    plan,
    servers_for,
)


@pytest.mark.parametrize(
    ("servers", "load", "share"),
    [
        (1, 0.5, 0.5),  # M/M/1: as often as the server is busy
        (2, 1.0, 1 / 3),
        (3, 2.0, 4 / 9),
        (5, 4.0, 0.554113),  # tables of Erlang C
        (10, 8.0, 0.409180),
    ],
)
def test_erlang_c_is_what_the_tables_have(servers: int, load: float, share: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(share, abs=1e-5)


def test_thousands_of_servers_are_no_overflow() -> None:
    assert 0.0 < erlang_c(10_000, 9_900.0) < 1.0


def test_the_mean_wait_of_one_server_is_what_pollaczek_and_khinchine_say() -> None:
    # M/G/1: rate * S^2 * (1 + cs^2) / (2 * (1 - use)); the approximation is exact there.
    assert mean_wait(1, 0.8, 1.0, 1.0) == pytest.approx(4.0)
    assert mean_wait(1, 0.8, 1.0, 0.0) == pytest.approx(2.0)
    assert mean_wait(2, 1.0, 1.0) == pytest.approx(1 / 3)


def test_a_load_that_can_t_be_carried_waits_for_ever() -> None:
    assert mean_wait(3, 3.0, 1.0) == math.inf
    assert erlang_c(3, 5.0) == 1.0


def test_without_a_load_nobody_waits_and_nothing_is_needed() -> None:
    assert erlang_c(1, 0.0) == mean_wait(1, 0.0, 1.0) == 0.0
    assert servers_for(0.0, 1.0, 0.1) == 0


@given(st.floats(0.1, 300.0), st.floats(0.01, 30.0), st.floats(0.001, 5.0), st.floats(0.0, 3.0))
def test_the_servers_are_enough_and_one_fewer_is_not(
    rate: float, seconds: float, wait: float, variation: float
) -> None:
    number = servers_for(rate, seconds, wait, variation)
    assert mean_wait(number, rate, seconds, variation) <= wait * (1 + 1e-9)
    if number > 1:
        assert mean_wait(number - 1, rate, seconds, variation) > wait * (1 - 1e-9)


def test_a_mistake_in_the_question_is_an_error_and_no_endless_search() -> None:
    with pytest.raises(InvalidData, match="More than"):
        servers_for(1e9, 60.0, 0.1)


def test_generations_need_a_slot_each_for_as_long_as_the_provider_talks() -> None:
    found = plan(Load(rate=50.0, call_seconds=4.0, concurrency=100))
    assert 200 < found.slots <= 300
    assert found.mean_wait <= 0.1
    by_queue = {unit.queues: unit for unit in found.units}
    assert by_queue["llm.generate"].processes >= 3
    assert by_queue["user, chat, llm"].processes == 1
    assert all(unit.use <= 0.6 for unit in found.units)
    assert found.postgresql_connections == found.processes * 10
    assert found.rabbitmq_connections == found.processes * 13
    assert found.memory > found.processes * Costs().process_memory


def test_spare_processes_are_of_each_unit() -> None:
    load = {"rate": 5.0, "call_seconds": 4.0}
    assert plan(Load(**load, spare=1)).processes == plan(Load(**load)).processes + 4


def test_brief_calls_are_bounded_by_the_interpreter_and_not_by_slots() -> None:
    load = Load(rate=200.0, call_seconds=0.01, concurrency=100)
    found = plan(load, Costs(cycle=0.01, generation=2.0))  # 200 times 20 ms, two calls at a time
    generating = next(unit for unit in found.units if unit.queues == "llm.generate")
    assert generating.processes > 1


def test_more_processes_than_cores_gain_nothing() -> None:
    costs = Costs(cycle=0.01, client=0.002, rabbitmq=0.004, postgresql=0.004)
    assert cycles_per_second(1, 8, costs) == pytest.approx(100)
    assert cycles_per_second(4, 8, costs) == pytest.approx(400)
    assert cycles_per_second(4, 2, costs) == pytest.approx(100)


def document(**rows: list[float]) -> str:
    values = [{"name": name, "values": row} for name, row in rows.items()]
    return json.dumps({"tables": [{"rows": values}]})


def test_costs_come_from_a_benchmarks_json(tmp_path: Path) -> None:
    file = tmp_path / "latency.json"
    named = {"CPU of the workers per 1000": [8.0, 40.0], "memory of the workers": [120.0, 110.0]}
    file.write_text(document(**named))
    assert costs_of(file) == Costs(cycle=0.008, process_memory=120.0)
    assert costs_of(file, 1) == Costs(cycle=0.04, process_memory=110.0)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tables": []}', document()])
def test_another_file_is_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(InvalidData, match=r"other\.json"):
        costs_of(file)
