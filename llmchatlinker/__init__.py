"""LLMChatLinker: instructions between chat front-ends and large language models.

What a user imports: the client, ``publish_message``, the errors, and the Celery ``app`` for
``celery -A llmchatlinker worker``. The two that need Celery are imported when they are asked for: the
command line's help, and whoever wants one small module, do without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmchatlinker.version import __version__

if TYPE_CHECKING:
    from llmchatlinker.celery_app import app
    from llmchatlinker.errors import LLMChatLinkerError

__all__ = ["LLMChatLinkerError", "__version__", "app"]

_WHERE = {"app": "llmchatlinker.celery_app", "LLMChatLinkerError": "llmchatlinker.errors"}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_WHERE[name]), name)
    return found
