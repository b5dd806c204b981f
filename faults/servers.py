"""The servers of a run, with what can be done to them. As those of the benchmarks, they are durable."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from benchmarks.servers import Servers
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.embedded.processes import ManagedProcess
from tests.servers import free_ports
from tests.servers.rabbitmq import PrivateRabbitMQ


class StayingPostgres(EmbeddedPostgres):
    """Comes back at its old address, as a server does, and can be killed."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        (self._staying_port,) = free_ports(1)

    def _server(self, postgres: Path, user: str | None, port: int) -> ManagedProcess:
        self.port = self._staying_port
        return super()._server(postgres, user, self._staying_port)

    def kill(self) -> None:
        """SIGKILL for the server's main process; ``start`` brings it back, by way of its log."""
        process = self.process
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10.0)
        self.stop()  # lets go of its folder


class FaultServers(Servers):
    """Both servers, for scenarios to break, one after the other.

    Each scenario has a virtual host and a database there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.postgres = self._postgres = StayingPostgres(self._directory / "postgres")

    @property
    def rabbitmq(self) -> PrivateRabbitMQ:
        """The node."""
        return self._rabbitmq
