"""What is no message of ours, straight onto the queues: each piece becomes a dead letter."""

from __future__ import annotations

import gzip
import json
import pickle
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

from amqp.exceptions import MessageNacked
from kombu import Connection

from faults.plan import Size
from faults.scenario import Scenario
from faults.world import Round, World
from llmchatlinker.topology import QUEUE_NAMES

PATIENCE = 60.0  # seconds
BIG = 20_000_000
JSON = "application/json"

EACH = 3  # of a kind, in a round

#: The body, its content type, its headers, and how it is encoded beside that.
Piece = tuple[bytes, str, dict[str, Any]]


def _task(name: str, *args: object) -> Piece:
    known = str(uuid.uuid4())
    headers = {"lang": "py", "task": name, "id": known, "root_id": known, "argsrepr": "?"}
    return json.dumps([list(args), {}, {}]).encode(), JSON, headers


def _pickled() -> Piece:
    _, _, headers = _task("llmchatlinker.database.store")
    return pickle.dumps(([str(uuid.uuid4())], {}, {})), "application/x-python-serialize", headers


def _yaml() -> Piece:
    body = f"- [{uuid.uuid4()}]\n- !!python/object/apply:os.getpid []\n- {{}}\n"
    return body.encode(), "application/x-yaml", _task("llmchatlinker.database.store")[2]


def _compressed() -> Piece:
    body, content_type, headers = _task("llmchatlinker.database.store", str(uuid.uuid4()))
    return gzip.compress(body), content_type, headers | {"compression": "application/x-gzip"}


KINDS: dict[str, Callable[[], Piece]] = {
    "unregistered task": lambda: _task("somebody.elses.task", 1),
    "bad JSON": lambda: (b'[["half', JSON, _task("llmchatlinker.database.store")[2]),
    "pickle": _pickled,
    "YAML": _yaml,
    "compressed": _compressed,
    "foreign headers": lambda: (b"{}", JSON, {"x-else": ["anything", 1], "task": 7}),
    "no instruction id": lambda: _task("llmchatlinker.control.decode", "; DROP TABLE users"),
    "20 MB": lambda: (b'["' + b"x" * BIG + b'"]', JSON, {}),
}


def throw(world: World, rng: random.Random) -> Counter[str]:
    """Pieces of each kind, each on any queue."""
    count = "SELECT count(*) FROM dead_letters"
    ((before,),) = world.place.sql(count)
    done: Counter[str] = Counter()
    names = [name for name in KINDS for _ in range(1 if world.short else EACH)]
    rng.shuffle(names)
    options = {"confirm_publish": True}  # what the broker refuses for a moment is thrown again
    with (
        Connection(world.place.broker_url, transport_options=options) as connection,
        connection.channel() as channel,
    ):
        for name in names:
            time.sleep(rng.uniform(0, 0.2))
            body, content_type, headers = KINDS[name]()
            message = channel.prepare_message(
                body, content_type=content_type, content_encoding="utf-8", headers=headers
            )
            queue, end = rng.choice(QUEUE_NAMES), time.monotonic() + PATIENCE
            while not _taken(channel, message, queue) and time.monotonic() < end:
                time.sleep(0.1)
            done[name] += 1
    end = time.monotonic() + PATIENCE
    while world.place.sql(count)[0][0] - before < done.total() and time.monotonic() < end:
        time.sleep(0.1)
    done["dead letters kept"] = world.place.sql(count)[0][0] - before
    return done


def _taken(channel: Any, message: Any, queue: str) -> bool:
    try:
        channel.basic_publish(message, exchange="", routing_key=queue)
    except MessageNacked:
        return False
    return True


def all_kept(_: World, done: Round) -> str:
    """Empty, or what is wrong."""
    kept = done.faults["dead letters kept"]
    thrown = sum(done.faults[name] for name in KINDS)
    done.faults["junk"] = thrown
    return "" if kept == thrown else f"{kept} dead letters of {thrown} pieces of junk"


SCENARIOS = (
    Scenario("junk", 5, throw, Size(3, 2, 10, spread=3.0), after=all_kept, goals={"junk": 100}),
)
