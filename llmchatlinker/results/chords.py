"""Chords of Celery tasks that are no instructions: the last part of a header starts the body.

Celery's general way is a task that looks every second (``celery.chord_unlock``), and its way for Redis
a counter, which a part that is delivered twice would raise twice. Here the group of the header is kept,
and each part that ends looks whether all have. One of them claims the body, under its own task id:
if its process dies before the body is published, its message is delivered again, and it claims anew.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import maybe_signature, states
from celery.exceptions import ChordError
from celery.result import GroupResult, ResultBase, result_from_tuple

from llmchatlinker.db.sessions import database
from llmchatlinker.results.tasks import encoded, read_tasks, remove

logger = logging.getLogger(__name__)

GROUP = "group:"

_CLAIM = """
    UPDATE task_results
       SET meta = %(part)s
     WHERE task_id = %(group)s
       AND meta IN ('{}', %(part)s)
       AND %(members)s = (SELECT count(*) FROM task_results AS members
                           WHERE members.task_id = ANY (%(ids)s) AND members.status = ANY (%(ready)s))
    RETURNING task_id
"""


def part_returned(backend: Any, request: Any) -> None:
    """A part of a header has ended; publish the body if it was the last one."""
    group_id = request.group
    if not group_id:
        return
    kept = read_tasks([GROUP + group_id]).get(GROUP + group_id)
    if kept is None:
        logger.info("Chord %s: its body is on its way already, or its group was deleted", group_id)
        return
    header = result_from_tuple(kept["result"], backend.app)
    ids = sorted(set(_leaves(header)))
    values = {
        "part": encoded({"claimed_by": request.id}),
        "group": GROUP + group_id,
        "ids": ids,
        "members": len(ids),
        "ready": sorted(states.READY_STATES),
    }
    if database().statement(_CLAIM, values):
        _end_header(backend, header, ids, maybe_signature(request.chord, app=backend.app))
        remove(GROUP + group_id)


def _end_header(backend: Any, header: Any, ids: list[str], body: Any) -> None:
    metas = {task_id: backend.meta_from_decoded(meta) for task_id, meta in read_tasks(ids).items()}
    for task_id in _leaves(header):
        if metas[task_id]["status"] in states.PROPAGATE_STATES:
            error = metas[task_id]["result"]
            _fail(backend, body, f"Dependency {task_id} raised {error!r}", error)
            return
    try:
        body.delay(_values(header, metas))
    except Exception as error:
        _fail(backend, body, f"Callback error: {error!r}", error)


def _fail(backend: Any, body: Any, reason: str, cause: Exception) -> None:
    logger.error("A chord's body can't run, its result becomes a ChordError")
    error = ChordError(reason)
    error.__cause__ = cause
    backend.chord_error_from_stack(callback=body, exc=error)


def _leaves(result: ResultBase) -> list[str]:
    if isinstance(result, GroupResult):
        return [leaf for member in result.results for leaf in _leaves(member)]
    return [str(result.id)]


def _values(result: ResultBase, metas: dict[str, dict[str, Any]]) -> Any:
    if isinstance(result, GroupResult):
        return [_values(member, metas) for member in result.results]
    return metas[str(result.id)]["result"]
