"""How a defect is logged: where it happened and what kind it is, never the words of the exception.

They may quote what it stumbled over: a prompt, a profile, a row that PostgreSQL refused.
"""

from __future__ import annotations

import logging
import traceback


def log_defect(logger: logging.Logger, message: str, *values: object, error: BaseException) -> None:
    """Log ``message`` with the kinds and the lines of code of ``error`` and of what caused it."""
    logger.error(message + "\n%s", *values, without_words(error))


def without_words(error: BaseException) -> str:
    """A traceback of names and lines, the cause first."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        frames = traceback.extract_tb(current.__traceback__)
        lines = "".join(
            f'  File "{frame.filename}", line {frame.lineno}, in {frame.name}\n' for frame in frames
        )
        parts.append(f"{lines}{type(current).__module__}.{type(current).__qualname__}")
        current = current.__cause__ or (
            None if current.__suppress_context__ else current.__context__
        )
    return "\nled to\n".join(reversed(parts))
