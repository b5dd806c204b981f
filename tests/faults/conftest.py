"""Servers of their own for all scenarios, because they break, and a world that most of them share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.servers import FaultServers
from faults.world import World
from llmchatlinker.errors import StartFailed
from tests.fixtures.servers import cannot_test
from tests.servers.install import InstallError
from tests.servers.rabbitmq import RabbitMQError


@pytest.fixture(scope="package")
def servers() -> Iterator[FaultServers]:
    """A RabbitMQ and a PostgreSQL."""
    try:
        made = FaultServers().__enter__()
    except (RabbitMQError, InstallError, StartFailed, OSError) as error:
        cannot_test("RabbitMQ or PostgreSQL", error)
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="package")
def world(servers: FaultServers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything of a fault scenario, in its short version: two workers, a client."""
    directory: Path = tmp_path_factory.mktemp("faults")
    # Longer than any of its processes stands still on a busy machine: most scenarios allow no doubt.
    settings = {"lease": 12.0}
    with World(
        servers, "short", directory / "world", workers=2, short=True, settings=settings
    ) as made:
        yield made
