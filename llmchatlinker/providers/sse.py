"""Server-sent events, read as they arrive, whatever pieces the network makes of them.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream, with one
leniency: what the end of the stream cut off is handed out too, marked as such, since many servers
leave the last blank line away.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event: its name (``message`` unless it says otherwise) and its data.

    ``closed``: by a blank line, as it should be. Else it may be half an event.
    """

    data: str = field(repr=False)
    name: str = "message"
    closed: bool = True


class EventReader:
    """Turns pieces of bytes into events. Comments, ids and retry times mean nothing here."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # the line that has not ended yet
        self._skip_line_feed = False
        self._first = True
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The events that this piece completes."""
        if self._skip_line_feed and piece:
            self._skip_line_feed = False
            piece = piece.removeprefix(b"\n")
        if not piece:
            return []
        events: list[ServerEvent] = []
        for line in piece.splitlines(keepends=True):  # of bytes: at CR, LF and CRLF alone
            self._line.append(line)
            if line.endswith((b"\n", b"\r")):
                whole = b"".join(self._line).rstrip(b"\r\n")
                self._line.clear()
                self._take(whole, events)
        self._skip_line_feed = piece.endswith(b"\r")  # the other half may be under way
        return events

    def end(self) -> list[ServerEvent]:
        """The stream has ended: what was not closed by a blank line."""
        events: list[ServerEvent] = []
        if self._line:
            self._take(b"".join(self._line), events)
            self._line.clear()
        self._take(b"", events)
        return [replace(event, closed=False) for event in events]

    def _take(self, line: bytes, events: list[ServerEvent]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            if self._data:
                data = b"\n".join(self._data).decode("utf-8", "replace")
                name = self._name.decode("utf-8", "replace") or "message"
                events.append(ServerEvent(data, name))
                self._data.clear()
            self._name = b""
            return
        field_name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field_name == b"data":
            self._data.append(value)
        elif field_name == b"event":
            self._name = value
