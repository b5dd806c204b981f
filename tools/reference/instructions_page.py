"""docs/reference/instructions.md: every type with its data, result, errors and an example."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from llmchatlinker.client_methods import InstructionMethods
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instruction_data.llm import LLMReference
from llmchatlinker.instruction_data.provider_settings import (
    LLMSettings,
    Price,
    ProviderSettings,
    Timeouts,
)
from llmchatlinker.instructions import ALIASES, INSTRUCTION_SET, InstructionType
from tools.reference import texts
from tools.reference.examples import recorded
from tools.reference.schemas import rows

TOP = """\
# The instruction set

<!-- Made by `make reference`. Edit tools/reference/ instead. -->

An instruction is a JSON object:

```json
{"type": "USER_CREATE", "data": {"username": "ada"}, "idempotency_key": "sign-up-4711", "deadline": 30}
```

| field | what it is |
|---|---|
| `type` | one of those below |
| `data` | an object with the fields of that type |
| `idempotency_key` | optional, a text of at most 200 characters: submitted again under the \
same key, the same instruction is done once ([how](../how-to/retry-safely.md)) |
| `deadline` | optional, seconds: 60 where it is left out, 600 for a generation and for USER_ERASE |

Unknown fields are refused, `null` in an optional field is the same as leaving it out, and nothing is
converted: `"1"` is no id. Ids are integers, except `instruction_id`, a UUID. Texts are never blank.
A list takes `limit` and `after`, and its data carries `next`, which is the `after` of the page behind
it, and null at the end. Moments are ISO 8601 in UTC.

What comes back is an [envelope](envelope.md). Each type below has the codes that belong to it. Any type
can end with `invalid_data`, `deadline_exceeded`, `cancelled`, `poisoned`, `internal` or
`configuration`, and be refused as `overloaded` or, under an idempotency key, as `conflict`:
[errors](../errors.md) has what each means and what to do.

The examples were run one after the other on an empty system; ids, times and the provider's address
are replaced afterwards. Each is what went in, and the `data` of what came back.
"""

#: Objects that stand inside of data: heading, class, what is said of it.
INSIDE: list[tuple[str, type[Data], str]] = [
    (
        "Settings of a provider",
        ProviderSettings,
        "An LLM's go before its provider's, and those before the process's. What each does:"
        " [Providers](../providers.md#settings).",
    ),
    ("Settings of an LLM", LLMSettings, "The same, with what only an LLM has."),
    ("Timeouts", Timeouts, "[From when to when](../providers.md#timeouts)."),
    ("Price", Price, "In the operator's currency."),
    ("A fallback", LLMReference, "`llm_id`, or `provider_name` and `llm_name`."),
]


def page() -> str:
    """The page's text."""
    parts = [TOP, _contents()]
    for heading, intro, names in texts.SECTIONS:
        parts.append(f"## {heading}\n\n{textwrap.fill(intro, 100, break_long_words=False)}\n")
        parts += [_type(INSTRUCTION_SET[name]) for name in names]
    parts.append("## Objects in data\n")
    for heading, model, said in INSIDE:
        table = _table(model, heading)
        parts.append(f"### {heading}\n\n{said}\n\n{table}\n")
    parts.append(_objects())
    return "\n".join(parts)


def _contents() -> str:
    lines = ["| | |", "|---|---|"]
    for heading, _, names in texts.SECTIONS:
        links = ", ".join(f"[{name}](#{name.lower()})" for name in names)
        lines.append(f"| **{heading}** | {links} |")
    return "\n".join([*lines, ""])


def _type(spec: InstructionType) -> str:
    about = texts.ABOUT[spec.name]
    others = [alias for alias, name in ALIASES.items() if name == spec.name]
    if others:
        about += f" {others[0]} is another name of it."
    example = recorded()[spec.name]
    sent = laid_out({"type": spec.name, "data": example["data"]})
    came = laid_out(_in_order(example["envelope"]["data"]))
    parts = [
        f"### {spec.name}",
        textwrap.fill(about, 100, break_long_words=False, break_on_hyphens=False),
        f"Method `{method(spec.name)}`, queue `{spec.queue}`.",
        _table(spec.data, spec.name),
        f"Result: {_result(_in_order(example['envelope']['data']))}",
        _errors(spec.name),
        f"```json\n{sent}\n```",
        f"```json\n{came}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(model: type[Data], prefix: str) -> str:
    lines = rows(model, prefix, texts.FIELDS)
    if not lines:
        return "It takes no data."
    return "\n".join(["| field | takes | | |", "|---|---|---|---|", *lines])


def _result(data: dict[str, Any]) -> str:
    if not data:
        return "nothing (`{}`)."
    parts = []
    for key, value in data.items():
        if key in texts.PLAIN:
            parts.append(f"`{key}`, {texts.PLAIN[key]}")
        else:
            name = texts.HOLDS[key]
            of = "a list of" if isinstance(value, list) else "one"
            parts.append(f"`{key}`, {of} [{name}](#{name})")
    return "; ".join(parts) + "."


def _errors(name: str) -> str:
    codes = texts.ERRORS[name]
    if not codes:
        return ""
    said = "; ".join(f"[`{code}`](../errors.md#{code}): {why}" for code, why in codes.items())
    return f"Errors: {said}."


def _objects() -> str:
    parts = ["## Objects in results\n"]
    for name, fields in texts.OBJECTS.items():
        lines = [f"### {name}", "", "| field | |", "|---|---|"]
        lines += [f"| `{field}` | {meaning} |" for field, meaning in fields.items()]
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def _in_order(value: Any) -> Any:
    """As texts.py names the fields; JSONB keeps no order of keys."""
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    if not isinstance(value, dict):
        return value
    best = max(texts.OBJECTS.values(), key=lambda fields: len(set(fields) & set(value)))
    order = [*texts.HOLDS, *best] if "next" in value else [*best]
    keys = sorted(value, key=lambda key: order.index(key) if key in order else len(order))
    return {key: _in_order(value[key]) for key in keys}


def laid_out(value: Any, indent: int = 0) -> str:
    """JSON in lines of at most 100 characters, where that can be."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 96 or not isinstance(value, dict | list) or not value:
        return line
    inner, outer = " " * (indent + 2), " " * indent
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {laid_out(item, indent + 2)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{outer}}}"
    lines = [laid_out(item, indent + 2) for item in value]
    return "[\n" + ",\n".join(inner + line for line in lines) + f"\n{outer}]"


def method(name: str) -> str:
    """The clients' method for a type: the one whose docstring begins with it."""
    for attribute, function in vars(InstructionMethods).items():
        doc = (getattr(function, "__doc__", None) or "").split()
        if doc and doc[0].rstrip(".;:,") == name and attribute != "cancel":
            return attribute
    raise KeyError(name)
