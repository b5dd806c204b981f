"""A smallest valid example of each instruction type's data."""

from __future__ import annotations

from typing import Any

INSTRUCTION_ID = "01a20632-e94f-7398-8d0d-71d3731685a5"

MINIMAL: dict[str, dict[str, Any]] = {
    "USER_CREATE": {"username": "ada"},
    "USER_UPDATE": {"user_id": 1},
    "USER_DELETE": {"user_id": 1},
    "USER_LIST": {},
    "USER_GET": {"user_id": 1},
    "USER_INSTRUCTION_RECORDING_ENABLE": {"user_id": 1},
    "USER_INSTRUCTION_RECORDING_DISABLE": {"user_id": 1},
    "USER_INSTRUCTION_RECORDS_DELETE": {"user_id": 1},
    "USER_INSTRUCTION_RECORDING_LIST": {"user_id": 1},
    "CHAT_CREATE": {"title": "Engines", "user_ids": [1]},
    "CHAT_UPDATE": {"chat_id": 1},
    "CHAT_DELETE": {"chat_id": 1},
    "CHAT_LOAD": {"chat_id": 1},
    "CHAT_LIST": {},
    "CHAT_LIST_BY_USER": {"user_id": 1},
    "CHAT_SEARCH": {"user_id": 1, "query": "engine"},
    "CHAT_EXPORT": {"chat_id": 1},
    "LLM_PROVIDER_ADD": {"name": "vLLM", "api_endpoint": "http://localhost:12500/v1"},
    "LLM_PROVIDER_UPDATE": {"provider_id": 1},
    "LLM_PROVIDER_DELETE": {"provider_id": 1},
    "LLM_PROVIDER_LIST": {},
    "LLM_PROVIDER_DISCOVER": {"provider_id": 1},
    "LLM_ADD": {"provider_id": 1, "llm_name": "echo"},
    "LLM_UPDATE": {"llm_id": 1},
    "LLM_DELETE": {"llm_id": 1},
    "LLM_LIST": {},
    "LLM_LIST_BY_PROVIDER": {"provider_id": 1},
    "LLM_RESPONSE_GENERATE": {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": "Hello"},
    "LLM_RESPONSE_REGENERATE": {"message_id": 2},
    "LLM_RESPONSE_CANCEL": {"instruction_id": INSTRUCTION_ID},
    "INSTRUCTION_GET": {"instruction_id": INSTRUCTION_ID},
    "INSTRUCTION_LIST": {},
    "USAGE_LIST": {},
    "USER_EXPORT": {"user_id": 1},
    "USER_ERASE": {"user_id": 1},
}
