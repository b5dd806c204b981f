"""How rows look in results: the one place that says which fields clients see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from llmchatlinker.db.models import LLM, Attempt, Chat, Instruction, Message, Provider, Record, User
from llmchatlinker.settings import get_settings
from llmchatlinker.units.headers import shown
from llmchatlinker.units.listing import Member


def moment(value: datetime | None) -> str | None:
    """ISO 8601 in UTC."""
    return None if value is None else value.astimezone(UTC).isoformat()


def user_view(user: User) -> dict[str, Any]:
    """A user."""
    return {
        "user_id": user.id,
        "username": user.username,
        "display_name": user.display_name,
        "profile": user.profile,
        "instruction_recording": user.recording,
        "created_at": moment(user.created_at),
        "updated_at": moment(user.updated_at),
    }


def record_view(record: Record) -> dict[str, Any]:
    """A record; ``record_id`` is what ``after`` takes."""
    return {
        "record_id": record.id,
        "user_id": record.user_id,
        "instruction_id": str(record.instruction_id),
        "type": record.type,
        "chat_id": record.chat_id,
        "outcome": record.outcome,
        "submitted_at": moment(record.submitted_at),
        "finished_at": moment(record.finished_at),
    }


def chat_view(chat: Chat, users: Sequence[User | Member]) -> dict[str, Any]:
    """A chat with its members."""
    return {
        "chat_id": chat.id,
        "title": chat.title,
        "system_prompt": chat.system_prompt,
        "turn_policy": chat.turn_policy or get_settings().turn_policy,
        "active_message_id": chat.active_message_id,
        "users": [
            {"user_id": user.id, "username": user.username, "display_name": user.display_name}
            for user in users
        ],
        "created_at": moment(chat.created_at),
        "updated_at": moment(chat.updated_at),
    }


def message_view(message: Message) -> dict[str, Any]:
    """A question or an answer; an answer is what the contract calls ``llm_response``."""
    view: dict[str, Any] = {
        "message_id": message.id,
        "parent_message_id": message.parent_id,
        "chat_id": message.chat_id,
        "user_id": message.user_id,
        "role": message.role,
        "content": message.content if message.parts is None else message.parts,
        "status": message.status,
        "created_at": moment(message.created_at),
    }
    if message.role == "assistant":
        view |= {
            "llm_id": message.llm_id,
            "llm_name": message.llm_name,
            "finish_reason": message.finish_reason,
            "usage": message.usage,
        }
        if message.tool_calls is not None:
            view["tool_calls"] = message.tool_calls
        if message.reasoning is not None:
            view["reasoning"] = message.reasoning
    if message.former_user_id is not None:
        view["former_user_id"] = message.former_user_id
    if message.hidden:
        view["hidden"] = True
    if message.erased:
        view["erased"] = True
    return view


def provider_view(provider: Provider) -> dict[str, Any]:
    """A provider; that it has an API key, never the key; of its headers the names."""
    return {
        "provider_id": provider.id,
        "name": provider.name,
        "api_endpoint": provider.api_endpoint,
        "kind": provider.kind,
        "has_api_key": provider.api_key is not None,
        "settings": shown(provider.settings),
        "created_at": moment(provider.created_at),
        "updated_at": moment(provider.updated_at),
    }


def llm_view(llm: LLM) -> dict[str, Any]:
    """An LLM."""
    return {
        "llm_id": llm.id,
        "provider_id": llm.provider_id,
        "llm_name": llm.llm_name,
        "settings": shown(llm.settings),
        "created_at": moment(llm.created_at),
        "updated_at": moment(llm.updated_at),
    }


def attempt_view(attempt: Attempt) -> dict[str, Any]:
    """A line of the ledger."""
    return {
        "number": attempt.number,
        "provider_name": attempt.provider_name,
        "llm_name": attempt.llm_name,
        "llm_id": attempt.llm_id,
        "status": attempt.status,
        "started_at": moment(attempt.started_at),
        "first_delta_at": moment(attempt.first_delta_at),
        "finished_at": moment(attempt.finished_at),
        "prompt_tokens": attempt.prompt_tokens,
        "completion_tokens": attempt.completion_tokens,
        "total_tokens": attempt.total_tokens,
        "usage_estimated": attempt.usage_estimated,
        "cost": None if attempt.cost is None else float(attempt.cost),
        "error_code": attempt.error_code,
        "http_status": attempt.http_status,
    }


def instruction_view(instruction: Instruction) -> dict[str, Any]:
    """An instruction as its operator sees it: never its text."""
    outcome = instruction.outcome
    error_code = outcome["error"]["code"] if outcome and "error" in outcome else None
    return {
        "instruction_id": str(instruction.id),
        "seq": instruction.seq,
        "type": instruction.type,
        "state": instruction.state,
        "outcome": None if outcome is None else (error_code or "success"),
        "wait_reason": instruction.wait_reason,
        "not_before": moment(instruction.not_before),
        "cancel_requested": instruction.cancel_requested,
        "submitted_at": moment(instruction.submitted_at),
        "decoded_at": moment(instruction.decoded_at),
        "executed_at": moment(instruction.executed_at),
        "final_at": moment(instruction.final_at),
        "deadline_at": moment(instruction.deadline_at),
    }
