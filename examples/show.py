"""What the examples share: saying what happens, and going on with an envelope's data."""

from __future__ import annotations

import json
import secrets
import sys
from typing import Any

from llmchatlinker.envelope import Envelope

SHOWN = 160  # characters of an envelope's data


def step(text: str) -> None:
    """Say what comes next."""
    print(f"\n{text}")


def data_of(envelope: Envelope) -> dict[str, Any]:
    """Print an envelope and return its data; an error ends the program."""
    if envelope["status"] == "error":
        sys.exit(f"{envelope['error']['code']}: {envelope['message']}")
    text = json.dumps(envelope["data"], ensure_ascii=False)
    print(f"  {envelope['message']} {text if len(text) <= SHOWN else text[:SHOWN] + ' …'}")
    return envelope["data"]


def unique(name: str) -> str:
    """The name with something behind it, so that an example can be run again and again."""
    return f"{name}-{secrets.token_hex(4)}"
