"""Taking letters off the dead-letter queue: each becomes a row, and its instruction goes on or ends.

Row and decision are committed before anything is done, and the message is acknowledged after: a letter
that is delivered once more finds its row, and what was decided is done again, which harms nobody.

A message carries nothing but an instruction's id, and everything that is known of it is in that
instruction's row. So a message of ours that died innocently (its neighbour killed their worker, its time
on the queue ran out) is not moved back: the stage that is due is published.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import insert, text, update
from sqlalchemy.orm import Session

from llmchatlinker.celery_app import app
from llmchatlinker.db.models import DeadLetter
from llmchatlinker.db.sessions import database
from llmchatlinker.dead_letters.rows import Letter, letter_of, values_of
from llmchatlinker.errors import InternalError, LLMChatLinkerError, Poisoned
from llmchatlinker.instructions import INSTRUCTION_SET, InstructionType
from llmchatlinker.orchestrator import announce, publish
from llmchatlinker.outcomes import finalise
from llmchatlinker.settings import get_settings
from llmchatlinker.suspects import STAGES
from llmchatlinker.topology import DEAD_LETTER_QUEUE, DECODE_TASK, STORE_TASK, dead_letter_queue

#: The tasks of all stages.
KNOWN_TASKS = {DECODE_TASK, STORE_TASK} | {spec.task_name for spec in INSTRUCTION_SET.values()}
#: Seconds that one round takes at most, so that the sweeper's other duties come to their turn.
ROUND = 2.0


def collect(seconds: float = ROUND) -> Counter[str]:
    """Take in what is there, one letter after the other; counts of what became of them."""
    done: Counter[str] = Counter()
    settings = get_settings()
    if settings.broker_is_embedded:
        return done  # messages without a broker have no dead letters
    with app.pool.acquire(block=True, timeout=settings.client_patience) as connection:
        connection.ensure_connection(max_retries=1, timeout=settings.client_patience)
        with connection.channel() as channel:
            dead_letter_queue.bind(channel).declare()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                raw = channel.basic_get(queue=DEAD_LETTER_QUEUE, no_ack=False)
                if raw is None:
                    break
                message = channel.message_to_python(raw)
                done[take_in(letter_of(message))] += 1
                channel.basic_ack(raw.delivery_tag)
    return done


def take_in(letter: Letter) -> str:
    """Keep the letter and do what follows from it; returns what became of it."""
    patience = get_settings().client_patience
    verdict = database().run(lambda session: _decide(session, letter), patience=patience)
    if letter.instruction_id is not None and verdict.spec is not None:
        publish(letter.instruction_id, verdict.spec, verdict.state)
    if letter.instruction_id is not None and verdict.error is not None:
        stage = STAGES[verdict.state]
        ending = finalise(letter.instruction_id, verdict.error, stage, patience=patience)
        if ending is not None:
            announce(ending)
    return verdict.became


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a letter. ``spec``: of what is to be published; ``error``: how it is to end."""

    became: str
    state: str = ""
    spec: InstructionType | None = None
    error: LLMChatLinkerError | None = None


_INSTRUCTION = text("""
    SELECT type, state, CASE WHEN starts_of = state THEN starts ELSE 0 END AS starts,
           EXISTS (SELECT FROM attempts
                    WHERE instruction_id = instructions.id AND status = 'started'
                      AND lease_until > clock_timestamp()) AS called
      FROM instructions WHERE id = :id FOR UPDATE
""")
_TRIES = text("""
    SELECT count(*) FROM dead_letters
     WHERE instruction_id = :id AND task = :task AND became = 'republished'
       AND id IS DISTINCT FROM :row_id
""")
_DATE_ANEW = text("UPDATE instructions SET published_at = clock_timestamp() WHERE id = :id")
_TAKEN_BEFORE = text("""
    SELECT id FROM dead_letters
     WHERE fingerprint = :fingerprint AND instruction_id IS NOT DISTINCT FROM :instruction_id
       AND became IN ('republished', 'closed', 'settled', 'kept')
     ORDER BY id DESC LIMIT 1
""")


def _decide(session: Session, letter: Letter) -> Verdict:
    """Judge the letter and keep its row: a new one, unless whoever had it died before acknowledging."""
    values = values_of(letter, "kept")
    row_id = session.scalar(_TAKEN_BEFORE, values) if letter.again else None
    verdict = _judge(session, letter, row_id)
    if row_id is None:
        session.execute(insert(DeadLetter).values(values | {"became": verdict.became}))
    else:
        statement = update(DeadLetter).where(DeadLetter.id == row_id)
        session.execute(statement.values(became=verdict.became))
    return verdict


def _judge(session: Session, letter: Letter, row_id: int | None) -> Verdict:
    if letter.instruction_id is None:
        return Verdict("kept")
    row = session.execute(_INSTRUCTION, {"id": letter.instruction_id}).first()
    if row is None:
        return Verdict("kept")
    if row.state in ("final", "withdrawn"):
        return Verdict("settled")
    spec = INSTRUCTION_SET.get(row.type)
    if letter.task not in KNOWN_TASKS or spec is None:
        # Decode's word for it, unless there is an outcome, which then counts.
        state = row.state if row.state in STAGES else "decoded"
        return Verdict("closed", state, error=InternalError(details={"exception": "NotRegistered"}))
    due = {DECODE_TASK: "submitted", spec.task_name: "decoded", STORE_TASK: "executed"}
    if due.get(letter.task) != row.state or row.called or letter.reason == "unroutable":
        # It went on without this message; or it has no queue, which the sweeper sees to.
        return Verdict("settled")
    limit = get_settings().starts
    values = {"id": letter.instruction_id, "task": letter.task, "row_id": row_id}
    if row.starts >= limit or session.scalars(_TRIES, values).one() >= limit:
        return Verdict("closed", row.state, error=Poisoned(details={"starts": row.starts}))
    session.execute(_DATE_ANEW, values)  # so that the sweeper does not publish it as well
    return Verdict("republished", row.state, spec)
