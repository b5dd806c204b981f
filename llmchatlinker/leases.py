"""The heartbeat of provider calls: one thread per process renews the leases of all calls in it.

A lease that runs out means that the worker is dead, so it must not run out because PostgreSQL was
slow once: it is renewed three times in its length. What takes long and is in no ledger (a question for
a provider's models, an erasure) has no lease, and its row gets a sign of life instead.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Attempt
from llmchatlinker.db.sessions import database
from llmchatlinker.defects import log_defect
from llmchatlinker.errors import Unavailable
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 3
#: Seconds between two renewals, at least, where the sweeper's grace asks for less.
SHORTEST = 1.0

#: Whoever has such a row locked is at it, and is not waited for.
_SIGN_OF_LIFE = """
    UPDATE instructions SET published_at = clock_timestamp(), started_at = clock_timestamp()
     WHERE id IN (SELECT id FROM instructions
                   WHERE id = ANY (CAST(%(ids)s AS uuid[])) AND state = 'decoded'
                     AND NOT EXISTS (SELECT FROM attempts
                                      WHERE instruction_id = instructions.id AND status = 'started')
                     FOR NO KEY UPDATE SKIP LOCKED)
"""

_held: set[uuid.UUID] = set()
_lock = threading.Lock()
_work = threading.Condition(_lock)
_keeper: threading.Thread | None = None


@contextmanager
def held(instruction_id: uuid.UUID) -> Iterator[None]:
    """Keep the lease of the instruction's started attempt alive, or its row where there is none."""
    global _keeper
    with _work:
        _held.add(instruction_id)
        if _keeper is None or not _keeper.is_alive():
            _keeper = threading.Thread(target=_renew_for_ever, name="leases", daemon=True)
            _keeper.start()
        _work.notify()
    try:
        yield
    finally:
        with _work:
            _held.discard(instruction_id)


def lease_end() -> object:
    """The SQL expression for the end of a lease that is taken now, by PostgreSQL's clock."""
    return func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, 0, get_settings().lease)


def _renew_for_ever() -> None:
    settings = get_settings()
    # Often enough for the sweeper, too, which sends out again what gives no sign.
    pause = min(settings.lease / RENEWALS_PER_LEASE, max(settings.sweep_grace / 2, SHORTEST))
    while True:
        with _work:
            while not _held:
                _work.wait()
            held_now = list(_held)
        try:
            _renew(held_now, patience=pause)
        except Unavailable:
            pass  # said once by the pool; the next round tries again
        except Exception as error:
            log_defect(logger, "Renewing leases failed; trying again in %.0f s", pause, error=error)
        threading.Event().wait(pause)


def _renew(instruction_ids: list[uuid.UUID], patience: float) -> None:
    def work(session: Session) -> None:
        session.execute(
            update(Attempt)
            .where(Attempt.instruction_id.in_(instruction_ids), Attempt.status == "started")
            .values(lease_until=lease_end())
            .execution_options(synchronize_session=False)
        )

    database().run(work, patience=patience)
    ids = [str(instruction_id) for instruction_id in instruction_ids]
    database().statement(_SIGN_OF_LIFE, {"ids": ids}, patience=patience)
