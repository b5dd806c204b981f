"""The straight way of turns through decode, which most of them go: they name ids only.

``straight_claim.py`` and ``straight_settle.py`` are the same for how they begin and end.
"""

from __future__ import annotations

from llmchatlinker.db.sessions import database
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instruction_data.llm import LLMResponseGenerate
from llmchatlinker.units.turn_policies import policy_of

#: Whether the LLM is there, and of the provider that is named beside it; and the chat's policy.
_GLANCE = """
    SELECT EXISTS (SELECT FROM llms WHERE id = %(llm_id)s
                      AND provider_id = coalesce(%(provider_id)s, provider_id)),
           (SELECT turn_policy FROM chats WHERE id = %(chat_id)s)
"""


def decoded(data: Data) -> Data | None:
    """What decoding makes of a turn that names ids only and waits for its chat; None: look closer."""
    if not isinstance(data, LLMResponseGenerate) or data.llm_id is None or data.fallbacks:
        return None
    if data.provider_name is not None or data.llm_name is not None:
        return None
    ids = {"llm_id": data.llm_id, "provider_id": data.provider_id, "chat_id": data.chat_id}
    is_there, policy = database().statement(_GLANCE, ids, prepare=True)[0]
    if not is_there or policy_of(data, policy) != "enqueue":
        return None
    return data.model_copy(update={"provider_id": None})
