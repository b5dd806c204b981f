"""What becomes of tests whose server can't be had."""

from __future__ import annotations

import pytest

from tests.fixtures.servers import cannot_test


def test_on_a_laptop_they_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match="RabbitMQ can't be had: no Erlang"):
        cannot_test("RabbitMQ", "no Erlang")


def test_in_ci_they_fail_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match="RabbitMQ can't be had: no Erlang"):
        cannot_test("RabbitMQ", "no Erlang")
