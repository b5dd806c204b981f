"""The tables, typed. What a column is for stands beside it; how it changes is in ``migrations/``.

Times are PostgreSQL's own (``now()``), never a worker's: clocks of machines differ.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, TSVECTOR
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

Moment = TIMESTAMP(timezone=True)
Json = JSONB(none_as_null=True)


#: For tables that are purged. Autovacuum's default is a fifth of a table, so that of ten million rows a
#: million deleted ones would not be enough for it to come: docs/adr/0034-purging-in-batches.md.
PURGED = {"autovacuum_vacuum_scale_factor": "0.02"}


class Base(DeclarativeBase):
    """The root of all tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Moment,
        str: Text,
        dict[str, Any]: Json,
        list[Any]: Json,
    }


Base.metadata.naming_convention = NAMING


class User(Base):
    """Somebody who chats."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    username: Mapped[str] = mapped_column(unique=True)
    display_name: Mapped[str | None]
    profile: Mapped[str | None]
    recording: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class FormerUser(Base):
    """Who was deleted, or is being erased: what it takes to erase that user, and that it was done."""

    __tablename__ = "former_users"
    __table_args__ = (
        Index("ix_former_users_named", "left_at", postgresql_where=text("usernames IS NOT NULL")),
    )

    user_id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    #: Its names, from before it was renamed as well: instructions that failed have a name and no id.
    #: Null once no such instruction can be left, and once the user is erased.
    usernames: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: The chats that went with the user, or before it: instructions about them are still there.
    chat_ids: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    left_at: Mapped[datetime] = mapped_column(server_default=func.now())
    erased_at: Mapped[datetime | None]
    #: What the erasure has found so far, by table.
    erased: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))


class Chat(Base):
    """A tree of messages and its members."""

    __tablename__ = "chats"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    title: Mapped[str]
    system_prompt: Mapped[str | None]
    turn_policy: Mapped[str | None]
    #: The last message of the active branch. No foreign key: a message refers to its chat already,
    #: and a cycle of the two would make every delete a two-step affair.
    active_message_id: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class ChatMember(Base):
    """That a user takes part in a chat."""

    __tablename__ = "chat_members"
    __table_args__ = (Index(None, "user_id", "chat_id"),)

    chat_id: Mapped[int] = mapped_column(
        ForeignKey("chats.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    joined_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Provider(Base):
    """An HTTP endpoint that serves LLMs."""

    __tablename__ = "providers"

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    api_endpoint: Mapped[str]
    #: A Fernet token; see ``secrets.py``.
    api_key: Mapped[bytes | None] = mapped_column(LargeBinary)
    kind: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class LLM(Base):
    """A model that a provider serves."""

    __tablename__ = "llms"
    __table_args__ = (UniqueConstraint("provider_id", "llm_name"),)

    id: Mapped[int] = mapped_column(Integer, Identity(), primary_key=True)
    provider_id: Mapped[int] = mapped_column(ForeignKey("providers.id", ondelete="CASCADE"))
    llm_name: Mapped[str]
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class Message(Base):
    """A question or an answer. ``parent_id`` makes the tree: siblings are edits or regenerations."""

    __tablename__ = "messages"
    __table_args__ = (
        Index(None, "chat_id", "id"),
        Index(None, "parent_id"),
        Index("ix_messages_user_id", "user_id", postgresql_where=text("user_id IS NOT NULL")),
        Index(
            "ix_messages_former_user_id",
            "former_user_id",
            postgresql_where=text("former_user_id IS NOT NULL"),
        ),
        # Somebody's answer to what another one said, who was erased: results may still quote it.
        Index(
            "ix_messages_erased_answers",
            "id",
            postgresql_where=text("erased AND coalesce(user_id, former_user_id) IS NOT NULL"),
        ),
        # An answer that is being generated is found by its instruction, and closed if nobody is at it.
        Index(
            "ix_messages_generating",
            "instruction_id",
            postgresql_where=text("status = 'generating'"),
        ),
        Index("ix_messages_search", "search", postgresql_using="gin"),
        CheckConstraint("role IN ('user', 'assistant')", name="role"),
        CheckConstraint(
            "status IN ('generating', 'complete', 'cancelled', 'failed', 'in_doubt')", name="status"
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id", ondelete="CASCADE"))
    #: Whose turn it is; null once the user is deleted.
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    #: Whose it was, once the user is deleted: it can be erased even then.
    former_user_id: Mapped[int | None]
    instruction_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    role: Mapped[str]
    content: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'complete'"))
    #: Null for a question, and once the LLM is deleted: ``llm_name`` stays.
    llm_id: Mapped[int | None] = mapped_column(
        ForeignKey("llms.id", ondelete="SET NULL"), index=True
    )
    llm_name: Mapped[str | None]
    finish_reason: Mapped[str | None]
    tool_calls: Mapped[list[Any] | None] = mapped_column(Json)
    reasoning: Mapped[str | None]
    #: prompt_tokens, completion_tokens, total_tokens, cost; estimated, where they are.
    usage: Mapped[dict[str, Any] | None] = mapped_column(Json)
    #: The content parts as given, where there is more than text; ``content`` holds their text.
    parts: Mapped[list[Any] | None] = mapped_column(Json)
    #: Of a turn that was rolled back: in no history and no branch, kept for the audit.
    hidden: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Its user was erased: the message is empty and keeps its place in the tree.
    erased: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: 'simple' knows no language, so it serves all. A tsvector holds 1 MB at most, and a character
    #: takes up to 4 bytes (https://www.postgresql.org/docs/current/textsearch-limitations.html).
    search: Mapped[str | None] = mapped_column(
        TSVECTOR,
        Computed("to_tsvector('simple'::regconfig, left(content, 200000))", persisted=True),
        deferred=True,
    )


class Instruction(Base):
    """An instruction from its submission to its end; its outcome is the result that clients get.

    States: ``submitted`` → ``decoded`` → ``executed`` (there is an outcome) → ``final``; ``waiting``
    is a parked ``decoded``; ``withdrawn`` was never published. "Open" means ``final_at IS NULL``.
    """

    __tablename__ = "instructions"
    __table_args__ = (
        # No index names a column that every instruction changes on its way (state, outcome): so only
        # the last update, of final_at, touches the indexes, and the earlier ones stay heap-only.
        Index("ix_instructions_open", "deadline_at", postgresql_where=text("final_at IS NULL")),
        Index(
            "ix_instructions_turns",
            "chat_id",
            "seq",
            postgresql_where=text("turn IN ('queued', 'active')"),
        ),
        # Those who delete a chat delete its streams. Whether there is a turn never changes.
        Index("ix_instructions_chat_id", "chat_id", postgresql_where=text("turn IS NOT NULL")),
        # One generation per chat at a time, whatever the code above it believes.
        Index(
            "uq_instructions_active_turn",
            "chat_id",
            unique=True,
            postgresql_where=text("turn = 'active'"),
        ),
        Index(
            "uq_instructions_idempotency_key",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("ix_instructions_user_ids", "user_ids", postgresql_using="gin"),
        # Whoever parks a row for anything but its turn sets not_before, and clears it at the end.
        Index(
            "ix_instructions_waiting",
            "provider_id",
            "not_before",
            postgresql_where=text("not_before IS NOT NULL"),
        ),
        Index(None, "seq"),
        CheckConstraint(
            "state IN ('submitted', 'decoded', 'executed', 'waiting', 'final', 'withdrawn')",
            name="state",
        ),
        CheckConstraint("turn IN ('queued', 'active', 'done')", name="turn"),
        CheckConstraint(
            "cancel_requested IN ('cancelled', 'interrupted', 'rolled_back')",
            name="cancel_requested",
        ),
        CheckConstraint("(state IN ('final', 'withdrawn')) = (final_at IS NOT NULL)", name="end"),
        CheckConstraint(
            "state NOT IN ('executed', 'final') OR outcome IS NOT NULL", name="outcome"
        ),
        {"postgresql_with": PURGED},
    )

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    #: The order of submission: a turn's place in its chat.
    seq: Mapped[int] = mapped_column(BigInteger, Identity())
    type: Mapped[str]
    state: Mapped[str] = mapped_column(server_default=text("'submitted'"))
    #: As submitted; from ``decoded`` on validated, with names resolved to ids.
    data: Mapped[dict[str, Any]]
    #: The users that the instruction carries, for records and for erasing.
    user_ids: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    chat_id: Mapped[int | None]
    idempotency_key: Mapped[str | None]
    #: SHA-256 of type and data under an idempotency key, to tell a repetition from a reuse.
    fingerprint: Mapped[bytes | None] = mapped_column(LargeBinary)
    reply_to: Mapped[str | None]
    #: The submitter follows the response's events: push them to ``reply_to``.
    follow: Mapped[bool] = mapped_column(server_default=text("false"))
    submitted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    deadline_at: Mapped[datetime]
    #: When the message of the stage that is due was last published.
    published_at: Mapped[datetime] = mapped_column(server_default=func.now())
    decoded_at: Mapped[datetime | None]
    executed_at: Mapped[datetime | None]
    final_at: Mapped[datetime | None]
    #: What a ``waiting`` row waits for: ``turn``, ``provider`` or ``llm`` (their limits of calls at
    #: once), ``user`` (the same per user), ``rate``, ``llm_rate`` or ``user_rate`` (per minute),
    #: ``cooldown``, ``retry``.
    wait_reason: Mapped[str | None]
    #: Whose limit it waits for, or has waited for; and the earliest time to go on, where there is one.
    provider_id: Mapped[int | None]
    not_before: Mapped[datetime | None]
    #: The LLM to call next, once that is not simply the one that the instruction names.
    llm_id: Mapped[int | None]
    #: The end of the active branch before this turn changed it: where a rollback goes back to.
    previous_message_id: Mapped[int | None] = mapped_column(BigInteger)
    #: That somebody wants it ended, and how: ``cancelled``, ``interrupted`` or ``rolled_back``.
    cancel_requested: Mapped[str | None]
    #: A generation's place in its chat: ``queued`` → ``active`` → ``done``; null for all else.
    turn: Mapped[str | None]
    outcome: Mapped[dict[str, Any] | None]
    #: How often the stage that was due in state ``starts_of`` is known to have been begun. Counted from
    #: its second time on, when its message comes again: the first delivery costs nothing.
    starts: Mapped[int] = mapped_column(server_default=text("0"))
    starts_of: Mapped[str | None]
    #: When it was last begun, of those starts, or whoever is at it gave a sign of life.
    started_at: Mapped[datetime | None]
    #: The span that submitted it, where traces are on (https://www.w3.org/TR/trace-context/).
    traceparent: Mapped[str | None]


class Attempt(Base):
    """One call of a provider, in the ledger before it is made.

    Status: ``started`` (under a lease) → ``answered`` | ``failed`` | ``cancelled`` | ``in_doubt`` (its
    worker died).
    """

    __tablename__ = "attempts"
    __table_args__ = (
        UniqueConstraint("instruction_id", "number"),
        # Not of the lease's end, which changes all the time.
        Index(
            "ix_attempts_started",
            "provider_id",
            "llm_id",
            postgresql_where=text("status = 'started'"),
        ),
        Index(
            "ix_attempts_started_user_id", "user_id", postgresql_where=text("status = 'started'")
        ),
        # For the metrics: how many of late.
        Index("ix_attempts_in_doubt", "finished_at", postgresql_where=text("status = 'in_doubt'")),
        Index(None, "started_at"),
        Index(None, "provider_id", "started_at"),
        # A user's calls of the last minute, and all of them for an erasure.
        Index(
            "ix_attempts_user_id_started_at",
            "user_id",
            "started_at",
            postgresql_where=text("user_id IS NOT NULL"),
        ),
        CheckConstraint(
            "status IN ('started', 'answered', 'failed', 'cancelled', 'in_doubt')", name="status"
        ),
        {"postgresql_with": PURGED},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    #: No foreign key: the ledger outlives the instruction's row.
    instruction_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    number: Mapped[int]
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    llm_id: Mapped[int | None] = mapped_column(ForeignKey("llms.id", ondelete="SET NULL"))
    #: No foreign key: the ledger outlives the provider.
    provider_id: Mapped[int | None]
    provider_name: Mapped[str]
    llm_name: Mapped[str]
    worker: Mapped[str]
    status: Mapped[str] = mapped_column(server_default=text("'started'"))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_until: Mapped[datetime]
    #: When the first delta was stored: from then on the attempt is never repeated.
    first_delta_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    #: What was sent, by our own estimate: beside ``prompt_tokens`` it corrects the next one.
    estimated_tokens: Mapped[int | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    total_tokens: Mapped[int | None]
    #: Some of these are our own estimate, since the answer was broken off.
    usage_estimated: Mapped[bool] = mapped_column(server_default=text("false"))
    cost: Mapped[Decimal | None] = mapped_column(Numeric(18, 9))
    #: A code of ``errors.py`` and the HTTP status; never the provider's words, which may quote a prompt.
    error_code: Mapped[str | None]
    http_status: Mapped[int | None]


class Event(Base):
    """A run of events of a streamed response, as one writer committed them together.

    Events are numbered 1, 2, 3, … per instruction; a row holds those from ``first`` to ``last``.
    """

    __tablename__ = "events"
    __table_args__ = (
        Index("ix_events_to_compact", "created_at", postgresql_where=text("NOT compacted")),
        CheckConstraint("first >= 1 AND last >= first", name="numbers"),
        {"postgresql_with": PURGED},
    )

    #: No foreign key: inserts are frequent, and those who delete chats and users delete events too.
    instruction_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    first: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    last: Mapped[int]
    attempt_id: Mapped[int | None] = mapped_column(BigInteger)
    #: A list of ``{"type": …, …}``, the one numbered ``first`` at its head.
    events: Mapped[list[Any]] = mapped_column(Json)
    #: All that is left of a stream that ended long ago: its last event.
    compacted: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ProviderHealth(Base):
    """What all workers know of a provider's troubles."""

    __tablename__ = "provider_health"

    provider_id: Mapped[int] = mapped_column(
        ForeignKey("providers.id", ondelete="CASCADE"), primary_key=True
    )
    #: Failures in a row; an answer sets it back.
    failures: Mapped[int] = mapped_column(server_default=text("0"))
    #: Nobody calls it before this time.
    cooldown_until: Mapped[datetime | None]


class Record(Base):
    """What is kept of a user's instruction while recording is on; never its text."""

    __tablename__ = "records"
    __table_args__ = (
        Index(None, "user_id", "id"),
        UniqueConstraint("user_id", "instruction_id"),
        {"postgresql_with": PURGED},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    instruction_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    type: Mapped[str]
    chat_id: Mapped[int | None]
    outcome: Mapped[str]
    submitted_at: Mapped[datetime]
    finished_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Waiter(Base):
    """A reply queue to be hinted about an instruction that its process did not submit."""

    __tablename__ = "waiters"
    __table_args__ = (Index(None, "created_at"),)

    instruction_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    queue: Mapped[str] = mapped_column(primary_key=True)
    #: It follows the response's events as well.
    following: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Compatibility(Base):
    """One row: which code works with this schema (``db/schema.py``)."""

    __tablename__ = "compatibility"
    __table_args__ = (CheckConstraint("id = 1", name="one"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    #: The oldest revision that code has to know.
    oldest: Mapped[str]


class SystemLoad(Base):
    """One row: how much is under way, as last counted (``load.py``)."""

    __tablename__ = "system_load"
    __table_args__ = (CheckConstraint("id = 1", name="one"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    open: Mapped[int] = mapped_column(server_default=text("0"))
    #: The users who have as many turns as they may.
    crowded: Mapped[list[int]] = mapped_column(ARRAY(Integer), server_default=text("'{}'"))
    measured_at: Mapped[datetime] = mapped_column(server_default=text("'-infinity'"))


class DeadLetter(Base):
    """A message that no worker could or should work on, without its body."""

    __tablename__ = "dead_letters"
    __table_args__ = (
        Index(None, "instruction_id"),
        # For the metrics: how many wait for a person.
        Index("ix_dead_letters_kept", "id", postgresql_where=text("became = 'kept'")),
        CheckConstraint(
            "became IN ('republished', 'closed', 'settled', 'kept', 'replayed', 'discarded')",
            name="became",
        ),
        {"postgresql_with": PURGED},
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    arrived_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Where it came from; null for what reached no queue at all.
    queue: Mapped[str | None]
    #: RabbitMQ's word (``rejected``, ``expired``, ``delivery_limit``, ``maxlen``), or ``unroutable``,
    #: or of ours ``poisoned``: a stage that killed its worker too often.
    reason: Mapped[str]
    task: Mapped[str | None]
    #: No foreign key: the letter outlives the instruction's row.
    instruction_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    #: Of the body, in bytes.
    size: Mapped[int]
    content_type: Mapped[str | None]
    #: What became of it: its stage was ``republished``, its instruction ``closed`` with an error, or
    #: nothing was left to be done (``settled``); or it was ``kept`` for a person, who may have
    #: ``replayed`` or ``discarded`` it.
    became: Mapped[str]
    #: The instruction that a person has submitted in its place.
    replayed_as: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    #: Tells a letter that is delivered once more from another one; nothing of its body is in it.
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)


class TaskResult(Base):
    """The result of a Celery task that is no instruction, and of a saved group (``group:<id>``).

    ``result`` and ``meta`` are JSON as Celery writes it. No JSONB: that refuses NUL and lone surrogates,
    and a result that can't be stored would never come.
    """

    __tablename__ = "task_results"
    __table_args__ = (Index(None, "date_done"), {"postgresql_with": PURGED})

    task_id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    result: Mapped[str | None]
    traceback: Mapped[str | None]
    meta: Mapped[str | None]
    date_done: Mapped[datetime] = mapped_column(server_default=func.now())
