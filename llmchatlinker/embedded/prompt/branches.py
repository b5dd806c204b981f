"""The forks along a chat's active branch: other questions and other answers, and where they lead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llmchatlinker.embedded.prompt.screen import PREVIEW, in_a_line, plain

Message = dict[str, Any]
#: How a message's status shows behind it.
STATUS = {
    "cancelled": "stopped",
    "failed": "failed",
    "in_doubt": "in doubt",
    "generating": "being written",
}


@dataclass(frozen=True, slots=True)
class Branch:
    """An answer at a fork. ``end``: the last answer below it, which is what one switches to."""

    number: int
    question: Message
    answer: Message
    end: int

    @property
    def is_active(self) -> bool:
        """The chat's active branch goes through it."""
        return bool(self.answer["active"])


class Tree:
    """``messages``: a chat's, as CHAT_LOAD gives them with ``branch=all``."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._children: dict[int | None, list[Message]] = {}
        for message in sorted(messages, key=lambda message: int(message["message_id"])):
            self._children.setdefault(message["parent_message_id"], []).append(message)
        self._active = [m for m in messages if m["active"] and m["role"] == "user"]
        self._active.sort(key=lambda message: int(message["message_id"]))

    def forks(self) -> list[tuple[Message, list[Message]]]:
        """Questions with their answers, wherever there is a choice along the active branch, from the
        top; and the last question in any case.
        """
        found: list[tuple[Message, list[Message]]] = []
        for active in self._active:
            siblings = self._below(active["parent_message_id"], "user")
            answers = [(question, self._answers(question)) for question in siblings]
            choices = sum(max(1, len(some)) for _, some in answers)
            if choices > 1 or active is self._active[-1]:
                found += answers
        return found

    def branches(self) -> list[Branch]:
        """The answers at the forks, numbered from 1."""
        pairs = [(question, answer) for question, some in self.forks() for answer in some]
        return [
            Branch(number, question, answer, self._end(answer))
            for number, (question, answer) in enumerate(pairs, start=1)
        ]

    def lines(self) -> Iterator[str]:
        """The forks as they are shown."""
        numbers = {branch.answer["message_id"]: branch.number for branch in self.branches()}
        for question, answers in self.forks():
            yield f"     {_shown(question)}"
            for answer in answers:
                mark = "*" if answer["active"] else " "
                yield f"{mark} {numbers[answer['message_id']]:>2}    {_shown(answer)}"
            if not answers:
                yield "       (no answer)"

    def _end(self, answer: Message) -> int:
        while True:
            questions = self._below(answer["message_id"], "user")
            answered = [found for question in questions for found in self._answers(question)[-1:]]
            if not answered:
                return int(answer["message_id"])
            answer = answered[-1]

    def _answers(self, question: Message) -> list[Message]:
        return self._below(question["message_id"], "assistant")

    def _below(self, message_id: int | None, role: str) -> list[Message]:
        return [child for child in self._children.get(message_id, []) if child["role"] == role]


def _shown(message: Message) -> str:
    text = in_a_line(plain(message["content"]), PREVIEW) or "(empty)"
    status = STATUS.get(message["status"])
    return f"{text}  ({status})" if status else text
