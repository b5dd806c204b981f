"""What follows a commit: messages that were waiting, ids that are final, events for who follows.

Nothing here is needed for anything to be right. If the process dies before, the sweeper publishes what
was released and ends what was concluded, and followers read the events from the rows.
"""

from __future__ import annotations

from llmchatlinker import waiting
from llmchatlinker.orchestrator import announce, publish_released
from llmchatlinker.outcomes import finalise
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.pushing import push
from llmchatlinker.turns import Aftermath


def follow(aftermath: Aftermath, *, patiently: bool = False) -> None:
    """Do it; ``patiently``: within a client's patience, and not a worker's."""
    publish_released(aftermath.released, patiently=patiently)
    for instruction_id, first, events in aftermath.events:
        push(instruction_id, first, events)
    patience = get_settings().client_patience if patiently else None
    for instruction_id in aftermath.concluded:
        ending = finalise(instruction_id, patience=patience)
        if ending is not None:
            announce(ending, patiently=patiently)
    for seconds in aftermath.alarms:
        waiting.alarm(seconds)
