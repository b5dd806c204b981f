"""docs/reference/settings.md: every setting, with its default, range and meaning."""

from __future__ import annotations

from dataclasses import Field, fields
from typing import Any

from llmchatlinker.settings import PREFIX, Settings

TOP = """\
# Settings

<!-- Made by `make reference`. Edit llmchatlinker/settings.py or tools/reference/ instead. -->

Each is read from the environment once, at the first use, by clients and workers alike. An empty value
counts as none. A value of the wrong kind or out of its range is the error
[`configuration`](../errors.md#configuration), which names the setting. Durations are seconds, sizes
are bytes; numbers are greater than 0, unless it says otherwise.

`DATABASE_URL`, `BROKER_URL` and `SECRET_KEYS` are those that every installation sets. Celery's own
settings, with the reason for each, are in `celeryconfig.py`; those of a single provider or LLM go with
[it](../providers.md#settings).

"""


def page() -> str:
    """The page's text."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    lines += [_row(item) for item in fields(Settings)]
    return TOP + "\n".join(lines) + "\n"


def _row(item: Field[Any]) -> str:
    default = f"`{item.default}`" if item.default != "" else "none"
    about = item.metadata["about"]
    return f"| `{PREFIX}{item.name.upper()}` | {default} | {about} |"
