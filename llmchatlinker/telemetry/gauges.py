"""What only the database knows of the whole system: read by the sweeper, under its lock.

One statement a sweep, and only where this worker's metrics are asked for. Each part of it goes by a
partial index, of what is open, started, in doubt or kept: rows that have ended cost nothing, however
many there are. Several workers may have figures, of different moments: take the largest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from llmchatlinker.db.sessions import database
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry.switch import metrics
from llmchatlinker.topology import CONTROL, DATABASE, QUEUE_NAMES

#: Name of the metric, values of its labels, value.
Sample = tuple[str, tuple[str, ...], float]

#: Sweeps after which figures are too old to be shown.
SWEEPS = 3
#: Providers that are told apart, at most; the ones with the largest figures.
PROVIDERS = 100

#: A ``decoded`` turn that is active is at its provider, and nobody waits for its message.
_READ = """
    SELECT 'open', type,
           CASE WHEN state = 'decoded' AND turn = 'active' THEN 'generating' ELSE state END,
           coalesce(wait_reason, ''),
           count(*),
           extract(epoch FROM clock_timestamp() - min(
               CASE state WHEN 'decoded' THEN coalesce(decoded_at, submitted_at)
                          WHEN 'executed' THEN coalesce(executed_at, submitted_at)
                          ELSE submitted_at END))
      FROM instructions WHERE final_at IS NULL GROUP BY 1, 2, 3, 4
    UNION ALL
    (SELECT 'calls_under_way', provider_name, '', '', count(*), 0 FROM attempts
      WHERE status = 'started' AND lease_until > clock_timestamp()
      GROUP BY provider_name ORDER BY 5 DESC LIMIT %(providers)s)
    UNION ALL
    (SELECT 'provider_cooldown_seconds', p.name, '', '',
            extract(epoch FROM h.cooldown_until - clock_timestamp()), 0
       FROM provider_health h JOIN providers p ON p.id = h.provider_id
      WHERE h.cooldown_until > clock_timestamp() ORDER BY 5 DESC LIMIT %(providers)s)
    UNION ALL
    (SELECT 'in_doubt_attempts', provider_name, '', '', count(*), 0 FROM attempts
      WHERE status = 'in_doubt' AND finished_at > now() - interval '1 hour'
      GROUP BY provider_name ORDER BY 5 DESC LIMIT %(providers)s)
    UNION ALL
    SELECT 'dead_letters_kept', '', '', '', count(*), 0
      FROM (SELECT FROM dead_letters WHERE became = 'kept' LIMIT 10000) AS kept
"""


@dataclass(frozen=True, slots=True)
class _Read:
    samples: list[Sample]
    at: float


_last: _Read | None = None


def measure(alone: Callable[[Session], bool]) -> None:
    """Read the figures, unless nobody asks for them; ``alone``: whether the sweeper's lock is ours."""
    global _last
    if metrics() is None:
        return

    def read(session: Session) -> _Read | None:
        if not alone(session):
            return None
        rows = session.connection().exec_driver_sql(_READ, {"providers": PROVIDERS}).all()
        return _Read(_samples(rows), time.monotonic())

    _last = database().run(read, patience=get_settings().client_patience)


def samples() -> Iterator[Sample]:
    """The figures, as long as they are of now."""
    last = _last
    if last is None:
        return
    age = time.monotonic() - last.at
    if age <= SWEEPS * get_settings().sweep_interval + 1:
        yield from last.samples
        yield "system_read_age_seconds", (), age


def forget() -> None:
    """There are no figures."""
    global _last
    _last = None


def _samples(rows: Sequence[Any]) -> list[Sample]:
    counts: dict[tuple[str, ...], float] = {
        (CONTROL, "submitted", ""): 0.0,
        (DATABASE, "executed", ""): 0.0,
    }
    counts |= {(name, "decoded", ""): 0.0 for name in QUEUE_NAMES if name != CONTROL}
    ages = dict(counts)
    found: list[Sample] = []
    for kind, name, state, reason, value, age in rows:
        if kind != "open":
            found.append((kind, (name,) if name else (), float(value)))
            continue
        labels = (_queue(name, state), state, reason)
        counts[labels] = counts.get(labels, 0.0) + float(value)
        ages[labels] = max(ages.get(labels, 0.0), float(age or 0))
    found += [("open_instructions", labels, count) for labels, count in counts.items()]
    found += [("oldest_open_seconds", labels, age) for labels, age in ages.items()]
    return found


def _queue(type_name: str, state: str) -> str:
    """Where its message is, or will be once it goes on."""
    if state == "submitted":
        return CONTROL
    if state == "executed":
        return DATABASE
    spec = INSTRUCTION_SET.get(type_name)
    return "unknown" if spec is None else spec.queue
