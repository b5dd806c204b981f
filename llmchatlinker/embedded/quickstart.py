"""The quickstart: the six instructions of the README, for real, with what each took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmchatlinker.embedded.paths import data_dir
from llmchatlinker.envelope import Envelope
from llmchatlinker.errors import StartFailed
from llmchatlinker.message_queue import publish_message

QUESTION = "Who won the world series in 2020?"


@dataclass(frozen=True, slots=True)
class Target:
    """The LLM that answers."""

    provider_name: str
    api_endpoint: str
    llm_name: str
    api_key: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, run."""

    number: int
    instruction: dict[str, Any]
    envelope: Envelope
    seconds: float


def instructions(target: Target) -> list[dict[str, Any]]:
    """The six, in order, for an empty system."""
    names = {"provider_name": target.provider_name, "llm_name": target.llm_name}
    provider = {"name": target.provider_name, "api_endpoint": target.api_endpoint}
    if target.api_key:
        provider["api_key"] = target.api_key
    turn = {"user_id": 1, "chat_id": 1, **names, "user_input": QUESTION}
    return [
        {"type": "USER_CREATE", "data": {"username": "john_doe", "profile": "Sample profile"}},
        {"type": "CHAT_CREATE", "data": {"title": "Sample Chat", "usernames": ["john_doe"]}},
        {"type": "LLM_PROVIDER_ADD", "data": provider},
        {"type": "LLM_ADD", "data": names},
        {"type": "LLM_RESPONSE_GENERATE", "data": turn},
        {"type": "LLM_RESPONSE_REGENERATE", "data": {"message_id": 2}},
    ]


def run(
    target: Target, before: Callable[[int, str], None], after: Callable[[Step], None]
) -> list[Step]:
    """Run the six; tell ``before`` and ``after`` each. Raises StartFailed at the first that fails."""
    steps: list[Step] = []
    for number, instruction in enumerate(instructions(target), start=1):
        before(number, instruction["type"])
        start = time.monotonic()
        envelope: Envelope = json.loads(publish_message(json.dumps(instruction)))
        step = Step(number, instruction, envelope, time.monotonic() - start)
        if envelope["status"] != "success":
            raise _failed(step, target)
        steps.append(step)
        after(step)
    return steps


def tokens(steps: list[Step]) -> int:
    """The tokens generated in all answers."""
    count = 0
    for step in steps:
        response = step.envelope["data"].get("llm_response", {})
        count += (response.get("usage") or {}).get("completion_tokens") or 0
    return count


def shown(instruction: dict[str, Any]) -> str:
    """An instruction as it may be printed: without the API key."""
    data = {k: ("***" if k == "api_key" else v) for k, v in instruction["data"].items()}
    return json.dumps(instruction | {"data": data}, ensure_ascii=False)


def _failed(step: Step, target: Target) -> StartFailed:
    code = step.envelope["error"]["code"]
    remedy = f"Look at the workers' logs in {data_dir() / 'run'}."
    if code in ("provider_error", "provider_timeout"):
        remedy = (
            f"Check that {target.api_endpoint} is the address of an OpenAI-compatible server, that it "
            f"serves {target.llm_name!r}, and that the API key is right."
        )
    return StartFailed(
        f"Step {step.number} of 6, {step.instruction['type']}, failed ({code}): "
        f"{step.envelope['message']}",
        {"remedy": remedy},
    )
