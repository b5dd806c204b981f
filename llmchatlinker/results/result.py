"""Celery's ``AsyncResult`` for instructions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery.result import AsyncResult

from llmchatlinker.celery_app import app
from llmchatlinker.envelope import Envelope
from llmchatlinker.results.reading import Meta


class InstructionResult(AsyncResult):
    """The result of an instruction: ``.id``, ``.state``, ``.ready()``, ``.get(timeout=…)``.

    ``get`` returns the envelope for every outcome, errors included; it raises for what is wrong with
    the waiting itself: ResultTimeout, NotFound for an id that was never submitted, Unavailable.
    """

    def __init__(self, id: str, *args: Any, **kwargs: Any) -> None:
        if self.app is None:
            kwargs.setdefault("app", app)
        super().__init__(id, *args, **kwargs)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        no_ack: bool = True,
        follow_parents: bool = False,
        callback: Callable[[str, Any], object] | None = None,
        on_message: Callable[[Any], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        disable_sync_subtasks: bool = True,
        **kwargs: Any,
    ) -> Envelope:
        """Wait for the envelope. ``interval``: seconds between two looks (default: growing)."""
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

    def received(self, meta: Meta) -> Envelope:
        """What ``get`` makes of a meta that has arrived; for who waits in another way."""
        self._maybe_set_cache(self.backend.understood(self.id, meta))
        return self.get()

    def last_look(self, waited: float) -> Envelope:
        """The envelope if it is there now; ResultTimeout, after ``waited`` seconds, if it is not."""
        return self.received(self.backend.last_look([self.id], waited)[1])
