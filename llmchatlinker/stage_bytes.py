"""A stage's message as the bytes that go over the wire, with an instruction's ids put in.

kombu and py-amqp write the properties and headers of every message anew (``kombu/messaging.py``,
``amqp/serialization.py``), which takes twice the CPU of everything else about publishing. Messages of
one kind differ in texts of the same length only. So one of them, as Celery has it published, is the
pattern for all.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from celery import signals
from kombu import Producer
from kombu.transport.pyamqp import Channel


@dataclass(frozen=True, slots=True)
class Ids:
    """What makes a message that of one instruction.

    ``execute``: the id of the task that executes. ``own``: of the message's task. ``parent``: of the
    task before. ``moment``: when it is published, in seconds since 1970.
    """

    instruction: str
    execute: str
    own: str
    moment: float
    reply_to: str | None = None
    traceparent: str | None = None
    parent: str | None = None


class Shape(NamedTuple):
    """What messages have in common that one pattern can stand for: lengths of texts, 0 for none."""

    reply_to: int
    traceparent: int
    has_parent: bool


#: What stands in a pattern.
_INSTRUCTION, _EXECUTE, _OWN, _PARENT = (
    "a76e4bb0-95d7-4f5c-8c1c-3c6f7c8d6a0e",
    "b0f6f2c1-52a6-4a54-9c77-0f3c0a5d1e92",
    "c5d9a7e4-1b83-4f0e-a6d2-7e9b4c2f8a13",
    "d2c48f17-6e3a-4b9d-b5f1-a8c07e6d9b54",
)
_MOMENT = 1.0123456789e-100
_REPLY_TO, _TRACEPARENT = "~", "^"  # as often as the text is long
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: A text that is the same in JSON, and too long for its mark to stand there by chance.
_PLAIN = re.compile(r"[\w.:@/-]{16,255}", re.ASCII)
_OBSERVERS = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


@dataclass(frozen=True, slots=True)
class Pattern:
    """A message with marks in it, and where it goes. ``properties``: AMQP's, the headers among them."""

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes

    def of(self, ids: Ids) -> tuple[bytes, bytes]:
        """The properties and the body of one instruction's message."""
        properties = self.properties.replace(_packed(_MOMENT), _packed(ids.moment))
        body = self.body
        for mark, text in (
            (_INSTRUCTION, ids.instruction),
            (_EXECUTE, ids.execute),
            (_OWN, ids.own),
            (_PARENT, ids.parent),
            (_REPLY_TO * len(ids.reply_to or ""), ids.reply_to),
            (_TRACEPARENT * len(ids.traceparent or ""), ids.traceparent),
        ):
            if text:
                old, new = mark.encode("ascii"), text.encode("ascii")
                properties, body = properties.replace(old, new), body.replace(old, new)
        return properties, body


def shape_of(ids: Ids) -> Shape | None:
    """The shape of a message with these ids; None where no pattern can stand for it."""
    for text in (ids.instruction, ids.execute, ids.own, ids.parent):
        if text is not None and _ID.fullmatch(text) is None:
            return None
    for text in (ids.reply_to, ids.traceparent):
        if text is not None and _PLAIN.fullmatch(text) is None:
            return None
    return Shape(len(ids.reply_to or ""), len(ids.traceparent or ""), ids.parent is not None)


def marks(shape: Shape) -> Ids:
    """What to compose a pattern with."""
    return Ids(
        _INSTRUCTION,
        _EXECUTE,
        _OWN,
        _MOMENT,
        _REPLY_TO * shape.reply_to or None,
        _TRACEPARENT * shape.traceparent or None,
        _PARENT if shape.has_parent else None,
    )


def record(publish: Callable[[Any], None]) -> Pattern:
    """The message that ``publish`` gives the producer that it gets."""
    channel = _Recorder()
    publish(Producer(channel))
    message = channel.message
    return Pattern(
        channel.exchange, channel.routing_key, message._serialize_properties(), message.body
    )


def are_observed() -> bool:
    """Whether somebody has Celery tell of each message when it is published."""
    return any(signal.receivers for signal in _OBSERVERS)


class _Recorder:
    """A channel that keeps what kombu would have it publish."""

    connection = None
    prepare_message = Channel.prepare_message
    message: Any = None
    exchange = routing_key = ""

    def basic_publish(self, message: Any, exchange: str, routing_key: str, **options: Any) -> None:
        self.message, self.exchange, self.routing_key = message, exchange, routing_key


def _packed(moment: float) -> bytes:
    return struct.pack(">d", moment)
