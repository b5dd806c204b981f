"""The kinds of field that instructions are made of, and the error that names a wrong one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
)

from llmchatlinker.errors import InvalidData

NAME_LENGTH = 200
TEXT_LENGTH = 100_000
URL_LENGTH = 2_000
LIST_LIMIT = 1_000
#: Levels of lists and objects in data, and characters of a name that an error repeats.
NESTING = 100
NAME_SHOWN = 100

INTEGER_MAX = 2**31 - 1
BIGINT_MAX = 2**63 - 1


class Data(BaseModel):
    """The base of every instruction's data: no unknown field, no conversion, no change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _not_blank(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    return value


Id = Annotated[int, Field(ge=1, le=INTEGER_MAX)]
MessageId = Annotated[int, Field(ge=1, le=BIGINT_MAX)]
InstructionId = Annotated[
    str, Field(pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(_not_blank)]
Text = Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH), AfterValidator(_not_blank)]
TurnPolicy = Literal["enqueue", "reject", "interrupt", "rollback"]


class Page(Data):
    """A list's window: at most ``limit`` items behind the one with the id ``after``."""

    limit: Annotated[int, Field(ge=1, le=LIST_LIMIT)] = 100
    after: Annotated[int, Field(ge=0, le=BIGINT_MAX)] | None = None


#: The context of a validation of data that decode has been through already.
DECODED = {"decoded": True}
#: Fields that carry the ids of users, for records and for erasing.
USER_FIELDS = ("user_id", "user_ids", "add_users", "remove_users")


def is_decoded(info: ValidationInfo) -> bool:
    """Whether the data comes from decode and not from a client."""
    return bool(info.context)


def describe(error: ValidationError) -> InvalidData:
    """The same as an InvalidData that names each wrong field and never repeats what was in it."""
    problems: list[dict[str, Any]] = []
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        *parents, last = item["loc"] or ("",)
        unknown = item["type"] == "extra_forbidden"
        parts = [part for part in parents if _is_field(part)]
        if unknown or _is_field(last):
            parts.append(last)
        text = item["msg"].removeprefix("Value error, ")
        if unknown:
            text = "is not a field of this instruction type"
        elif item["type"] == "missing":
            text = "is missing"
        problems.append({"field": shown(".".join(map(str, parts))), "problem": text})
    said = "; ".join(
        f"{p['field']}: {p['problem']}" if p["field"] else p["problem"] for p in problems[:5]
    )
    return InvalidData(said, {"fields": problems[:20]})


def shown(name: str) -> str:
    """A name from outside as an error may repeat it: not too long, and valid text."""
    cut = name if len(name) <= NAME_SHOWN else name[:NAME_SHOWN] + "…"
    return cut.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _is_field(part: int | str) -> bool:
    # pydantic puts the name of the union's branch into the location: "constrained-int".
    return isinstance(part, int) or part.isidentifier()


def check_storable(value: Any, where: str = "data", depth: int = 0) -> None:
    """Refuse what PostgreSQL can't keep: NUL characters, lone surrogates, endless nesting.

    psycopg2 raises on NUL in text, and jsonb on ``\\u0000`` and on half a surrogate pair
    (https://www.postgresql.org/docs/current/datatype-json.html).
    """
    if depth > NESTING:
        raise _unstorable(where, "is nested too deeply")
    if isinstance(value, str):
        if "\x00" in value:
            raise _unstorable(where, "contains a NUL character")
        if not value.isascii() and not _encodable(value):
            raise _unstorable(where, "contains half a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _unstorable(where, "has a key that is no text")
            check_storable(key, f"a key of {where}", depth + 1)
            check_storable(item, f"{where}.{shown(key)}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            check_storable(item, f"{where}[{number}]", depth + 1)


def _unstorable(where: str, problem: str) -> InvalidData:
    field = shown(where.removeprefix("data."))
    return InvalidData(f"{field} {problem}.", {"fields": [{"field": field, "problem": problem}]})


def _encodable(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
