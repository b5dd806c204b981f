"""docs/reference/client.md: the public classes and functions, from their signatures and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llmchatlinker.async_client import AsyncInstructionResult, AsyncLLMChatLinkerClient
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.client_methods import InstructionMethods
from llmchatlinker.instructions import InstructionType
from llmchatlinker.message_queue import publish_message
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.streaming.async_responses import AsyncResponseStream
from llmchatlinker.streaming.follower import ResponseEvent
from llmchatlinker.streaming.responses import ResponseStream

TOP = """\
# The clients

<!-- Made by `make reference`. Edit the docstrings or tools/reference/ instead. -->

What a program imports. Everything else in the package may change without a word in the
[changelog](../changelog.md).

```python
from llmchatlinker import app, LLMChatLinkerError
from llmchatlinker.async_client import AsyncLLMChatLinkerClient
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.instructions import USER_CREATE  # and every other type
from llmchatlinker.message_queue import publish_message
```

"""

METHODS = """\
## A method for each instruction

Both clients have these. Arguments are the fields of the type's [data](instructions.md), all by keyword,
the first ones also by position; None is the same as leaving one out. Each also takes
`idempotency_key` and `deadline`. `LLMChatLinkerClient` returns the [envelope](envelope.md) as a dict,
`AsyncLLMChatLinkerClient` something to await that does.

| method | instruction |
|---|---|
"""


#: Public for the package's own sake.
INTERNAL = {"opened", "received", "last_look"}


def page() -> str:
    """The page's text."""
    parts = [
        TOP,
        _class(LLMChatLinkerClient),
        _class(AsyncLLMChatLinkerClient),
        METHODS + _methods(),
        _class(ResponseStream),
        _class(AsyncResponseStream),
        _class(ResponseEvent),
        _class(InstructionResult),
        _class(AsyncInstructionResult),
        _class(InstructionType),
        "## publish_message\n\n" + _described("publish_message", publish_message),
    ]
    return "\n".join(parts)


def _class(cls: type[Any]) -> str:
    lines = [f"## {cls.__name__}", "", _words(cls), ""]
    for name, member in _members(cls).items():
        if name.startswith("_") or name in INTERNAL or not inspect.getdoc(member):
            continue
        if isinstance(member, property):
            lines += [f"### {cls.__name__}.{name}", "", _words(member), ""]
        elif inspect.isfunction(member):
            lines += [f"### {cls.__name__}.{name}", "", _described(name, member)]
    return "\n".join(lines)


def _members(cls: type[Any]) -> dict[str, Any]:
    """Its own, and those of a private base."""
    bases = [base for base in cls.__bases__ if base.__name__.startswith("_")]
    return {name: member for base in [cls, *bases] for name, member in vars(base).items()}


def _described(name: str, function: Callable[..., Any]) -> str:
    kind = "async def" if inspect.iscoroutinefunction(function) else "def"
    signature = inspect.signature(function)
    without_self = [p for key, p in signature.parameters.items() if key != "self"]
    one_line = f"{kind} {name}{signature.replace(parameters=without_self)}".replace("'", "")
    if len(one_line) > 96:
        arguments = []
        starred = False
        for parameter in without_self:
            if parameter.kind is parameter.KEYWORD_ONLY and not starred:
                arguments.append("*")
                starred = True
            arguments.append(str(parameter).replace("'", ""))
        returned = str(signature.return_annotation).replace("'", "")
        inner = "".join(f"    {argument},\n" for argument in arguments)
        one_line = f"{kind} {name}(\n{inner}) -> {returned}"
    return f"```text\n{one_line}\n```\n\n{_words(function)}\n"


def _words(member: Any) -> str:
    return (inspect.getdoc(member) or "").replace("``", "`")


def _methods() -> str:
    lines = []
    for name, member in vars(InstructionMethods).items():
        doc = inspect.getdoc(member) or ""
        if name.startswith("_") or name in ("run", "cancel") or not doc:
            continue
        type_name = doc.split()[0].rstrip(".;:,")
        lines.append(f"| `{name}` | [{type_name}](instructions.md#{type_name.lower()}) |")
    lines.append("| `cancel` | [LLM_RESPONSE_CANCEL](instructions.md#llm_response_cancel) |")
    return "\n".join(lines) + "\n"
