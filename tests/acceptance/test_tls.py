"""TLS to both servers, with certificates of our own: used, and checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.sessions import Database, use_database
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.errors import ConfigurationError, Unavailable
from llmchatlinker.instructions import USER_CREATE
from llmchatlinker.settings import Settings, get_settings
from tests.fixtures.brokers import Broker, let_replies_end, reconnect
from tests.fixtures.configuration import Configure
from tests.fixtures.servers import cannot_test, private_postgres
from tests.fixtures.workers import workers_in
from tests.servers import HOST, free_ports
from tests.servers.certificates import Authority, Certificate
from tests.servers.install import InstallError
from tests.servers.rabbitmq import PrivateRabbitMQ, RabbitMQError
from tests.servers.tls_front import TlsFront


@dataclass(frozen=True)
class Guarded:
    """Two servers spoken to by TLS only; RabbitMQ hears nobody who has no certificate."""

    authority: Authority
    stranger: Authority
    client: Certificate
    broker_url: str
    database_url: str

    def settings(self) -> dict[str, str]:
        """Those that work."""
        return {
            "broker_url": self.broker_url,
            "broker_ca_file": str(self.authority.file),
            "broker_cert_file": str(self.client.cert),
            "broker_key_file": str(self.client.key),
            "database_url": self.database(self.authority),
        }

    def database(self, authority: Authority) -> str:
        """The database's URL for a client that trusts that authority."""
        trusts = {"sslmode": "verify-full", "sslrootcert": str(authority.file)}
        return f"{self.database_url}?{urlencode(trusts)}"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the certificates are."""
    with tempfile.TemporaryDirectory(prefix="llmchatlinker-tls-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[Guarded]:
    """Both servers, and a migrated database."""
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    server = authority.sign("server")
    (port,) = free_ports(1)
    node = PrivateRabbitMQ(
        settings={
            "listeners.ssl.default": f"{HOST}:{port}",
            "ssl_options.cacertfile": str(authority.file),
            "ssl_options.certfile": str(server.cert),
            "ssl_options.keyfile": str(server.key),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }
    )
    try:
        node.start()
    except (RabbitMQError, InstallError, OSError) as error:
        cannot_test("RabbitMQ", error)
    try:
        with private_postgres() as postgres:
            url = _migrated(postgres)
            with TlsFront(url, server) as front:
                parts = urlsplit(node.url)
                netloc = f"{parts.netloc.rpartition(':')[0]}:{port}"
                broker_url = parts._replace(scheme="amqps", netloc=netloc).geturl()
                client = authority.sign("client")
                yield Guarded(authority, stranger, client, broker_url, front.url)
    finally:
        let_replies_end()
        node.stop()


def _migrated(postgres: EmbeddedPostgres) -> str:
    url = postgres.url("postgres")
    target = Database(Settings(database_url=url))
    migrate(target)
    target.dispose()
    return url


@pytest.fixture
def secured(guarded: Guarded, configure: Configure) -> Iterator[Guarded]:
    """The process uses them, and nothing else."""
    use_database(Database(configure(client_patience=3.0, **guarded.settings())))
    reconnect()
    yield guarded
    use_database(None)
    configure(**{name: "" for name in guarded.settings() if name.startswith("broker_")})
    configure(broker_url="amqp://127.0.0.1:1//")
    reconnect()


def test_a_worker_and_a_client_work_by_tls_alone(
    secured: Guarded, configure: Configure, tmp_path: Path
) -> None:
    configure(client_patience=30.0)
    with workers_in(tmp_path) as start:
        start()

        assert USER_CREATE.delay(username="ada").get(timeout=60)["status"] == "success"


def test_a_broker_whose_certificate_nobody_trusts_is_not_spoken_to(
    secured: Guarded, configure: Configure
) -> None:
    configure(broker_ca_file=str(secured.stranger.file))
    reconnect()

    with pytest.raises(Unavailable, match="certificate verify failed"):
        USER_CREATE.delay(username="bob")


def test_amqps_alone_checks_the_certificate_too(secured: Guarded, configure: Configure) -> None:
    configure(broker_ca_file="")
    reconnect()

    with pytest.raises(Unavailable, match="certificate verify failed"):
        USER_CREATE.delay(username="bob")


def test_a_client_without_a_certificate_is_turned_away(
    secured: Guarded, configure: Configure
) -> None:
    configure(broker_cert_file="", broker_key_file="")
    reconnect()

    with pytest.raises(Unavailable):
        USER_CREATE.delay(username="bob")


def test_a_database_whose_certificate_nobody_trusts_is_not_spoken_to(
    secured: Guarded, configure: Configure
) -> None:
    use_database(Database(configure(database_url=secured.database(secured.stranger))))

    with pytest.raises(Unavailable, match="certificate verify failed"):
        USER_CREATE.delay(username="bob")


def test_files_for_a_broker_without_tls_are_a_mistake(broker: Broker, configure: Configure) -> None:
    configure(broker_ca_file="/ca.pem")

    with pytest.raises(ConfigurationError, match="amqps"):
        reconnect()
    assert get_settings().broker_url.startswith("amqp://")
    configure(broker_ca_file="")
