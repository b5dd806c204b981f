"""Where embedded mode keeps its data, and who may see it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest

from llmchatlinker.embedded import paths
from llmchatlinker.errors import StartFailed

AS_ROOT = os.geteuid() == 0


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def closed_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_environment_names_the_data_folder_and_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCHATLINKER_DATA_DIR", str(tmp_path / "a" / "b"))
    assert paths.data_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_a_relative_data_folder_becomes_an_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMCHATLINKER_DATA_DIR", "here")
    assert paths.data_dir() == tmp_path / "here"


@pytest.mark.parametrize("unset", ["", "  "])
def test_without_the_setting_root_uses_var_lib_and_a_user_their_own_folder(
    unset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMCHATLINKER_DATA_DIR", unset)
    monkeypatch.setattr(paths, "ROOT_DATA_DIR", tmp_path / "root")
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / name)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert paths.data_dir() == tmp_path / "root"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert paths.data_dir() == tmp_path / "llmchatlinker"


@pytest.mark.parametrize(("euid", "expected"), [(0, 0o755), (1000, 0o700)])
def test_a_users_folder_is_private_and_roots_can_be_passed_whatever_the_umask(
    euid: int,
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    closed_umask: None,
) -> None:
    monkeypatch.setenv("LLMCHATLINKER_DATA_DIR", str(tmp_path / "a" / "b"))
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    paths.data_dir()
    assert mode(tmp_path / "a") == mode(tmp_path / "a" / "b") == expected


def test_a_private_folder_of_roots_does_not_close_the_way_to_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    paths.make_dir(tmp_path / "a" / "b", paths.PRIVATE)
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o755, 0o700)


def test_a_folder_that_exists_keeps_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    folder.chmod(0o750)
    monkeypatch.setenv("LLMCHATLINKER_DATA_DIR", str(folder))
    paths.data_dir()
    assert mode(folder) == 0o750


def test_a_file_in_the_way_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMCHATLINKER_DATA_DIR", str(tmp_path / "file" / "data"))
    with pytest.raises(StartFailed, match="can't be made") as caught:
        paths.data_dir()
    assert "LLMCHATLINKER_DATA_DIR" in caught.value.remedy


def test_a_disk_that_takes_what_is_written_has_no_trouble(tmp_path: Path) -> None:
    assert paths.disk_trouble(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_the_trouble_of_a_disk_is_told_in_the_system_s_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> object:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paths, "TemporaryFile", full)

    assert paths.disk_trouble(tmp_path) == "No space left on device"
