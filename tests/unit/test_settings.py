"""Settings: each from the environment, wrong values refused, passwords never shown."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker import broker_policies
from llmchatlinker.broker_tls import broker_tls
from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import (
    PREFIX,
    Settings,
    get_settings,
    use_settings,
    without_password,
)

NAMES = [item.name for item in fields(Settings)]
DEFAULTS = Settings()
MAY_BE_ZERO = (
    *("user_requests_per_minute", "provider_retries", "ledger_retention", "record_retention"),
    "metrics_port",
)
CHOICES = {f.name: f.metadata["choices"] for f in fields(Settings) if f.metadata["choices"]}


def example(name: str) -> tuple[str, Any]:
    """A value as the environment has it and as the setting has it, unlike the default."""
    default = getattr(DEFAULTS, name)
    if name == "database_url":
        return "postgresql://elsewhere/x", "postgresql://elsewhere/x"
    if name in CHOICES:
        return CHOICES[name][-1], CHOICES[name][-1]
    if isinstance(default, int):
        return str(default + 1), default + 1
    if isinstance(default, float):
        return str(default + 0.5), default + 0.5
    return "something else", "something else"


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_is_read_from_the_variable_of_its_name(name: str) -> None:
    raw, value = example(name)

    settings = Settings.from_environment({PREFIX + name.upper(): raw})

    assert getattr(settings, name) == value
    assert [n for n in NAMES if getattr(settings, n) != getattr(DEFAULTS, n)] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_is_as_good_as_none(name: str) -> None:
    assert Settings.from_environment({PREFIX + name.upper(): ""}) == DEFAULTS


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_what_it_is_about(name: str) -> None:
    about = {item.name: item.metadata["about"] for item in fields(Settings)}

    assert about[name]


@pytest.mark.parametrize("name", [n for n in NAMES if not isinstance(getattr(DEFAULTS, n), str)])
@pytest.mark.parametrize("raw", ["many", "0", "-1", "1,5", "nan", "inf", "-inf", "0x10"])
def test_a_number_that_is_none_or_not_above_zero_is_refused_by_its_name(
    name: str, raw: str
) -> None:
    if raw == "0" and name in MAY_BE_ZERO:
        assert getattr(Settings.from_environment({PREFIX + name.upper(): raw}), name) == 0
        return
    with pytest.raises(ConfigurationError, match=PREFIX + name.upper()):
        Settings.from_environment({PREFIX + name.upper(): raw})


def test_a_number_that_is_wrong_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({PREFIX + "DEADLINE": "hunter2"})

    assert "hunter2" not in str(caught.value)


def test_other_variables_are_not_looked_at() -> None:
    assert Settings.from_environment({"DATABASE_URL": "x", "LLMCHATLINKER_": "y"}) == DEFAULTS


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_a_database_url_gets_our_driver(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://ada:secret@db:5433/chats?sslmode=require")

    assert settings.sqlalchemy_url == (
        "postgresql+psycopg2://ada:secret@db:5433/chats?sslmode=require"
    )


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://db/x", "db:5432/x", "postgresql"])
def test_another_database_is_refused_when_settings_are_read(url: str) -> None:
    with pytest.raises(ConfigurationError, match="LLMCHATLINKER_DATABASE_URL"):
        Settings.from_environment({"LLMCHATLINKER_DATABASE_URL": url})


@pytest.mark.parametrize(
    ("url", "embedded"),
    [
        ("amqp://localhost//", False),
        ("amqps://localhost//", False),
        ("sqla+postgresql+psycopg2://localhost/x", True),
        ("sqlalchemy+postgresql+psycopg2://localhost/x", True),
    ],
)
def test_messages_through_postgresql_are_told_from_rabbitmq(url: str, embedded: bool) -> None:
    assert Settings(broker_url=url).broker_is_embedded is embedded


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        DEFAULTS.deadline = 1.0  # type: ignore[misc]


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use_settings(None)
    monkeypatch.setenv("LLMCHATLINKER_DEADLINE", "7")
    first = get_settings()
    monkeypatch.setenv("LLMCHATLINKER_DEADLINE", "8")

    assert get_settings() is first
    assert first.deadline == 7.0


# --- what may be shown --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://ada:secret@mq:5672//", "amqp://ada@mq:5672//"),
        ("amqp://ada:secret@mq/chats", "amqp://ada@mq/chats"),
        ("amqp://mq:5672//", "amqp://mq:5672//"),
        ("postgresql://ada:secret@[::1]:5432/x", "postgresql://ada@[::1]:5432/x"),
        ("postgresql://ada@db/x?password=secret", "postgresql://ada@db/x"),
        ("postgresql:///x", "postgresql://localhost/x"),
        ("amqp://a:b@mq1//;amqps://c:d@mq2:5671/x", "amqp://a@mq1//;amqps://c@mq2:5671/x"),
        ("amqp://mq1;amqp://eve:secret@mq2//", "amqp://mq1;amqp://eve@mq2//"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@given(
    password=st.text(st.characters(codec="ascii"), min_size=1, max_size=20).map(
        lambda text: f"Zq{text}Zq"
    )
)
def test_no_password_is_ever_shown_once_it_is_quoted(password: str) -> None:
    quoted = quote(password, safe="")

    shown = without_password(f"amqp://ada:{quoted}@mq:5672//")

    assert shown == "amqp://ada@mq:5672//"


@pytest.mark.parametrize("character", [*"/#?@:[]%&; ", "@/", "/1", "]:"])
def test_a_password_that_should_have_been_quoted_is_not_shown_either(character: str) -> None:
    shown = without_password(f"amqp://ada:Zq1{character}Zq2@mq:5672/chats")

    assert "Zq1" not in shown
    assert "Zq2" not in shown


@pytest.mark.parametrize("url", ["amqp://mq:port//", "amqp://mq:99999//", "http://[::1", "", "x"])
def test_an_address_that_is_none_can_be_shown(url: str) -> None:
    assert isinstance(without_password(url), str)


def test_secrets_are_not_in_the_text_of_the_settings() -> None:
    settings = Settings(
        database_url="postgresql://ada:Zq1@db/x",
        broker_url="amqp://ada:Zq2@mq//",
        broker_api_url="http://ada:Zq3@mq:15672",
        secret_keys="Zq4",
    )

    shown = repr(settings) + str(settings)

    assert [secret for secret in ("Zq1", "Zq2", "Zq3", "Zq4") if secret in shown] == []


@pytest.mark.parametrize("name", CHOICES)
def test_a_setting_with_choices_takes_no_other_value(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{PREFIX}{name.upper()} must be one of"):
        Settings.from_environment({PREFIX + name.upper(): "something else"})


# --- several brokers ----------------------------------------------------------------------------


def test_brokers_are_named_with_semicolons_and_have_one_virtual_host() -> None:
    both = Settings(broker_url="amqp://eve:s1@mq1/chats;amqp://eve:s2@mq2:5673/chats")

    assert both.broker_addresses == ["amqp://eve:s1@mq1/chats", "amqp://eve:s2@mq2:5673/chats"]
    said = " ".join(
        broker_policies.commands(both) + broker_policies.user_commands(both, "x", "client")
    )
    assert said.count("-p 'chats'") == 3
    assert "s1" not in said
    assert "s2" not in said

    for first, second in (("//", ""), ("", "/"), ("/%2F", "//")):
        nodes = Settings(broker_url=f"amqp://mq1{first};amqp://mq2{second}")
        assert "-p '/'" in broker_policies.commands(nodes)[0]


def test_brokers_of_different_virtual_hosts_are_refused() -> None:
    nodes = Settings(broker_url="amqp://eve:secret@mq1/chats;amqp://eve:secret@mq2//")

    with pytest.raises(ConfigurationError, match="different virtual hosts: chats, /") as caught:
        broker_policies.commands(nodes)

    assert "secret" not in caught.value.message
    assert "one cluster" in caught.value.details["remedy"]


def test_brokers_with_tls_and_without_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="for all or for none"):
        broker_tls(Settings(broker_url="amqps://mq1//;amqp://mq2//"))

    assert broker_tls(Settings(broker_url="amqp://mq1//;amqp://mq2//")) is False
    assert broker_tls(Settings(broker_url="amqps://mq1//;amqps://mq2//"))
