"""The examples of the instruction set: one of each type, in an order in which all of them succeed.

They run on an empty system with one provider. ``@first``, ``@second``, … stand for the id of the
first, second, … generation, and ``@provider`` for the provider's address.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

#: What came of them, as a test has recorded it: type → {"data": …, "envelope": …}.
RECORDED = Path(__file__).with_name("examples.json")

MODEL = "meta-llama/Meta-Llama-3-8B-Instruct"

EXAMPLES: list[tuple[str, dict[str, Any]]] = [
    ("USER_CREATE", {"username": "ada", "profile": "Likes numbers.", "display_name": "Ada"}),
    ("USER_CREATE", {"username": "charles"}),
    ("USER_UPDATE", {"user_id": 1, "profile": "Likes numbers, and engines."}),
    ("USER_GET", {"username": "ada"}),
    ("USER_LIST", {"limit": 1}),
    ("USER_INSTRUCTION_RECORDING_ENABLE", {"user_id": 1}),
    (
        "CHAT_CREATE",
        {"title": "Engines", "usernames": ["ada"], "system_prompt": "Answer in one sentence."},
    ),
    ("CHAT_UPDATE", {"chat_id": 1, "add_users": ["charles"], "turn_policy": "interrupt"}),
    ("CHAT_LIST", {}),
    ("CHAT_LIST_BY_USER", {"user_id": 1}),
    (
        "LLM_PROVIDER_ADD",
        {
            "name": "vLLM",
            "api_endpoint": "@provider",
            "api_key": "sk-example",
            "settings": {"max_concurrency": 8, "timeouts": {"first_token": 30.0}},
        },
    ),
    ("LLM_PROVIDER_UPDATE", {"provider_id": 1, "settings": {"requests_per_minute": 600}}),
    ("LLM_PROVIDER_LIST", {}),
    ("LLM_PROVIDER_DISCOVER", {"provider_id": 1}),
    ("LLM_ADD", {"provider_name": "vLLM", "llm_name": MODEL}),
    (
        "LLM_UPDATE",
        {
            "llm_id": 1,
            "settings": {"context_window": 8192, "price": {"prompt": 0.2, "completion": 0.6}},
        },
    ),
    ("LLM_LIST", {}),
    ("LLM_LIST_BY_PROVIDER", {"provider_id": 1}),
    (
        "LLM_RESPONSE_GENERATE",
        {
            "user_id": 1,
            "chat_id": 1,
            "llm_id": 1,
            "user_input": "Who wrote the first program?",
            "parameters": {"temperature": 0.2},
        },
    ),
    ("LLM_RESPONSE_REGENERATE", {"message_id": 2}),
    ("LLM_RESPONSE_CANCEL", {"instruction_id": "@second"}),
    ("CHAT_LOAD", {"chat_id": 1, "limit": 2}),
    ("CHAT_SEARCH", {"user_id": 1, "query": "first program", "limit": 1}),
    ("CHAT_EXPORT", {"chat_id": 1}),
    ("INSTRUCTION_GET", {"instruction_id": "@first"}),
    ("INSTRUCTION_LIST", {"type": "CHAT_LOAD"}),
    ("USAGE_LIST", {"user_id": 1}),
    ("USER_INSTRUCTION_RECORDING_LIST", {"user_id": 1, "limit": 1}),
    ("USER_INSTRUCTION_RECORDING_DISABLE", {"user_id": 1}),
    ("USER_INSTRUCTION_RECORDS_DELETE", {"user_id": 1}),
    ("USER_EXPORT", {"user_id": 2}),
    ("LLM_DELETE", {"llm_id": 1}),
    ("LLM_PROVIDER_DELETE", {"provider_id": 1}),
    ("CHAT_DELETE", {"chat_id": 1}),
    ("USER_DELETE", {"user_id": 2}),
    ("USER_ERASE", {"user_id": 1}),
]


def recorded() -> dict[str, dict[str, Any]]:
    """Type → the data that was submitted and the envelope that came back."""
    found: dict[str, dict[str, Any]] = json.loads(RECORDED.read_text(encoding="utf-8"))
    return found
