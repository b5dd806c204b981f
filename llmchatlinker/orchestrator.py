"""The Orchestrator: the cycle of an instruction as a Celery chain, ``decode | execute | store``.

Row first, message second: an instruction is committed before its message is published, and a message
carries its id and nothing else. The client's id is that of the chain's last task.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from amqp.exceptions import MessageNacked
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from llmchatlinker import stage_messages
from llmchatlinker.celery_app import app
from llmchatlinker.db.sessions import Unanswered, database
from llmchatlinker.errors import Conflict, Overloaded, Unavailable
from llmchatlinker.instructions import InstructionType, instruction_type
from llmchatlinker.load import admit
from llmchatlinker.outages import BROKER_ERRORS, broker_answered, broker_failed
from llmchatlinker.outcomes import Ending
from llmchatlinker.results.hints import hint
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.settings import get_settings, without_password
from llmchatlinker.streaming.pushing import push
from llmchatlinker.submission import Submission, check
from llmchatlinker.telemetry import tracing
from llmchatlinker.turns import Released

logger = logging.getLogger(__name__)

#: Seconds that a thread waits for one of the process's publishing connections: they are busy, not gone.
POOL_TIMEOUT = 30.0
#: Seconds before a message that the broker has refused is published again.
REFUSED = 0.1


def publish(
    instruction_id: uuid.UUID,
    spec: InstructionType,
    state: str,
    reply_to: str | None = None,
    traceparent: str | None = None,
    *,
    again: bool = False,
    **options: Any,
) -> None:
    """Put the stage that is due onto its queue. The id is the last task's, and every task's root.

    ``traceparent``: what every message of the chain carries. ``again``: it was published before.
    ``options`` are those of ``apply_async`` for the first message.
    """
    kind = stage_messages.kind(spec, state, get_settings().confirm_timeout)
    ids = stage_messages.ids_of(kind, str(instruction_id), reply_to, traceparent)
    stage_messages.send(kind, ids, again=again, **options)


def submit(
    type_name: object,
    data: object,
    *,
    deadline: float | None = None,
    idempotency_key: str | None = None,
) -> str:
    """Commit an instruction and publish it; return its id.

    ``deadline``: seconds. Raises UnknownInstruction or InvalidData for what can't be stored, Conflict
    for an idempotency key that was used with other data, Overloaded for a full system, and Unavailable
    when a server can't be reached: then the instruction will not run, unless the error's details carry
    an ``instruction_id``.
    """
    submission = check(type_name, data, deadline, idempotency_key)
    reply_to = wakeups().reply_to()
    with tracing.submitting(submission) as traceparent:
        found = _insert(submission, reply_to, traceparent)
        if found == submission.id:
            wakeups().submitted(str(found))
            if submission.cancels is not None:
                from llmchatlinker.cancels import cancel  # which publishes what it releases

                # Now, and not when a worker comes to it; the worker says what has become of it, and
                # does it where this process could not.
                with suppress(Unavailable):
                    cancel(submission.cancels, patience=get_settings().client_patience)
            _publish_or_withdraw(submission, reply_to, traceparent)
    return str(found)  # or else the same instruction was submitted before, and is on its way


def submit_followed(submission: Submission, reply_to: str | None) -> uuid.UUID:
    """The same for a generation whose events shall come to the queue ``reply_to``; returns its id."""
    with tracing.submitting(submission) as traceparent:
        found = _insert(submission, reply_to, traceparent, follow=True)
        if found == submission.id:
            _publish_or_withdraw(submission, reply_to, traceparent)
    return found


def _publish_or_withdraw(
    submission: Submission, reply_to: str | None, traceparent: str | None
) -> None:
    try:
        publish_patiently(submission.id, submission.spec, "submitted", reply_to, traceparent)
    except Exception as error:
        if _withdraw(submission.id, error):
            raise _no_broker(error) from None


_INSERT = """
    INSERT INTO instructions
           (id, type, data, turn, user_ids, chat_id, idempotency_key, fingerprint, reply_to, follow,
            traceparent, deadline_at)
    VALUES (%(id)s, %(type)s, %(data)s, %(turn)s, %(user_ids)s,
            coalesce(%(chat_id)s, (SELECT chat_id FROM messages WHERE id = %(message_id)s)),
            %(key)s, %(fingerprint)s, %(reply_to)s, %(follow)s,
            %(traceparent)s, now() + make_interval(secs => %(deadline)s))
    ON CONFLICT DO NOTHING
    RETURNING id
"""

_FIND = """
    SELECT CAST(id AS text), fingerprint FROM instructions
     WHERE id = %(id)s OR idempotency_key = %(key)s
"""


def _insert(
    submission: Submission,
    reply_to: str | None,
    traceparent: str | None,
    *,
    follow: bool = False,
) -> uuid.UUID:
    """Insert the row; return its id, or that of the instruction that has its idempotency key."""
    patience = get_settings().client_patience
    values = {
        "id": str(submission.id),
        "type": submission.spec.name,
        "data": submission.text,
        "turn": "queued" if submission.spec.takes_turn else None,
        "user_ids": submission.user_ids,
        "chat_id": submission.chat_id,
        "message_id": submission.message_id,
        "key": submission.idempotency_key,
        "fingerprint": submission.fingerprint,
        "reply_to": reply_to,
        "follow": follow,
        "traceparent": traceparent,
        "deadline": submission.deadline,
    }
    if not submission.spec.cancels:  # which makes room
        try:
            admit(takes_turn=submission.spec.takes_turn, user_ids=submission.user_ids)
        except Overloaded:
            # A repetition of what was accepted is no new one.
            found = _find(submission, values) if submission.idempotency_key else None
            if found is None:
                raise
            return found
    while True:
        try:
            if database().statement(_INSERT, values, patience=patience, prepare=True, bounded=True):
                return submission.id
        except Unanswered as error:
            # If it was committed, the sweeper publishes it.
            raise Unavailable(
                f"{error.message} The instruction was on its way there: it may still run.",
                error.details | {"instruction_id": str(submission.id)},
            ) from None
        # Either an earlier try committed and its answer was lost, or the key is taken.
        found = _find(submission, values)
        if found is not None:
            return (
                found  # or else the key's instruction was withdrawn just now, and the key is free
            )


def _find(submission: Submission, values: dict[str, Any]) -> uuid.UUID | None:
    """The instruction that is there already, under the same id or idempotency key; or None."""
    patience = get_settings().client_patience
    rows = database().statement(_FIND, values, patience=patience, bounded=True)
    if not rows:
        return None
    found, fingerprint = rows[0]
    if found != str(submission.id) and bytes(fingerprint) != submission.fingerprint:
        raise Conflict(
            "The idempotency key was used for another instruction.",
            {"field": "idempotency_key", "instruction_id": found},
        )
    return uuid.UUID(found)


def publish_patiently(
    instruction_id: uuid.UUID,
    spec: InstructionType,
    state: str,
    reply_to: str | None = None,
    traceparent: str | None = None,
) -> None:
    """Publish within the client's patience: what can't be confirmed by then has failed.

    A pooled connection may have died unnoticed since its last use; that fails at once, and a second
    try gets a new one. A broker that refuses means "not now": a quorum queue does so while it has no
    leader, and on a busy broker when a connection is new to it. Publishing twice is harmless.
    """
    patience = get_settings().client_patience
    with app.producer_pool.acquire(block=True, timeout=POOL_TIMEOUT) as producer:
        started, tried = time.monotonic(), False
        while True:
            connection = producer.connection
            try:
                connection.ensure_connection(
                    max_retries=len(get_settings().broker_addresses),
                    interval_start=0,
                    interval_step=0.2,
                    timeout=patience,
                )
                options = {"producer": producer, "retry": False}
                publish(instruction_id, spec, state, reply_to, traceparent, **options)
            except Exception as error:
                # Not an orderly close: that would wait for the answer of a broker that gives none.
                connection.collect()
                refused = isinstance(error.__cause__ or error, MessageNacked)
                taken = time.monotonic() - started
                if taken > patience if refused else tried or taken > patience / 4:
                    raise
                if refused:
                    time.sleep(REFUSED)
                tried = tried or not refused
                producer.revive(connection)
            else:
                return


_WITHDRAW = """
    UPDATE instructions
       SET state = 'withdrawn', final_at = now(),
           idempotency_key = NULL,  -- a repetition of the submission shall be a new instruction
           turn = CASE WHEN turn IS NULL THEN NULL ELSE 'done' END
     WHERE id = %(id)s AND state = 'submitted'
    RETURNING id
"""


def _withdraw(instruction_id: uuid.UUID, cause: Exception) -> bool:
    """Take back a row whose message is not known to be published; False when it runs already."""
    patience = get_settings().client_patience
    try:
        values = {"id": str(instruction_id)}
        return bool(database().statement(_WITHDRAW, values, patience=patience, bounded=True))
    except Unavailable as error:
        raise Unavailable(
            f"{_no_broker(cause).message} PostgreSQL does not answer either, so the instruction "
            "could not be withdrawn: it may still run.",
            error.details | {"instruction_id": str(instruction_id)},
        ) from None


def _no_broker(error: Exception) -> Unavailable:
    address = without_password(get_settings().broker_url)
    reason = str(error).strip().splitlines()
    said = (
        f": {reason[0]}" if reason and isinstance(error, BrokerError | KombuError | OSError) else ""
    )
    return Unavailable(
        f"The broker at {address} does not take the message{said}. "
        "Check that it runs and that LLMCHATLINKER_BROKER_URL is right.",
        {"server": "broker", "address": address},
    )


def publish_released(released: Iterable[Released], *, patiently: bool = False) -> None:
    """Send on what has waited; ``patiently``: within a client's patience, and not a worker's.

    The sweeper does it where this fails.
    """
    send = publish_patiently if patiently else publish
    for item in released:
        try:
            send(item.instruction_id, instruction_type(item.type), "decoded")
        except BROKER_ERRORS as error:
            broker_failed(error)
        except Exception:
            logger.exception("Instruction %s could not be sent on yet", item.instruction_id)
        else:
            broker_answered()


def announce(ending: Ending, *, patiently: bool = False) -> None:
    """What follows an id's end, once it is committed: clients wake, and the turn behind goes on."""
    hint(ending)
    for events in ending.aftermath.events:
        push(*events)
    publish_released(ending.aftermath.released, patiently=patiently)
