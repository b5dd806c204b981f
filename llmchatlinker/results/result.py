"""Celery's ``AsyncResult`` for instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.result import AsyncResult

from llmchatlinker.celery_app import app as our_app
from llmchatlinker.envelope import Envelope
from llmchatlinker.results.reading import Meta


class InstructionResult(AsyncResult):
    """The result of an instruction: ``.id``, ``.state``, ``.ready()``, ``.get(timeout=…)``.

    ``get`` returns the envelope for every outcome, errors included; it raises for what is wrong with
    the waiting itself: ResultTimeout, NotFound for an id that was never submitted, Unavailable.
    """

    def __init__(
        self,
        id: str,
        backend: Any = None,
        task_name: str | None = None,
        app: Any = None,
        parent: Any = None,
    ) -> None:
        super().__init__(id, backend, task_name, app or self.app or our_app, parent)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callable[[str, Any], object] | None = None,
        on_message: Callable[[Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
        **kwargs: Any,
    ) -> Envelope:
        """Wait for the envelope. ``interval``: seconds until ``on_interval`` is called; nobody polls."""
        envelope: Envelope = super().get(
            timeout=timeout,
            propagate=propagate,
            interval=interval,
            no_ack=no_ack,
            follow_parents=follow_parents,
            callback=callback,
            on_message=on_message,
            on_interval=on_interval,
            disable_sync_subtasks=disable_sync_subtasks,
            **kwargs,
        )
        return envelope

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: Any = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Cancel the instruction, from any process; ``terminate`` means the same, the rest is Celery's.

        A generation keeps what was generated so far, and ends with the code ``cancelled`` once its
        call is broken off, within a second. What has ended stays as it is. Raises Unavailable.
        """
        self.app.control.revoke(
            self.id,
            connection=connection,
            terminate=terminate,
            signal=signal,
            reply=wait,
            timeout=timeout,
        )

    def received(self, meta: Meta) -> Envelope:
        """What ``get`` makes of a meta that has arrived; for who waits in another way."""
        self._maybe_set_cache(self.backend.understood(self.id, meta))
        return self.get()

    def last_look(self, waited: float) -> Envelope:
        """The envelope if it is there now; ResultTimeout, after ``waited`` seconds, if it is not."""
        return self.received(self.backend.last_look([self.id], waited)[1])
