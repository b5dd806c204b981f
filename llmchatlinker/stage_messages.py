"""The cycle as messages: ``decode | execute | store``, a Celery chain, and how its stages are published.

Composing a chain, its signatures and the headers of a message takes Celery as long as publishing does
(``celery/canvas.py``, ``celery/app/base.py``), and for instructions of one type all of it is the same
but for the ids. So Celery composes each kind of message once, and each instruction's ids are put in.
What has no value is left out: RabbitMQ and every consumer read each header one by one, and Celery
takes what is missing for its default (``celery/app/task.py``, Context).
"""

from __future__ import annotations

import json
import time
import uuid
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from amqp.exceptions import MessageNacked
from celery import chain
from celery.app.amqp import task_message
from celery.canvas import Signature

from llmchatlinker.broker_publishing import Publishing
from llmchatlinker.celery_app import app
from llmchatlinker.instructions import INSTRUCTION_SET, InstructionType
from llmchatlinker.outages import BROKER_ERRORS
from llmchatlinker.settings import get_settings
from llmchatlinker.stage_bytes import Ids, Pattern, Shape, are_observed, marks, record, shape_of
from llmchatlinker.telemetry.tracing import PUBLISHED_AT, TRACEPARENT
from llmchatlinker.topology import DECODE_TASK, STORE_TASK, route

#: A message's header: its stage was published before, and may have been begun.
AGAIN = "again"
#: States of a row and the stage that is due in them.
DUE = {"submitted": 0, "decoded": 1, "executed": 2}

#: What stands in a composed message for what each instruction puts there.
_INSTRUCTION, _EXECUTE, _REPLY_TO, _TRACEPARENT = "@instruction@", "@execute@", "@reply@", "@trace@"
_SPECS = {spec.task_name: spec for spec in INSTRUCTION_SET.values()}
#: Headers that say nothing, with their values.
_SILENT: tuple[Any, ...] = (None, {}, [None, None], [], 0)


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A message as Celery composes it, with marks in it instead of ids."""

    task: str
    queue: str
    confirm_timeout: float
    headers: Mapping[str, Any]
    #: By whether there is a queue for the reply, and whether there is a trace.
    bodies: Mapping[tuple[bool, bool], str]


def cycle(spec: InstructionType, state: str, confirm_timeout: float) -> Signature:
    """The chain of what is left for an instruction in ``state``; every message carries only its id.

    ``confirm_timeout``: seconds. Without one a frozen broker would hold the publisher for ever.
    """
    names = (DECODE_TASK, spec.task_name, STORE_TASK)[DUE[state] :]
    options = {"confirm_timeout": confirm_timeout}
    return chain([app.signature(name, options=dict(options)) for name in names], app=app)


@lru_cache(maxsize=256)
def kind(spec: InstructionType, state: str, confirm_timeout: float) -> Kind:
    """The message of the stage that is due in ``state``, and of the stages behind it."""
    steps = cycle(spec, state, confirm_timeout)
    frozen, _ = steps.prepare_steps((), {}, steps.tasks, app=app)  # the last one first
    name = frozen[-1]["task"]
    queue = (route(name) or {})["queue"]
    headers: dict[str, Any] = {}
    bodies = {}
    for replies in (False, True):
        for traced in (False, True):
            message = _composed(frozen, replies, traced)
            headers = {key: value for key, value in message.headers.items() if value not in _SILENT}
            bodies[replies, traced] = json.dumps(message.body)
    return Kind(name, queue, confirm_timeout, headers, bodies)


def _composed(frozen: list[Signature], replies: bool, traced: bool) -> Any:
    tasks = []
    for step in frozen:
        marks: dict[str, Any] = {
            "task_id": _INSTRUCTION if step["task"] == STORE_TASK else _EXECUTE,
            "root_id": _INSTRUCTION,
        }
        if traced:
            marks["headers"] = {TRACEPARENT: _TRACEPARENT}
        if replies:
            marks["reply_to"] = _REPLY_TO
        options = {key: step.options[key] for key in ("confirm_timeout",)}
        tasks.append(dict(step, options=options | marks))
    first = tasks.pop()
    return app.amqp.as_task_v2(
        first["options"]["task_id"],
        first["task"],
        args=(_INSTRUCTION,),
        root_id=_INSTRUCTION,
        chain=tasks,
        ignore_result=None,  # as the task says
    )


def ids_of(
    kind: Kind,
    instruction: str,
    reply_to: str | None = None,
    traceparent: str | None = None,
    execute: str | None = None,
    parent: str | None = None,
) -> Ids:
    """The ids of a message that is published now; ``execute`` and ``parent`` where they are known."""
    execute = execute or str(uuid.uuid4())
    own = execute
    if kind.task == STORE_TASK:
        own = instruction
    elif kind.task == DECODE_TASK:
        own = str(uuid.uuid4())  # nobody's concern: it is always the first one
    return Ids(instruction, execute, own, time.time(), reply_to, traceparent, parent)


def send(
    kind: Kind, ids: Ids, producer: Any = None, *, again: bool = False, **options: Any
) -> None:
    """Publish it. ``again``: it was published before. ``options``: ``apply_async``'s that say how.

    Raises kombu's OperationalError where the broker is gone, does not confirm, or refuses.
    """
    if producer is None:
        with app.producer_pool.acquire(block=True) as pooled:
            send(kind, ids, pooled, again=again, **options)
        return
    connection = producer.connection
    with connection._reraise_as_library_errors():  # as Celery's send_task does
        try:
            if not again and _send_bytes(kind, ids, producer):
                return
        except BROKER_ERRORS as error:
            if options.get("retry") is False:
                raise
            # Celery tries again, as often as the policy for it says; on a connection of which nobody
            # knows what may still come, it would take one message's confirm for another's.
            if not isinstance(error, MessageNacked):
                connection.collect()
                producer.revive(connection)
        declare = _undeclared(producer, kind.queue)
        _send_through_celery(kind, ids, producer, again=again, declare=declare, **options)


def _send_bytes(kind: Kind, ids: Ids, producer: Any) -> bool:
    """Publish the pattern with these ids in it; False where Celery has to do it."""
    channel = producer.channel
    if not isinstance(channel, Publishing) or kind.queue not in _declared.get(channel, ()):
        return False
    shape = shape_of(ids)
    if shape is None or are_observed():
        return False
    pattern = _pattern(kind, shape)
    where = pattern.exchange, pattern.routing_key
    channel.publish_bytes(*where, *pattern.of(ids), kind.confirm_timeout)
    return True


@lru_cache(maxsize=1024)
def _pattern(kind: Kind, shape: Shape) -> Pattern:
    return record(
        lambda producer: _send_through_celery(
            kind, marks(shape), producer, again=False, declare=[], retry=False
        )
    )


def _send_through_celery(
    kind: Kind, ids: Ids, producer: Any, *, again: bool, **options: Any
) -> None:
    text = ids.instruction
    headers = dict(kind.headers)
    headers |= {
        "id": ids.own,
        "root_id": text,
        "argsrepr": f"('{text}',)",
        PUBLISHED_AT: ids.moment,
    }
    if ids.parent is not None:
        headers["parent_id"] = ids.parent
    if again:
        headers[AGAIN] = True
    body = kind.bodies[ids.reply_to is not None, ids.traceparent is not None]
    body = body.replace(_INSTRUCTION, text).replace(_EXECUTE, ids.execute)
    if ids.reply_to is not None:
        body = body.replace(_REPLY_TO, _escaped(ids.reply_to))
    if ids.traceparent is not None:
        headers[TRACEPARENT] = ids.traceparent
        body = body.replace(_TRACEPARENT, _escaped(ids.traceparent))
    properties = {
        "correlation_id": ids.own,
        "reply_to": ids.reply_to or "",
        "content_type": "application/json",
        "content_encoding": "utf-8",
    }
    options.setdefault("confirm_timeout", kind.confirm_timeout)
    message = task_message(headers, properties, body, None)
    app.amqp.send_task_message(producer, kind.task, message, queue=kind.queue, **options)


#: Options of a hand-off that the composed message has as well.
_ORDINARY = frozenset(
    ("task_id", "root_id", "parent_id", "reply_to", "headers", "chain", "confirm_timeout")
)


def hand_on(task: str, instruction_id: object, options: Mapping[str, Any]) -> bool:
    """Publish the message of the stage ``task``, with Celery's options of a chain's next step.

    False where that is no step of a cycle as it is composed here: Celery has to do it then.
    """
    spec, state, behind = _SPECS.get(task), "decoded", [STORE_TASK]
    if task == STORE_TASK:  # which is the same for all of them
        spec, state, behind = next(iter(_SPECS.values())), "executed", []
    headers = dict(options.get("headers") or {})
    headers.pop(PUBLISHED_AT, None)
    again = headers.pop(AGAIN, False) is True
    traceparent = headers.pop(TRACEPARENT, None)
    if (
        spec is None
        or not isinstance(instruction_id, str)
        or options.get("root_id") != instruction_id
        or [step.get("task") for step in options.get("chain") or ()] != behind
        or headers
        or any(value is not None for key, value in options.items() if key not in _ORDINARY)
    ):
        return False
    stage = kind(spec, state, get_settings().confirm_timeout)
    ids = ids_of(
        stage,
        instruction_id,
        options.get("reply_to"),
        traceparent,
        options.get("task_id"),
        options.get("parent_id"),
    )
    send(stage, ids, again=again)
    return True


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


#: The queues that are declared already, by channel. kombu knows, too, but copies the queue to find out.
_declared: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def _undeclared(producer: Any, queue: str) -> list[Any] | None:
    """What is to be declared before publishing: Celery's default, None, or nothing."""
    known = _declared.setdefault(producer.channel, set())
    if queue in known:
        return []
    known.add(queue)
    return None
