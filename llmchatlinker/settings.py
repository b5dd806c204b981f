"""Every setting, read from the environment once and frozen.

Each setting is a field here, an environment variable ``LLMCHATLINKER_<FIELD IN UPPER CASE>``, and a
row of docs/reference/settings.md (``make reference``; a test compares). Durations are seconds, sizes
are bytes.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from llmchatlinker.errors import ConfigurationError

PREFIX = "LLMCHATLINKER_"

#: Between two brokers. Not every semicolon: one in a password that should have been quoted is none.
_NEXT_NODE = re.compile(r";(?=(?:amqps?|pyamqp)://)")


def _setting(
    default: Any,
    about: str,
    *,
    secret: bool = False,
    zero: bool = False,
    choices: tuple[str, ...] = (),
) -> Any:
    metadata = {"about": about, "secret": secret, "zero": zero, "choices": choices}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """What can be set. ``from_environment`` is the one way to make it outside tests."""

    database_url: str = _setting(
        "postgresql://127.0.0.1:5432/llmchatlinker",
        "PostgreSQL: instructions, results, users, chats, messages",
        secret=True,
    )
    broker_url: str = _setting(
        "amqp://127.0.0.1:5672//", "RabbitMQ (amqp:// or amqps://)", secret=True
    )
    broker_ca_file: str = _setting(
        "", "certificate authority of an amqps:// broker, as a PEM file; else the system's"
    )
    broker_cert_file: str = _setting(
        "", "this client's certificate for an amqps:// broker that asks for one, as a PEM file"
    )
    broker_key_file: str = _setting("", "the key of that certificate, as a PEM file")
    broker_api_url: str = _setting(
        "", "RabbitMQ's management HTTP API, for `llmchatlinker broker apply`", secret=True
    )
    secret_keys: str = _setting(
        "",
        "Fernet keys for API keys at rest, comma-separated: the first encrypts, all decrypt",
        secret=True,
    )
    database_pool_size: int = _setting(10, "PostgreSQL connections per process, at most")
    broker_pool_size: int = _setting(
        10, "publishing connections to the broker per process, at most"
    )
    client_patience: float = _setting(
        4.0, "seconds a client tries to reach PostgreSQL or the broker before it says so"
    )
    confirm_timeout: float = _setting(
        4.0, "seconds to wait for the broker to confirm a published message"
    )
    deadline: float = _setting(60.0, "seconds an instruction may take, unless it says otherwise")
    generation_deadline: float = _setting(
        600.0, "the same for LLM_RESPONSE_GENERATE and _REGENERATE"
    )
    turn_policy: str = _setting(
        "enqueue",
        "what a turn does that finds its chat busy: enqueue, reject, interrupt or rollback",
        choices=("enqueue", "reject", "interrupt", "rollback"),
    )
    in_doubt: str = _setting(
        "fail",
        "after a worker died at a call of which nothing was shown yet: fail, or retry it, until as many "
        "calls are in doubt as a stage has starts",
        choices=("fail", "retry"),
    )
    user_concurrency: int = _setting(16, "generations of one user at once; the others wait")
    user_requests_per_minute: int = _setting(
        0, "calls of providers for one user in a minute; the others wait. 0: any number", zero=True
    )
    provider_retries: int = _setting(
        2, "how often a call that failed before its first token is made again", zero=True
    )
    cooldown_failures: int = _setting(
        5, "failures of a provider in a row before nobody calls it for a while"
    )
    cooldown: float = _setting(5.0, "seconds of that while; doubled each time it fails again")
    cooldown_max: float = _setting(60.0, "the longest such while")
    fallback_interval: float = _setting(
        2.0, "seconds between two looks for results whose wake-up may have been lost"
    )
    poll_interval: float = _setting(
        0.004, "seconds before the second look where nothing wakes (embedded mode); then it grows"
    )
    poll_interval_max: float = _setting(0.25, "seconds between two such looks, at most")
    lease: float = _setting(30.0, "seconds a worker owns a provider call without a heartbeat")
    sweep_interval: float = _setting(5.0, "seconds between two sweeps for what has no live owner")
    sweep_grace: float = _setting(10.0, "seconds a stage may wait before the sweeper looks at it")
    starts: int = _setting(
        3, "how often a stage that ends its worker is begun before it counts as poison"
    )
    event_retention: float = _setting(
        86_400.0, "seconds that each event of a finished response is kept; then its text as a whole"
    )
    instruction_retention: float = _setting(
        604_800.0, "seconds that an instruction that has ended, its result and its stream are kept"
    )
    task_result_retention: float = _setting(
        86_400.0, "seconds that results of other Celery tasks are kept"
    )
    dead_letter_retention: float = _setting(2_592_000.0, "seconds that dead letters are kept")
    ledger_retention: float = _setting(
        34_560_000.0,
        "seconds that calls of providers stay in the ledger, and in USAGE_LIST; 0: for ever",
        zero=True,
    )
    record_retention: float = _setting(
        0.0, "seconds that records of recorded users are kept; 0: until they are deleted", zero=True
    )
    instruction_bytes: int = _setting(1_048_576, "size of an instruction's JSON text, at most")
    result_bytes: int = _setting(
        16_777_216,
        "size of a result as JSON text, at most; answers of LLMs have a limit of their own",
    )
    max_open: int = _setting(
        100_000, "instructions under way in the whole system; more are refused as overloaded"
    )
    max_open_per_user: int = _setting(
        1000, "generations of one user under way; more are refused as overloaded"
    )
    stop_timeout: float = _setting(
        25.0, "seconds that a worker which is to stop lets its work finish; the rest is handed back"
    )
    concurrency: int = _setting(32, "instructions a worker process works on at once (threads)")
    provider_connect_timeout: float = _setting(5.0, "seconds to connect to a provider")
    provider_first_token_timeout: float = _setting(
        120.0, "seconds until the first piece of a streamed answer"
    )
    provider_read_timeout: float = _setting(120.0, "seconds between two pieces of an answer")
    provider_total_timeout: float = _setting(300.0, "seconds for a whole answer")
    provider_answer_bytes: int = _setting(16_777_216, "size of a provider's answer, at most")
    provider_hosts: str = _setting(
        "",
        "hosts that providers may have, with commas: *.names, addresses, networks; else any",
    )
    provider_private_addresses: str = _setting(
        "allow",
        "whether providers may have private, local and link-local addresses: allow or refuse",
        choices=("allow", "refuse"),
    )
    remote_control: str = _setting(
        "look",
        "what workers do that is asked by remote control: look (answer questions, and revoke), or all",
        choices=("look", "all"),
    )
    heartbeat_file: str = _setting(
        "", "file that a worker touches while it is connected, for health probes"
    )
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING or ERROR")
    log_format: str = _setting(
        "plain", "lines of a worker's log: plain, or json", choices=("plain", "json")
    )
    metrics_port: int = _setting(
        0, "port of a worker's metrics, or the next that is free; 0: none", zero=True
    )
    metrics_host: str = _setting("127.0.0.1", "address of that port")
    metrics_textfile: str = _setting(
        "", "file that a worker writes its metrics to, for node_exporter; %n is the worker's name"
    )
    tracing: str = _setting(
        "off", "OpenTelemetry's traces, with the extra [tracing]: on or off", choices=("off", "on")
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``LLMCHATLINKER_*``; raise ConfigurationError for a value of the wrong kind."""
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        for item in fields(cls):
            raw = environ.get(PREFIX + item.name.upper())
            if raw is None or raw == "":
                continue
            values[item.name] = _convert(item.name, raw, type(item.default))
        settings = cls(**values)
        _check(settings)
        return settings

    @property
    def sqlalchemy_url(self) -> str:
        """``database_url`` with our driver: SQLAlchemy 2.1 takes ``postgresql://`` for psycopg 3."""
        scheme, separator, rest = self.database_url.partition("://")
        if not separator or scheme not in ("postgresql", "postgres", "postgresql+psycopg2"):
            raise ConfigurationError(
                f"{PREFIX}DATABASE_URL must start with postgresql://, not {scheme!r}."
            )
        return "postgresql+psycopg2://" + rest

    @property
    def broker_addresses(self) -> list[str]:
        """The nodes of ``broker_url``, split as kombu does: clients and workers try them in turn."""
        return [url for url in self.broker_url.split(";") if url] or [""]

    @property
    def broker_is_embedded(self) -> bool:
        """Whether messages travel through PostgreSQL (one-machine mode) rather than RabbitMQ."""
        return self.broker_url.startswith(("sqla+", "sqlalchemy+"))


def without_password(url: str) -> str:
    """The address in ``url`` as it may be shown: user and host, no password, no query. Several brokers
    with semicolons are shown as several.

    Works on what is no valid address as well: a password that should have been quoted must not show
    just because of that. So everything before the last @ but the user's name goes.
    """
    nodes = _NEXT_NODE.split(url)
    if len(nodes) > 1:
        return ";".join(without_password(node) for node in nodes)
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "(no address)"
    before, at, host = rest.rpartition("@")
    host = host.partition("?")[0].partition("#")[0]
    if host.startswith("/") or not host:
        host = "localhost" + host
    user = before.partition(":")[0] if at else ""
    return f"{scheme}://{user}@{host}" if user else f"{scheme}://{host}"


def _convert(name: str, raw: str, kind: type) -> Any:
    try:
        return kind(raw)
    except ValueError:
        wanted = {int: "a whole number", float: "a number of seconds"}.get(kind, kind.__name__)
        raise ConfigurationError(f"{PREFIX}{name.upper()} must be {wanted}.") from None


def _check(settings: Settings) -> None:
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, int | float) and not 0 < value < math.inf:  # nan is neither
            if value == 0 and item.metadata["zero"]:
                continue
            raise ConfigurationError(f"{PREFIX}{item.name.upper()} must be greater than 0.")
        choices = item.metadata["choices"]
        if choices and value not in choices:
            raise ConfigurationError(
                f"{PREFIX}{item.name.upper()} must be one of {', '.join(choices)}."
            )
    _ = settings.sqlalchemy_url  # says at start what would else be said at the first query


_current: Settings | None = None


def get_settings() -> Settings:
    """The process's settings; the environment is read at the first call."""
    global _current
    if _current is None:
        _current = Settings.from_environment()
    return _current


def use_settings(settings: Settings | None) -> None:
    """Replace the process's settings (``None``: read the environment anew at the next use).

    For programs that set LLMChatLinker up themselves, before its first use.
    """
    global _current
    _current = settings
