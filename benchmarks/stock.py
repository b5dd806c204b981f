"""The same cycle as a user of stock Celery would write it, by Celery's documentation.

What is the same as ours: a chain of three tasks on three quorum queues, publisher confirms, late
acknowledgement, prefetch 1, JSON, the pool and the number of its slots; PostgreSQL as the place of
results; and four commits per instruction:

=========  =============================  ========================================
stage      ours                           stock
=========  =============================  ========================================
submit     the instruction's row          (nothing: the data travel in the message)
decode     lock, update the row           insert the instruction's row
           (nothing: results are rows)    Celery stores the task's result
execute    lock, SELECT users, update     SELECT users (nothing to commit)
           (nothing)                      Celery stores the task's result
store      update the row                 Celery stores the task's result
=========  =============================  ========================================

So stock promises less (no row before the message, no exactly-once, no record) for as many commits.
It sends no task events, which is its default, and ours does: with confirms on a pool of threads they
would stall its worker (the hub's thread reads from the connection on which another one waits for a
confirm, celery/worker/consumer/events.py), and its figures would be those of the stalls.
Its own queries use one pool per process, as SQLAlchemy's documentation advises; the result backend
is ``db+postgresql`` as Celery ships it.
"""

from __future__ import annotations

import functools
import os
import uuid
from pathlib import Path
from typing import Any

import requests
from celery import Celery, chain
from celery.result import AsyncResult
from celery.signals import worker_ready
from kombu import Exchange, Queue
from sqlalchemy import Engine, create_engine, text

DATABASE_URL = "BENCH_DATABASE_URL"
BROKER_URL = "BENCH_BROKER_URL"
READY_FILE = "BENCH_READY_FILE"
PROVIDER_URL = "BENCH_PROVIDER_URL"

QUEUES = ("control", "user", "llm.generate", "database")
TABLE = """
    CREATE TABLE stock_instructions (
        id uuid PRIMARY KEY, type text NOT NULL, data jsonb NOT NULL,
        decoded_at timestamptz NOT NULL DEFAULT now()
    )
"""

_exchange = Exchange("stock", type="topic", durable=True)

app = Celery("stock", set_as_current=False)
app.conf.update(
    broker_url=os.environ.get(BROKER_URL),
    result_backend=f"db+{os.environ.get(DATABASE_URL)}",
    broker_transport_options={"confirm_publish": True},
    task_queues=[
        Queue(
            name,
            _exchange,
            routing_key=name,
            durable=True,
            queue_arguments={"x-queue-type": "quorum"},
        )
        for name in QUEUES
    ],
    task_default_exchange="stock",
    task_default_exchange_type="topic",
    task_default_queue="database",
    task_default_routing_key="database",
    task_routes={
        "stock.decode": {"queue": "control"},
        "stock.user_list": {"queue": "user"},
        "stock.generate": {"queue": "llm.generate"},
        "stock.store": {"queue": "database"},
    },
    task_create_missing_queues=False,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_serializer="json",
    result_serializer="json",
    accept_content=["json"],
)


@functools.cache
def _engine(pid: int) -> Engine:
    """One pool per process: a child of a fork must not use its parent's."""
    return create_engine(os.environ[DATABASE_URL], pool_size=10, max_overflow=0)


@app.task(name="stock.decode")  # type: ignore[untyped-decorator]  # Celery is not typed
def decode(type_name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Validate, and keep a row of the instruction."""
    if not isinstance(data, dict):
        raise TypeError("data must be an object")
    statement = text(
        "INSERT INTO stock_instructions (id, type, data) VALUES (:id, :type, CAST(:data AS jsonb))"
    )
    values = {"id": uuid.uuid4(), "type": type_name, "data": "{}"}
    with _engine(os.getpid()).begin() as connection:
        connection.execute(statement, values)
    return data


@app.task(name="stock.user_list")  # type: ignore[untyped-decorator]
def user_list(data: dict[str, Any]) -> dict[str, Any]:
    """The users, a page of them."""
    statement = text(
        "SELECT id, username, display_name, profile, recording, created_at, updated_at"
        " FROM users WHERE id > :after ORDER BY id LIMIT :limit"
    )
    values = {"after": data.get("after", 0), "limit": data.get("limit", 100)}
    with _engine(os.getpid()).begin() as connection:
        rows = connection.execute(statement, values).mappings().all()
    users = [
        {key: value.isoformat() if key.endswith("_at") else value for key, value in row.items()}
        for row in rows
    ]
    return {"users": users}


@app.task(name="stock.generate")  # type: ignore[untyped-decorator]
def generate(data: dict[str, Any]) -> dict[str, Any]:
    """Ask the provider."""
    body = {"model": "echo", "messages": [{"role": "user", "content": data["user_input"]}]}
    response = requests.post(
        os.environ[PROVIDER_URL] + "/chat/completions", json=body, timeout=(5, 120)
    )
    response.raise_for_status()
    return {"llm_response": response.json()["choices"][0]["message"]}


@app.task(name="stock.store")  # type: ignore[untyped-decorator]
def store(result: dict[str, Any]) -> dict[str, Any]:
    """The envelope; Celery's backend stores it."""
    return {"status": "success", "message": "Done.", "data": result}


def submit(type_name: str, data: dict[str, Any]) -> AsyncResult:
    """Send the chain."""
    execute = generate if type_name == "LLM_RESPONSE_GENERATE" else user_list
    steps = chain(decode.s(type_name, data), execute.s(), store.s(), app=app)
    result: AsyncResult = steps.apply_async()
    return result


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _say_so(**_: Any) -> None:
    path = os.environ.get(READY_FILE)
    if path:
        Path(path).touch()
