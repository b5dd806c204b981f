"""The SDK: one method per instruction, each returning the envelope as a dict.

Every method takes the data fields as keywords (the leading ones also by position), and beside them
``idempotency_key`` and ``deadline`` (seconds). A wrong argument comes back as an error envelope, as
from everywhere else; only what keeps an instruction from being submitted at all is raised:
Unavailable when a server can't be reached.

An HTTP gateway or a chat page sits on this class and on nothing below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmchatlinker import instructions as types
from llmchatlinker.envelope import Envelope, failure
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import InstructionType
from llmchatlinker.message_queue import run
from llmchatlinker.orchestrator import submit
from llmchatlinker.results.result import InstructionResult


class LLMChatLinkerClient:
    """Submits instructions and waits for their envelopes. Safe to share between threads."""

    # --- any instruction ------------------------------------------------------------------------

    def submit(self, type: str | InstructionType, /, **arguments: Any) -> InstructionResult:
        """Submit and return at once; ``.get()`` of what comes back waits for the envelope."""
        name = type.name if isinstance(type, InstructionType) else type
        extra = {key: arguments.pop(key, None) for key in ("idempotency_key", "deadline")}
        return InstructionResult(submit(name, _given(arguments), **extra))

    def run(self, type: str | InstructionType, /, **arguments: Any) -> Envelope:
        """Submit, wait, and return the envelope."""
        name = type.name if isinstance(type, InstructionType) else type
        extra = {key: arguments.pop(key, None) for key in ("idempotency_key", "deadline")}
        try:
            return run(name, _given(arguments), **extra)
        except LLMChatLinkerError as error:
            if error.code in ("unavailable", "configuration", "result_timeout"):
                raise
            return failure(None, error, "decode")

    def result(self, instruction_id: str) -> InstructionResult:
        """The result of an instruction that anybody submitted."""
        return InstructionResult(instruction_id)

    def pages(self, type: str | InstructionType, /, **arguments: Any) -> Iterator[Envelope]:
        """The envelopes of a list or an export, page after page; ends after one that failed."""
        after: Any = arguments.pop("after", None)
        while True:
            envelope = self.run(type, after=after, **arguments)
            yield envelope
            after = envelope["data"].get("next")
            if after is None:
                return

    # --- users ----------------------------------------------------------------------------------

    def create_user(
        self,
        username: str,
        profile: str | None = None,
        display_name: str | None = None,
        **more: Any,
    ) -> Envelope:
        """USER_CREATE."""
        return self.run(
            types.USER_CREATE, username=username, profile=profile, display_name=display_name, **more
        )

    def update_user(
        self,
        user_id: int,
        username: str | None = None,
        profile: str | None = None,
        display_name: str | None = None,
        **more: Any,
    ) -> Envelope:
        """USER_UPDATE."""
        return self.run(
            types.USER_UPDATE,
            user_id=user_id,
            username=username,
            profile=profile,
            display_name=display_name,
            **more,
        )

    def delete_user(self, user_id: int, **more: Any) -> Envelope:
        """USER_DELETE."""
        return self.run(types.USER_DELETE, user_id=user_id, **more)

    def list_users(
        self, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """USER_LIST."""
        return self.run(types.USER_LIST, limit=limit, after=after, **more)

    def get_user(
        self, user_id: int | None = None, username: str | None = None, **more: Any
    ) -> Envelope:
        """USER_GET."""
        return self.run(types.USER_GET, user_id=user_id, username=username, **more)

    def enable_instruction_recording(self, user_id: int, **more: Any) -> Envelope:
        """USER_INSTRUCTION_RECORDING_ENABLE."""
        return self.run(types.USER_INSTRUCTION_RECORDING_ENABLE, user_id=user_id, **more)

    def disable_instruction_recording(self, user_id: int, **more: Any) -> Envelope:
        """USER_INSTRUCTION_RECORDING_DISABLE."""
        return self.run(types.USER_INSTRUCTION_RECORDING_DISABLE, user_id=user_id, **more)

    def delete_instruction_records(self, user_id: int, **more: Any) -> Envelope:
        """USER_INSTRUCTION_RECORDS_DELETE."""
        return self.run(types.USER_INSTRUCTION_RECORDS_DELETE, user_id=user_id, **more)

    def list_instruction_records(
        self, user_id: int, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """USER_INSTRUCTION_RECORDING_LIST."""
        return self.run(
            types.USER_INSTRUCTION_RECORDING_LIST, user_id=user_id, limit=limit, after=after, **more
        )

    # --- chats ---------------------------------------------------------------------------------------

    def create_chat(
        self,
        title: str,
        usernames: list[str] | None = None,
        user_ids: list[int] | None = None,
        system_prompt: str | None = None,
        turn_policy: str | None = None,
        **more: Any,
    ) -> Envelope:
        """CHAT_CREATE."""
        return self.run(
            types.CHAT_CREATE,
            title=title,
            usernames=usernames,
            user_ids=user_ids,
            system_prompt=system_prompt,
            turn_policy=turn_policy,
            **more,
        )

    def update_chat(
        self,
        chat_id: int,
        title: str | None = None,
        system_prompt: str | None = None,
        turn_policy: str | None = None,
        add_users: list[int | str] | None = None,
        remove_users: list[int | str] | None = None,
        active_message_id: int | None = None,
        **more: Any,
    ) -> Envelope:
        """CHAT_UPDATE."""
        return self.run(
            types.CHAT_UPDATE,
            chat_id=chat_id,
            title=title,
            system_prompt=system_prompt,
            turn_policy=turn_policy,
            add_users=add_users,
            remove_users=remove_users,
            active_message_id=active_message_id,
            **more,
        )

    def delete_chat(self, chat_id: int, **more: Any) -> Envelope:
        """CHAT_DELETE."""
        return self.run(types.CHAT_DELETE, chat_id=chat_id, **more)

    def get_chat(
        self,
        chat_id: int,
        branch: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        **more: Any,
    ) -> Envelope:
        """CHAT_LOAD."""
        return self.run(
            types.CHAT_LOAD, chat_id=chat_id, branch=branch, limit=limit, before=before, **more
        )

    def list_chats(
        self, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """CHAT_LIST."""
        return self.run(types.CHAT_LIST, limit=limit, after=after, **more)

    def list_user_chats(
        self, user_id: int, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """CHAT_LIST_BY_USER."""
        return self.run(types.CHAT_LIST_BY_USER, user_id=user_id, limit=limit, after=after, **more)

    def search_chats(
        self, user_id: int, query: str, limit: int | None = None, **more: Any
    ) -> Envelope:
        """CHAT_SEARCH."""
        return self.run(types.CHAT_SEARCH, user_id=user_id, query=query, limit=limit, **more)

    def export_chat(self, chat_id: int, after: int | None = None, **more: Any) -> Envelope:
        """CHAT_EXPORT."""
        return self.run(types.CHAT_EXPORT, chat_id=chat_id, after=after, **more)

    # --- providers and LLMs --------------------------------------------------------------------------

    def add_llm_provider(
        self,
        name: str,
        api_endpoint: str,
        api_key: str | None = None,
        kind: str | None = None,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Envelope:
        """LLM_PROVIDER_ADD."""
        return self.run(
            types.LLM_PROVIDER_ADD,
            name=name,
            api_endpoint=api_endpoint,
            api_key=api_key,
            kind=kind,
            settings=settings,
            **more,
        )

    def update_llm_provider(
        self,
        provider_id: int,
        name: str | None = None,
        api_endpoint: str | None = None,
        api_key: str | None = None,
        kind: str | None = None,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Envelope:
        """LLM_PROVIDER_UPDATE."""
        return self.run(
            types.LLM_PROVIDER_UPDATE,
            provider_id=provider_id,
            name=name,
            api_endpoint=api_endpoint,
            api_key=api_key,
            kind=kind,
            settings=settings,
            **more,
        )

    def delete_llm_provider(
        self, provider_id: int, force: bool | None = None, **more: Any
    ) -> Envelope:
        """LLM_PROVIDER_DELETE."""
        return self.run(types.LLM_PROVIDER_DELETE, provider_id=provider_id, force=force, **more)

    def list_llm_providers(
        self, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """LLM_PROVIDER_LIST."""
        return self.run(types.LLM_PROVIDER_LIST, limit=limit, after=after, **more)

    def discover_llms(self, provider_id: int, **more: Any) -> Envelope:
        """LLM_PROVIDER_DISCOVER."""
        return self.run(types.LLM_PROVIDER_DISCOVER, provider_id=provider_id, **more)

    def add_llm(
        self,
        provider_id: int | None = None,
        llm_name: str | None = None,
        provider_name: str | None = None,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Envelope:
        """LLM_ADD."""
        return self.run(
            types.LLM_ADD,
            provider_id=provider_id,
            llm_name=llm_name,
            provider_name=provider_name,
            settings=settings,
            **more,
        )

    def update_llm(
        self,
        llm_id: int,
        llm_name: str | None = None,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> Envelope:
        """LLM_UPDATE."""
        return self.run(
            types.LLM_UPDATE, llm_id=llm_id, llm_name=llm_name, settings=settings, **more
        )

    def delete_llm(self, llm_id: int, **more: Any) -> Envelope:
        """LLM_DELETE."""
        return self.run(types.LLM_DELETE, llm_id=llm_id, **more)

    def list_llms(
        self, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """LLM_LIST."""
        return self.run(types.LLM_LIST, limit=limit, after=after, **more)

    def list_llms_by_provider(
        self, provider_id: int, limit: int | None = None, after: int | None = None, **more: Any
    ) -> Envelope:
        """LLM_LIST_BY_PROVIDER."""
        return self.run(
            types.LLM_LIST_BY_PROVIDER, provider_id=provider_id, limit=limit, after=after, **more
        )

    # --- responses -----------------------------------------------------------------------------------

    def generate_llm_response(
        self,
        user_id: int,
        chat_id: int,
        provider_id: int | None = None,
        llm_id: int | None = None,
        user_input: str | None = None,
        provider_name: str | None = None,
        llm_name: str | None = None,
        parameters: dict[str, Any] | None = None,
        fallbacks: list[Any] | None = None,
        turn_policy: str | None = None,
        parent_message_id: int | None = None,
        **more: Any,
    ) -> Envelope:
        """LLM_RESPONSE_GENERATE."""
        return self.run(
            types.LLM_RESPONSE_GENERATE,
            user_id=user_id,
            chat_id=chat_id,
            provider_id=provider_id,
            llm_id=llm_id,
            user_input=user_input,
            provider_name=provider_name,
            llm_name=llm_name,
            parameters=parameters,
            fallbacks=fallbacks,
            turn_policy=turn_policy,
            parent_message_id=parent_message_id,
            **more,
        )

    def regenerate_llm_response(
        self,
        message_id: int,
        user_id: int | None = None,
        parameters: dict[str, Any] | None = None,
        llm_id: int | None = None,
        **more: Any,
    ) -> Envelope:
        """LLM_RESPONSE_REGENERATE."""
        return self.run(
            types.LLM_RESPONSE_REGENERATE,
            message_id=message_id,
            user_id=user_id,
            parameters=parameters,
            llm_id=llm_id,
            **more,
        )

    def cancel_llm_response(self, instruction_id: str, **more: Any) -> Envelope:
        """LLM_RESPONSE_CANCEL."""
        return self.run(types.LLM_RESPONSE_CANCEL, instruction_id=instruction_id, **more)

    # --- operators -----------------------------------------------------------------------------------

    def get_instruction(self, instruction_id: str, **more: Any) -> Envelope:
        """INSTRUCTION_GET."""
        return self.run(types.INSTRUCTION_GET, instruction_id=instruction_id, **more)

    def list_instructions(
        self,
        user_id: int | None = None,
        state: str | None = None,
        type: str | None = None,
        limit: int | None = None,
        after: int | None = None,
        **more: Any,
    ) -> Envelope:
        """INSTRUCTION_LIST."""
        data = {"user_id": user_id, "state": state, "type": type, "limit": limit, "after": after}
        return self.run(types.INSTRUCTION_LIST, **data, **more)

    def list_usage(
        self,
        user_id: int | None = None,
        llm_id: int | None = None,
        from_: str | None = None,
        to: str | None = None,
        **more: Any,
    ) -> Envelope:
        """USAGE_LIST; ``from_`` stands for the field ``from``, which is a word of Python's."""
        period = {"from": from_, "to": to}
        return self.run(types.USAGE_LIST, user_id=user_id, llm_id=llm_id, **period, **more)

    def export_user(self, user_id: int, after: int | None = None, **more: Any) -> Envelope:
        """USER_EXPORT."""
        return self.run(types.USER_EXPORT, user_id=user_id, after=after, **more)

    def erase_user(self, user_id: int, **more: Any) -> Envelope:
        """USER_ERASE."""
        return self.run(types.USER_ERASE, user_id=user_id, **more)


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if value is not None}
