"""The Database Manage Unit: what an operator asks of the rows. ``store`` is in ``stages.py``."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Date, cast, func, select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Attempt, Instruction
from llmchatlinker.errors import NotFound
from llmchatlinker.instruction_data.database import InstructionGet, InstructionList, UsageList
from llmchatlinker.units.lookups import page
from llmchatlinker.units.views import attempt_view, instruction_view

Result = dict[str, Any]


def get_instruction(session: Session, data: InstructionGet) -> Result:
    """INSTRUCTION_GET: with its attempts, never its text."""
    instruction = session.get(Instruction, uuid.UUID(data.instruction_id))
    if instruction is None:
        raise NotFound(
            f"There is no instruction {data.instruction_id}.",
            {"field": "instruction_id", "value": data.instruction_id},
        )
    attempts = session.scalars(
        select(Attempt).where(Attempt.instruction_id == instruction.id).order_by(Attempt.number)
    )
    view = instruction_view(instruction)
    view["attempts"] = [attempt_view(attempt) for attempt in attempts]
    return {"instruction": view}


def list_instructions(session: Session, data: InstructionList) -> Result:
    """INSTRUCTION_LIST, newest first."""
    query = select(Instruction).order_by(Instruction.seq.desc())
    if data.after is not None:
        query = query.where(Instruction.seq < data.after)
    if data.user_id is not None:
        query = query.where(Instruction.user_ids.contains([data.user_id]))
    if data.state is not None:
        query = query.where(Instruction.state == data.state)
    if data.type is not None:
        query = query.where(Instruction.type == data.type)
    instructions, following = page(session, query, data.limit, key="seq")
    return {"instructions": [instruction_view(item) for item in instructions], "next": following}


def list_usage(session: Session, data: UsageList) -> Result:
    """USAGE_LIST: from the ledger, by user, LLM and day (UTC).

    A turn is an instruction with an answered attempt; tokens and cost are what providers reported, or
    of answers that were broken off our estimate, which ``estimated_tokens`` is the sum of.
    """
    day = cast(func.timezone("UTC", Attempt.started_at), Date)
    answered = Attempt.status == "answered"
    query = select(
        day.label("day"),
        Attempt.user_id,
        Attempt.llm_id,
        Attempt.llm_name,
        func.count(Attempt.instruction_id.distinct()).filter(answered).label("turns"),
        func.count().label("attempts"),
        func.coalesce(func.sum(Attempt.prompt_tokens), 0).label("prompt_tokens"),
        func.coalesce(func.sum(Attempt.completion_tokens), 0).label("completion_tokens"),
        func.coalesce(func.sum(Attempt.total_tokens), 0).label("total_tokens"),
        func.coalesce(func.sum(Attempt.total_tokens).filter(Attempt.usage_estimated), 0).label(
            "estimated_tokens"
        ),
        func.sum(Attempt.cost).label("cost"),
    )
    if data.user_id is not None:
        query = query.where(Attempt.user_id == data.user_id)
    if data.llm_id is not None:
        query = query.where(Attempt.llm_id == data.llm_id)
    if data.since is not None:
        query = query.where(Attempt.started_at >= data.since)
    if data.until is not None:
        query = query.where(Attempt.started_at < data.until)
    query = query.group_by(day, Attempt.user_id, Attempt.llm_id, Attempt.llm_name)
    query = query.order_by(day.desc(), Attempt.user_id, Attempt.llm_id).limit(10_000)
    usage = [dict(row._mapping) for row in session.execute(query)]
    for line in usage:
        line["day"] = line["day"].isoformat()
        line["cost"] = None if line["cost"] is None else float(line["cost"])
        for count in ("prompt_tokens", "completion_tokens", "total_tokens", "estimated_tokens"):
            line[count] = int(line[count])
    return {"usage": usage}
