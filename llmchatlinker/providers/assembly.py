"""An answer put together from its pieces, each handed on as it comes.

What is handed on and what is returned in the end are the same characters, and each piece can be kept
by PostgreSQL: JSON may cut an emoji's surrogate pair between two pieces, so the first half waits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llmchatlinker.errors import ProviderError
from llmchatlinker.providers.base import ChatAnswer, Delta, Endpoint, OnDelta, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.documents import clean
from llmchatlinker.providers.failures import cut_short

#: Seconds for the tokens and the end of a stream to come, once the answer itself is whole.
END_PATIENCE = 5.0


class _Text:
    """One run of text."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._half = ""

    def take(self, piece: str) -> str:
        """What of it can be handed on."""
        piece = self._half + piece
        self._half = piece[-1] if piece and "\ud800" <= piece[-1] <= "\udbff" else ""
        return self._keep(clean(piece[:-1] if self._half else piece))

    def rest(self) -> str:
        """Half a pair, whose other half never came."""
        rest, self._half = clean(self._half), ""
        return self._keep(rest)

    def _keep(self, piece: str) -> str:
        if piece:
            self.pieces.append(piece)
        return piece

    def __str__(self) -> str:
        return "".join(self.pieces)


@dataclass
class _ToolCall:
    id: str | None = None
    name: str | None = None
    custom: bool = False
    arguments: _Text = field(default_factory=_Text)

    def whole(self) -> dict[str, Any]:
        """In OpenAI's shape."""
        text = str(self.arguments)
        if self.custom:  # a tool that takes text instead of JSON
            return {"id": self.id, "type": "custom", "custom": {"name": self.name, "input": text}}
        function = {"name": self.name, "arguments": text}
        return {"id": self.id, "type": "function", "function": function}


class Assembly:
    """The answer as far as it has come."""

    def __init__(
        self, endpoint: Endpoint, call: Call, on_delta: OnDelta | None, *, streamed: bool
    ) -> None:
        self.finish_reason: str | None = None
        #: The provider has said that this was all.
        self.complete = False
        #: It says why there is no answer, instead of one.
        self.refused = False
        self._usage = Usage()
        self._endpoint = endpoint
        self._call = call
        self._on_delta = on_delta
        self._between = endpoint.read_timeout if streamed else None
        self._text = _Text()
        self._reasoning = _Text()
        self._tool_calls: list[_ToolCall] = []
        self._numbers: dict[Any, int] = {}

    def text(self, piece: str) -> None:
        """More of the answer."""
        self._hand_on(Delta("text", self._text.take(piece)))

    def reasoning(self, piece: str) -> None:
        """More of what leads to it."""
        self._hand_on(Delta("reasoning", self._reasoning.take(piece)))

    def tool_call(
        self,
        arguments: Any,
        *,
        key: Any = None,
        id: str | None = None,
        name: str | None = None,
        custom: bool = False,
    ) -> None:
        """More of a call of a tool: of the one with this key, or else of this id, or of the last one.

        Under a key that is taken, another id with a name is another call: some servers number all
        calls 0. Without a name it is not: others give each piece a new id.
        """
        number = self._number(key, id, name)
        call = self._tool_calls[number]
        new_id = clean(id) if id and call.id is None else None
        new_name = clean(name) if name and call.name is None else None
        call.id = call.id or new_id
        call.name = call.name or new_name
        call.custom = call.custom or custom
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else json.dumps(arguments, ensure_ascii=False)
        piece = call.arguments.take(arguments)
        self._hand_on(
            Delta("tool_call", piece, number, new_id, new_name, call.custom),
            empty=new_id is not None or new_name is not None,
        )

    def finish(self, reason: Any) -> None:
        """The provider says why it stopped; what is still to come is soon there, or does not matter."""
        if isinstance(reason, str) and reason:
            self.finish_reason = clean(reason)
            self.complete = True
        if self.complete and self._between is not None:
            self._call.allow(END_PATIENCE, "total_timeout")

    def counted(self, usage: Usage) -> None:
        """The provider says what it has counted so far."""
        self._usage = self._call.usage = usage

    def answer(self) -> ChatAnswer:
        """All of it."""
        self._hand_on(Delta("text", self._text.rest()))
        self._hand_on(Delta("reasoning", self._reasoning.rest()))
        for number, call in enumerate(self._tool_calls):
            self._hand_on(Delta("tool_call", call.arguments.rest(), number, custom=call.custom))
        # OpenAI says "stop" of a refusal; whoever reads the answer should see that it is none.
        blamed = self.refused and self.finish_reason in (None, "stop")
        return ChatAnswer(
            content=str(self._text),
            finish_reason="content_filter" if blamed else self.finish_reason,
            tool_calls=[call.whole() for call in self._tool_calls] or None,
            reasoning=str(self._reasoning) or None,
            usage=self._usage,
        )

    @contextmanager
    def to_its_end(self) -> Iterator[None]:
        """Around the reading of a stream: it must come to its end, and what goes wrong behind that
        takes nothing away from the answer."""
        try:
            yield
        except ProviderError:
            if not self.complete:
                raise
        if not self.complete:
            raise cut_short(self._endpoint)

    def _number(self, key: Any, id: str | None, name: str | None) -> int:
        number = self._numbers.get(id if key is None else key)
        if key is None and not id and self._tool_calls:
            return len(self._tool_calls) - 1
        if number is not None:
            known = self._tool_calls[number].id
            if not id or not name or known is None or known == clean(id):
                return number
        self._tool_calls.append(_ToolCall())
        number = len(self._tool_calls) - 1
        self._numbers[id if key is None else key] = number
        return number

    def _hand_on(self, delta: Delta, *, empty: bool = False) -> None:
        if not delta.text and not empty:
            return
        if self._between is not None:
            self._call.allow(self._between, "read_timeout")
        if self._on_delta is not None:
            self._on_delta(delta)
