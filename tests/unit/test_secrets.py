"""API keys at rest: encrypted under the first key, readable under all of them."""

from __future__ import annotations

import base64

import pytest

from llmchatlinker import secrets
from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import Settings

OLD, NEW, OTHER = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n", b"x"))


def keys(*values: str) -> Settings:
    return Settings(secret_keys=",".join(values))


def test_what_was_encrypted_can_be_read_again() -> None:
    assert secrets.decrypt(secrets.encrypt("sk-1", keys(OLD)), keys(OLD)) == "sk-1"


def test_a_token_does_not_contain_the_secret() -> None:
    assert b"sk-1" not in secrets.encrypt("sk-1", keys(OLD))


def test_the_first_key_encrypts() -> None:
    token = secrets.encrypt("sk-1", keys(NEW, OLD))

    assert secrets.decrypt(token, keys(NEW)) == "sk-1"


def test_a_key_further_back_still_decrypts() -> None:
    token = secrets.encrypt("sk-1", keys(OLD))

    assert secrets.decrypt(token, keys(NEW, OLD)) == "sk-1"


def test_after_rotation_the_old_key_can_go() -> None:
    token = secrets.rotate(secrets.encrypt("sk-1", keys(OLD)), keys(NEW, OLD))

    assert secrets.decrypt(token, keys(NEW)) == "sk-1"
    with pytest.raises(ConfigurationError):
        secrets.decrypt(token, keys(OLD))


def test_spaces_and_empty_places_between_keys_do_not_matter() -> None:
    token = secrets.encrypt("sk-1", keys(OLD))

    assert secrets.decrypt(token, Settings(secret_keys=f" {NEW} ,, {OLD}, ")) == "sk-1"


@pytest.mark.parametrize("text", ["", " ", ",", " , "])
def test_without_a_key_nothing_is_encrypted(text: str) -> None:
    with pytest.raises(ConfigurationError, match="LLMCHATLINKER_SECRET_KEYS"):
        secrets.encrypt("sk-1", Settings(secret_keys=text))


@pytest.mark.parametrize("text", ["short", "é" * 44, OLD[:-1], OLD + "," + "no key"])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no Fernet key") as caught:
        secrets.encrypt("sk-1", Settings(secret_keys=text))

    assert text not in str(caught.value)


@pytest.mark.parametrize("action", [secrets.decrypt, secrets.rotate])
def test_a_token_of_a_key_that_is_gone_says_so(action: object) -> None:
    token = secrets.encrypt("sk-1", keys(OTHER))

    with pytest.raises(ConfigurationError, match="no longer") as caught:
        action(token, keys(NEW, OLD))  # type: ignore[operator]

    assert "sk-1" not in str(caught.value)
