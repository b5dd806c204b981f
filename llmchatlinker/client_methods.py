"""The methods of both clients, the blocking one and the one for asyncio: one per instruction.

Every method takes the data fields as keywords (the leading ones also by position), and beside them
``idempotency_key`` and ``deadline`` (seconds). What a method returns is what the client's ``run``
returns: an envelope here, something to await there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from llmchatlinker import instructions as types
from llmchatlinker.envelope import Envelope, failure
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import InstructionType

R = TypeVar("R")

#: What keeps an instruction from being submitted or awaited at all: raised, and not returned.
RAISED = ("unavailable", "configuration", "result_timeout")


class InstructionMethods(ABC, Generic[R]):
    """A method per instruction, all of them by way of ``run``."""

    @abstractmethod
    def run(self, type: str | InstructionType, /, **arguments: Any) -> R:
        """Submit any instruction, and wait for its envelope."""

    # --- users ----------------------------------------------------------------------------------

    def create_user(
        self,
        username: str,
        profile: str | None = None,
        display_name: str | None = None,
        **more: Any,
    ) -> R:
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
    ) -> R:
        """USER_UPDATE."""
        return self.run(
            types.USER_UPDATE,
            user_id=user_id,
            username=username,
            profile=profile,
            display_name=display_name,
            **more,
        )

    def delete_user(self, user_id: int, **more: Any) -> R:
        """USER_DELETE."""
        return self.run(types.USER_DELETE, user_id=user_id, **more)

    def list_users(self, limit: int | None = None, after: int | None = None, **more: Any) -> R:
        """USER_LIST."""
        return self.run(types.USER_LIST, limit=limit, after=after, **more)

    def get_user(self, user_id: int | None = None, username: str | None = None, **more: Any) -> R:
        """USER_GET."""
        return self.run(types.USER_GET, user_id=user_id, username=username, **more)

    def enable_instruction_recording(self, user_id: int, **more: Any) -> R:
        """USER_INSTRUCTION_RECORDING_ENABLE."""
        return self.run(types.USER_INSTRUCTION_RECORDING_ENABLE, user_id=user_id, **more)

    def disable_instruction_recording(self, user_id: int, **more: Any) -> R:
        """USER_INSTRUCTION_RECORDING_DISABLE."""
        return self.run(types.USER_INSTRUCTION_RECORDING_DISABLE, user_id=user_id, **more)

    def delete_instruction_records(self, user_id: int, **more: Any) -> R:
        """USER_INSTRUCTION_RECORDS_DELETE."""
        return self.run(types.USER_INSTRUCTION_RECORDS_DELETE, user_id=user_id, **more)

    def list_instruction_records(
        self, user_id: int, limit: int | None = None, after: int | None = None, **more: Any
    ) -> R:
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
    ) -> R:
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
    ) -> R:
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

    def delete_chat(self, chat_id: int, **more: Any) -> R:
        """CHAT_DELETE."""
        return self.run(types.CHAT_DELETE, chat_id=chat_id, **more)

    def get_chat(
        self,
        chat_id: int,
        branch: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        **more: Any,
    ) -> R:
        """CHAT_LOAD."""
        return self.run(
            types.CHAT_LOAD, chat_id=chat_id, branch=branch, limit=limit, before=before, **more
        )

    def list_chats(self, limit: int | None = None, after: int | None = None, **more: Any) -> R:
        """CHAT_LIST."""
        return self.run(types.CHAT_LIST, limit=limit, after=after, **more)

    def list_user_chats(
        self, user_id: int, limit: int | None = None, after: int | None = None, **more: Any
    ) -> R:
        """CHAT_LIST_BY_USER."""
        return self.run(types.CHAT_LIST_BY_USER, user_id=user_id, limit=limit, after=after, **more)

    def search_chats(self, user_id: int, query: str, limit: int | None = None, **more: Any) -> R:
        """CHAT_SEARCH."""
        return self.run(types.CHAT_SEARCH, user_id=user_id, query=query, limit=limit, **more)

    def export_chat(self, chat_id: int, after: int | None = None, **more: Any) -> R:
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
    ) -> R:
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
    ) -> R:
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

    def delete_llm_provider(self, provider_id: int, force: bool | None = None, **more: Any) -> R:
        """LLM_PROVIDER_DELETE."""
        return self.run(types.LLM_PROVIDER_DELETE, provider_id=provider_id, force=force, **more)

    def list_llm_providers(
        self, limit: int | None = None, after: int | None = None, **more: Any
    ) -> R:
        """LLM_PROVIDER_LIST."""
        return self.run(types.LLM_PROVIDER_LIST, limit=limit, after=after, **more)

    def discover_llms(self, provider_id: int, **more: Any) -> R:
        """LLM_PROVIDER_DISCOVER."""
        return self.run(types.LLM_PROVIDER_DISCOVER, provider_id=provider_id, **more)

    def add_llm(
        self,
        provider_id: int | None = None,
        llm_name: str | None = None,
        provider_name: str | None = None,
        settings: dict[str, Any] | None = None,
        **more: Any,
    ) -> R:
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
    ) -> R:
        """LLM_UPDATE."""
        return self.run(
            types.LLM_UPDATE, llm_id=llm_id, llm_name=llm_name, settings=settings, **more
        )

    def delete_llm(self, llm_id: int, **more: Any) -> R:
        """LLM_DELETE."""
        return self.run(types.LLM_DELETE, llm_id=llm_id, **more)

    def list_llms(self, limit: int | None = None, after: int | None = None, **more: Any) -> R:
        """LLM_LIST."""
        return self.run(types.LLM_LIST, limit=limit, after=after, **more)

    def list_llms_by_provider(
        self, provider_id: int, limit: int | None = None, after: int | None = None, **more: Any
    ) -> R:
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
        user_input: str | list[dict[str, Any]] | None = None,
        provider_name: str | None = None,
        llm_name: str | None = None,
        parameters: dict[str, Any] | None = None,
        fallbacks: list[Any] | None = None,
        turn_policy: str | None = None,
        parent_message_id: int | None = None,
        **more: Any,
    ) -> R:
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
    ) -> R:
        """LLM_RESPONSE_REGENERATE."""
        return self.run(
            types.LLM_RESPONSE_REGENERATE,
            message_id=message_id,
            user_id=user_id,
            parameters=parameters,
            llm_id=llm_id,
            **more,
        )

    def cancel_llm_response(self, instruction_id: str, **more: Any) -> R:
        """LLM_RESPONSE_CANCEL."""
        return self.run(types.LLM_RESPONSE_CANCEL, instruction_id=instruction_id, **more)

    def cancel(self, instruction_id: str, **more: Any) -> R:
        """LLM_RESPONSE_CANCEL, by a shorter name: stop a generation, and return what came of it."""
        return self.cancel_llm_response(str(instruction_id), **more)

    # --- operators -----------------------------------------------------------------------------------

    def get_instruction(self, instruction_id: str, **more: Any) -> R:
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
    ) -> R:
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
    ) -> R:
        """USAGE_LIST; ``from_`` stands for the field ``from``, which is a word of Python's."""
        period = {"from": from_, "to": to}
        return self.run(types.USAGE_LIST, user_id=user_id, llm_id=llm_id, **period, **more)

    def export_user(self, user_id: int, after: int | None = None, **more: Any) -> R:
        """USER_EXPORT."""
        return self.run(types.USER_EXPORT, user_id=user_id, after=after, **more)

    def erase_user(self, user_id: int, **more: Any) -> R:
        """USER_ERASE."""
        return self.run(types.USER_ERASE, user_id=user_id, **more)


def split(
    type: str | InstructionType, arguments: dict[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """What a method was called with, as the instruction's type, its data, and what is beside them."""
    name = type.name if isinstance(type, InstructionType) else type
    beside = {key: arguments.pop(key, None) for key in ("idempotency_key", "deadline")}
    data = {key: value for key, value in arguments.items() if value is not None}
    return name, data, beside


def refusal(error: LLMChatLinkerError) -> Envelope:
    """The envelope of what was refused before it became an instruction; or ``error`` is raised."""
    if error.code in RAISED:
        raise error
    return failure(None, error, "decode")
