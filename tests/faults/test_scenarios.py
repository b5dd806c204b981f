"""A short round of each fault scenario. ``make faults`` does all rounds."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from faults.plan import Size
from faults.results import Result
from faults.scenario import run_round
from faults.scenarios import ALL, SCENARIOS
from faults.scenarios.disks import SCENARIOS as DISKS
from faults.scenarios.disks import DiskScenario
from faults.servers import FaultServers
from faults.world import World

SEED = 1
SHORT = Size(chats=2, turns=2, ordinary=4, spread=1.0)
#: A chat for each stage, and one before them.
SIZES = {"cancel": Size(chats=8, turns=1, ordinary=2, spread=0.5)}
#: These need workers of their own: of poison all die, and a wrong clock is a process's.
OF_THEIR_OWN = ("poison", "clock")
SHARED = [name for name in SCENARIOS if name not in OF_THEIR_OWN]


@pytest.mark.parametrize("name", SHARED)
def test_every_promise_is_kept(world: World, name: str) -> None:
    scenario = SCENARIOS[name]
    with scenario.beside(world) as world.beside:
        verdict = run_round(scenario, world, SEED, 0, SIZES.get(name, SHORT)).verdict
    assert verdict.breaches == []
    assert verdict.accepted == len(world.plan.steps)


@pytest.mark.parametrize("name", OF_THEIR_OWN)
def test_every_promise_is_kept_by_workers_of_their_own(
    servers: FaultServers, tmp_path: Path, name: str
) -> None:
    result = Result(name, SEED, 1)
    SCENARIOS[name].run(servers, tmp_path / name, result, {}, lambda _: None)
    assert (result.done, result.broken) == (1, [])


@pytest.mark.skipif(
    os.geteuid() != 0, reason="a disk of one's own can be mounted by root only: run this as root"
)
@pytest.mark.parametrize("scenario", DISKS, ids=lambda scenario: scenario.name)
def test_a_broken_disk_is_told_and_loses_nothing(scenario: DiskScenario) -> None:
    result = Result(scenario.name, SEED, 1)
    # Not below pytest's folders, which PostgreSQL's user may not pass.
    with tempfile.TemporaryDirectory(prefix="llmchatlinker-disk-") as folder:
        scenario.run(None, Path(folder, scenario.name), result, {}, lambda _: None)
    assert (result.done, result.broken) == (1, [])


def test_no_scenario_is_left_out() -> None:
    assert {*SHARED, *OF_THEIR_OWN, *(scenario.name for scenario in DISKS)} == set(ALL)
