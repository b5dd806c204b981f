"""The six instructions with a PostgreSQL role and RabbitMQ users that may do no more than they need."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg2
import pytest
from amqp.exceptions import AccessRefused
from kombu import Connection

from llmchatlinker.broker_policies import ROLES, user_commands
from llmchatlinker.celery_app import ROOT
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.sessions import Database, use_database
from llmchatlinker.message_queue import publish_message
from llmchatlinker.settings import Settings, get_settings
from tests.acceptance.test_ways_in import six_instructions
from tests.fixtures.brokers import reconnect
from tests.fixtures.configuration import Configure
from tests.fixtures.servers import cannot_test, private_postgres
from tests.fixtures.workers import workers_in
from tests.servers.install import InstallError
from tests.servers.provider import ScriptedProvider
from tests.servers.rabbitmq import PrivateRabbitMQ, RabbitMQError

PASSWORD = secrets.token_hex(8)
SCRIPT = ROOT / "docker" / "postgres-roles.sh"


def roles_sql() -> str:
    """What docker/postgres-roles.sh gives to psql, with psql's variables filled in."""
    text = SCRIPT.read_text(encoding="utf-8").split("<<'SQL'\n")[1].split("\nSQL\n")[0]
    return text.replace(":'password'", f"'{PASSWORD}'").replace(':"DBNAME"', '"postgres"')


@pytest.fixture(scope="module")
def runtime_url() -> Iterator[str]:
    """A database that its owner has migrated, as the runtime role gets to it."""
    with private_postgres() as postgres:
        owner = postgres.url("postgres")
        connection = psycopg2.connect(owner.replace("postgresql+psycopg2", "postgresql"))
        connection.autocommit = True
        connection.cursor().execute(roles_sql())
        connection.close()
        target = Database(Settings(database_url=owner))
        migrate(target)
        target.dispose()
        parts = urlsplit(owner)
        netloc = f"llmchatlinker_runtime:{PASSWORD}@{parts.hostname}:{parts.port}"
        yield parts._replace(netloc=netloc).geturl()


@pytest.fixture(scope="module")
def users() -> Iterator[dict[str, str]]:
    """The broker's URL for a user of each role."""
    node = PrivateRabbitMQ()
    try:
        node.start()
    except (RabbitMQError, InstallError, OSError) as error:
        cannot_test("RabbitMQ", error)
    try:
        parts = urlsplit(node.url)
        urls = {}
        for role, rights in ROLES.items():
            node.ctl("add_user", role, PASSWORD)
            node.ctl("set_permissions", "-p", "/", role, *rights.values())
            netloc = f"{role}:{quote(PASSWORD)}@{parts.hostname}:{parts.port}"
            urls[role] = parts._replace(netloc=netloc).geturl()
        yield urls
    finally:
        node.stop()


@pytest.fixture
def restricted(
    runtime_url: str, users: dict[str, str], configure: Configure
) -> Iterator[dict[str, str]]:
    """The process is a client that may do no more than it needs."""
    use_database(Database(configure(database_url=runtime_url, broker_url=users["client"])))
    reconnect()
    yield users
    use_database(None)
    configure(broker_url="amqp://127.0.0.1:1//")
    reconnect()


def test_the_six_instructions_need_no_more(
    restricted: dict[str, str], secret_keys: str, tmp_path: Path
) -> None:
    with ScriptedProvider() as provider, workers_in(tmp_path) as start:
        process = start(broker_url=restricted["worker"], sweep_interval=0.5)
        envelopes = [
            json.loads(publish_message(text)) for text in six_instructions(provider.base_url)
        ]
        assert [envelope["status"] for envelope in envelopes] == ["success"] * 6
        client = LLMChatLinkerClient()
        turn = {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": "Hello"}
        assert client.submit("LLM_RESPONSE_GENERATE", **turn).get(timeout=60)["status"] == "success"
        process.stop(30)
        assert "ACCESS_REFUSED" not in process.log_text()
        assert "permission denied" not in process.log_text()


def test_the_runtime_role_changes_no_table(restricted: dict[str, str]) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        _execute("CREATE TABLE more (id int)")
    for statement in (
        "DROP TABLE users",
        "ALTER TABLE users ADD COLUMN more int",
        "TRUNCATE users",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            _execute(statement)


def _execute(statement: str) -> None:
    connection = psycopg2.connect(get_settings().database_url.replace("+psycopg2", ""))
    try:
        connection.cursor().execute(statement)
    finally:
        connection.close()


@pytest.mark.parametrize("role", ["client", "flower"])
def test_nobody_else_reads_what_workers_are_sent(restricted: dict[str, str], role: str) -> None:
    with Connection(restricted[role]) as connection, pytest.raises(AccessRefused):
        connection.default_channel.basic_get("database")


def test_flower_puts_no_instruction_in(restricted: dict[str, str]) -> None:
    with Connection(
        restricted["flower"], transport_options={"confirm_publish": True}
    ) as connection:
        channel = connection.default_channel
        message = channel.prepare_message(b"{}")
        with pytest.raises(AccessRefused):
            channel.basic_publish(message, exchange="llmchatlinker", routing_key="control")


def test_the_users_can_be_made_by_hand() -> None:
    settings = Settings(broker_url="amqp://h:5672/chats")

    add, permit = user_commands(settings, "ada", "client")

    assert add == "rabbitmqctl add_user ada"
    assert permit.startswith("rabbitmqctl set_permissions -p 'chats' ada '^(")
