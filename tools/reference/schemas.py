"""What a field takes, in words, from pydantic's JSON schema of its model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from llmchatlinker.instruction_data.fields import BIGINT_MAX, INTEGER_MAX

Schema = dict[str, Any]

#: Objects that have a table of their own: class → what a cell says.
NAMED = {
    "ProviderSettings": "object",
    "LLMSettings": "object",
    "Timeouts": "object",
    "Price": "object",
    "LLMReference": "id or object",
    "TextPart": "text part",
    "ImagePart": "image part",
}


def rows(model: type[BaseModel], prefix: str, meanings: dict[str, str]) -> list[str]:
    """A row for each field: name, what it takes, whether it may be left out, what it is."""
    schema = model.model_json_schema(by_alias=True)
    required = schema.get("required", [])
    lines = []
    for name, field in schema.get("properties", {}).items():
        default = field.get("default")
        optional = "required" if name in required else "optional"
        if default is not None:
            optional = f"`{_literal(default)}`"
        meaning = meanings.get(f"{prefix}.{name}", meanings.get(name))
        if meaning is None:
            raise KeyError(f"texts.py, FIELDS says nothing of {prefix}.{name}")
        lines.append(f"| `{name}` | {words(field)} | {optional} | {meaning} |")
    return lines


def words(schema: Schema) -> str:
    """What may stand there."""
    if "$ref" in schema:
        return NAMED[schema["$ref"].rpartition("/")[2]]
    branches = schema.get("anyOf") or schema.get("oneOf")
    if branches:
        kinds = [words(branch) for branch in branches if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    return _of_type(schema)


def _of_type(schema: Schema) -> str:
    match schema["type"]:
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema)
        case "array":
            bounds = _bounds(schema.get("minItems"), schema.get("maxItems"))
            return f"list of {bounds}: {words(schema['items'])}"
        case "object":
            return f"object, at most {schema['maxProperties']} names"
    return str(schema["type"])


def _text(schema: Schema) -> str:
    if "pattern" in schema:
        return "UUID"
    if schema.get("format") == "date-time":
        return "ISO 8601"
    if "maxLength" not in schema:
        return "text"
    return f"text, {_bounds(schema.get('minLength'), schema['maxLength'])} characters"


def _number(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum", schema.get("exclusiveMaximum"))
    if schema["type"] == "integer" and low == 1 and high in (INTEGER_MAX, BIGINT_MAX):
        return "integer from 1"
    if schema["type"] == "integer" and low == 0 and high == BIGINT_MAX:
        return "integer from 0"
    if low is None:
        return f"number above {schema['exclusiveMinimum']}, up to {_short(high)}"
    if schema["type"] == "integer":
        return f"integer, {_bounds(low, high)}"
    return f"number from {low}" if high == 1e12 else f"number, {_bounds(low, high)}"


def _bounds(low: int | float | None, high: int | float | None) -> str:
    return f"{_short(low or 0)} to {_short(high)}"


def _short(value: int | float | None) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{value:,}".replace(",", " ") if isinstance(value, int) else str(value)


def _literal(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if value in (0, 1) else str(value)
