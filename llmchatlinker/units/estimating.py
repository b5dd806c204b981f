"""The tokens of an answer that was broken off: most providers count only at the end of one.

They have worked all the same, and bill it. So what is missing is estimated, and marked as that.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.providers.base import Usage
from llmchatlinker.streaming.events import Partial
from llmchatlinker.units import ledger
from llmchatlinker.units.calling import Performed, Turn
from llmchatlinker.units.context import corrected, estimated, ratio, tokens


def usage_of(session: Session, work: Turn, done: Performed) -> Usage:
    """What the call has used: as it was counted, or as near as we can tell of half an answer."""
    said, usage = done.said, done.usage
    if not isinstance(said, Partial) or said.is_empty:
        return usage
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt is not None and completion is not None:
        return usage
    route = work.route
    factor = ratio(ledger.counted(driver.within(session), route.provider, route.llm))
    if prompt is None:
        sent = estimated(work.request.messages, work.request.parameters.get("tools"))
        prompt = corrected(sent, factor)
    if completion is None:
        completion = corrected(_said(said), factor)
    return replace(
        usage,
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        estimated=True,
    )


def _said(said: Partial) -> int:
    texts = [said.content, said.reasoning or ""]
    for call in said.tool_calls or ():
        what = call[call["type"]]
        texts += [what["name"] or "", what.get("arguments") or what.get("input") or ""]
    return sum(map(tokens, texts))
