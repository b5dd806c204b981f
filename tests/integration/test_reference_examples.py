"""The examples of docs/reference/instructions.md: run, and compared with what the page shows.

``RECORD_EXAMPLES=1`` writes what comes back instead; ``make reference`` does that.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from llmchatlinker.instructions import INSTRUCTION_SET
from tests.fixtures.cycles import Cycle
from tests.servers.provider import ScriptedProvider
from tools.reference.examples import EXAMPLES, RECORDED, recorded

PROVIDER = "http://localhost:12500/v1"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00")
DAY = re.compile(r"\d{4}-\d\d-\d\d")
ORDINALS = ("@first", "@second")


class Recorder:
    """Runs the examples, with what differs from run to run replaced."""

    def __init__(self, cycle: Cycle, provider: ScriptedProvider) -> None:
        self.cycle = cycle
        self.provider = provider
        self.ids: dict[str, str] = {}
        self.generations: list[str] = []

    def run(self) -> dict[str, Any]:
        """Type → data and envelope; of two examples of a type the first."""
        result: dict[str, Any] = {}
        for name, data in EXAMPLES:
            instruction_id = self.cycle.submit(name, **self._filled(data))
            assert self.cycle.finish(instruction_id), name
            envelope = self.cycle.envelope(instruction_id)
            assert envelope["status"] == "success", (name, envelope)
            if INSTRUCTION_SET[name].takes_turn:
                self.generations.append(str(instruction_id))
            shown = {"data": self._even(self._filled(data)), "envelope": self._even(envelope)}
            result.setdefault(name, shown)
        return result

    def _filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if value == "@provider":
            return self.provider.base_url
        return self.generations[ORDINALS.index(value)] if value in ORDINALS else value

    def _even(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._even(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._even(item) for item in value]
        if not isinstance(value, str):
            return value
        if MOMENT.fullmatch(value):
            return "2026-11-23T09:00:00.000000+00:00"
        if DAY.fullmatch(value):
            return "2026-11-23"
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
            number = len(self.ids) + 1
            return self.ids.setdefault(value, f"01a20632-e94f-7398-8d0d-{number:012d}")
        return value.replace(self.provider.base_url, PROVIDER)


def test_the_examples_of_the_reference_end_as_it_shows(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str
) -> None:
    result = Recorder(cycle, provider).run()

    if os.environ.get("RECORD_EXAMPLES"):
        RECORDED.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    assert result == recorded(), "make reference records the examples anew"
