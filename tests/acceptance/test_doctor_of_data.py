"""``llmchatlinker doctor`` of PostgreSQL, keys and providers: what it finds, it says how to mend."""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg2

from llmchatlinker.celery_app import ROOT
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.db.migrate import migrate, revisions
from llmchatlinker.db.sessions import Database
from llmchatlinker.secrets import generate_key
from llmchatlinker.settings import Settings, get_settings
from tests.fixtures import made_up_migrations
from tests.fixtures.commands import Doctor, Run
from tests.fixtures.servers import PostgresServer, private_postgres
from tests.fixtures.threads import eventually
from tests.fixtures.workers import STOP_SECONDS, StartWorker
from tests.servers import scripts
from tests.servers.provider import ScriptedProvider


def test_a_missing_migration_is_found_and_migrate_applies_it(
    database: Database, doctor: Doctor, command: Run, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    for part in ("llmchatlinker", "workers"):
        shutil.copytree(ROOT / part, newer / part)
    shutil.copy(ROOT / "celeryconfig.py", newer)
    made_up_migrations.write(newer / "llmchatlinker" / "db" / "migrations" / "versions")
    upgraded = {"PYTHONPATH": str(newer)}

    found = doctor(code=1, env=upgraded)

    assert found["migrations"] == ("fail", "missing: 9999", "llmchatlinker migrate")
    assert "secret keys" not in found  # tables that may not be there are not read
    assert command(*found["migrations"][2].split()[1:], env=upgraded).stdout == "Applied: 9999\n"
    assert doctor(code=1, env=upgraded)["migrations"][0] == "ok"  # no worker runs


def test_a_database_that_was_never_migrated_is_found(
    postgres_server: PostgresServer, database_name: str, doctor: Doctor, command: Run
) -> None:
    name = f"{database_name}_empty"
    settings = {"database_url": postgres_server.create(name)}
    try:
        state, found, remedy = doctor(code=1, settings=settings)["migrations"]
        assert (state, found) == ("fail", f"missing: {', '.join(revisions())}")
        command(*remedy.split()[1:], settings=settings)
        assert doctor(code=1, settings=settings)["migrations"][0] == "ok"  # no worker runs
    finally:
        postgres_server.drop(name)


def test_connections_that_are_nearly_or_all_in_use_are_found(doctor: Doctor) -> None:
    remedy = (
        "Raise PostgreSQL's max_connections, or lower LLMCHATLINKER_DATABASE_POOL_SIZE "
        f"({get_settings().database_pool_size} for each process)."
    )
    with private_postgres(max_connections="20") as server, ExitStack() as opened:
        url = server.url("postgres")
        plain = url.replace("postgresql+psycopg2", "postgresql")
        target = Database(Settings(database_url=url))
        migrate(target)
        target.dispose()

        def take() -> None:
            connection = psycopg2.connect(plain)
            opened.callback(connection.close)

        assert doctor(code=1, settings={"database_url": url})["connections"][0] == "ok"
        for _ in range(14):
            take()
        assert doctor(code=1, settings={"database_url": url})["connections"] == (
            "warn",
            "15 of 17 in use, 1 of them LLMChatLinker's: no room for one more process",
            remedy,
        )
        lower = {"database_url": url, "database_pool_size": 2}
        assert doctor(code=1, settings=lower)["connections"][0] == "ok"

        # The doctor's own is gone once PostgreSQL has noticed that; one of the six asks for that.
        asking = opened.enter_context(closing(psycopg2.connect(plain)))
        asking.autocommit = True
        cursor = asking.cursor()

        def used() -> int:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            )
            return int(cursor.fetchone()[0])

        eventually(lambda: used() == 15)
        for _ in range(5):
            take()
        full = {"database_url": url, "client_patience": 1.0}
        state, found, remedy = doctor(code=1, settings=full)["database"]
        assert state == "fail"
        assert found.endswith("sorry, too many clients already.")
        assert remedy == (
            "All its connections are in use: raise its max_connections, or lower "
            "LLMCHATLINKER_DATABASE_POOL_SIZE."
        )


def test_a_key_that_was_lost_is_found_and_can_be_put_back_or_done_without(
    worker: StartWorker, provider: ScriptedProvider, doctor: Doctor, command: Run
) -> None:
    first = get_settings().secret_keys
    worker()
    client = LLMChatLinkerClient()
    client.add_llm_provider("scripted", provider.base_url, api_key="sk-very-secret")
    assert doctor()["secret keys"] == ("ok", "set; they open what is stored (1)", "")

    unset = doctor(settings={"secret_keys": ""})["secret keys"]
    assert unset == (
        "warn",
        "not set here, and 1 providers or LLMs have secrets",
        "Workers of control, llm and llm.generate need LLMCHATLINKER_SECRET_KEYS; set it here, too, "
        "to have it checked.",
    )

    other = command("keys", "generate").stdout.strip()
    lost = doctor(code=1, settings={"secret_keys": other})["secret keys"]
    assert lost == (
        "fail",
        "they don't open the secrets of scripted",
        "Put the key that is missing back into LLMCHATLINKER_SECRET_KEYS, or set the API keys anew "
        "with LLM_PROVIDER_UPDATE.",
    )
    assert doctor(settings={"secret_keys": f"{other},{first}"})["secret keys"][0] == "ok"
    wrong = doctor(code=1, settings={"secret_keys": "nonsense"})["secret keys"]
    assert wrong[0] == "fail" and "no Fernet key" in wrong[1]


def test_workers_whose_key_was_lost_are_found_and_the_api_key_set_anew_mends_them(
    worker: StartWorker, provider: ScriptedProvider, doctor: Doctor, command: Run
) -> None:
    old = worker()
    client = LLMChatLinkerClient()
    client.add_llm_provider("scripted", provider.base_url, api_key="sk-very-secret")
    old.stop(STOP_SECONDS)
    worker(secret_keys=generate_key())

    state, found, remedy = doctor(code=1)["provider scripted"]

    assert state == "fail"
    assert "encrypted with a key that LLMCHATLINKER_SECRET_KEYS no longer holds" in found
    assert remedy == (
        "Mend that setting of the workers; what no key opens can be set anew: LLM_PROVIDER_UPDATE, "
        "provider_id 1."
    )
    command("send", "LLM_PROVIDER_UPDATE", "provider_id=1", "api_key=sk-very-secret")
    mended = doctor(code=1)
    assert mended["provider scripted"][0] == "ok"
    assert mended["secret keys"][0] == "fail"  # now it is this machine that has another key


def test_providers_that_do_not_answer_or_refuse_the_key_or_lack_the_llm_are_found(
    worker: StartWorker, provider: ScriptedProvider, doctor: Doctor, command: Run
) -> None:
    worker()
    client = LLMChatLinkerClient()
    client.add_llm_provider("scripted", provider.base_url)
    client.add_llm(1, "echo")
    place = f"Check that it runs at {provider.base_url}, as seen from the workers."

    gate = scripts.Gate(provider.models_script)
    right, provider.models_script = provider.models_script, gate
    state, found, remedy = doctor(code=1)["provider scripted"]
    assert (state, remedy) == ("fail", place), found
    gate.open()

    provider.models_script = scripts.error(500)
    assert doctor(code=1)["provider scripted"][2] == place

    def with_the_key(exchange: Any) -> None:
        given = exchange.request.headers.get("authorization")
        (right if given == "Bearer sk-right" else scripts.error(401))(exchange)

    provider.models_script = with_the_key
    state, found, remedy = doctor(code=1)["provider scripted"]
    assert (state, remedy) == ("fail", "Set its API key: LLM_PROVIDER_UPDATE, provider_id 1."), (
        found
    )
    command("send", "LLM_PROVIDER_UPDATE", "provider_id=1", "api_key=sk-right")
    assert doctor()["provider scripted"] == ("ok", "answers; it lists 1 models", "")

    client.add_llm(1, "gone")
    state, found, remedy = doctor()["provider scripted"]
    assert (state, found) == ("warn", "answers, and does not list gone")
    named = re.search(r"`llmchatlinker (send [^`]+)` shows", remedy)
    assert named is not None, remedy
    assert '"echo"' in command(*named[1].split()).stdout
