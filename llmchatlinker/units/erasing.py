"""The Database Manage Unit, third part: USER_ERASE, in batches.

Each batch is a transaction of its own that holds few locks for a short time, and finds what is left by
looking for it: so a second run, after a crash or beside the first one, goes on from there. The order
matters: first the rows that results are made of, then the user, and when nobody can see them any
longer the results that were made of them.
"""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from llmchatlinker.db.models import FormerUser, Instruction, User
from llmchatlinker.db.sessions import database
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instruction_data.database import UserErase
from llmchatlinker.streaming import store
from llmchatlinker.turns import Aftermath, stop_turns_of_chats
from llmchatlinker.units import former_users
from llmchatlinker.units.erasing_sql import (
    BLANK,
    CANCEL,
    CANDIDATES,
    COUNT,
    DATE_ANEW,
    DONE,
    ERASED_ANSWERS,
    EVENTS,
    FORGET_ATTEMPTS,
    GONE_CHATS,
    LOCK,
    MESSAGES,
    OLDER_TRANSACTIONS,
    OWN_CHAT,
    OWN_CHAT_MESSAGES,
    OWN_INSTRUCTIONS,
    RECORDS,
    REWRITE,
    SAID,
    USERNAMES,
    WINDOW,
)
from llmchatlinker.units.handling import Ended, GeneralWay
from llmchatlinker.units.lookups import no_user
from llmchatlinker.units.redaction import Subject, redact, without_name

#: Rows that a transaction changes, and instructions that it looks at.
BATCH = 500
LOOKED_AT = 5_000
#: Seconds between two signs of life: without them the sweeper would send the stage out again.
SIGN_OF_LIFE = 2.0
#: Seconds that transactions which may still see the user get to end.
OLDER = 5.0

#: A batch: what it has found, by table; nothing once nothing is left.
Batch = Callable[[Session], dict[str, int]]


@dataclass(frozen=True, slots=True)
class Erasure:
    """Whom to erase, and by which instruction."""

    user_id: int
    instruction_id: uuid.UUID


class Erase(GeneralWay):
    """USER_ERASE, of a user or of one who was deleted. A process that dies at it loses a batch."""

    def claim(
        self,
        session: Session,
        instruction: Instruction,
        data: UserErase,
        worker: str,
        aftermath: Aftermath,
    ) -> Erasure | Ended:
        """Remember whom, and end what is still to be done for the user."""
        user = session.get(User, data.user_id, with_for_update={"key_share": True})
        former = session.get(FormerUser, data.user_id, with_for_update=True)
        if user is not None:
            former_users.remember(session, user.id)
        elif former is None:
            raise no_user(data.user_id)
        elif former.erased_at is not None:
            if former.erased_at < instruction.submitted_at:
                raise no_user(data.user_id)
            return Ended({"erased": former.erased})  # done, by this instruction or beside it
        _cancel(session, data.user_id)
        return Erasure(data.user_id, instruction.id)

    def perform(self, work: Erasure) -> None:
        """Batch by batch. May be run again, and by two at once."""
        _Eraser(work).run()

    def settle(
        self,
        session: Session,
        instruction: Instruction | None,
        work: Erasure,
        answer: LLMChatLinkerError | None,
        aftermath: Aftermath,
    ) -> Ended:
        """The counts."""
        if isinstance(answer, LLMChatLinkerError):
            return Ended({}, answer)
        former = session.get(FormerUser, work.user_id)
        return Ended({"erased": {} if former is None else former.erased})


def _cancel(session: Session, user_id: int) -> int:
    """What is still to be done for a user who is remembered."""
    usernames = session.scalar(USERNAMES, {"user_id": user_id})
    values = {"user_id": user_id, "usernames": usernames or [], "said": SAID}
    return len(session.scalars(CANCEL, values).all())


class _Eraser:
    """One run."""

    def __init__(self, work: Erasure) -> None:
        self._work = work
        self._user = {"user_id": work.user_id, "batch": BATCH}
        self._seen_alive = -math.inf
        self._rows: tuple[Batch, ...] = (
            self._records, self._own_chat, self._messages, self._attempts,
        )  # fmt: skip

    def run(self) -> None:
        """Everything, in the order that the module's docstring says."""
        for batch in self._rows:
            while self._do(batch):
                pass
        self._do(self._farewell)
        self._wait_for_older_transactions()
        subject = database().run(self._subject)
        after = -1
        while (end := self._window(after)) is not None:
            self._do(partial(self._results, subject=subject, after=after, end=end))
            after = end
        while self._do(self._left_over):
            pass
        database().run(lambda session: session.execute(DONE, self._user))

    def _do(self, batch: Batch) -> dict[str, int]:
        """Run a batch in a transaction, one at a time per user, and count what it has found."""
        alive = time.monotonic() - self._seen_alive < SIGN_OF_LIFE

        def work(session: Session) -> dict[str, int]:
            session.execute(LOCK, self._user)
            found = batch(session)
            for table, count in found.items():
                session.execute(COUNT, self._user | {"table": table, "count": count})
            if not alive:
                session.execute(DATE_ANEW, {"id": self._work.instruction_id})
            return found

        found = database().run(work)
        if not alive:
            self._seen_alive = time.monotonic()
        return found

    # --- the rows -------------------------------------------------------------------------------

    def _records(self, session: Session) -> dict[str, int]:
        return _counted("records", session.execute(RECORDS, self._user).all())

    def _attempts(self, session: Session) -> dict[str, int]:
        """The ledger keeps its lines, without the user."""
        return _counted("attempts", session.execute(FORGET_ATTEMPTS, self._user).all())

    def _own_chat(self, session: Session) -> dict[str, int]:
        """A chat that nobody else is in: its newest messages, and the chat itself once it is empty."""
        chat_id = session.scalar(OWN_CHAT, self._user)
        if chat_id is None:
            return {}
        stop_turns_of_chats(session, [chat_id])
        rows = session.execute(OWN_CHAT_MESSAGES, self._user | {"chat_id": chat_id}).all()
        found = {
            "messages": len(rows),
            "events": _delete_events(session, {row[0] for row in rows} - {None}),
        }
        if len(rows) < BATCH:
            store.delete_of_chats(session, [chat_id])
            session.execute(text("DELETE FROM chats WHERE id = :id"), {"id": chat_id})
            found["chats"] = 1
        return {table: count for table, count in found.items() if count or table == "messages"}

    def _messages(self, session: Session) -> dict[str, int]:
        """What the user said in shared chats and what was answered to it: emptied in their places."""
        rows = session.execute(MESSAGES, self._user).all()
        if not rows:
            return {}
        ids = {row[0] for row in rows} - {None}
        found = {"messages": len(rows), "events": _delete_events(session, ids)}
        found["instructions"] = _blank(session, ids)
        return found

    def _farewell(self, session: Session) -> dict[str, int]:
        """The user, with what has come since: nothing more can, while the row is locked."""
        user = session.get(User, self._work.user_id, with_for_update=True)
        if user is None:
            return {}
        former_users.remember(session, user.id)
        found: dict[str, int] = {
            "users": 1,
            "instructions": _cancel(session, user.id),
        }
        for batch in self._rows:
            while more := batch(session):
                for table, count in more.items():
                    found[table] = found.get(table, 0) + count
        session.delete(user)
        session.flush()
        return found

    # --- the results ----------------------------------------------------------------------------

    def _wait_for_older_transactions(self) -> None:
        """Whatever is executed just now may have read what is gone, and is to commit its result yet."""
        until = time.monotonic() + OLDER
        since: datetime = database().run(lambda s: s.scalar(text("SELECT clock_timestamp()")))
        while time.monotonic() < until:
            if not database().run(lambda s: s.scalar(OLDER_TRANSACTIONS, {"since": since})):
                return
            threading.Event().wait(0.05)

    def _subject(self, session: Session) -> Subject:
        former = session.get_one(FormerUser, self._work.user_id)
        gone = frozenset(session.scalars(GONE_CHATS, self._user))
        answers = frozenset(session.scalars(ERASED_ANSWERS))
        return Subject(former.user_id, frozenset(former.usernames or ()), gone, answers)

    def _window(self, after: int) -> int | None:
        """The last of the next instructions to look at."""
        values = {"after": after, "looked_at": LOOKED_AT}
        found: int | None = database().run(lambda session: session.scalar(WINDOW, values))
        return found

    def _results(self, session: Session, subject: Subject, after: int, end: int) -> dict[str, int]:
        values = {
            "user_id": subject.user_id,
            "usernames": list(subject.usernames),
            "chat_ids": list(subject.chat_ids),
            "vars": json.dumps(
                {
                    "user_id": subject.user_id,
                    "names": list(subject.usernames),
                    "answers": list(subject.answer_ids),
                }
            ),
            "answers_are_known": bool(subject.answer_ids),
            "after": after,
            "end": end,
        }
        whole: set[uuid.UUID] = set()
        rewritten = 0
        for row in session.execute(CANDIDATES, values).all():
            if _is_only_of(row, subject):
                whole.add(row.id)
                continue
            data, outcome = without_name(row.data, subject), redact(row.outcome, subject)
            if (data, outcome) != (row.data, row.outcome):
                new = {"id": row.id, "data": json.dumps(data), "outcome": json.dumps(outcome)}
                session.execute(REWRITE, new)
                rewritten += 1
        count = rewritten + _blank(session, whole)
        _delete_events(session, whole)
        return {"instructions": count} if count else {}

    def _left_over(self, session: Session) -> dict[str, int]:
        """What was submitted meanwhile, for a user of whom nothing was left."""
        _cancel(session, self._work.user_id)
        ids = set(session.scalars(OWN_INSTRUCTIONS, self._user | {"said": SAID}))
        count = _blank(session, ids)
        return {"instructions": count} if count else {}


def _is_only_of(row: Any, subject: Subject) -> bool:
    """Whether nobody else has a share in the instruction, so that all of it goes."""
    others = set(row.user_ids or ()) - {subject.user_id}
    if row.named:
        return True  # it failed: of such a one nothing is worth keeping
    if subject.user_id in (row.user_ids or ()):
        return not others
    return not others and row.chat_id in subject.chat_ids


def _counted(table: str, rows: Any) -> dict[str, int]:
    return {table: len(rows)} if rows else {}


def _blank(session: Session, ids: set[uuid.UUID]) -> int:
    return len(session.scalars(BLANK, {"ids": list(ids), "said": SAID}).all()) if ids else 0


def _delete_events(session: Session, ids: set[uuid.UUID]) -> int:
    return len(session.execute(EVENTS, {"ids": list(ids)}).all()) if ids else 0
