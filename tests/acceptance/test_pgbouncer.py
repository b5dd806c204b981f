"""A worker and a client whose PostgreSQL is behind a real PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.db.sessions import Database, use_database
from llmchatlinker.settings import get_settings
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.servers import cannot_test
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker
from tests.servers import scripts
from tests.servers.pgbouncer import PrivatePgBouncer
from tests.servers.private import StartError
from tests.servers.provider import ScriptedProvider

POOL_SIZE = 3
CALLERS = 12


@pytest.fixture
def pooled(cycle: Cycle, configure: Configure) -> Iterator[Database]:
    """From here on this process, and the workers that it starts, go by way of PgBouncer.

    ``cycle`` has the database itself, as whoever migrates it must.
    """
    direct = get_settings().database_url
    try:
        with PrivatePgBouncer(direct, POOL_SIZE) as pooler:
            database = Database(configure(database_url=pooler.url(direct)))
            use_database(database)
            yield database
            use_database(None)
    except StartError as error:
        cannot_test("PgBouncer", error)


def server_connections(cycle: Cycle) -> set[int]:
    """PostgreSQL's processes that serve the test's database, less the one that is asked."""
    rows = cycle.sql(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return {row[0] for row in rows}


def test_every_kind_of_work_is_done_by_way_of_pgbouncer(
    pooled: Database, cycle: Cycle, provider: ScriptedProvider, worker: StartWorker
) -> None:
    lost = cycle.submit("USER_LIST")
    assert cycle.broker.take("control") is not None
    process = worker(sweep_interval=0.2, sweep_grace=0.5)
    client = LLMChatLinkerClient()

    # Many at once, on fewer connections than there are callers.
    made = at_once([partial(client.create_user, f"user {n}") for n in range(CALLERS)])
    listed = at_once([client.list_users] * CALLERS)
    assert [envelope["status"] for envelope in [*made, *listed]] == ["success"] * 2 * CALLERS
    assert 1 < len(server_connections(cycle)) <= POOL_SIZE

    user_id = made[0]["data"]["user"]["user_id"]
    chat_id = client.create_chat("talk", user_ids=[user_id])["data"]["chat"]["chat_id"]
    added = client.add_llm_provider("scripted", provider.base_url, settings={"max_concurrency": 1})
    provider_id = added["data"]["provider"]["provider_id"]
    llm_id = client.add_llm(provider_id, "echo")["data"]["llm"]["llm_id"]
    turn = {"user_id": user_id, "chat_id": chat_id, "llm_id": llm_id}

    answered = client.generate_llm_response(user_id, chat_id, provider_id, llm_id, "Hello")
    assert answered["status"] == "success", answered
    assert client.get_chat(chat_id)["data"]["chat"]["messages"][0]["content"] == "Hello"

    provider.script(scripts.slow(20, 100))
    with client.stream(**turn, user_input="Count.") as streamed:
        said = "".join(event.text for event in streamed)
    assert said.split() == [str(number) for number in range(20)]
    followed = "".join(event.text for event in client.follow(streamed.instruction_id))
    assert followed == said

    provider.script(scripts.slow(10_000, 50))
    endless = client.submit("LLM_RESPONSE_GENERATE", **turn, user_input="Go on.")
    eventually(lambda: cycle.count("events", "instruction_id = :id", id=endless.id) > 1)
    endless.revoke()
    assert endless.get(timeout=60)["error"]["code"] == "cancelled"

    # Its message is gone: the sweeper has sent it on.
    assert client.result(str(lost)).get(timeout=60)["status"] == "success"
    # Nothing that another client of the same connection would find.
    kept = at_once([lambda: pooled.statement("SELECT * FROM pg_prepared_statements", {})] * CALLERS)
    assert kept == [[]] * CALLERS
    assert " ERROR " not in process.log_text()
