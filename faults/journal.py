"""What the client process remembers of a round, by tag."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.clients import Client


@dataclass
class Memory:
    """Of one submission. ``refusals``: the codes that ``submit`` raised, each before another try;
    ``uncertain``: the last one came with an id, so it may run all the same. ``seconds``: from the
    submission to the envelope; ``missing``: why none came. ``cancelled``: the client has asked for
    that, and no error was raised.
    """

    id: str | None = None
    refusals: list[str] = field(default_factory=list)
    uncertain: bool = False
    envelopes: list[dict[str, Any]] = field(default_factory=list)
    stream: dict[str, Any] | None = None
    seconds: float = 0.0
    missing: str | None = None
    cancelled: bool = False
    uncancelled: bool = False

    @property
    def code(self) -> str | None:
        """``success``, or the error's; None without an envelope."""
        if not self.envelopes:
            return None
        return str(self.envelopes[0].get("error", {}).get("code", "success"))


@dataclass
class Journal:
    """Of a round. ``defects``: what no client should ever see; ``is_over``: the client is done."""

    memories: dict[str, Memory] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    is_over: bool = False

    def of(self, tag: str) -> Memory:
        """The memory of a tag."""
        return self.memories.setdefault(tag, Memory())

    def read(self, client: Client, patience: float) -> None:
        """Everything that the client tells, until it is done."""
        while True:
            line = client.receive(patience)
            if "done" in line:
                self.is_over = True
                return
            self._note(line)

    def _note(self, line: dict[str, Any]) -> None:
        if "defect" in line:
            self.defects.append(f"{line.get('tag', 'a client')}: {line['defect']}")
            return
        memory = self.of(line["tag"])
        if "envelope" in line:
            memory.envelopes.append(line["envelope"])
        if "refused" in line:
            memory.refusals.append(line["refused"])
            memory.uncertain = line["id"] is not None
        for name in ("stream", "seconds", "missing", "cancelled", "uncancelled"):
            if name in line:
                setattr(memory, name, line[name])
        if line.get("id") is not None:
            memory.id = line["id"]
