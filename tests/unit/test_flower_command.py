"""Who may see Flower's pages, where it keeps what it saw, and what it says where it can't run."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.errors import ConfigurationError, StartFailed
from llmchatlinker.flower_command import (
    BASIC_AUTH,
    Plan,
    check_broker,
    check_state,
    credentials,
    state_file,
)
from tests.fixtures.configuration import Configure

EMBEDDED = "sqla+postgresql://somebody:secret@127.0.0.1/llmchatlinker"


def test_without_a_password_one_is_made_up_and_never_the_same() -> None:
    first, made_up = credentials(None, {})
    second, _ = credentials(None, {})
    assert made_up
    assert first != second
    assert len(first[0].removeprefix("flower:")) >= 24


def test_the_environment_may_name_several_users() -> None:
    found, made_up = credentials(None, {BASIC_AUTH: "ada:one, bob:two"})
    assert found == ("ada:one", "bob:two")
    assert not made_up


def test_a_file_wins_over_the_environment_and_may_have_commas(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text("ada:one,two\n\nbob:t:wo\n")
    assert credentials(file, {BASIC_AUTH: "eve:x"})[0] == ("ada:one,two", "bob:t:wo")


@pytest.mark.parametrize("text", ["", "\n", "ada", "ada:", ":one"])
def test_a_file_without_a_user_and_a_password_opens_nothing(tmp_path: Path, text: str) -> None:
    file = tmp_path / "users"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="user:password"):
        credentials(file, {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent can't be read: FileNotFoundError"):
        credentials(tmp_path / "absent", {})


def test_half_a_pair_in_the_environment_is_an_error_that_does_not_repeat_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        credentials(None, {BASIC_AUTH: "sesame"})
    assert "sesame" not in caught.value.message


def test_a_plan_does_not_show_its_passwords() -> None:
    assert "sesame" not in repr(Plan("127.0.0.1", 5555, ("ada:sesame",), None))


def test_the_file_stands_in_the_users_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    expected = Path("/home/ada/state/llmchatlinker/flower/state")
    assert state_file({"XDG_STATE_HOME": "/home/ada/state"}) == expected


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    check_state(tmp_path / "flower" / "state")
    assert (tmp_path / "flower").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(StartFailed, match="can run code") as caught:
        check_state(folder / "state")
    assert "--state" in caught.value.remedy


def test_a_folder_that_can_t_be_made_is_said_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartFailed, match="can't be made") as caught:
        check_state(tmp_path / "file" / "flower" / "state")
    assert "--forget" in caught.value.remedy


def test_the_embedded_system_has_no_flower_and_says_why(configure: Configure) -> None:
    configure(broker_url=EMBEDDED)
    with pytest.raises(ConfigurationError, match="Flower needs RabbitMQ") as caught:
        check_broker()
    assert "LLMCHATLINKER_BROKER_URL" in caught.value.details["remedy"]


@pytest.mark.parametrize("ask", [app.control.ping, lambda: app.control.inspect().active_queues()])
def test_remote_control_of_the_embedded_system_says_what_it_needs(
    configure: Configure, ask: object
) -> None:
    configure(broker_url=EMBEDDED)
    assert callable(ask)
    with pytest.raises(ConfigurationError, match="need RabbitMQ") as caught:
        ask()
    assert "secret" not in caught.value.message
