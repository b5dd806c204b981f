"""What is kept of Celery tasks that are no instructions: their results, and saved groups.

Values travel as Celery writes JSON, so that what its serializer knows (dates, UUIDs, decimals, sets of
nothing but text, …) comes back as what it was (``kombu/utils/json.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from celery import states
from kombu.exceptions import DecodeError
from kombu.serialization import dumps, loads

from llmchatlinker.db.sessions import database

Meta = dict[str, Any]

_JSON = "application/json"
#: What a stored result counts as that is no JSON, as Celery keeps a failure.
UNREADABLE = {
    "exc_type": "DecodeError",
    "exc_message": ["The stored result is no JSON."],
    "exc_module": "kombu.exceptions",
}

_KEEP = """
    INSERT INTO task_results AS kept (task_id, status, result, traceback, meta)
    VALUES (%(task_id)s, %(status)s, %(result)s, %(traceback)s, %(meta)s)
    ON CONFLICT (task_id) DO UPDATE
       SET status = excluded.status, result = excluded.result, traceback = excluded.traceback,
           meta = excluded.meta, date_done = now()
     WHERE kept.status <> 'SUCCESS' OR %(anew)s
"""

_READ = """
    SELECT task_id, status, result, traceback, meta, date_done
      FROM task_results WHERE task_id = ANY (%(ids)s)
"""


def keep(
    task_id: str,
    status: str,
    result: Any,
    traceback: str | None,
    meta: Mapping[str, Any],
    *,
    anew: bool = False,
    patience: float | None = None,
) -> None:
    """Keep a result. A task that is delivered twice keeps its first success, unless ``anew``.

    Raises kombu's EncodeError for what is no JSON; Celery makes a failure of that.
    """
    values = {
        "task_id": task_id,
        "status": status,
        "result": encoded(result),
        "traceback": traceback and _storable(traceback),
        "meta": encoded(dict(meta)),
        "anew": anew,
    }
    database().statement(_KEEP, values, patience=patience)


def read_tasks(task_ids: Sequence[str], patience: float | None = None) -> dict[str, Meta]:
    """The metas of those that are there."""
    rows = database().statement(_READ, {"ids": list(task_ids)}, patience=patience, bounded=True)
    found: dict[str, Meta] = {}
    for task_id, status, result, traceback, meta, date_done in rows:
        try:
            value, more = decoded(result), decoded(meta) or {}
        except DecodeError:
            # Not written by us. One such row must not keep all others from being read.
            status, value, more = states.FAILURE, UNREADABLE, {}
        ready = status in states.READY_STATES
        found[task_id] = more | {
            "status": status,
            "result": value,
            "traceback": traceback,
            "date_done": date_done.isoformat() if ready else None,
            "task_id": task_id,
            "known": True,
            "ended": ready,
        }
    return found


def remove(task_id: str, patience: float | None = None) -> None:
    """Forget a result, or a group."""
    statement = "DELETE FROM task_results WHERE task_id = %(task_id)s"
    database().statement(statement, {"task_id": task_id}, patience=patience)


def remove_older(seconds: float) -> None:
    """Forget what was stored longer ago."""
    statement = """
        DELETE FROM task_results WHERE date_done < now() - make_interval(secs => %(seconds)s)
    """
    database().statement(statement, {"seconds": seconds})


def encoded(value: Any) -> str:
    """JSON text, ASCII only."""
    text: str = dumps(value, serializer="json")[2]
    return text


def decoded(text: str | None) -> Any:
    """What was encoded."""
    return None if text is None else loads(text, _JSON, "utf-8", accept={_JSON})


def is_storable(task_id: str) -> bool:
    """Whether PostgreSQL can have such an id at all."""
    return _storable(task_id) == task_id


def _storable(text: str) -> str:
    """The text without what PostgreSQL takes in no text: NUL and lone surrogates."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
