"""The sweeper: sends on what has no live owner, and closes what is past its deadline.

It runs in every worker that serves the ``database`` queue, at an interval, under an advisory lock
that only one of them gets: nobody has to remember to start it.

A message that merely waits in a long queue must not be published twice. So the rows that are due on
a queue are counted against what the broker says is ready in it: only what is missing is lost, and
the oldest is lost first. Where there is a backlog, what is missing may also be at work just now; so
there a row must be missing in two sweeps, one after the other. A wrong guess costs a message, never
work: every stage may be delivered twice.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

from celery import bootsteps
from sqlalchemy import exists, func, or_, select, text, tuple_, update
from sqlalchemy.orm import Session, aliased

from llmchatlinker.after_commit import follow
from llmchatlinker.celery_app import app
from llmchatlinker.db.models import Attempt, Instruction, Message
from llmchatlinker.db.sessions import database
from llmchatlinker.dead_letters.collecting import collect
from llmchatlinker.defects import log_defect
from llmchatlinker.errors import DeadlineExceeded, Unavailable
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.orchestrator import announce, publish, publish_released
from llmchatlinker.outages import BROKER_ERRORS, broker_failed
from llmchatlinker.outcomes import finalise
from llmchatlinker.retention import purge
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.compaction import compact
from llmchatlinker.telemetry import gauges, sweeps
from llmchatlinker.topology import CONTROL, DATABASE, QUEUE_NAMES
from llmchatlinker.turns import Released, release_next_turn
from llmchatlinker.units.closing import close_what_is_left
from llmchatlinker.waiting import release_due

logger = logging.getLogger(__name__)

#: Rows that one sweep touches at most, so that its transaction stays short.
BATCH = 500
#: Seconds in a sweep for what is late, so that the other duties come to their turn.
ROUND = 4.0
LOCK = 0x11C5EE
Lost = tuple[uuid.UUID, str, str]

#: What the last sweep of this process missed in a queue with a backlog.
_suspects: set[Lost] = set()
#: The duties that failed in the last sweep of this process, and how.
_failing: set[str] = set()


def sweep() -> Counter[str]:
    """One round; counts of what was done, by kind. Nothing when another worker is at it.

    A duty that fails keeps no other from being done. Raises Unavailable when PostgreSQL is gone.
    """
    done: Counter[str] = Counter()
    patience = get_settings().client_patience
    late = database().run(_late, patience=patience)
    if late is None:
        return done
    failed: set[str] = set()
    for duty in (partial(_expire, late), *DUTIES):
        try:
            done.update(duty())
        except Unavailable:
            raise
        except Exception as error:
            failed.add(_note(duty, error))
    _failing.intersection_update(failed)
    return done


def _note(duty: Any, error: Exception) -> str:
    """Say once that a duty fails, until it has succeeded: its next try is a matter of seconds."""
    name = str(getattr(duty, "func", duty).__name__)
    failure = f"{name} {type(error).__name__}"
    sweeps.failures[name.strip("_")] += 1
    if isinstance(error, BROKER_ERRORS):
        broker_failed(error)  # which says so once, for all that can't be sent on
    elif failure not in _failing:
        _failing.add(failure)
        logger.warning("Sweeping: %s failed, and is tried again: %r", name.strip("_"), error)
    return failure


def _expire(late: list[uuid.UUID]) -> dict[str, int]:
    """Batch after batch, for a while: thousands may be late at once."""
    expired = 0
    patience = get_settings().client_patience
    end = time.monotonic() + ROUND
    more: list[uuid.UUID] | None = late
    while more:
        for instruction_id in more:
            ending = finalise(instruction_id, DeadlineExceeded(), patience=patience)
            if ending is not None:
                announce(ending)
                expired += 1
        if len(more) < BATCH or time.monotonic() > end:
            break
        more = database().run(_late, patience=patience)
    return {"expired": expired}


def _release() -> dict[str, int]:
    released = database().run(_overlooked_turns, patience=get_settings().client_patience)
    publish_released(released)
    return {"released": len(released)}


def _close_all() -> dict[str, int]:
    patience = get_settings().client_patience
    left = database().run(_left_open, patience=patience)
    return {"closed": sum(_close(*found, patience) for found in left)}


def _wake() -> dict[str, int]:
    return {"woken": release_due(slots=True)}


def _compact() -> dict[str, int]:
    patience = get_settings().client_patience
    return {
        "compacted": database().run(lambda s: compact(s) if _alone(s) else 0, patience=patience)
    }


def _collect() -> dict[str, int]:
    return {f"dead letters {became}": count for became, count in collect().items()}


def _republish() -> dict[str, int]:
    ready = _ready_messages()
    lost = database().run(
        lambda session: _take_lost(session, ready), patience=get_settings().client_patience
    )
    for instruction_id, type_name, state in lost:
        publish(instruction_id, INSTRUCTION_SET[type_name], state, again=True)
    return {"republished": len(lost)}


def _purge() -> dict[str, int]:
    return {f"purged {kind}": count for kind, count in purge(_alone).items()}


def _measure() -> dict[str, int]:
    gauges.measure(_alone)
    return {}


#: In this order: what dead letters publish is not lost any more.
DUTIES = (_release, _close_all, _wake, _compact, _collect, _republish, _purge, _measure)


def _alone(session: Session) -> bool:
    locked = session.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": LOCK})
    return bool(locked)


def _late(session: Session) -> list[uuid.UUID] | None:
    """What is past its deadline; None when another sweeper is at it."""
    if not _alone(session):
        return None
    late = select(Instruction.id).where(
        Instruction.final_at.is_(None), Instruction.deadline_at < func.now()
    )
    return list(session.scalars(late.order_by(Instruction.deadline_at).limit(BATCH)))


def _overlooked_turns(session: Session) -> tuple[Released, ...]:
    """Turns that wait although nothing is before them: who should have released them died."""
    before = aliased(Instruction)
    chats = session.scalars(
        select(Instruction.chat_id)
        .where(
            Instruction.turn == "queued",
            Instruction.state == "waiting",
            Instruction.wait_reason == "turn",
            ~exists().where(
                before.chat_id == Instruction.chat_id,
                before.turn.in_(("queued", "active")),
                before.seq < Instruction.seq,
            ),
        )
        .limit(BATCH)
    ).all()
    return tuple(item for chat_id in chats for item in release_next_turn(session, chat_id))


def _left_open(session: Session) -> list[tuple[uuid.UUID, int | None]]:
    """Generations that have ended while nobody is at them: whose worker died, or whose row is gone."""
    # Looked up in a set and not one by one: of a young table PostgreSQL believes that it has few rows,
    # and would go through all live calls for each generation.
    live = select(Attempt.instruction_id).where(
        Attempt.status == "started", Attempt.lease_until > func.clock_timestamp()
    )
    messages = session.execute(
        select(Message.instruction_id, Message.chat_id)
        .outerjoin(Instruction, Instruction.id == Message.instruction_id)
        .where(
            Message.status == "generating",
            or_(Instruction.id.is_(None), Instruction.outcome.is_not(None)),
            Message.instruction_id.not_in(live),
        )
        .limit(BATCH)
    )
    turns = session.execute(
        select(Instruction.id, Instruction.chat_id)
        .where(
            Instruction.turn == "active",
            Instruction.outcome.is_not(None),
            Instruction.id.not_in(live),
        )
        .limit(BATCH)
    )
    return list({row[0]: row[1] for row in (*messages, *turns) if row[0] is not None}.items())


def _close(instruction_id: uuid.UUID, chat_id: int | None, patience: float) -> int:
    aftermath = database().run(
        lambda session: close_what_is_left(session, instruction_id, chat_id), patience=patience
    )
    follow(aftermath)
    return bool(aftermath.events or aftermath.released)


def _ready_messages() -> dict[str, int]:
    """How many messages wait on each queue, as the broker says; raises when it can't be asked."""
    ready = {}
    with app.pool.acquire(block=True, timeout=get_settings().client_patience) as connection:
        connection.ensure_connection(max_retries=1, timeout=get_settings().client_patience)
        for name in QUEUE_NAMES:
            with connection.channel() as channel:
                app.amqp.queues[name].bind(channel).declare()
                ready[name] = channel.queue_declare(queue=name, passive=True).message_count
    return ready


def _take_lost(session: Session, ready: dict[str, int]) -> list[Lost]:
    """Claim the rows whose messages are lost, by dating their publication anew."""
    if not _alone(session):
        return []
    owned = exists().where(
        Attempt.instruction_id == Instruction.id,
        Attempt.status == "started",
        Attempt.lease_until > func.clock_timestamp(),
    )
    due = (Instruction.final_at.is_(None), Instruction.state != "waiting", ~owned)
    missing = {name: -count for name, count in ready.items()}
    waiting: dict[str, list[tuple[str, str]]] = {}
    counts = session.execute(
        select(Instruction.type, Instruction.state, func.count())
        .where(*due)
        .group_by(Instruction.type, Instruction.state)
    )
    for type_name, state, count in counts:
        queue = _queue(type_name, state)
        if queue is not None:
            missing[queue] += count
            waiting.setdefault(queue, []).append((type_name, state))
    grace = func.make_interval(0, 0, 0, 0, 0, 0, get_settings().sweep_grace)
    lost: list[Lost] = []
    suspects: set[Lost] = set()
    # Each queue by itself: of one with a backlog nothing may be lost, and it hides no other's.
    for queue, kinds in waiting.items():
        if missing[queue] <= 0:
            continue
        candidates = session.execute(
            select(Instruction.id, Instruction.type, Instruction.state)
            .where(*due, Instruction.published_at < func.clock_timestamp() - grace)
            .where(tuple_(Instruction.type, Instruction.state).in_(kinds))
            .order_by(Instruction.published_at)
            .limit(min(missing[queue], BATCH))
            .with_for_update(skip_locked=True, of=Instruction)
        )
        for row in candidates:
            found = (row.id, row.type, row.state)
            if ready[queue] == 0 or found in _suspects:
                lost.append(found)
            else:
                suspects.add(found)
    _suspects.clear()
    _suspects.update(suspects)
    _date_anew(session, (instruction_id for instruction_id, _, _ in lost))
    return lost


def _date_anew(session: Session, instruction_ids: Iterable[uuid.UUID]) -> None:
    session.execute(
        update(Instruction)
        .where(Instruction.id.in_(list(instruction_ids)))
        .values(published_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def _queue(type_name: str, state: str) -> str | None:
    """The queue on which the stage that is due waits; None for a type of a newer version's."""
    spec = INSTRUCTION_SET.get(type_name)
    if spec is None:
        return None
    if state == "submitted":
        return CONTROL
    return DATABASE if state == "executed" else spec.queue


class SweeperStep(bootsteps.StartStopStep):
    """Starts and ends the sweeping thread of a worker."""

    def __init__(self, worker: Any, **options: Any) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:
        """Only where the Database Manage Unit is served."""
        return DATABASE in worker.app.amqp.queues.consume_from

    def start(self, worker: Any) -> None:
        """Start sweeping."""
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """Stop sweeping; a round that is under way ends by itself."""
        self._stop.set()

    terminate = stop

    def _run(self) -> None:
        while not self._stop.wait(get_settings().sweep_interval):
            started, done = time.monotonic(), None
            try:
                done = +sweep()
                if done:
                    logger.info("Swept: %s", ", ".join(f"{n} {kind}" for kind, n in done.items()))
            except Unavailable:
                pass  # the pool has said it; the next round tries again
            except Exception as error:
                log_defect(logger, "This sweep failed, the next one tries again", error=error)
            sweeps.note_round(done, time.monotonic() - started)
