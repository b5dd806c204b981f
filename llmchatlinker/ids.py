"""Instruction ids: UUIDs of version 7, so that they sort by time and index well.

Celery makes version 4. That an id is of version 7 tells, without a query, that it can only be an
instruction's: one that has no row was never submitted.
"""

from __future__ import annotations

import secrets
import time
import uuid


def new_instruction_id() -> uuid.UUID:
    """48 bits of milliseconds, then random bits (RFC 9562, section 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def as_instruction_id(text: object) -> uuid.UUID | None:
    """The id in ``text``, or None where it can't be an instruction's."""
    try:
        value = text if isinstance(text, uuid.UUID) else uuid.UUID(str(text))
    except ValueError:
        return None
    return value if value.version == 7 else None
