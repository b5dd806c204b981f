"""The straight way of turns through decode, which most of them go: they name ids only.

``straight_claim.py`` and ``straight_settle.py`` are the same for how they begin and end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from llmchatlinker.db.sessions import database
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instruction_data.llm import LLMResponseGenerate
from llmchatlinker.units.turn_policies import policy_of

#: What decoding writes, by compare-and-set; ``/* and */`` is where a further condition goes.
DECODED = """
    UPDATE instructions
       SET data = %(data)s, user_ids = %(user_ids)s, chat_id = %(chat_id)s, state = 'decoded',
           decoded_at = now(), published_at = now()
     WHERE id = %(id)s AND state = 'submitted' /* and */
    RETURNING set_config('synchronous_commit', 'off', true)
"""

#: The same where there is nothing to resolve: the LLM is there, and of the provider that is named beside
#: it, and the policy is to wait.
_DECODED_TURN = DECODED.replace(
    "/* and */",
    """
       AND EXISTS (SELECT FROM llms
                    WHERE id = CAST(%(llm_id)s AS int)
                      AND provider_id = coalesce(CAST(%(provider_id)s AS int), provider_id))
       AND (CAST(%(policy)s AS text) = 'enqueue'
            OR coalesce((SELECT turn_policy FROM chats WHERE id = %(chat_id)s),
                        CAST(%(otherwise)s AS text)) = 'enqueue')
    """,
)


def decode(data: Data, values_of: Callable[[Data], Mapping[str, Any]]) -> bool:
    """Decode a turn that names ids only and waits for its chat; False: look closer, nothing is written.

    ``values_of``: what is written of data that is resolved, the instruction's id included.
    """
    if not isinstance(data, LLMResponseGenerate) or data.llm_id is None or data.fallbacks:
        return False
    if data.provider_name is not None or data.llm_name is not None:
        return False
    if data.turn_policy not in (None, "enqueue"):
        return False
    more = {
        "llm_id": data.llm_id,
        "provider_id": data.provider_id,
        "policy": data.turn_policy,
        "otherwise": policy_of(data, None),
    }
    values = values_of(data.model_copy(update={"provider_id": None}))
    return bool(database().statement(_DECODED_TURN, {**values, **more}, prepare=True))
