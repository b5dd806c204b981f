"""``doctor``: PostgreSQL, its schema and connections, stored secrets, clocks, the local LLM."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.cli import broker_checks, database_facts
from llmchatlinker.cli.checks import Check, fail, ok, warn
from llmchatlinker.db.migrate import pending
from llmchatlinker.db.models import LLM, Provider
from llmchatlinker.db.sessions import database
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.settings import get_settings
from llmchatlinker.units.headers import opened

OLDEST_DATABASE = 150_000
#: Seconds by which clocks may differ before it is worth a word. Nothing that must be right goes by
#: another clock than PostgreSQL's.
CLOCKS = 5.0
#: Seconds past its deadline after which an instruction should have been ended by a sweeper.
LATE = 60.0
GENERATE = "`llmchatlinker keys generate` prints one."


def server() -> Iterator[Check]:
    """Reachable, and of a version that will do."""
    ((number, version),) = _rows(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    )
    found = f"PostgreSQL {version} at {database().address}"
    if number < OLDEST_DATABASE:
        yield fail("database", found, "PostgreSQL 15 or newer is needed: upgrade it.")
    else:
        yield ok("database", found)


def schema() -> Iterator[Check]:
    """This version's."""
    missing = pending()
    if missing:
        yield fail("migrations", f"missing: {', '.join(missing)}", "llmchatlinker migrate")
    else:
        yield ok("migrations", "up to date")


def connections() -> Iterator[Check]:
    """Room for one more process."""
    found = database_facts.connections()
    pool = get_settings().database_pool_size
    said = f"{found.used} of {found.limit} in use, {found.ours} of them LLMChatLinker's"
    remedy = (
        "Raise PostgreSQL's max_connections, or lower LLMCHATLINKER_DATABASE_POOL_SIZE "
        f"({pool} for each process)."
    )
    if found.used + pool > found.limit:
        yield warn("connections", f"{said}: no room for one more process", remedy)
    else:
        yield ok("connections", said)


def sweeper() -> Iterator[Check]:
    """What is late is ended."""
    ((late,),) = _rows(
        "SELECT count(*) FROM instructions WHERE final_at IS NULL"
        " AND deadline_at < clock_timestamp() - make_interval(secs => %(late)s)",
        {"late": LATE},
    )
    if late:
        yield fail(
            "deadlines",
            f"{late} instructions are open although their deadline is over",
            "Start a worker of `database`: its sweeper ends them.",
        )
    else:
        yield ok("deadlines", "nothing is open beyond its deadline")


def keys() -> Iterator[Check]:
    """They are there, and open what is stored."""
    settings = get_settings()

    def read(session: Session) -> list[tuple[str, bytes | None, dict[str, str]]]:
        providers = session.execute(select(Provider.name, Provider.api_key, Provider.settings))
        found = [(name, token, given.get("headers") or {}) for name, token, given in providers]
        llms = session.execute(select(LLM.llm_name, LLM.settings))
        return found + [(name, None, given.get("headers") or {}) for name, given in llms]

    stored = database().run(read, patience=settings.client_patience)
    sealed = [(name, token, headers) for name, token, headers in stored if token or headers]
    if not settings.secret_keys:
        if sealed:
            yield warn(
                "secret keys",
                f"not set here, and {len(sealed)} providers or LLMs have secrets",
                "Workers of control, llm and llm.generate need LLMCHATLINKER_SECRET_KEYS; set it "
                "here, too, to have it checked.",
            )
        else:
            yield warn(
                "secret keys",
                "not set, so no API key can be stored",
                f"Set LLMCHATLINKER_SECRET_KEYS for the workers: {GENERATE}",
            )
        return
    secrets.encrypt("", settings)
    shut = sorted({name for name, token, headers in sealed if not _opens(token, headers)})
    if shut:
        yield fail(
            "secret keys",
            f"they don't open the secrets of {', '.join(shut)}",
            "Put the key that is missing back into LLMCHATLINKER_SECRET_KEYS, or set the API keys "
            "anew with LLM_PROVIDER_UPDATE.",
        )
    else:
        yield ok("secret keys", f"set; they open what is stored ({len(sealed)})")


def _opens(token: bytes | None, headers: dict[str, str]) -> bool:
    try:
        if token is not None:
            secrets.decrypt(token, get_settings())
        opened(headers)
    except LLMChatLinkerError:
        return False
    return True


def clocks() -> Iterator[Check]:
    """PostgreSQL's and the broker's, beside this machine's."""
    before = time.time()
    ((theirs,),) = _rows("SELECT extract(epoch FROM clock_timestamp())::float8")
    ahead = {"PostgreSQL": theirs - (before + time.time()) / 2}
    of_the_broker = broker_checks.clock()
    if of_the_broker is not None:
        ahead["RabbitMQ"] = of_the_broker
    said = ", ".join(f"{name} {seconds:+.1f} s" for name, seconds in ahead.items())
    if any(abs(seconds) > CLOCKS for seconds in ahead.values()):
        yield warn("clocks", said, "Set this machine's and the servers' clocks by NTP.")
    else:
        yield ok("clocks", f"beside this machine's: {said}")


def local_model() -> Iterator[Check]:
    """Only `run` and `up` need it, so it may be missing."""
    try:
        from llmchatlinker.embedded.model import find_model

        found = find_model()
    except ModuleNotFoundError as error:
        yield ok(
            "local model", f"not installed ({error.name} is missing); only `run` and `up` use it"
        )
        return
    if found is None:
        yield ok("local model", "not fetched; `llmchatlinker model fetch` does, for `run` and `up`")
    else:
        yield ok("local model", str(found))


def _rows(sql: str, values: dict[str, Any] | None = None) -> list[Any]:
    return database().statement(sql, values or {}, patience=get_settings().client_patience)
