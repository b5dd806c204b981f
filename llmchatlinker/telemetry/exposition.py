"""Where a worker's metrics can be had: an endpoint of its own, and a file for node_exporter."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery.utils.nodenames import node_format
from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
    write_to_textfile,
)

from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry.collecting import add_to

logger = logging.getLogger(__name__)

#: Workers of one machine that share a setting take ports one after the other: so many are tried.
PORTS = 16
#: Seconds between two writings of the file.
INTERVAL = 5.0


class Exposition:
    """A worker's endpoint and its file, as the settings say. ``name``: the worker's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._registry = CollectorRegistry()
        self._server: Any = None
        self._path: Path | None = None
        self._stop = threading.Event()

    def start(self) -> None:
        """Serve and write from now on. What can't be had is said, and keeps no worker from its work."""
        # A second series for each first one would be of no use to anybody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        add_to(self._registry)
        ProcessCollector(registry=self._registry)
        settings = get_settings()
        if settings.metrics_port:
            self._serve(settings.metrics_host, settings.metrics_port)
        if settings.metrics_textfile:
            self._path = Path(node_format(settings.metrics_textfile, self._name))
            threading.Thread(target=self._write, name="metrics", daemon=True).start()

    def stop(self) -> None:
        """No longer; the file goes, since nobody would see that it is old."""
        self._stop.set()
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def let_go(self) -> None:
        """In a child of a fork: the socket is its parent's."""
        if self._server is not None:
            self._server.socket.close()

    def _serve(self, host: str, first: int) -> None:
        reason: Exception | None = None
        for port in range(first, min(first + PORTS, 65_536)):
            try:
                self._server, _ = start_http_server(port, host, self._registry)
            except OSError as error:
                reason = error
                continue
            logger.info("Metrics at http://%s:%d/metrics", host, port)
            return
        logger.warning(
            "No metrics: none of the %d ports from %d on can be had at %s (%s)",
            PORTS,
            first,
            host,
            reason or "there is no such port",
        )

    def _write(self) -> None:
        failing = False
        while True:
            try:
                write_to_textfile(str(self._path), self._registry)
                failing = False
            except Exception as error:
                if not failing:
                    logger.warning("Metrics can't be written to %s: %r", self._path, error)
                failing = True
            if self._stop.wait(INTERVAL):
                return


_current: Exposition | None = None


def expose(name: str) -> None:
    """Do what the settings ask for in this process."""
    global _current
    _current = Exposition(name)
    _current.start()


def conceal() -> None:
    """End it."""
    global _current
    current, _current = _current, None
    if current is not None:
        current.stop()


def _after_fork() -> None:
    global _current
    current, _current = _current, None
    if current is not None:
        current.let_go()


os.register_at_fork(after_in_child=_after_fork)
