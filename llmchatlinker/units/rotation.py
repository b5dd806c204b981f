"""Rotating the keys of API keys, and of headers, at rest."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.db.models import LLM, Provider
from llmchatlinker.db.sessions import database
from llmchatlinker.settings import get_settings
from llmchatlinker.units.headers import resealed

#: Rows of a transaction: they are locked while it lasts.
BATCH = 100
Kind = type[Provider] | type[LLM]
KINDS: tuple[Kind, ...] = (Provider, LLM)

Report = Callable[[int, int], object]


def rotate_api_keys(report: Report = lambda done, of: None) -> int:
    """Encrypt every stored API key and header anew with the first key; returns how many keys.

    In batches: what was done stays done when a later one fails, and doing it twice does no harm.
    ``report`` is told after each how many providers and LLMs were seen to, and of how many. Raises
    ConfigurationError for one that no key opens.
    """
    patience = get_settings().client_patience
    of = database().run(_count, patience=patience)
    done = keys = 0
    for kind in KINDS:
        after = 0
        while True:
            batch = partial(_batch, kind=kind, after=after)
            last, rows, rotated = database().run(batch, patience=patience)
            if not rows:
                break
            after, done, keys = last, done + rows, keys + rotated
            report(done, max(done, of))
    return keys


def _count(session: Session) -> int:
    return sum(
        session.scalar(select(func.count()).select_from(kind)) or 0 for kind in (Provider, LLM)
    )


def _batch(session: Session, *, kind: Kind, after: int) -> tuple[int, int, int]:
    """The last id, how many rows, and how many of them had an API key."""
    chosen = select(kind).where(kind.id > after).order_by(kind.id).limit(BATCH).with_for_update()
    rows = cast(list[Provider | LLM], session.scalars(chosen).all())
    rotated = 0
    for row in rows:
        row.settings = resealed(row.settings)
        if isinstance(row, Provider) and row.api_key is not None:
            row.api_key = secrets.rotate(row.api_key, get_settings())
            rotated += 1
    return (rows[-1].id if rows else after), len(rows), rotated
