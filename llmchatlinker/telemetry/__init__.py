"""What LLMChatLinker tells about itself: metrics, logs and traces (``docs/observability.md``).

None of it is needed for anything to be right, and nothing of it holds a text, a profile or a key.
Workers switch it on by settings (``worker.py``); a program that is a client calls ``register``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["register"]


def register(registry: CollectorRegistry | None = None) -> None:
    """Have this process's metrics in ``registry`` (``prometheus_client``'s own by default).

    For a program that is a client and has an endpoint of its own. From here on the process counts;
    once more with the same registry changes nothing.
    """
    from prometheus_client import REGISTRY

    from llmchatlinker.telemetry.collecting import add_to

    add_to(REGISTRY if registry is None else registry)
