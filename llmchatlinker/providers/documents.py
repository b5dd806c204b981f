"""JSON of a provider, taken strictly, and made into what PostgreSQL can keep."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

#: Levels of lists and objects.
NESTING = 100

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_UNKEEPABLE = re.compile("[\x00\ud800-\udfff]")


def parse(text: str | bytes) -> Any:
    """The document; ValueError or RecursionError for what is none, or has numbers beyond JSON's."""
    return json.loads(text, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("a number that is too large")  # and that jsonb could not keep
    return number


def clean(text: str) -> str:
    """``text`` as PostgreSQL can keep it: NUL and lone surrogates become U+FFFD."""
    if _UNKEEPABLE.search(text) is None:
        return text
    return _UNKEEPABLE.sub("\ufffd", _PAIR.sub(_joined, text))


def _joined(pair: re.Match[str]) -> str:
    return pair[0].encode("utf-16", "surrogatepass").decode("utf-16")


def clean_all(value: Any, depth: int = 0) -> Any:
    """The same for every text in it; ValueError where it is nested too deeply."""
    if depth > NESTING:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_all(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {clean(str(key)): clean_all(item, depth + 1) for key, item in value.items()}
    return value


def count(value: Any) -> int | None:
    """``value`` if it is a number of tokens that a column can hold."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if is_count else None
